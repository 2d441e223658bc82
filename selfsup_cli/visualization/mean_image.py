"""The mean of a data set, and what patches of it look like in all four turns (figure 4.5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import GREY, MARGIN, PAPER, lines, save, write
from selfsup_cli.visualization.enlarged import framed, picture, scale_of

PATCHES = 4
TURNS = ("upright", "90°", "180°", "270°")
COLOURS = ("#c4502a", "#1f5fa8", "#12805c", "#8a4fa3")


@dataclass(frozen=True)
class Average:
    """Mean and standard deviation of images at each pixel, float [3, S, S] in 0 … 255, and of how
    many."""

    mean: Tensor
    deviation: Tensor
    count: int

    @property
    def contrast(self) -> float:
        """How much the mean image varies over its pixels: the root mean square, in grey levels."""
        return float((self.mean - self.mean.mean((1, 2), keepdim=True)).square().mean().sqrt())

    @property
    def spread(self) -> float:
        """How much images vary around it, the root mean square in grey levels."""
        return float(self.deviation.square().mean().sqrt())

    def turned(self, quarters: int) -> float:
        """Root mean square by which it differs from itself turned by `quarters`, in grey levels."""
        other = torch.rot90(self.mean, quarters, (-2, -1))
        return float((self.mean - other).square().mean().sqrt())


def telling_patches(mean: Tensor, size: int, count: int = PATCHES) -> list[tuple[int, int]]:
    """Where (row, column) patches of `size` lie that differ most from themselves turned.

    Of a mean image float [3, S, S]; they do not overlap. Fewer than `count` where there is no room.
    """
    patches = F.unfold(mean[None].float(), size)[0].T.reshape(-1, 3, size, size)
    worth = torch.stack(
        [(patches - torch.rot90(patches, k, (-2, -1))).square().mean((1, 2, 3)) for k in (1, 2, 3)]
    ).amin(0)
    across = mean.shape[2] - size + 1
    found: list[tuple[int, int]] = []
    for place in worth.argsort(descending=True, stable=True).tolist():
        row, column = divmod(place, across)
        if all(max(abs(row - r), abs(column - c)) >= size for r, c in found):
            found.append((row, column))
        if len(found) == count:
            break
    return found


def sheet(path: Path, found: Average, *, patch: int, title: str, note: str = "") -> None:
    """Write a PNG: the mean image with its most telling patches outlined, the standard deviation,
    and on the right these patches as they are and turned, all with the contrast they have."""
    side = found.mean.shape[-1]
    scale = scale_of(side, 288)
    large = round(side * scale)
    small = max(1, round(64 / patch))
    cell = patch * small
    left = MARGIN + 2 * (large + 20) + 10
    places = telling_patches(found.mean, patch)
    width = max(left + len(TURNS) * (cell + 10) + MARGIN, 640)
    notes = lines(_note(found, note), 12, width - 2 * MARGIN)
    high = max(large, len(places) * (cell + 12) + 22)
    height = 96 + high + 26 + 18 * len(notes) + 14
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    write(draw, (MARGIN, 22), title, 21, bold=True, room=width - 2 * MARGIN)
    mean = found.mean / 127.5 - 1
    deviation = found.deviation / 63.75 - 1
    for x, image, said in (
        (MARGIN, mean, "mean"),
        (MARGIN + large + 20, deviation, "standard deviation × 2"),
    ):
        write(draw, (x, 66), said, 14, GREY, room=large)
        framed(page, draw, picture(image, scale), x, 90)
    for x, said in zip(_columns(left, cell), TURNS, strict=True):
        write(draw, (x, 66), said, 14, GREY)
    for number, (row, column) in enumerate(places):
        colour = COLOURS[number % len(COLOURS)]
        corner = (MARGIN + round(column * scale), 90 + round(row * scale))
        far = (corner[0] + round(patch * scale), corner[1] + round(patch * scale))
        draw.rectangle((*corner, *far), outline=colour, width=3)
        own = mean[:, row : row + patch, column : column + patch]
        y = 92 + number * (cell + 12)
        for quarters, x in enumerate(_columns(left, cell)):
            turned = picture(torch.rot90(own, quarters, (-2, -1)), small)
            draw.rectangle((x - 3, y - 3, x + cell + 2, y + cell + 2), colour)
            page.paste(turned, (x, y))
    y = 90 + high + 22
    for number, said in enumerate(notes):
        write(draw, (MARGIN, y + 18 * number), said, 12, GREY)
    save(page, path)


def _columns(left: int, cell: int) -> list[int]:
    return [left + k * (cell + 10) for k in range(len(TURNS))]


def _note(found: Average, note: str) -> str:
    return (
        f"{note} The mean image varies by {found.contrast:.1f} grey levels over its pixels, images "
        f"by {found.spread:.1f} around it; turned by a quarter it differs from itself by "
        f"{found.turned(1):.1f}, by a half by {found.turned(2):.1f}. Where patches of the mean "
        "look different when they are turned, rotations can be told from a patch."
    ).strip()
