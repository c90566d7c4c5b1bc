"""What is published of a run names files, never the folders they lie in."""

from __future__ import annotations

import json

from frieze.renderer.store.run_record import published


def test_no_path_of_the_machine_is_published() -> None:
    picture = {
        "prompt": "/imagine a sun",
        "model": "/home/someone/flux",
        "init": "/home/someone/clips/a.mp4",
        "image": "clips/first.png",
        "mask": "/home/x/mask.png",
        "lora": ["/home/someone/ink.safetensors=0.8", "hub/ink"],
        "negative_prompt": None,
    }
    run = {"picture": picture, "spec": picture, "sources": {"init": {"path": "/home/someone"}}}
    assert published(run) == {
        "picture": {
            "prompt": "/imagine a sun",
            "model": "flux",
            "init": "a.mp4",
            "image": "first.png",
            "mask": "mask.png",
            "lora": ["ink.safetensors=0.8", "hub/ink"],
            "negative_prompt": None,
        }
    }
    assert "someone" in json.dumps(run), "control"
    assert published({"picture": {**picture, "model": "org/flux"}})["picture"]["model"] == (
        "org/flux"
    )
