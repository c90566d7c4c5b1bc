"""A render's report: one page that needs nothing else, whatever was written into the prompt."""

from __future__ import annotations

import base64
import io
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command

from contracts.export import make_store, picture
from frieze.renderer import RenderCancelledError, RenderSpec, render
from frieze.renderer.cli import app
from frieze.renderer.cli.upscale import spec_of
from frieze.renderer.monitoring.charts import HEIGHT, WIDTH, bars, shares
from frieze.renderer.monitoring.report import report, run_seconds, runs, start_seconds
from frieze.renderer.monitoring.reproduce import FILES, OF_ENLARGING, command, placeless
from frieze.renderer.monitoring.run_log import read
from frieze.renderer.spec import merging
from frieze.renderer.spec.roles import OF_A_REDRAW
from support.command_line import frieze, refused
from support.drawing import draw, pixels, small_spec

NASTY = "a red sun <script>alert(1)</script> & \"blue\" 'mountains' </title>{{ 7 * 7 }}"


class Page(HTMLParser):
    """Tags in order, texts, and what `src` and `href` point at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "a.zarr"
    draw(out, prompt=NASTY, workers=2)
    return out


def test_a_page_stands_alone_and_prompts_stay_text(drawn: Path, tmp_path: Path) -> None:
    text = report(drawn, tmp_path / "a.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert NASTY in page.texts
    assert [link[:23] for link in page.links] == ["data:image/jpeg;base64,"]
    assert "http" not in text
    assert str(drawn.parent) not in text
    shown = Image.open(io.BytesIO(base64.b64decode(page.links[0].split(",")[1])))
    made = pixels(drawn)
    assert shown.size == (made.shape[1], made.shape[0])
    average = [channel / 1 for channel in made.reshape(-1, 3).mean(axis=0)]
    assert Image.Image.resize(shown, (1, 1), Image.Resampling.BOX).getpixel((0, 0)) == (
        pytest.approx(average, abs=3)
    )
    assert page.tags.count("rect") > 10
    for part in ("How to draw it again", "None.", "sha256", "--workers 2", "torch"):
        assert part in text


def test_bars_add_up_to_the_seconds_of_the_log(drawn: Path) -> None:
    lines = read(drawn)
    chart = bars(lines)
    top = float(chart.marks[-1][1].split()[0])
    for index, step in enumerate(line for line in lines if line["event"] == "step"):
        mine = [box for box in chart.boxes if box.x == pytest.approx(index * WIDTH / 4)]
        seconds = sum(box.height for box in mine) / HEIGHT * top
        assert seconds == pytest.approx(step["seconds"] + step["driver"], rel=1e-3)
        assert all(0 <= box.y <= HEIGHT for box in mine)
    whole = shares({"compute": 3.0, "save": 1.0, "decode": 0.0})
    assert [(box.part, box.width) for box in whole.boxes] == [
        ("compute", WIDTH * 0.75),
        ("save", WIDTH * 0.25),
    ]


def test_wall_time_is_that_of_all_runs_without_the_pauses() -> None:
    kinds = [("plan", 0.0), ("stage", 5.0), ("step", 7.0), ("ended", 8.0)]
    kinds += [("plan", 1000.0), ("note", 1001.0), ("decode", 1003.0), ("done", 1004.0)]
    told = [{"event": event, "time": time} for event, time in kinds]
    assert [each_run[0]["time"] for each_run in runs(told)] == [0.0, 1000.0]
    assert (sum(map(run_seconds, runs(told))), sum(map(start_seconds, runs(told)))) == (12.0, 8.0)
    assert runs([]) == []


def test_many_steps_share_bars() -> None:
    lines = [
        {"event": "step", "stage": 1 + n // 600, "step": n % 600 + 1, "seconds": 1.0}
        for n in range(1000)
    ]
    chart = bars(lines)
    assert max(box.x + box.width for box in chart.boxes) <= WIDTH
    assert len({box.x for box in chart.boxes}) == 200
    assert [text for _, text in chart.dividers] == ["stage 1", "stage 2"]


def parsed(line: str) -> RenderSpec:
    """What the command line of a report would draw."""
    program, verb, *words = shlex.split(line)
    assert program == "frieze"
    given = get_command(app.app).commands[verb].make_context(verb, words).params
    own = {name: given.get(name) for name in ("preset", "prompt", "size")}
    fields = {n: v for n, v in given.items() if n in RenderSpec.model_fields and v != ()}
    if verb == "upscale":
        told = {name: given[name] for name in ("prompt", "creativity", "guide", "decoder")}
        return spec_of(given["picture"], own["size"], fields | told, given["enlarger"])
    return merging.merge(own["preset"], own["prompt"], own["size"], fields)


def again(spec: RenderSpec) -> dict[str, Any]:
    """What a report knows of what decided the pixels."""
    told = {name: value for name, value in spec.picture().items() if name not in FILES}
    return told | placeless(spec.model_dump(mode="json"))


# A value beside its default of each field that decides pixels, and how files are told.
OTHER: dict[str, Any] = {
    "prompt": NASTY,
    "negative_prompt": "-b",
    "model": "demo-unet",
    "revision": "r",
    "variant": "fp16",
    "lora": ("/a/b c.safetensors=0.512345678", "/a/c.safetensors"),
    "lora_2": ("/a/b=0.5",),
    "decoder": "/a/d",
    "controlnet": "/a/n",
    "control": "/a/c.png",
    "controlnet_conditioning_scale": 0.5,
    "control_guidance_start": 0.25,
    "control_guidance_end": 0.75,
    "control_mode": 2,
    "guess_mode": True,
    "quantization": "q",
    "height": 512,
    "storage_dtype": "float8_e5m2",
    "width": 768,
    "num_frames": 5,
    "fps": 12.5,
    "init": "/a/i.png",
    "strength": 0.123456789,
    "upscale": "/a/u.png",
    "creativity": 0.25,
    "guide": "detail",
    "image": "/a/f.png",
    "mask": "/a/m.png",
    "resize_mask": True,
    "feather": 8,
    "place": "3,4",
    "resamplings": 3,
    "edit": ({"mask": "/a/e.png", "prompt": "a=b"},),
    "edit_stage": 2,
    "num_inference_steps": 3,
    "guidance_scale": 0.0,
    "guidance_scale_2": 2.5,
    "true_cfg_scale": 3.5,
    "max_sequence_length": 7,
    "seed": 12,
    "method": "ntk",
    "method_options": {"factor": 2.5, "axes": "hw"},
    "shift": 1.25,
    "dtype": "bfloat16",
    "bits": 16,
    "watermark": "luminance",
    "watermark_options": {"levels": 2},
    "strategy": "other",
    "strategy_options": {"overlap": 64},
    "scheduler": "LCMScheduler",
    "scheduler_options": {"timestep_spacing": "trailing", "shift_terminal": None},
    "attend": "full,pooled@0.3",
    "cache": "0.125,ends=2",
    "wrap": "xy",
    "stages": (
        {"scale": 0.5, "steps": 3, "lora": ()},
        {"prompt": NASTY, "lora": ("/a/b.safetensors=0.5",), "scheduler": "LCMScheduler"},
    ),
}
TOLD: dict[str, Any] = {
    "lora": ["LORA=0.512345678", "LORA"],
    "lora_2": ["LORA_2=0.5"],
    "decoder": "DECODER",
    "controlnet": "CONTROLNET",
    "control": "CONTROL",
    "init": "INIT",
    "image": "IMAGE",
    "mask": "MASK",
    "upscale": "PICTURE",
    "edit": [{"mask": "MASK", "prompt": "a=b"}],
    "stages": RenderSpec(
        stages=(OTHER["stages"][0], OTHER["stages"][1] | {"lora": ("LORA=0.5",)})
    ).picture()["stages"],
}


OF_UPSCALES = ("upscale", "creativity", "guide")


@pytest.mark.parametrize(
    ("verb", "upscale", "unknown"),
    [
        ("render", {}, OF_UPSCALES),
        ("upscale", {"upscale": "/a/u.png", "decoder": "infgen"}, OF_UPSCALES[1:]),
        ("upscale", {"upscale": "/a/u.png", "creativity": 0.5}, ()),
    ],
    ids=["render", "infgen", "redraw"],
)
def test_every_field_that_decides_pixels_is_in_the_command(
    verb: str, upscale: dict[str, Any], unknown: tuple[str, ...]
) -> None:
    """Each alone, and all together; no path is. Fields that are not of an upscale are left out."""
    assert set(OTHER) == set(RenderSpec().picture())
    names = [name for name in OTHER if name not in unknown]
    kept = (*OF_ENLARGING, "upscale", *(() if unknown else OF_A_REDRAW))
    own = [name for name in names if verb == "render" or name in kept]
    wishes = [{name: OTHER[name]} for name in names if name != "edit_stage"]
    for wish in [*wishes, {name: OTHER[name] for name in names}]:
        spec = RenderSpec(**upscale | wish)
        line = command(again(spec), "again", 3)
        assert line.startswith(f"frieze {verb} ")
        assert "/a" not in line
        made = parsed(line)
        expected = {**spec.picture(), **{name: TOLD[name] for name in TOLD if name in wish}}
        expected |= {"upscale": "PICTURE"} if upscale else {}
        assert {n: made.picture()[n] for n in own} == {n: expected[n] for n in own}
        left = [name for name in wish if name not in own]
        assert all(made.picture()[name] == RenderSpec().picture()[name] for name in left)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": NASTY, "height": 512, "width": 768, "seed": 12},
        {"prompt": "-x", "negative_prompt": ""},
        {"prompt": "two\nlines", "method": "ntk", "method_options": {"factor": 2.5, "axes": "hw"}},
        {"prompt": "p", "stages": ({"scale": 0.5, "steps": 3}, {"start": 0.6, "prompt": NASTY})},
        {"prompt": "p", "bits": 16, "guidance_scale": 0.0, "num_frames": 5, "fps": 12.5},
    ],
    ids=["plain", "flag", "options", "cascade", "numbers"],
)
def test_the_command_draws_the_same_picture(fields: dict[str, Any]) -> None:
    spec = RenderSpec(**fields)
    line = command(spec.picture(), "again", 3)
    made = parsed(line)
    assert made.picture() == spec.picture()
    assert (made.workers, made.out) == (3, "again.zarr")


@pytest.mark.parametrize("field", ["decoder", "lora", "seed"])
def test_control_without_a_field_it_is_another_picture(field: str) -> None:
    spec = RenderSpec(**{"prompt": "p", field: OTHER[field]})
    told = {name: value for name, value in again(spec).items() if name != field}
    made = parsed(command(told, "again"))
    assert made.picture()[field] != TOLD.get(field, OTHER[field])


def test_control_another_seed_is_another_command() -> None:
    one, two = (command(RenderSpec(prompt="p", seed=s).picture(), "a") for s in (1, 2))
    assert one != two


def test_an_unfinished_render_has_a_report_too(tmp_path: Path) -> None:
    def stop(handle: Any, step: int, timestep: float, more: object) -> None:
        handle.interrupt = True

    out = tmp_path / "a.zarr"
    with pytest.raises(RenderCancelledError):
        render(small_spec(out), callback_on_step_end=stop)
    result = frieze("report", str(out), str(tmp_path / "a.html"))
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'a.html'}\n")
    page = Page((tmp_path / "a.html").read_text())
    assert "not finished: no picture yet" in page.texts
    assert any("stopped as asked" in text for text in page.texts)


def test_bad_input_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    store = str(make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32)).path)
    page = tmp_path / "a.html"
    refused(frieze("report", str(tmp_path / "b.zarr"), str(page)), "there is no store at")
    refused(frieze("report", store, str(tmp_path / "a.pdf")), "a.pdf", "name it .html")
    refused(frieze("report", store, f"{store}/a.html"), "lies in the store itself")
    refused(frieze("report", store, str(tmp_path / "no" / "a.html")), "there is no folder")
    assert not page.exists()
    assert frieze("report", store, str(page)).exit_code == 0
    before = page.read_bytes()
    refused(frieze("report", store, str(page)), "already there")
    assert page.read_bytes() == before
