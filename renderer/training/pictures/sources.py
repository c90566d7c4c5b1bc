"""Where a training's pictures come from, in parts: a folder, or the demo's scenes; their latents.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ...autoencoders.infgen_positions import Window
from ...checkpoints.facts import ModelFacts
from ...planning import decoder_plan
from ..recipe import SCENES, Recipe
from .latent_cache import LatentCache
from .picture_folder import Drawn, FilePicture, FolderPictures, Size, find, identities, whole_tokens

# The demo lies above this package and takes its parts from here: its scenes are data, by name.
SCENES_MODULE = "frieze.renderer.demo.scenes"
FIRST_SEED = 2_000_000  # of scenes; others are for the demo's models and for judging


class Source(Protocol):
    """Pictures that can be had in parts, before any model has looked at them."""

    def decoded_size(self, number: int) -> Size:
        """Rows and columns of a picture's decode."""

    def most_scale(self, number: int) -> float:
        """The largest enlargement of that which a crop can be had at."""

    def crop(self, number: int, window: Window) -> Tensor:
        """A window of a picture at the size of the window's canvas, [1, 3, h, w] in [-1, 1]."""

    def key(self, number: int) -> str:
        """A name by all that decides a picture's pixels."""

    def __len__(self) -> int:
        """How many there are."""


@dataclass(frozen=True)
class SourceWords:
    """What a rank opens a source by: files, or as many scenes of a size."""

    files: tuple[FilePicture, ...] = ()
    scenes: int = 0
    side: int = 0

    def __len__(self) -> int:
        return len(self.files) or self.scenes

    def opened(self) -> Source:
        """The source itself, on this machine."""
        return FileSource(self.files) if self.files else SceneSource(self.scenes, self.side)


class FileSource(FolderPictures):
    """Pictures of a folder."""

    def key(self, number: int) -> str:
        """By its path, bytes and sizes."""
        return self.pictures[number].key


class SceneSource:
    """The demo's procedural scenes, drawn at any size; of a crop only the crop."""

    def __init__(self, number: int, side: int) -> None:
        self.number, self.side = number, side
        self.scenes: Any = importlib.import_module(SCENES_MODULE)

    def decoded_size(self, number: int) -> Size:
        """The trained size."""
        return self.side, self.side

    def most_scale(self, number: int) -> float:
        """Every size has detail of its own."""
        return math.inf

    def crop(self, number: int, window: Window) -> Tensor:
        """A window of the scene at the size of its canvas."""
        place = (window.rows.start, window.columns.start, *window.shape)
        scene = self.scenes.scene_from(FIRST_SEED + number)
        pixels_HWC = self.scenes.draw(scene, *window.size, place)
        return torch.from_numpy(pixels_HWC).permute(2, 0, 1)[None].float() / 127.5 - 1

    def key(self, number: int) -> str:
        """By seed and size."""
        return f"scene-{FIRST_SEED + number}-{self.side}"

    def __len__(self) -> int:
        return self.number


class CachedPictures:
    """A source with the latents of its pictures, on a device: what a stage learns from."""

    def __init__(self, source: Source, cache: LatentCache, device: torch.device) -> None:
        self.source, self.cache, self.device = source, cache, device

    def decoded_size(self, number: int) -> Size:
        """Rows and columns of a picture's decode."""
        return self.source.decoded_size(number)

    def most_scale(self, number: int) -> float:
        """The largest enlargement of that which a crop can be had at."""
        return self.source.most_scale(number)

    def latents(self, number: int) -> tuple[Tensor, Tensor]:
        """Latents [1, C, H, W] of a picture, and their exact decode [1, 3, H, W]."""
        return self.cache.read(self.source.key(number), self.device)

    def crop(self, number: int, window: Window) -> Tensor:
        """A window of the picture at the size of the window's canvas, [1, 3, h, w]."""
        return self.source.crop(number, window).to(self.device)

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class Data:
    """What a recipe learns from: a source, what a later run knows it again by, and remarks."""

    words: SourceWords
    identity: list[list[Any]]
    left_out: tuple[str, ...] = ()


def data_of(recipe: Recipe, facts: ModelFacts) -> Data:
    """The pictures of a recipe, found and checked; raises `SpecError`."""
    if recipe.data == SCENES:
        words = SourceWords(scenes=recipe.pictures, side=facts.training_size)
        return Data(words, [[SCENES, recipe.pictures]])
    found = find(recipe.data, recipe.pictures, recipe.crop, _drawn(recipe, facts))
    told = [list(each) for each in identities(found.pictures, recipe.data)]
    return Data(SourceWords(found.pictures), told, found.left_out)


def _drawn(recipe: Recipe, facts: ModelFacts) -> Drawn:
    """The part of a picture that counts, and the size that the model draws of such a one."""
    plain = recipe.spec

    def drawn(height: int, width: int) -> tuple[Size, Size]:
        part = (min(height, width),) * 2 if facts.square else (height, width)
        rows, columns = map(whole_tokens, part)
        if min(rows, columns) < facts.latent.unit:
            return part, part
        asked = {"height": rows, "width": columns, "decoder": "infgen"}
        spec = decoder_plan.drawn(plain.model_copy(update=asked), facts)
        return part, (spec.height, spec.width)

    return drawn
