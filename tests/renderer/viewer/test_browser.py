"""The page in a real browser: pixels to the bit, nothing asked of others, renders as they go on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from contracts.export import clip, draw, make_store, picture
from frieze.renderer.viewer import server
from frieze.renderer.viewer.entries import Collection
from frieze.renderer.viewer.site import write
from support.browser import PROGRAM, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine"),
]
LOADED = "screen.canvases.length && screen.canvases.every((c) => topItem(c).getFullyLoaded())"

# Full size at once, a pixel of the picture where one of the screen is; where pixel (600, 500) is.
ALIGNED = """(() => {
  const { viewport } = screen.lead();
  const item = topItem(screen.lead());
  viewport.zoomTo(item.imageToViewportZoom(1), null, true);
  viewport.panTo(item.imageToViewportCoordinates(700, 650), true);
  const at = () => item.imageToWindowCoordinates(new OpenSeadragon.Point(600, 500));
  const off = at().minus(new OpenSeadragon.Point(Math.round(at().x), Math.round(at().y)));
  viewport.panBy(viewport.deltaPointsFromPixels(off), true);
  return [at().x, at().y];
})()"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "stores"
    path.mkdir()
    make_store(path / "a.zarr", picture(1300, 1500), (128, 128))
    make_store(path / "b.zarr", 255 - picture(1300, 1500), (128, 128))
    make_store(path / "clip.zarr", clip(3, 256, 256), (256, 256))
    return path


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    """The page of a server in this process."""
    import uvicorn

    listener = server.listening("127.0.0.1", 0)
    app = server.application(Collection(folder))
    running = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    yield server.address("127.0.0.1", listener, None)
    running.should_exit = True
    thread.join()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path) as found:
        yield found


def of(browser: Browser, name: str) -> str:
    """A store's key."""
    key = browser.value(f"state.stores.find((each) => each.name === {name!r}).key")
    assert isinstance(key, str)
    return key


def begin(browser: Browser, address: str) -> None:
    browser.go(address)
    browser.wait("state && document.querySelectorAll('.card').length === 3")


def test_all_pictures_are_seen(browser: Browser, address: str) -> None:
    begin(browser, address)
    seen = "document.querySelectorAll('.card img:not(.unseen)')"
    browser.wait(f"{seen}.length === 3 && [...{seen}].every((each) => each.naturalWidth >= 256)")
    only_ours(browser, address)


def only_ours(browser: Browser, address: str) -> None:
    """Nothing was asked of anybody else, and the policy had nothing to refuse."""
    hosts = {
        urlsplit(url).netloc for url in browser.asked if not url.startswith(("data:", "blob:"))
    }
    assert hosts == {urlsplit(address).netloc}
    assert browser.faults == []


def show(browser: Browser, place: str) -> None:
    browser.value(f"location.hash = '#/{place}'")
    browser.wait(LOADED)


def test_a_pixel_of_the_screen_is_one_of_the_store(browser: Browser, address: str) -> None:
    begin(browser, address)
    show(browser, f"store/{of(browser, 'a.zarr')}")
    browser.press("1", "1")
    browser.wait("screen.zoom.textContent === '100 %'")
    x, y = browser.value(ALIGNED)
    browser.value("screen.lead().navigator.element.style.display = 'none'")
    browser.wait(LOADED)
    browser.value("void screen.lead().forceRedraw()")
    expected = picture(1300, 1500)[500:700, 600:800]

    def is_there() -> bool:
        found = browser.picture()[round(y) : round(y) + 200, round(x) : round(x) + 200]
        return np.array_equal(found, expected)

    assert any(is_there() for _ in range(30))
    assert not np.array_equal(np.roll(expected, 1, 0), expected)
    only_ours(browser, address)


def test_two_stores_move_together(browser: Browser, address: str) -> None:
    begin(browser, address)
    a, b = (of(browser, f"{name}.zarr") for name in "ab")
    show(browser, f"compare/{a}/{b}")
    browser.press("+", "+")
    browser.press("ArrowRight")
    same = "screen.canvases[0].viewport.getCenter(true).x > 0.52 && " + "&&".join(
        f"Math.abs(screen.canvases[0].viewport.{call} - screen.canvases[1].viewport.{call}) < 1e-9"
        for call in ("getZoom(true)", "getCenter(true).x", "getCenter(true).y")
    )
    browser.wait(same)
    for key, mode in (("x", "flicker"), ("d", "difference"), ("s", "side")):
        browser.press(key, key)
        browser.wait(f"screen.mode === '{mode}' && location.hash.endsWith('/{mode}') && {LOADED}")
    only_ours(browser, address)


def test_blocks_appear_as_they_are_written(browser: Browser, address: str, folder: Path) -> None:
    begin(browser, address)
    expected = np.full((256, 256, 3), 200, np.uint8)
    store = make_store(folder / "new.zarr", expected, (64, 64), finish=False)
    browser.wait("document.querySelectorAll('.card').length === 4")
    draw(store, expected, 0, 64, None)
    show(browser, f"store/{of(browser, 'new.zarr')}")

    def grey() -> float:
        return float((browser.picture() == 200).all(axis=-1).mean())

    before = grey()
    assert before > 0.02
    for row in range(64, 256, 64):
        draw(store, expected, row, 64, None)
    browser.wait("document.querySelector('aside').textContent.includes('16 of 16')")
    browser.wait(LOADED)
    assert any(grey() > 3 * before for _ in range(50))
    store.finish()
    browser.wait("document.querySelector('aside .state').textContent === 'done'")
    only_ours(browser, address)


def test_frames_of_a_clip(browser: Browser, address: str) -> None:
    begin(browser, address)
    show(browser, f"store/{of(browser, 'clip.zarr')}")
    browser.wait("screen.number.textContent === 'frame 1 of 3'")
    browser.press(".")
    browser.press(".")
    browser.press(".")
    browser.wait("screen.number.textContent === 'frame 3 of 3'")
    browser.press("Escape")
    browser.wait("document.querySelectorAll('.card').length === 3")
    only_ours(browser, address)


def test_an_export_that_is_opened_as_a_file_shows_all(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    odd = "<img src=x onerror=\"document.title='run'\">"
    make_store(folder / f"{odd.replace('/', '')}.zarr", picture(64, 96), (64, 96))
    page = (write(Collection(folder), tmp_path / "site") / "index.html").as_uri()
    browser.go(page)
    browser.wait("state && document.querySelectorAll('.card').length === 4")
    browser.wait("document.querySelectorAll('.card img:not(.unseen)').length === 4")
    assert not browser.value(
        "document.title === 'run' || document.querySelector('main img[src=x]')"
    )
    show(browser, f"store/{of(browser, 'a.zarr')}")
    browser.wait("document.querySelector('aside dl').textContent.includes('1500 × 1300')")
    show(browser, f"compare/{of(browser, 'a.zarr')}/{of(browser, 'clip.zarr')}")
    browser.wait("document.querySelector('.pane .title').textContent === 'a.zarr, 1500 × 1300'")
    assert browser.faults == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in browser.asked)


def test_control_another_host_is_refused_and_told(browser: Browser, address: str) -> None:
    begin(browser, address)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        browser.value(
            f"fetch('http://127.0.0.1:{port}/').catch(() => {{ window.refused = true; }})"
        )
        browser.wait("window.refused")
        other.settimeout(0.2)
        with pytest.raises(TimeoutError):
            other.accept()
    assert any("Content Security Policy" in fault for fault in browser.faults)
