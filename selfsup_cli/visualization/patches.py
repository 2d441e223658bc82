"""Patches of images that make units most active, a row for each unit (figure 3.7).

Names of files come from users and are drawn as plain text, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import GREY, MARGIN, PAPER, RULE, lines, save, write
from selfsup_cli.visualization.enlarged import picture
from selfsup_cli.visualization.receptive import Box

_SPACE, _NAME = 6, 92
_OUTSIDE = "#eceff3"
_CELL_OF = "#e8622c"


@dataclass(frozen=True)
class Patch:
    """What a unit sees of an image: `pixels` uint8 [3, h, w] of the `window` (rows, columns) that
    it could see, of which `seen` lies inside of the image.

    `outlined` is the part of the window where the unit itself lies, drawn where it sees everything.
    """

    pixels: Tensor
    window: Box
    seen: Box
    outlined: Box | None = None


@dataclass(frozen=True)
class Unit:
    """A unit by its number, how active it is at most, and its patches, strongest first."""

    number: int
    value: float
    patches: Sequence[Patch]


@dataclass(frozen=True)
class Layer:
    """A layer, what is said of it, and some of its units."""

    name: str
    about: str
    units: Sequence[Unit]


def sheet(
    path: Path, layers: Sequence[Layer], *, title: str, note: str = "", side: int = 72
) -> None:
    """Write a PNG: layer by layer, each unit's patches from left to right.

    All are drawn at `side` pixels, whatever their size; what of a window lies outside of the image
    is grey.
    """
    most = max((len(unit.patches) for layer in layers for unit in layer.units), default=1)
    width = max(2 * MARGIN + _NAME + most * (side + _SPACE), 560)
    notes = lines(note, 12, width - 2 * MARGIN)
    row = side + _SPACE
    rows = sum(len(layer.units) for layer in layers)
    height = 66 + rows * row + 40 * len(layers) + 18 * len(notes) + 16
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    write(draw, (MARGIN, 22), title, 21, bold=True, room=width - 2 * MARGIN)
    y = 62
    for layer in layers:
        draw.line((MARGIN, y, width - MARGIN, y), RULE, 1)
        write(draw, (MARGIN, y + 9), layer.name, 15, bold=True, room=150)
        write(draw, (width - MARGIN, y + 10), layer.about, 12, GREY, anchor="ra",
              room=width - 2 * MARGIN - 160)  # fmt: skip
        y += 34
        for unit in layer.units:
            write(draw, (MARGIN, y + side // 2 - 16), f"unit {unit.number}", 13, room=_NAME - 8)
            write(draw, (MARGIN, y + side // 2 + 2), f"{unit.value:.3g}", 12, GREY)
            for column, patch in enumerate(unit.patches):
                x = MARGIN + _NAME + column * (side + _SPACE)
                page.paste(_drawn(patch, side), (x, y))
            y += row
        y += 6
    for number, said in enumerate(notes):
        write(draw, (MARGIN, y + 2 + 18 * number), said, 12, GREY)
    save(page, path)


def _drawn(patch: Patch, side: int) -> Image.Image:
    (top, bottom), (left, right) = patch.window
    (first, last), (begin, end) = patch.seen
    high, wide = bottom - top, right - left
    scale = side / max(high, wide)
    cell = Image.new("RGB", (side, side), _OUTSIDE)
    size = (max(1, round((end - begin) * scale)), max(1, round((last - first) * scale)))
    method = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    image = picture(patch.pixels).resize(size, method)
    cell.paste(image, (round((begin - left) * scale), round((first - top) * scale)))
    if patch.outlined is not None:
        (a, b), (c, d) = patch.outlined
        box = [round(value * scale) for value in (c - left, a - top, d - left, b - top)]
        ImageDraw.Draw(cell).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=_CELL_OF)
    return cell
