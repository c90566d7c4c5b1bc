"""Every two features of a render together: alike on one worker and three, and both in the picture.

Of each pair of features, on a tiny model of each kind, one of three things is right: it is refused
in one line; it draws the same on three workers as on one, and another picture than either feature
alone; or the second feature is known to change nothing beside the first (`SILENT` says why).

Takes names of models, all by default, and `--pair A+B` for one pair with its traceback. Pairs are
drawn in an order of chance, at most `--most` of a model; what came out is a line of
tests/bench/results/combinations.jsonl, which a later call goes on from (`--anew`: from nothing),
and all of it makes combinations.md beside it. Exits with 1 where something else came out.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import re
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import environment  # noqa: F401  first: sets what torch reads when it is imported

# isort: split
import numpy as np
import zarr
from PIL import Image

import checkpoints
from checkpoints.controlnet import build_controlnet
from checkpoints.lora import build_lora
from frieze.renderer import FriezeError, RenderSpec, render
from frieze.renderer.checkpoints.checkpoint import describe
from support.decoders import saved
from tolerances import GREY_LEVELS

RESULTS = Path(__file__).parent / "results" / "combinations.md"
LINES = RESULTS.with_suffix(".jsonl")
MODELS = ("flux", "sd3", "wan", "sd15", "sdxl")
TRAINED = 8  # tokens a side
ROWS, COLUMNS = 20, 12  # tokens: 2.5 and 1.5 times the trained side
# Half precision and float8 round sums of another order elsewhere, and single pixels may then be far
# apart: what two fleets differ by is held to what each differs from float32 by; of errors that know
# nothing of each other it is larger by the root of two.
ROUNDED = 2.0
LONGEST = 1200  # letters of a refusal
# Features that round coarsely, which a worker's sums may then tell apart.
COARSE = {"bfloat16", "float8"}
# (first, second): why the second changes nothing, of all models.
SILENT: dict[frozenset[str], str] = {}


@dataclass(frozen=True)
class Outcome:
    """What became of two features of a model: a kind, and what was seen."""

    model: str
    names: tuple[str, ...]
    kind: str
    seen: str = ""

    @property
    def is_fault(self) -> bool:
        return self.kind not in ("drawn", "refused", "silent")


@dataclass
class Drill:
    """Features of one model, and the pictures of each alone."""

    name: str
    folder: Path
    alone: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = checkpoints.build(self.name, self.folder / self.name)
        latent = describe(str(self.model)).latent
        self.is_clip, self.is_unet = (
            self.name == "wan",
            self.name.startswith("sd") and (self.name != "sd3"),
        )
        side = TRAINED * latent.unit
        hints = {"training_size": side, "training_frames": 5 if self.is_clip else 1}
        (self.model / "frieze.json").write_text(json.dumps(hints))
        self.height, self.width = ROWS * latent.unit, COLUMNS * latent.unit
        self.features = self._features()

    def fields(self) -> dict[str, Any]:
        """What all renders have."""
        return {
            "prompt": "a red sun over blue mountains",
            "model": str(self.model),
            "height": self.height,
            "width": self.width,
            "num_frames": 5 if self.is_clip else 1,
            "num_inference_steps": 4,
            "seed": 7,
            "method": "none",
            "local": True,
        }

    def _features(self) -> dict[str, dict[str, Any]]:
        picture, mask, small, edges = self._pictures()
        scale = "true_cfg_scale" if self.name == "flux" else "guidance_scale"
        guided = {scale: 9.0, "negative_prompt": "grey"}
        found: dict[str, dict[str, Any]] = {
            "tiles": {"strategy": "tiles"},
            "redraw": {"init": picture, "strength": 0.5},
            "mask": {"init": picture, "mask": mask, "feather": 8, "strength": 0.5},
            "place": {"init": small, "place": "16,16", "strength": 1.0},
            "region": {"edit": (f"{mask}=snow",)},
            "wrap": {"wrap": "xy"},
            "cache": {"cache": "0.9"},
            "attend": {"attend": "pooled", "method": "pi", "stages": self._stages()},
            "stages": {"stages": self._stages()},
            "pi": {"method": "pi"},
            "ntk": {"method": "ntk"},
            "auto": {"method": "auto"},
            "ultraimage": {"method": "ultraimage"},
            "cinescale": {"method": "cinescale"},
            "hidiffusion": {"method": "hidiffusion"},
            "hiflow": {"method": "hiflow"},
            "eaac": {"method": "eaac"},
            "lora": {"lora": (str(build_lora(self.model, self.folder / "lora")),)},
            "shift": {"shift": 2.0},
            "guidance": guided,
            "halves": {**guided, "guidance_ranks": 2},
            "ulysses": {"ulysses": 2},
            "bfloat16": {"dtype": "bfloat16"},
            "float8": {"storage_dtype": "float8_e4m3fn"},
            "parked": {"park": "host"},
            "bits": {"bits": 16},
            "upscale": {"upscale": small, "creativity": 0.6},
        }
        if not self.is_clip:
            decoder = str(saved(self.folder / "decoder", self.model))
            found["decoder"] = {"decoder": decoder}
        if self.is_unet:
            net = self.folder / "controlnet"
            build_controlnet(self.model, net)
            found["controlnet"] = {"controlnet": str(net), "control": edges}
            found["lcm"] = {"scheduler": "LCMScheduler"}
        else:
            found["lcm"] = {"scheduler": "FlowMatchLCMScheduler"}
        return found

    def _stages(self) -> tuple[dict[str, Any], ...]:
        return ({"scale": 0.5, "steps": 2}, {"scale": 1.0, "start": 0.8, "steps": 3})

    def _pictures(self) -> tuple[str, str, str, str]:
        """One of the render's size, a mask, one of half the size, and edges."""
        rows = np.linspace(0, 3, self.height)[:, None, None]
        columns = np.linspace(0, 2, self.width)[None, :, None]
        waves = np.uint8(127.5 + 100 * np.sin(rows * [3, 2, 1] + columns * [1, 2, 4]))
        picture = Image.fromarray(waves)
        mask = Image.new("L", picture.size, 0)
        mask.paste(255, (0, self.height // 2, self.width // 2, self.height))
        small = picture.resize((self.width // 2, self.height // 2))
        edges = picture.convert("L").point(lambda v: 255 * (v > 128)).convert("RGB")
        paths = []
        for name, image in zip(
            ("picture", "mask", "small", "edges"), (picture, mask, small, edges), strict=True
        ):
            image.save(self.folder / f"{name}.png")
            paths.append(str(self.folder / f"{name}.png"))
        return paths[0], paths[1], paths[2], paths[3]

    def pairs(self) -> list[tuple[str, str]]:
        """Features that do not ask for two values of one field, in an order of chance."""
        found = [*self._pairs()]
        random.Random(0).shuffle(found)
        return found

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for one, other in combinations(self.features, 2):
            a, b = self.features[one], self.features[other]
            is_part = a.items() <= b.items() or b.items() <= a.items()
            if not is_part and all(a[name] == b[name] for name in a.keys() & b.keys()):
                yield one, other

    def drawn(self, *names: str, workers: int = 1) -> np.ndarray:
        """The picture, or clip, with these features."""
        out = self.folder / "out.zarr"
        shutil.rmtree(out, ignore_errors=True)
        fields = self.fields()
        for name in names:
            fields |= self.features[name]
        paired = 2 ** len({"halves", "ulysses"} & {*names})  # ranks that share a band
        workers = workers if paired == 1 else paired * workers if workers == 1 else 4
        render(RenderSpec(**fields, out=str(out), workers=workers))
        return np.asarray(zarr.open_array(str(out / "0"), mode="r")[:])

    def single(self, name: str) -> Outcome:
        """One feature alone: its picture is kept for the pairs."""
        if name == "plain":
            self.alone[name] = self.drawn()
            return Outcome(self.name, (name,), "drawn")
        return self._outcome((name,))

    def pair(self, names: tuple[str, str]) -> Outcome:
        return self._outcome(names)

    def _outcome(self, names: tuple[str, ...]) -> Outcome:
        try:
            one = self.drawn(*names)
            three = self.drawn(*names, workers=3)
        except FriezeError as error:
            text = str(error)
            plain = "\n" not in text and len(text) <= LONGEST and text.isprintable()
            return Outcome(self.name, names, "refused" if plain else "no one line", text)
        except Exception as error:  # what the drill is for
            where = traceback.extract_tb(error.__traceback__)[-1]
            seen = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
            return Outcome(self.name, names, "traceback", seen)
        if len(names) == 1:
            self.alone[names[0]] = one
        return self._compared(names, one, three)

    def _compared(self, names: tuple[str, ...], one: np.ndarray, three: np.ndarray) -> Outcome:
        if one.std() == 0:
            return Outcome(self.name, names, "of one colour", str(one.flat[0]))
        apart, bound = self._apart(names, one, three)
        if apart > bound:
            seen = f"{apart:.1f} grey levels apart, where {bound:.1f} are rounding"
            return Outcome(self.name, names, "by workers", seen)
        others = names if len(names) == 2 else ("plain",)
        for name in others:
            if name not in self.alone or not self._is_same(one, self.alone[name]):
                continue
            idle = next((other for other in names if other != name), names[0])
            reason = SILENT.get(frozenset(names)) or SILENT.get(frozenset((idle,)))
            reason = reason or (UNET_SILENT.get(frozenset(names)) if self.is_unet else None)
            kind = "silent" if reason else "no effect"
            return Outcome(self.name, names, kind, reason or f"{idle} changes nothing")
        return Outcome(self.name, names, "drawn", f"{apart:.1f} grey levels over workers")

    def _apart(
        self, names: tuple[str, ...], one: np.ndarray, three: np.ndarray
    ) -> tuple[float, float]:
        """How far two fleets' pictures are apart and how far they may be, in grey levels."""
        unit = 257 if one.dtype == np.uint16 else 1
        if not COARSE & {*names}:
            return float(np.abs(one.astype(int) - three.astype(int)).max() / unit), GREY_LEVELS
        fine = self.drawn(*(name for name in names if name not in COARSE))
        return _rms(one, three) / unit, max(GREY_LEVELS, ROUNDED * _rms(one, fine) / unit)

    @staticmethod
    def _is_same(one: np.ndarray, other: np.ndarray) -> bool:
        return one.shape == other.shape and one.dtype == other.dtype and bool((one == other).all())


def _rms(one: np.ndarray, other: np.ndarray) -> float:
    return float(((one.astype(float) - other) ** 2).mean() ** 0.5)


# Of networks without positions.
UNET_SILENT = {
    frozenset(("auto", "stages")): "all that it chooses for a U-Net is stages, and there are some",
    frozenset(
        ("auto", "redraw")
    ): "all that it chooses for a U-Net is stages, and a redraw has one",
}
# What decides where work lies and not what is drawn.
SILENT |= {
    frozenset(("halves",)): "the same sums on other ranks",
    frozenset(("ulysses",)): "the same sums on other ranks",
    frozenset(("parked",)): "the same sums with memory elsewhere",
    frozenset(("tiles", "eaac")): "no head is concentrated in tiles, as the plan says",
    frozenset(("wrap", "ntk")): "of so few frequencies the nearest whole turns are the same",
    frozenset(("auto", "decoder")): "it is nothing at the size that the decoder begins with",
    frozenset(("cinescale", "decoder")): "it is nothing at the size that the decoder begins with",
    frozenset(("tiles", "decoder")): "what is denoised is no larger than a tile, as the plan warns",
}


def report(outcomes: list[Outcome]) -> str:
    """A table of kinds by model, every fault, then what is refused and why."""
    kinds = ["drawn", "silent", "refused"]
    kinds += sorted({o.kind for o in outcomes if o.is_fault})
    names = [*dict.fromkeys(o.model for o in outcomes)]
    counts = {name: Counter(o.kind for o in outcomes if o.model == name) for name in names}
    lines = [
        "# Features together",
        "",
        f"`.venv/bin/python tests/bench/combinations.py` on {platform.machine()}: every feature "
        "alone and every two that do not ask for",
        "two values of one field, or as many of them as the table says, in an order of chance, on "
        "tiny models trained at 8 tokens a side, 20 x 12 tokens, four "
        "steps. *Drawn*: the same on one",
        "worker and on three (a grey level; half precision and float8 in the mean within "
        f"{ROUNDED:g} times what they are from float32), and another picture than either feature",
        "alone. *Silent*: one of them decides where work lies, and not what is drawn. *Refused*: "
        "in one line, before any work.",
        "",
        "| model | " + " | ".join(kinds) + " |",
        "|---" * (len(kinds) + 1) + "|",
        *(f"| {n} | " + " | ".join(str(counts[n][k]) for k in kinds) + " |" for n in names),
        "",
        "## Faults",
        "",
    ]
    faults = [o for o in outcomes if o.is_fault]
    lines += [_row(o) for o in faults] or ["None."]
    lines += ["", "## Refused", ""]
    lines += [_row(o) for o in outcomes if o.kind == "refused"]
    return "\n".join(lines) + "\n"


def _row(outcome: Outcome) -> str:
    seen = re.sub(r"\S*/(?=[\w.-]+)", "", " ".join(outcome.seen.split())).replace("|", "/")[:300]
    return f"- {outcome.model}, {' + '.join(outcome.names)}: {outcome.kind}; {seen}"


def kept() -> list[Outcome]:
    """What earlier calls found."""
    lines = LINES.read_text(encoding="utf-8").splitlines() if LINES.exists() else []
    found = [json.loads(line) for line in lines]
    return [Outcome(**{**each, "names": tuple(each["names"])}) for each in found]


def keep(outcomes: list[Outcome], new: Outcome) -> None:
    """Add one, and write all again."""
    outcomes.append(new)
    print(_row(new), flush=True)
    with LINES.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(new)) + "\n")
    RESULTS.write_text(report(outcomes), encoding="utf-8")


def drill_model(drill: Drill, outcomes: list[Outcome], most: int) -> None:
    """Every feature alone, whose pictures the pairs are compared with; then pairs not drawn yet."""
    known = {o.names for o in outcomes if o.model == drill.name}
    refused = set()
    for name in ("plain", *drill.features):
        single = drill.single(name)
        refused |= {name} if single.kind == "refused" else set()
        if single.names not in known:
            keep(outcomes, single)
    left = [names for names in drill.pairs() if refused.isdisjoint(names)]
    for names in left[:most]:
        if names not in known:
            keep(outcomes, drill.pair(names))


def main(models: list[str], pair: str | None, most: int, *, anew: bool) -> int:
    if anew:
        LINES.unlink(missing_ok=True)
    outcomes = kept()
    for name in models:
        with tempfile.TemporaryDirectory() as folder:
            drill = Drill(name, Path(folder))
            if pair:
                drill.drawn(*pair.split("+"))
                drill.drawn(*pair.split("+"), workers=3)
            else:
                drill_model(drill, outcomes, most)
    return int(any(outcome.is_fault for outcome in outcomes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=[*MODELS])
    parser.add_argument("--pair")
    parser.add_argument("--most", type=int, default=10**6)
    parser.add_argument("--anew", action="store_true")
    given = parser.parse_args()
    sys.exit(main(given.models, given.pair, given.most, anew=given.anew))
