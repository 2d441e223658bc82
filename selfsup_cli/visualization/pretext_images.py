"""What a network that recognises transformations of images is fed (figures 4.2 and 4.3).

Names of files come from users and are drawn as plain text, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import (
    GREY,
    MARGIN,
    PAPER,
    RULE,
    lines,
    save,
    write,
)
from selfsup_cli.visualization.enlarged import framed, picture, scale_of

_SPACE = 8
_NAME = 22


@dataclass(frozen=True)
class Fed:
    """An image as it was cut out, `canvas` [3, S, S], and its `crops` [K, 3, C, C], one for each
    transformation; uint8 or float in [-1, 1]."""

    name: str
    canvas: Tensor
    crops: Tensor


def contact_sheet(
    path: Path, images: Sequence[Fed], kinds: Sequence[str], *, title: str, note: str = ""
) -> None:
    """Write a PNG with a row for each image and, after the image, a column for each of `kinds`.

    All are drawn at the same scale; small ones are enlarged pixel by pixel.
    """
    crop = max(one.crops.shape[-1] for one in images)
    scale = scale_of(crop)
    cell = round(crop * scale)
    first = max(round(one.canvas.shape[-1] * scale) for one in images)
    width = 2 * MARGIN + first + 18 + len(kinds) * (cell + _SPACE)
    width = max(width, 480)
    notes = lines(note, 12, width - 2 * MARGIN)
    row = first + _NAME + 10
    height = 100 + len(images) * row + 18 * len(notes) + 14
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 22), title, 21, bold=True, room=width - 2 * MARGIN)
    write(draw, (MARGIN, 66), "cut out", 14, GREY, room=first)
    columns = [MARGIN + first + 18 + k * (cell + _SPACE) for k in range(len(kinds))]
    for x, kind in zip(columns, kinds, strict=True):
        write(draw, (x, 66), kind, 14, bold=True, room=cell)
    y = 92
    for one in images:
        framed(sheet, draw, picture(one.canvas, scale), MARGIN, y)
        write(draw, (MARGIN, y + first + 4), one.name, 11, GREY, room=width - 2 * MARGIN)
        for x, image in zip(columns, one.crops, strict=True):
            framed(sheet, draw, picture(image, scale), x, y + (first - cell) // 2)
        y += row
    rule = MARGIN + first + 9
    draw.line((rule, 66, rule, y - 12), RULE, 1)
    for number, said in enumerate(notes):
        write(draw, (MARGIN, y + 2 + 18 * number), said, 12, GREY)
    save(sheet, path)
