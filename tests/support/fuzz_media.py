"""Pictures, clips and profiles for `fuzzing`: damaged ones, and those that do not fit a render."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image

from contracts.export import picture
from frieze.renderer.color import profiles
from frieze.renderer.color.conversion import Conversion
from frieze.renderer.errors import SpecError
from frieze.renderer.inputs import media, metadata, sources
from frieze.renderer.spec.render_spec import RenderSpec
from support.fuzz_specs import GOOD, act_on_spec
from support.fuzz_values import near, seldom, texts
from support.media_files import WHOLE, damaged, whole

FIELDS = ("init", "mask", "upscale", "control", "edit")


def files() -> SearchStrategy[tuple[str, str, int]]:
    """A file's name, the field that it is given in, and what spoils it (0: nothing)."""
    seeds = seldom(st.just(0), st.integers(1, 2**40))
    return st.tuples(st.sampled_from(sorted(WHOLE)), st.sampled_from(FIELDS), seeds)


def on_file(folder: Path) -> Callable[[tuple[str, str, int]], object]:
    """All that is asked of a picture or clip before and while it is drawn from."""
    path = folder / "handed-in"

    def act(example: tuple[str, str, int]) -> object:
        name, field, seed = example
        path.write_bytes(damaged(whole(name), random.Random(seed)) if seed else whole(name))
        metadata.read(path)
        found = sources.look(str(path), field, num_frames=1 if media.peek(path).fps is None else 3)
        media.is_deep(path), media.own_profile(path), sources.with_alpha(found)
        return list(sources.fitted(found, 16, 16, 1, wanted=sources.WANTED.get(field, "srgb")))

    return act


def profile_bytes() -> SearchStrategy[tuple[str, bytes]]:
    """How a profile is handed in, and its bytes: one of ours, spoilt; or any."""
    whole_ones = st.sampled_from(sorted(profiles.NAMED)).map(lambda name: profiles.named(name).data)
    spoilt = st.tuples(whole_ones, st.integers(0, 2**40)).map(
        lambda parts: damaged(parts[0], random.Random(parts[1]))
    )
    content = st.one_of(spoilt, spoilt, spoilt, seldom(st.binary(max_size=200), whole_ones))
    return st.tuples(st.sampled_from(["file", "png", "jpeg", "tiff"]), content)


def on_profile(folder: Path) -> Callable[[tuple[str, bytes]], object]:
    """A profile as a user's file, or in a picture: read, and pixels converted from and to it."""

    def act(example: tuple[str, bytes]) -> object:
        how, data = example
        path = folder / f"profile.{how}"
        if how == "file":
            path.write_bytes(data)
            found = profiles.profile(str(path), SpecError)
            return _converted(found)
        Image.fromarray(picture(24, 32)).save(path, how, icc_profile=data)
        media.own_profile(path)
        return list(media.frames(path, 1, "own")), list(media.frames(path))

    return act


def _converted(found: profiles.Profile) -> object:
    pixels = np.repeat(picture(8, 8)[..., :1], found.channels, axis=2).astype(np.float32) / 255
    srgb = profiles.named(profiles.SRGB)
    for change in (Conversion(found, srgb), Conversion(srgb, found)):
        change.check("a.tif", has_alpha=False)
    return Conversion(found, srgb).floats(pixels), Conversion(srgb, found).rows(picture(8, 8))


def edits() -> SearchStrategy[dict[str, Any]]:
    """A render from pictures, masks and places that fit, or do not."""
    named = st.sampled_from(
        ["whole.png", "grey.png", "black.png", "small.png", "clip.gif", "no.png"]
    )
    files = seldom(texts(), named)
    number = {name: near(RenderSpec.model_fields[name]) for name in ("strength", "feather")}
    place = st.tuples(st.integers(-20, 80), st.integers(-20, 80)).map(lambda p: f"{p[0]},{p[1]}")
    region = st.tuples(files, texts()).map("=".join)
    odd = st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("init", "mask", "upscale", "control", "controlnet"), files),
            **{name: seldom(value, st.just(0.5)) for name, value in number.items()},
            "place": seldom(texts(), place),
            "edit": st.lists(region, max_size=2),
            "num_frames": st.sampled_from([1, 1, 1, 5]),
            "creativity": near(RenderSpec.model_fields["creativity"]),
        },
    )
    return odd.map(lambda more: {**GOOD, "model": "demo", **more})


def on_edit(folder: Path) -> Callable[[dict[str, Any]], object]:
    """What a plan says of them; the working folder holds the files."""
    Image.fromarray(picture(64, 64)).save(folder / "whole.png")
    Image.fromarray(picture(64, 64)[..., 0]).save(folder / "grey.png")
    Image.new("L", (64, 64)).save(folder / "black.png")
    Image.fromarray(picture(32, 16)).save(folder / "small.png")
    (folder / "clip.gif").write_bytes(whole("gif"))
    return act_on_spec
