"""Queries and what was found for them, in rows (figures 6.5 and 6.6).

Names come from users and are drawn as plain text, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import GREY, MARGIN, PAPER, RULE, lines, save, write
from selfsup_cli.visualization.enlarged import framed, picture, scale_of

_SPACE, _TEXT, _APART = 10, 40, 18


@dataclass(frozen=True)
class Shown:
    """An image [3, S, S], uint8 or float in [-1, 1]; where it is from, and what is said of it."""

    image: Tensor
    where: str
    said: str = ""


def view_sheet(
    path: Path,
    rows: Sequence[Sequence[Shown | None]],
    *,
    columns: Sequence[str],
    title: str,
    note: str = "",
) -> None:
    """Write a PNG with a row for each query, which stands first; None leaves a cell empty."""
    side = max((one.image.shape[-1] for row in rows for one in row if one), default=64)
    scale = scale_of(side)
    cell = round(side * scale)
    left = [MARGIN + k * (cell + _SPACE) + (_APART if k else 0) for k in range(len(columns))]
    width = max(left[-1] + cell + MARGIN, 480)
    notes = lines(note, 12, width - 2 * MARGIN)
    row_height = cell + _TEXT
    height = 96 + len(rows) * row_height + 18 * len(notes) + 14
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 22), title, 21, bold=True, room=width - 2 * MARGIN)
    for x, name in zip(left, columns, strict=True):
        write(draw, (x, 66), name, 14, bold=True, room=cell)
    y = 90
    for row in rows:
        for x, one in zip(left, row, strict=True):
            if one is None:
                draw.rectangle((x, y, x + cell - 1, y + cell - 1), outline=RULE)
                continue
            framed(sheet, draw, picture(one.image, scale), x, y)
            write(draw, (x, y + cell + 4), one.where, 10, GREY, room=cell)
            write(draw, (x, y + cell + 18), one.said, 12, room=cell)
        y += row_height
    if len(columns) > 1:
        rule = left[1] - (_SPACE + _APART) // 2
        draw.line((rule, 66, rule, y - 14), RULE, 1)
    for number, text in enumerate(notes):
        write(draw, (MARGIN, y + 4 + 18 * number), text, 12, GREY, room=width - 2 * MARGIN)
    save(sheet, path)
