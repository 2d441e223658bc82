"""Queries and their nearest images, one network below the other (thesis, figure 4.7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import (
    GREY,
    INK,
    MARGIN,
    PAPER,
    RULE,
    images,
    lines,
    save,
    write,
)
from selfsup_cli.visualization.sheets import HIT, MISS, mark

_SPACE = 16
_FOOT = 46


@dataclass(frozen=True)
class Shown:
    """An image uint8 [3, H, W]; its class or labels if it has any.

    Of a neighbour, the cosine, and whether it shares the query's class (None where that is not
    known).
    """

    pixels: Tensor
    name: str
    label: str | None = None
    score: float | None = None
    hit: bool | None = None


@dataclass(frozen=True)
class Query:
    """A query, and what each network holds to be nearest to it: (name, nearest first)."""

    image: Shown
    found: Sequence[tuple[str, Sequence[Shown]]]


def neighbour_sheet(
    path: Path,
    queries: Sequence[Query],
    *,
    title: str,
    note: str = "",
    legend: tuple[str, str] = ("same class", "other class"),
    side: int = 92,
) -> None:
    """Write a PNG: each query at the left, beside it a row of neighbours for every network.

    Images are cut to squares. Where classes are known, border and mark say whether they agree;
    `legend` are the words for that.
    """
    most = max((len(near) for query in queries for _, near in query.found), default=0)
    row, gutter = side + _FOOT, 124
    left = MARGIN + side + 2 * _SPACE + gutter
    labelled = any(one.hit is not None for query in queries for _, f in query.found for one in f)
    width = max(left + most * (side + _SPACE) + MARGIN - _SPACE, 560)
    notes = lines(note, 12, width - 2 * MARGIN)
    rows = sum(max(len(query.found), 1) for query in queries)
    height = 100 + rows * row + 14 * len(queries) + 30 * labelled + 18 * len(notes) + 12
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 22), title, 21, bold=True, room=width - 2 * MARGIN)
    write(draw, (MARGIN, 62), "query", 13, GREY)
    for column in range(most):
        write(draw, (left + column * (side + _SPACE), 62), f"neighbour {column + 1}", 13, GREY)
    y = 92
    for query in queries:
        draw.line((MARGIN, y - 7, width - MARGIN, y - 7), RULE, 1)
        _image(sheet, draw, query.image, MARGIN, y, side)
        for number, (name, near) in enumerate(query.found):
            top = y + number * row
            at = (left - _SPACE, top + side // 2 - 8)
            write(draw, at, name, 13, bold=number == 0, room=gutter, anchor="ra")
            for column, one in enumerate(near):
                _image(sheet, draw, one, left + column * (side + _SPACE), top, side)
        y += max(len(query.found), 1) * row + 14
    if labelled:
        for x, hit, said in zip((MARGIN, MARGIN + 150), (True, False), legend, strict=True):
            mark(draw, x + 9, y + 9, hit)
            write(draw, (x + 24, y + 1), said, 13)
        y += 30
    for number, said in enumerate(notes):
        write(draw, (MARGIN, y + 2 + 18 * number), said, 12, GREY, room=width - 2 * MARGIN)
    save(sheet, path)


def _image(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, one: Shown, x: int, y: int, side: int
) -> None:
    if one.hit is not None:
        draw.rectangle((x - 4, y - 4, x + side + 3, y + side + 3), HIT if one.hit else MISS)
        draw.rectangle((x - 1, y - 1, x + side, y + side), PAPER)
    sheet.paste(squared(one.pixels, side), (x, y))
    if one.hit is not None:
        mark(draw, x + side - 8, y + 8, one.hit)
    named = one.label is None
    write(draw, (x, y + side + 7), one.name if named else one.label or "", 12, bold=not named,
          colour=GREY if named else INK, room=side)  # fmt: skip
    if one.score is not None:
        write(draw, (x, y + side + 23), f"{one.score:.2f}", 11, GREY)


def squared(pixels: Tensor, side: int) -> Image.Image:
    """The middle square of an image (uint8 [3, H, W]), `side` pixels wide and high."""
    shorter = min(pixels.shape[1:])
    top, left = ((length - shorter) // 2 for length in pixels.shape[1:])
    middle = pixels[:, top : top + shorter, left : left + shorter]
    return images(middle[:, None], side)[0]
