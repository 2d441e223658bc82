"""The samples whose labels are most likely wrong, beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import GREY, INK, MARGIN, PAPER, images, lines, save, write

_SIDE, _SPACE, _ROW = 112, 14, 62
_WRONG, _RIGHT = "#b5442b", "#4a7d4e"


@dataclass(frozen=True)
class Suspicious:
    """A sample, uint8 `[3, H, W]`, with the names of its label and of the one proposed.

    `wrong` says whether the label is wrong, None where nobody knows.
    """

    image: Tensor
    given: str
    proposed: str
    score: float
    wrong: bool | None = None


def sheet(path: Path, found: Sequence[Suspicious], *, title: str, columns: int = 8) -> None:
    """Write a PNG: the first of `found` first, row by row."""
    columns = min(columns, max(len(found), 4))
    width = 2 * MARGIN + columns * (_SIDE + _SPACE) - _SPACE
    known = any(one.wrong is not None for one in found)
    said = "given label → what the network proposes, and how suspicious it is"
    if known:
        said += "; framed in red where the label is wrong indeed, in green where it is right"
    head = lines(said, 13, width - 2 * MARGIN)
    top = 56 + 18 * len(head)
    rows = -(-len(found) // columns)
    page = Image.new("RGB", (width, top + rows * (_SIDE + _ROW) + 10), PAPER)
    draw = ImageDraw.Draw(page)
    write(draw, (MARGIN, 18), title, 19, bold=True, room=width - 2 * MARGIN)
    for number, line in enumerate(head):
        write(draw, (MARGIN, 46 + 18 * number), line, 13, GREY)
    for place, one in enumerate(found):
        row, column = divmod(place, columns)
        x, y = MARGIN + column * (_SIDE + _SPACE), top + row * (_SIDE + _ROW)
        picture = images(one.image[:, None], _SIDE)[0].resize((_SIDE, _SIDE))
        page.paste(picture, (x, y))
        if one.wrong is not None:
            colour = _WRONG if one.wrong else _RIGHT
            draw.rectangle((x - 3, y - 3, x + _SIDE + 2, y + _SIDE + 2), outline=colour, width=3)
        write(draw, (x, y + _SIDE + 5), one.given, 12, INK, bold=True, room=_SIDE)
        write(draw, (x, y + _SIDE + 20), f"→ {one.proposed}", 12, INK, room=_SIDE)
        write(draw, (x, y + _SIDE + 35), f"{one.score:.3g}", 11, GREY, room=_SIDE)
    save(page, path)
