"""Contact sheets: what the network is fed, and what it finds alike.

Names of files and classes come from users and are drawn as plain text, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import (
    GAP,
    GREY,
    MARGIN,
    PAPER,
    RULE,
    images,
    lines,
    save,
    scaled_width,
    write,
)

TRACE = "#1f5fa8"
# Told apart by colour-blind readers too; the mark says the same again.
HIT, MISS = "#12805c", "#c4502a"


@dataclass(frozen=True)
class Clip:
    """A clip as the network sees it.

    `frames` [3, T, H, W], uint8 or float in [−1, 1]; `numbers` the index of each frame in its
    video; `title` what was done to it; `note` a detail below.
    """

    frames: Tensor
    numbers: Sequence[int]
    title: str
    note: str = ""


@dataclass(frozen=True)
class Source:
    """A video and the clips that were taken from it."""

    name: str
    clips: Sequence[Clip]


@dataclass(frozen=True)
class Shot:
    """A few frames of a video, uint8 [3, n, H, W]; its class if it has one; cosine to the query."""

    frames: Tensor
    name: str
    label: str | None = None
    score: float | None = None


def contact_sheet(
    path: Path, sources: Sequence[Source], *, title: str, note: str = "", frame_height: int = 84
) -> None:
    """Write a PNG with a row for each clip and a column for each frame.

    Under each frame stands its index in the video; on the left a small plot of these indices over
    the clip's time shows the transformation at a glance.
    """
    clips = [clip for source in sources for clip in source.clips]
    columns = max((clip.frames.shape[1] for clip in clips), default=0)
    wide = max((scaled_width(clip.frames, frame_height) for clip in clips), default=frame_height)
    gutter = 206
    row, head = frame_height + 24, 40
    width = 2 * MARGIN + gutter + max(columns, 6) * (wide + GAP)
    height = 92 + len(clips) * row + len(sources) * head + (34 if note else 10)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 22), title, 21, bold=True, room=width - 2 * MARGIN)
    write(draw, (MARGIN, 52), "the number under a frame is its index in the video", 13, GREY)
    y = 84
    for source in sources:
        draw.line((MARGIN, y, width - MARGIN, y), RULE, 1)
        write(draw, (MARGIN, y + 11), source.name, 13, GREY, room=width - 2 * MARGIN)
        y += head
        for clip in source.clips:
            write(draw, (MARGIN, y + 16), clip.title, 16, bold=True, room=gutter - 92)
            write(draw, (MARGIN, y + 40), clip.note, 12, GREY, room=gutter - 92)
            left = MARGIN + gutter
            _trace(draw, clip.numbers, (left - 86, y + 6, left - 18, y + frame_height - 6))
            for t, image in enumerate(images(clip.frames, frame_height)):
                x = left + t * (wide + GAP)
                sheet.paste(image, (x, y))
                write(draw, (x + wide // 2, y + frame_height + 3), str(clip.numbers[t]), 12, GREY,
                      anchor="ma")  # fmt: skip
            y += row
    if note:
        write(draw, (MARGIN, height - 30), note, 12, GREY, room=width - 2 * MARGIN)
    save(sheet, path)


def retrieval_sheet(
    path: Path,
    rows: Sequence[tuple[Shot, Sequence[Shot]]],
    *,
    title: str,
    note: str = "",
    frame_height: int = 96,
) -> None:
    """Write a PNG with a row for each query: its frames, then those of its nearest neighbours.

    Where query and neighbour have classes, a border and a mark say whether they agree; the number
    is the neighbour's score.
    """
    shots = [shot for query, found in rows for shot in (query, *found)]
    wide = max((_strip_width(shot, frame_height) for shot in shots), default=3 * frame_height)
    cell, row = wide + 26, frame_height + 58
    most = max((len(found) for _, found in rows), default=0)
    labelled = any(shot.label is not None for shot in shots)
    width = 2 * MARGIN + max(_column(most, cell) - MARGIN + wide + 5, 480)
    notes = lines(note, 12, width - 2 * MARGIN)
    height = 106 + len(rows) * row + (30 if labelled else 0) + 18 * len(notes) + 12
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 22), title, 21, bold=True, room=width - 2 * MARGIN)
    for column in range(most + 1):
        name = "query" if column == 0 else f"neighbour {column}"
        write(draw, (_column(column, cell), 64), name, 13, GREY)
    y = 96
    for query, found in rows:
        for column, shot in enumerate((query, *found)):
            hit = None
            if column and query.label is not None and shot.label is not None:
                hit = shot.label == query.label
            _shot(sheet, draw, shot, _column(column, cell), y, wide, frame_height, hit)
        y += row
    rule = _column(1, cell) - 22
    if most:
        draw.line((rule, 64, rule, y - 16), RULE, 1)
    if labelled:
        for x, hit, said in ((MARGIN, True, "same class"), (MARGIN + 130, False, "other class")):
            mark(draw, x + 9, y + 9, hit)
            write(draw, (x + 24, y + 1), said, 13)
        y += 30
    for number, said in enumerate(notes):
        write(draw, (MARGIN, y + 2 + 18 * number), said, 12, GREY, room=width - 2 * MARGIN)
    save(sheet, path)


# Parts


def _column(column: int, cell: int) -> int:
    """Left edge of a column; the neighbours stand a little apart from the query."""
    return MARGIN + column * cell + (18 if column else 0)


def _shot(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    shot: Shot,
    x: int,
    y: int,
    wide: int,
    height: int,
    hit: bool | None,
) -> None:
    strip = _strip_width(shot, height)
    if hit is not None:
        draw.rectangle((x - 5, y - 5, x + strip + 4, y + height + 4), HIT if hit else MISS)
        draw.rectangle((x - 1, y - 1, x + strip, y + height), PAPER)
    at = x
    for image in images(shot.frames, height):
        sheet.paste(image, (at, y))
        at += image.width + GAP
    if hit is not None:
        mark(draw, x + strip - 8, y + 8, hit)
    score = "" if shot.score is None else f"{shot.score:.2f}"
    if score:
        write(draw, (x + strip, y + height + 9), score, 12, GREY, anchor="ra")
    room = wide - (44 if score else 0)
    if shot.label is not None:
        write(draw, (x, y + height + 8), shot.label, 13, bold=True, room=room)
        write(draw, (x, y + height + 26), shot.name, 11, GREY, room=wide)
    else:
        write(draw, (x, y + height + 9), shot.name, 11, GREY, room=room)


def mark(draw: ImageDraw.ImageDraw, x: int, y: int, hit: bool) -> None:
    """A disc around (x, y) with a tick (hit) or a cross (miss)."""
    draw.ellipse((x - 10, y - 10, x + 10, y + 10), HIT if hit else MISS, PAPER, 2)
    if hit:
        draw.line((x - 5, y, x - 1, y + 4, x + 5, y - 4), PAPER, 2)
    else:
        draw.line((x - 4, y - 4, x + 4, y + 4), PAPER, 2)
        draw.line((x - 4, y + 4, x + 4, y - 4), PAPER, 2)


def _trace(
    draw: ImageDraw.ImageDraw, numbers: Sequence[int], box: tuple[int, int, int, int]
) -> None:
    """The indices over the clip's time, upwards, each plot on its own scale."""
    left, top, right, bottom = box
    draw.line((left, top, left, bottom, right, bottom), RULE, 1)
    low, high = min(numbers), max(numbers)
    points = [
        (
            left + 4 + (right - left - 8) * t / max(len(numbers) - 1, 1),
            bottom - 4 - (bottom - top - 8) * (number - low) / max(high - low, 1),
        )
        for t, number in enumerate(numbers)
    ]
    draw.line(points, TRACE, 1)
    for x, y in points:
        draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), TRACE)


def _strip_width(shot: Shot, height: int) -> int:
    return shot.frames.shape[1] * (scaled_width(shot.frames, height) + GAP) - GAP
