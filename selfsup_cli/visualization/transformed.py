"""What inpainting and warping do: patches before and after, and control points that moved.

Names of files come from users and are drawn as plain text, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import GREY, MARGIN, PAPER, lines, save, write
from selfsup_cli.visualization.enlarged import framed, picture, scale_of

OUTLINE = "#e8622c"
GRID, ARROW = "#1f5fa8", "#e8622c"
_SPACE, _NAME = 10, 24


@dataclass(frozen=True)
class Painted:
    """An inpainted image: patches [3, P, P] and canvases [3, S, S], float in [-1, 1], and where
    (row, column) the patch lies."""

    erased: Tensor
    inpainted: Tensor
    autoencoded: Tensor
    pasted: Tensor
    corner: tuple[int, int]


@dataclass(frozen=True)
class Warped:
    """A warped canvas [3, S, S], float in [-1, 1], and its control points [K, 2], (column, row) in
    pixels: what is seen at `points` was moved there by `offsets`."""

    image: Tensor
    points: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class Sample:
    """An image and what was done to it; `others` are named canvases or crops."""

    name: str
    canvas: Tensor
    painted: Painted | None = None
    warped: Warped | None = None
    others: Sequence[tuple[str, Tensor]] = ()


def sheet(path: Path, samples: Sequence[Sample], *, title: str, note: str = "") -> None:
    """Write a PNG with a row for each image; all columns are at the same scale."""
    first = samples[0]
    side = first.canvas.shape[-1]
    scale = scale_of(side, 144)
    cell = round(side * scale)
    heads = [head for head, _ in _cells(first, scale)]
    width = max(2 * MARGIN + len(heads) * (cell + _SPACE), 480)
    notes = lines(note, 12, width - 2 * MARGIN)
    row = cell + _NAME
    height = 96 + len(samples) * row + 18 * len(notes) + 16
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    write(draw, (MARGIN, 22), title, 21, bold=True, room=width - 2 * MARGIN)
    columns = [MARGIN + k * (cell + _SPACE) for k in range(len(heads))]
    for x, head in zip(columns, heads, strict=True):
        write(draw, (x, 64), head, 13, bold=True, room=cell)
    y = 88
    for sample in samples:
        for x, (_, image) in zip(columns, _cells(sample, scale), strict=True):
            gap = (cell - image.width) // 2
            framed(page, draw, image, x + gap, y + gap)
        write(draw, (MARGIN, y + cell + 4), sample.name, 11, GREY, room=width - 2 * MARGIN)
        y += row
    for number, said in enumerate(notes):
        write(draw, (MARGIN, y + 4 + 18 * number), said, 12, GREY)
    save(page, path)


def _cells(sample: Sample, scale: float) -> list[tuple[str, Image.Image]]:
    cells = [("original", picture(sample.canvas, scale))]
    painted, warped = sample.painted, sample.warped
    if painted is not None:
        size = painted.erased.shape[-1]
        cells += [
            ("erased", picture(painted.erased, scale)),
            ("inpainted", picture(painted.inpainted, scale)),
            ("autoencoded", picture(painted.autoencoded, scale)),
            ("pasted", picture(painted.pasted, scale)),
            ("pasted, outlined", _outlined(painted.pasted, painted.corner, size, scale)),
        ]
    if warped is not None:
        cells += [
            ("warped", picture(warped.image, scale)),
            ("control points", _arrows(sample.canvas, warped, scale)),
        ]
    return [*cells, *((name, picture(image, scale)) for name, image in sample.others)]


def _outlined(canvas: Tensor, corner: tuple[int, int], size: int, scale: float) -> Image.Image:
    """The canvas with a line around the patch, outside of it."""
    image = picture(canvas, scale)
    row, column = corner
    box = (
        round(column * scale) - 2,
        round(row * scale) - 2,
        round((column + size) * scale) + 1,
        round((row + size) * scale) + 1,
    )
    ImageDraw.Draw(image).rectangle(box, outline=OUTLINE, width=2)
    return image


def _arrows(canvas: Tensor, warped: Warped, scale: float) -> Image.Image:
    """The canvas, pale, with an arrow from each control point to where it arrives.

    Points that arrive on a grid are joined by lines where they come from.
    """
    image = Image.blend(picture(canvas, scale), Image.new("RGB", _size(canvas, scale), PAPER), 0.55)
    draw = ImageDraw.Draw(image)
    before = ((warped.points.double() - warped.offsets.double() + 0.5) * scale).tolist()
    after = ((warped.points.double() + 0.5) * scale).tolist()
    n = round(len(before) ** 0.5)
    if _is_grid(warped.points, n):
        for line in range(n):
            draw.line([tuple(before[line * n + k]) for k in range(n)], GRID, 1)
            draw.line([tuple(before[k * n + line]) for k in range(n)], GRID, 1)
    for start, end in zip(before, after, strict=True):
        _arrow(draw, start, end)
    return image


def _is_grid(points: Tensor, n: int) -> bool:
    """Whether points [n², 2] lie row by row on a grid."""
    square = points.view(n, n, 2)
    same_rows = bool((square[..., 1] == square[:, :1, 1]).all())
    return same_rows and bool((square[..., 0] == square[:1, :, 0]).all())


def _arrow(draw: ImageDraw.ImageDraw, start: list[float], end: list[float]) -> None:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = (dx * dx + dy * dy) ** 0.5
    draw.line((*start, *end), ARROW, 2)
    draw.ellipse((start[0] - 2, start[1] - 2, start[0] + 2, start[1] + 2), ARROW)
    if length < 3:
        return
    ux, uy = dx / length, dy / length
    head = min(6.0, length)
    wings = [
        (end[0] - head * ux + s * head * 0.5 * uy, end[1] - head * uy - s * head * 0.5 * ux)
        for s in (1, -1)
    ]
    draw.polygon([tuple(end), *wings], ARROW)


def _size(canvas: Tensor, scale: float) -> tuple[int, int]:
    return round(canvas.shape[-1] * scale), round(canvas.shape[-2] * scale)
