"""Shares of right answers as a table of coloured cells: what stands out is what matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from selfsup_cli.visualization.drawing import GREY, INK, MARGIN, PAPER, RULE, lines, save, write

_LOW, _HIGH = (255, 255, 255), (233, 140, 74)
_WIDE, _HIGH_CELL = 124, 40
_MARKED = "#a3340f"


@dataclass(frozen=True)
class Share:
    """A share (0 … 1) with half the width of its interval, and what chance gets; `marked` ones are
    outlined."""

    value: float
    spread: float | None
    chance: float
    marked: bool = False


def table(
    path: Path,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Mapping[tuple[str, str], Share],
    *,
    title: str,
    note: str = "",
) -> None:
    """Write a PNG with the share of each (row, column), the more coloured the further above chance.

    The last column stands apart.
    """
    gutter = 176
    apart = 18
    width = 2 * MARGIN + gutter + len(columns) * _WIDE + apart
    notes = lines(note, 12, width - 2 * MARGIN)
    heads = [lines(column, 13, _WIDE - 8) for column in columns]
    head = 62 + 17 * max(map(len, heads))
    height = head + 10 + len(rows) * (_HIGH_CELL + 4) + 14 + 18 * len(notes) + 12
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 20), title, 19, bold=True, room=width - 2 * MARGIN)
    lefts = [MARGIN + gutter + k * _WIDE for k in range(len(columns))]
    lefts[-1] += apart
    for x, words in zip(lefts, heads, strict=True):
        for number, said in enumerate(words):
            write(draw, (x + _WIDE // 2 - 2, 58 + 17 * number), said, 13, GREY, anchor="ma")
    y = head + 6
    for row in rows:
        write(draw, (MARGIN, y + 12), row, 14, bold=True, room=gutter - 12)
        for x, column in zip(lefts, columns, strict=True):
            if (row, column) in cells:
                _cell(draw, x, y, cells[row, column])
        y += _HIGH_CELL + 4
    draw.line((lefts[-1] - apart // 2 - 2, 58, lefts[-1] - apart // 2 - 2, y - 4), RULE, 1)
    for number, said in enumerate(notes):
        write(draw, (MARGIN, y + 10 + 18 * number), said, 12, GREY)
    save(sheet, path)


def _cell(draw: ImageDraw.ImageDraw, x: int, y: int, share: Share) -> None:
    above = max(0.0, (share.value - share.chance) / (1 - share.chance))
    colour = tuple(round(a + (b - a) * above) for a, b in zip(_LOW, _HIGH, strict=True))
    box = (x, y, x + _WIDE - 6, y + _HIGH_CELL)
    draw.rectangle(box, colour, _MARKED if share.marked else RULE, 3 if share.marked else 1)
    spread = "" if share.spread is None else f" ±{share.spread:.2f}"
    middle = x + (_WIDE - 6) // 2
    write(draw, (middle, y + 12), f"{share.value:.2f}{spread}", 14, INK, bold=share.marked,
          anchor="ma")  # fmt: skip
