"""A video or image and what a network takes it for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import (
    GAP,
    GREY,
    INK,
    MARGIN,
    PAPER,
    RULE,
    images,
    save,
    scaled_width,
    write,
)

_BAR = "#1f5fa8"


def annotated(
    path: Path,
    frames: Tensor,
    numbers: Sequence[int],
    answers: Sequence[tuple[str, float]],
    *,
    name: str,
    frame_height: int = 150,
) -> None:
    """Write a PNG: frames of a video, uint8 [3, T, H, W], or an image, over its likeliest classes.

    `numbers` are the frames' indices in the video, none of an image; `answers` (class, probability)
    in falling order.
    """
    wide = scaled_width(frames, frame_height)
    width = max(2 * MARGIN + frames.shape[1] * (wide + GAP) - GAP, 480)
    height = 40 + frame_height + 30 + 26 * len(answers) + 16
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 12), name, 13, GREY, room=width - 2 * MARGIN)
    for t, image in enumerate(images(frames, frame_height)):
        x = MARGIN + t * (wide + GAP)
        sheet.paste(image, (x, 36))
        if numbers:
            write(draw, (x + wide // 2, 38 + frame_height), str(numbers[t]), 12, GREY, anchor="ma")
    top = 40 + frame_height + 26
    label, full = 220, width - 2 * MARGIN - 220 - 60
    for row, (answer, share) in enumerate(answers):
        y = top + 26 * row
        write(draw, (MARGIN, y), answer, 15, INK, bold=row == 0, room=label - 12)
        left = MARGIN + label
        draw.rectangle((left, y + 3, left + full, y + 15), fill=RULE)
        draw.rectangle((left, y + 3, left + max(1, round(share * full)), y + 15), fill=_BAR)
        write(draw, (left + full + 8, y), f"{100 * share:.0f} %", 13, INK, bold=row == 0)
    save(sheet, path)
