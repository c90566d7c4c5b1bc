"""Where a picture lies on a printed page: what is cut off, bleed, and marks for the cut.

Lengths are points, 1/72 inch, from the page's lower left corner (ISO 32000-1:2008, 14.11.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from .pdf_file import box, number

POINTS = 72.0  # an inch
POINTS_PER_MM = POINTS / 25.4
MOST_UNITS = 14400  # of a page's side, Annex C
# Marks begin beyond the bleed, at least 3 mm from what is left when the page is cut.
MARK_GAP, MARK_LENGTH, MARK_WIDTH = 3 * POINTS_PER_MM, 5 * POINTS_PER_MM, 0.25
# By which an image is smaller than its place, on each side: poppler 22 counts an edge that lies
# between two pixels to the next one, and draws a picture at its own resolution one pixel larger.
INSET = 1e-4


@dataclass(frozen=True)
class PrintPage:
    """A picture of `width` x `height` points, of which `trim` stays when the page is cut.

    `bleed` is printed around that; what the picture has beyond is not shown.
    """

    width: float
    height: float
    trim: tuple[float, float]
    bleed: float = 0.0
    has_marks: bool = False

    @property
    def margin(self) -> float:
        """From the page's edge to the cut."""
        if not self.has_marks:
            return self.bleed
        return max(self.bleed, MARK_GAP) + MARK_LENGTH

    @property
    def unit(self) -> int:
        """Points of a unit of the page: 1, but of pages larger than 200 inches."""
        return max(1, ceil(max(self.trim) / MOST_UNITS + 2 * self.margin / MOST_UNITS))

    def boxes(self) -> dict[str, str]:
        """The page's boxes, in its units."""
        margin, (width, height), unit = self.margin, self.trim, self.unit

        def around(distance: float) -> str:
            edge = margin - distance
            far = (margin + width + distance, margin + height + distance)
            return box(*(value / unit for value in (edge, edge, *far)))

        return {
            "MediaBox": around(margin),
            "BleedBox": around(self.bleed),
            "TrimBox": around(0.0),
            **({"UserUnit": str(unit)} if unit > 1 else {}),
        }

    def image(self, name: str, top: float = 0.0, height: float = 1.0) -> str:
        """Draws an image of the picture's width: from `top` on, so much of its height, of 1."""
        left = self.margin + (self.trim[0] - self.width) / 2
        bottom = self.margin + (self.trim[1] - self.height) / 2
        bottom += (1 - top - height) * self.height
        width, rows = self.width - 2 * INSET, height * self.height - 2 * INSET
        sides = (width, 0.0, 0.0, rows, left + INSET, bottom + INSET)
        values = " ".join(number(value / self.unit) for value in sides)
        return f"q {values} cm /{name} Do Q"

    def clip(self) -> str:
        """Shows nothing beyond the bleed."""
        edge, (width, height) = self.margin - self.bleed, self.trim
        sides = (edge, edge, width + 2 * self.bleed, height + 2 * self.bleed)
        return f"{' '.join(number(value / self.unit) for value in sides)} re W n"

    def marks(self) -> str:
        """Draws the marks: two lines at each corner, where the cut goes."""
        lines = []
        for along, side in ((0, self.trim[0]), (1, self.trim[1])):
            across = self.trim[1 - along] + 2 * self.margin
            for at in (self.margin, self.margin + side):
                for start, end in ((0.0, MARK_LENGTH), (across - MARK_LENGTH, across)):
                    points = [(at, start), (at, end)] if along == 0 else [(start, at), (end, at)]
                    (x0, y0), (x1, y1) = points
                    ends = [number(value / self.unit) for value in (x0, y0, x1, y1)]
                    lines.append(f"{ends[0]} {ends[1]} m {ends[2]} {ends[3]} l S")
        return "\n".join([f"{number(MARK_WIDTH / self.unit)} w", *lines])
