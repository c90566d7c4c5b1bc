"""What a server puts into all that it gives out, whatever requests and presets say."""

from __future__ import annotations

import io
import json
from pathlib import Path

import c2pa
import httpx2
import numpy as np
from PIL import Image

from frieze.renderer.outputs.signer import signer
from frieze.renderer.server.jobs.job_run import Spread
from frieze.renderer.server.served_models import served_models
from frieze.renderer.watermarks.luminance import detect
from support.certificates import Authority
from support.drawing import PROMPT
from support.serving import PRESET, served, settings


def test_every_picture_is_signed_and_marked_as_the_owner_says(tmp_path: Path) -> None:
    preset = tmp_path / "own.yaml"
    preset.write_text(
        PRESET + "watermark: luminance\nwatermark_options: {word: preset, levels: 8}\n"
    )
    own = {"watermark": "luminance", "watermark_options": {"word": "studio", "levels": 8}}
    who = signer(*Authority.new().issue(tmp_path))
    spread = Spread(1, {"local": True, "device": "cpu", **own}, False, 1, who)
    about = settings(tmp_path / "served", models=served_models([str(preset)]), spread=spread)
    with served(about) as at:
        for fields in ({"watermark": "none"}, {"watermark_options": {"word": "x"}}, {"sign": []}):
            answer = httpx2.post(f"{at.api}/images/generations", json={"prompt": PROMPT, **fields})
            assert answer.status_code == 400, answer.text
        asked = {"prompt": PROMPT, "size": "128x128", "response_format": "url"}
        answer = httpx2.post(f"{at.api}/images/generations", json=asked, timeout=100)
        assert answer.status_code == 200, answer.text
        data = httpx2.get(answer.json()["data"][0]["url"]).content
    told = json.loads(c2pa.Reader("image/png", io.BytesIO(data)).json())
    assert told["validation_state"] in ("Valid", "Trusted")
    with Image.open(io.BytesIO(data)) as picture:
        pixels_HWC = np.asarray(picture.convert("RGB"))
    assert detect(pixels_HWC, "studio") > 2 * abs(detect(pixels_HWC, "preset"))  # the control
