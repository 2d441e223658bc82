"""Real and tile-shuffled images beside each other (thesis, figure 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import GREY, MARGIN, PAPER, images, lines, save, write

_SPACE = 12


def tile_sheet(
    path: Path,
    rows: Sequence[tuple[str, Sequence[Tensor]]],
    columns: Sequence[str],
    *,
    title: str,
    note: str = "",
    side: int = 144,
) -> None:
    """Write a PNG with a row for each image: its name, and square pictures uint8 [3, S, S] of it.

    `columns` say what each picture is.
    """
    width = 2 * MARGIN + len(columns) * (side + _SPACE) - _SPACE
    notes = lines(note, 12, width - 2 * MARGIN)
    height = 92 + len(rows) * (side + 28) + 18 * len(notes) + 16
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 22), title, 21, bold=True, room=width - 2 * MARGIN)
    for column, said in enumerate(columns):
        write(draw, (MARGIN + column * (side + _SPACE), 62), said, 13, GREY, room=side)
    y = 86
    for name, pictures in rows:
        for column, picture in enumerate(pictures):
            image = images(picture[:, None], side)[0]
            sheet.paste(image, (MARGIN + column * (side + _SPACE), y))
        write(draw, (MARGIN, y + side + 5), name, 11, GREY, room=width - 2 * MARGIN)
        y += side + 28
    for number, said in enumerate(notes):
        write(draw, (MARGIN, y + 6 + 18 * number), said, 12, GREY)
    save(sheet, path)
