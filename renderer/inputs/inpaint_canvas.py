"""A picture that is redrawn in part, on its canvas: its pixels, and how much of each is drawn.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING

from ..errors import PlanError
from ..spec.place import left_top
from ..spec.render_spec import RenderSpec
from .masks import area_means, feathered, luma
from .sources import Source, fitted, frames_of, resized

if TYPE_CHECKING:
    import numpy as np

FEATHER = 16  # pixels, unless told otherwise: two cells of most latents
CHANNELS = 4  # of what is kept of it: red, green, blue, and how much of the pixel is drawn


@dataclass(frozen=True)
class InpaintCanvas:
    """`init` fills a canvas of `size` rows and columns, or stands at `place` (left, top) of it.

    What is drawn is where `mask` is white, and all that `init` leaves free; around that it fades
    over `feather` pixels into what is given.
    """

    init: Source
    size: tuple[int, int]
    mask: Source | None
    place: tuple[int, int] | None
    feather: int

    def __str__(self) -> str:
        where = f"where {self.mask.path} is white" if self.mask else "around it"
        if self.place is not None:
            left, top = self.place
            where += f", which stands {left} px from the left and {top} px from the top"
        return f"{self.init.path} {where}, feathered over {self.feather} px"

    def frames(self, height: int, width: int, num_frames: int) -> Iterator[np.ndarray]:
        """Frames [4, H, W] at that size, float32: RGB in [-1, 1]; 0 where it stays, 1 where drawn.

        What `init` leaves free has the colours of its edges. Raises as `fitted`.
        """
        import numpy as np

        pictures = fitted(self.init, height, width, num_frames, self._margins)
        for picture_CHW, drawn_HW in zip(pictures, self._drawn(num_frames), strict=False):
            if drawn_HW.shape != (height, width):
                drawn_HW = area_means(drawn_HW, height, width)
            yield np.concatenate([picture_CHW, drawn_HW[None]])

    @property
    def _margins(self) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """Rows above and below the picture, columns before and after it."""
        if self.place is None:
            return None
        left, top = self.place
        height, width = self.size
        return (top, height - top - self.init.height), (left, width - left - self.init.width)

    def _drawn(self, num_frames: int) -> Iterator[np.ndarray]:
        """How much of each pixel of a frame is drawn, [H, W]; the last one for ever."""
        last_HW = None
        for mask_HW in self._masks(num_frames):
            last_HW = feathered(mask_HW, self.feather)
            yield last_HW
        assert last_HW is not None
        yield from repeat(last_HW)

    def _masks(self, num_frames: int) -> Iterator[np.ndarray]:
        """What is white of each frame of the mask, [H, W] of the canvas' size."""
        import numpy as np

        free_HW = np.zeros(self.size, np.float32)
        if self._margins is not None:
            free_HW[:] = 1
            (top, below), (left, after) = self._margins
            free_HW[top : self.size[0] - below, left : self.size[1] - after] = 0
        if self.mask is None:
            yield free_HW
            return
        for frame_HWC in frames_of(self.mask, num_frames, "numbers"):
            mask_HWC = luma(frame_HWC)[..., None]
            if mask_HWC.shape[:2] != self.size:
                mask_HWC = resized(mask_HWC, *self.size)
            yield np.maximum(mask_HWC[..., 0], free_HW)


def inpaint_canvas(spec: RenderSpec, sources: Mapping[str, Source]) -> InpaintCanvas | None:
    """What a spec redraws in part, of its `sources`; None where it is nothing, or all."""
    if not spec.inpaints:
        return None
    return InpaintCanvas(
        init=sources["init"],
        size=(spec.height, spec.width),
        mask=sources.get("mask"),
        place=None if spec.place is None else left_top(spec.place),
        feather=FEATHER if spec.feather is None else spec.feather,
    )


def check(spec: RenderSpec, sources: Mapping[str, Source], inpaints: str | None = None) -> None:
    """Raises `PlanError` for a mask or a place that goes with no picture, or does not fit.

    `inpaints` is the pipeline of a checkpoint that draws nothing else.
    """
    canvas = inpaint_canvas(spec, sources)
    if canvas is None and inpaints is not None:
        raise PlanError(
            f"{inpaints} redraws a part of a picture; give an init with a mask that is white "
            "there, or with a place to draw around it"
        )
    if canvas is None:
        _check_alone(spec)
        return
    _check_resamplings(spec, inpaints)
    init, (height, width) = canvas.init, canvas.size
    if canvas.place is not None:
        left, top = canvas.place
        if left + init.width > width or top + init.height > height:
            raise PlanError(
                f"place {spec.place!r}: init {init.path!r} of {init.width}x{init.height} pixels "
                f"there reaches beyond {width}x{height}; a size of "
                f"{max(width, left + init.width)}x{max(height, top + init.height)} or more works"
            )
    mask = canvas.mask
    if mask is not None and mask.size != canvas.size and not spec.resize_mask:
        raise PlanError(
            f"mask {mask.path!r} is {mask.width}x{mask.height} pixels and the picture "
            f"{width}x{height}; give one of that size, or resize_mask"
        )


def _check_resamplings(spec: RenderSpec, inpaints: str | None) -> None:
    """Steps are drawn again where what stays is put back between them, all of each."""
    if spec.resamplings in (None, 1):
        return
    why = f"{inpaints} is told what stays" if inpaints else None
    if spec.cache is not None:
        why = f"cache {spec.cache} reuses steps"
    if why:
        raise PlanError(f"resamplings {spec.resamplings}: {why}; leave it out")


def _check_alone(spec: RenderSpec) -> None:
    """Without a picture that is redrawn in part, what is said of one is a mistake."""
    given = {name: getattr(spec, name) for name in ("place", "feather", "resamplings")}
    given["resize_mask"] = spec.resize_mask or None
    for name, value in given.items():
        if value is not None:
            lacks = "an init" if name == "place" or spec.mask else "an init with a mask"
            raise PlanError(f"{name} {value}: there is no picture to redraw in part; give {lacks}")
