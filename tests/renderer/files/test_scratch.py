"""What a killed process left goes, what another is at work on stays."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from frieze.renderer.errors import ExportError
from frieze.renderer.files import scratch
from frieze.renderer.files.atomic import whole_file
from support.forkserver import Program

HOLD = """
import sys, time
from pathlib import Path
from types import FrameType
from typing import Any
from frieze.renderer.files.scratch import scratch
with scratch(Path(sys.argv[1]), "a.tif") as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "half.tif").write_bytes(b"half")
    print(folder, flush=True)
    time.sleep(600)
"""


def holder(parent: Path) -> tuple[Program, Path]:
    """A process at work in a folder of its own, and that folder."""
    process = Program(HOLD, str(parent))
    return process, Path(process.stdout.readline().strip())


def left(parent: Path) -> list[str]:
    return sorted(os.listdir(parent))


def test_a_killed_process_leaves_nothing_for_ever_and_a_living_one_is_left_alone(
    tmp_path: Path,
) -> None:
    process, folder = holder(tmp_path)
    try:
        assert (folder / "deep" / "half.tif").exists()
        with whole_file(tmp_path / "b.png", overwrite=False, error=ExportError) as part:
            part.write_bytes(b"b")
        assert left(tmp_path) == sorted([folder.name, "b.png"]), "control: it is still at work"
        process.send_signal(signal.SIGKILL)
        process.wait()
        with scratch.scratch(tmp_path) as mine:
            assert left(tmp_path) == sorted([mine.name, "b.png"])
        assert left(tmp_path) == ["b.png"]
    finally:
        process.kill()
        process.communicate()


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with scratch.scratch(tmp_path) as folder:
            (folder / "deep").mkdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert left(tmp_path) == []


def mark(folder: Path, text: str, age: float = 0.0) -> None:
    folder.mkdir()
    (folder / scratch.OWNER).write_text(text)
    then = time.time() - age
    os.utime(folder / scratch.OWNER, (then, then))


def test_what_is_not_known_to_be_abandoned_stays(tmp_path: Path) -> None:
    here = f"1 {os.uname().nodename} boot\n"
    stranger = tmp_path / ".mine.0123abcd.part"
    stranger.mkdir()
    (stranger / "thesis.txt").write_text("years")
    mark(tmp_path / "named.0123abcd.part", here)
    mark(
        tmp_path / ".elsewhere.0123abcd.part", "1 another-host boot\n", scratch.FOREIGN_SECONDS / 2
    )
    (tmp_path / ".link.0123abcd.part").symlink_to(tmp_path / "named.0123abcd.part")
    kept = left(tmp_path)
    mark(tmp_path / ".gone.0123abcd.part", here)
    mark(tmp_path / ".old.0123abcd.part", "1 another-host boot\n", scratch.FOREIGN_SECONDS + 60)
    (tmp_path / ".empty.0123abcd.part").mkdir()
    scratch.remove_abandoned(tmp_path)
    assert left(tmp_path) == kept
    assert (stranger / "thesis.txt").exists()


def test_a_name_as_long_as_names_may_be_has_room(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".tif")
    with whole_file(path, overwrite=False, error=ExportError) as part:
        part.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    assert left(tmp_path) == [path.name]


def test_an_interruption_at_any_line_leaves_nothing(tmp_path: Path) -> None:
    """What did not unwind is removed when the process ends: `remove_own`."""
    for number in range(200):
        lines = iter(range(number))

        def interrupt(frame: FrameType, event: str, arg: object, lines: Any = lines) -> Any:
            is_line = event == "line" and frame.f_code.co_name in ("scratch", "_owned", "_marked")
            if is_line and next(lines, None) is None:
                sys.settrace(None)
                raise KeyboardInterrupt
            return interrupt

        try:
            sys.settrace(interrupt)
            with scratch.scratch(tmp_path):
                pass
            break
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        scratch.remove_own()
        assert left(tmp_path) == [], number
        scratch._own.clear()
    assert 10 < number < 199
    assert scratch._own == {}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of tests before
def test_a_forked_process_leaves_its_parents_folders_alone(tmp_path: Path) -> None:
    with scratch.scratch(tmp_path) as folder:
        if not (child := os.fork()):
            scratch.remove_own()
            os._exit(0)
        assert os.waitpid(child, 0) == (child, 0)
        assert folder.exists()
        scratch.remove_own()
        assert not folder.exists(), "control"
