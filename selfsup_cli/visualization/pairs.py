"""Pairs of views side by side (figure 6.2).

Names come from users and are drawn as plain text, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import GREY, MARGIN, PAPER, lines, save, write
from selfsup_cli.visualization.enlarged import framed, picture, scale_of

_GAP, _SPACE, _TEXT = 4, 26, 42


@dataclass(frozen=True)
class Pair:
    """Two images [3, S, S], uint8 or float in [-1, 1]; what they are, where from, what was said."""

    first: Tensor
    second: Tensor
    title: str
    detail: str = ""
    said: str = ""


def pair_sheet(path: Path, rows: Sequence[Sequence[Pair]], *, title: str, note: str = "") -> None:
    """Write a PNG with a row for each list of pairs; the titles of the first row head columns."""
    side = max((pair.first.shape[-1] for row in rows for pair in row), default=64)
    scale = scale_of(side)
    cell = round(side * scale)
    wide = 2 * cell + _GAP
    columns = max(map(len, rows), default=1)
    width = max(2 * MARGIN + columns * wide + (columns - 1) * _SPACE, 480)
    notes = lines(note, 12, width - 2 * MARGIN)
    row = cell + _TEXT
    height = 96 + len(rows) * row + 18 * len(notes) + 14
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 22), title, 21, bold=True, room=width - 2 * MARGIN)
    left = [MARGIN + k * (wide + _SPACE) for k in range(columns)]
    for x, pair in zip(left, rows[0] if rows else (), strict=False):
        write(draw, (x, 66), pair.title, 14, bold=True, room=wide)
    y = 90
    for pairs in rows:
        for x, pair in zip(left, pairs, strict=False):
            framed(sheet, draw, picture(pair.first, scale), x, y)
            framed(sheet, draw, picture(pair.second, scale), x + cell + _GAP, y)
            write(draw, (x, y + cell + 4), pair.detail, 11, GREY, room=wide)
            write(draw, (x, y + cell + 19), pair.said, 12, room=wide)
        y += row
    for number, text in enumerate(notes):
        write(draw, (MARGIN, y + 4 + 18 * number), text, 12, GREY, room=width - 2 * MARGIN)
    save(sheet, path)
