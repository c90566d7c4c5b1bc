"""A Chromium without a window, driven through its pipe: what pages ask for and show."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from tolerances import AMPLE

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One page; `asked` are the addresses of all its requests, `faults` what its console holds.

    The Chrome DevTools Protocol over --remote-debugging-pipe: JSON with a zero after each message.
    """

    def __init__(self, folder: Path, width: int = 1400, height: int = 900) -> None:
        assert PROGRAM is not None
        down, up = os.pipe(), os.pipe()
        redirected = f'exec "$0" "$@" 3<&{down[0]} 4>&{up[1]}'
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        words += ["--disable-background-networking", f"--user-data-dir={folder / 'profile'}"]
        self._process = subprocess.Popen(
            ["bash", "-c", redirected, PROGRAM, *words, "about:blank"],
            pass_fds=(down[0], up[1]),
            stderr=subprocess.DEVNULL,
        )
        os.close(down[0])
        os.close(up[1])
        self._down, self._up = os.fdopen(down[1], "wb"), os.fdopen(up[0], "rb")
        self._number = 0
        self.asked: list[str] = []
        self.faults: list[str] = []
        self._session: dict[str, str] = {}
        found = self.tell("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in found if each["type"] == "page")
        attached = self.tell("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.tell(f"{domain}.enable")
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._down.close()
        self._up.close()

    def tell(self, method: str, **values: Any) -> dict[str, Any]:
        """One command's result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values, **self._session}
        self._down.write(json.dumps(message).encode() + b"\0")
        self._down.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self._up.read(1)) != b"\0":
            assert byte, "the browser ended"
            data += byte
        message: dict[str, Any] = json.loads(data)
        about = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(about["request"]["url"])
            case "Runtime.exceptionThrown":
                self.faults.append(json.dumps(about["exceptionDetails"]))
            case "Log.entryAdded" if about["entry"]["level"] == "error":
                self.faults.append(f"{about['entry']['text']} {about['entry'].get('url')}")
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "assert"):
                self.faults.append(json.dumps(about["args"]))
        return message

    def go(self, url: str) -> None:
        """Open a page."""
        self.tell("Page.navigate", url=url)

    def value(self, script: str) -> Any:
        """What a line of JavaScript comes to."""
        found = self.tell("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script: str) -> None:
        """Until a line of JavaScript is true; one that fails is not."""
        script = f"(() => {{ try {{ return {script}; }} catch {{ return false; }} }})()"
        until = time.monotonic() + AMPLE
        while not self.value(f"Boolean({script})"):
            assert time.monotonic() < until, f"never true: {script}; {self.faults}"
            time.sleep(0.1)

    def press(self, key: str, text: str = "") -> None:
        """A key, down and up."""
        self.tell("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        self.tell("Input.dispatchKeyEvent", type="keyUp", key=key)

    def picture(self, path: Path | None = None) -> np.ndarray:
        """What is on the screen, [H, W, 3]; also as a file."""
        data = base64.b64decode(self.tell("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(data)
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
