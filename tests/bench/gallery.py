"""One picture of each method, for its page: the shipped models at twice their side, one seed.

A method is drawn by the first shipped model that it fits; one that fits none has no picture. They
lie in `results/gallery` as NAME.jpg, with `pictures.json`, which says how each was drawn. What is
there already stays, unless a name is given.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from PIL import Image

from frieze.renderer import FriezeError, RenderSpec, plan, plugins, render
from frieze.renderer.checkpoints.shipped import SHIPPED

FOLDER = Path(__file__).with_name("results") / "gallery"
RECORD = FOLDER / "pictures.json"
PROMPT, SEED, STEPS, QUALITY = "a red sun over blue mountains at dusk", 1, 24, 82
# Twice the trained side, where what methods do to repetition shows.
SIDES = {"demo": 512, "demo-unet": 256}


def fitting(method: str) -> RenderSpec | None:
    """A spec that a shipped model can draw by the method; None where each refuses it."""
    for model in SHIPPED:
        spec = RenderSpec(
            prompt=PROMPT,
            model=model,
            method=method,
            seed=SEED,
            height=SIDES[model],
            width=SIDES[model],
            num_inference_steps=STEPS,
            local=True,
        )
        try:
            plan(spec)
        except FriezeError:
            continue
        return spec
    return None


def draw(spec: RenderSpec) -> None:
    """The picture as JPEG, beside the others."""
    with tempfile.TemporaryDirectory() as folder:
        result = render(spec.model_copy(update={"out": f"{folder}/{spec.method}.png"}))
        with Image.open(str(result.path)) as picture:
            picture.convert("RGB").save(
                FOLDER / f"{spec.method}.jpg", quality=QUALITY, optimize=True, progressive=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="methods to draw again; default: those missing")
    asked = parser.parse_args().names
    FOLDER.mkdir(parents=True, exist_ok=True)
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    missing = [n for n in plugins.names("methods") if not (FOLDER / f"{n}.jpg").exists()]
    for name in asked or missing:
        if (spec := fitting(name)) is None:
            print(f"{name}: no shipped model draws by it")
            continue
        draw(spec)
        record[name] = {"model": spec.model, "size": f"{spec.width}x{spec.height}"}
        record[name] |= {"prompt": PROMPT, "seed": SEED, "steps": STEPS}
        RECORD.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{name}: {spec.model}, {record[name]['size']}", flush=True)


if __name__ == "__main__":
    main()
