"""The filters of a first convolution as small pictures, learned beside random (figure 3.7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from selfsup_cli.visualization.drawing import GREY, MARGIN, PAPER, lines, save, write
from selfsup_cli.visualization.enlarged import picture, scale_of

_CELL, _SPACE = 40, 4
_WIDE = 900
_FLAT = 0.01


@dataclass(frozen=True)
class Filters:
    """The weights `[N, 3, h, w]` or `[N, 3, T, h, w]` of the first convolution `layer` of a network
    called `name`."""

    name: str
    layer: str
    weights: Tensor

    @property
    def flat(self) -> int:
        """How many filters are next to nothing beside the strongest one."""
        norms = self.weights.flatten(1).norm(dim=1)
        return int((norms <= _FLAT * norms.max()).sum())

    @property
    def smoothness(self) -> float | None:
        """Correlation of weights that lie side by side, above or beside each other: 0 of noise.

        None where there are none, or all are equal.
        """
        w = self.weights.double()
        pairs = [(w[..., 1:, :], w[..., :-1, :]), (w[..., 1:], w[..., :-1])]
        one, other = (torch.cat([pair[k].flatten() for pair in pairs]) for k in (0, 1))
        if len(one) < 2 or min(float(one.std()), float(other.std())) == 0:
            return None
        return float(torch.corrcoef(torch.stack([one, other]))[0, 1])

    @property
    def size(self) -> str:
        """`96 filters of 11×11`, or of `3×7×7` over three frames."""
        return f"{len(self.weights)} filters of {'×'.join(map(str, self.weights.shape[2:]))}"


def first_convolution(network: nn.Module) -> tuple[str, Tensor] | None:
    """Name and weights, on the CPU, of the first convolution that sees colours; None without any.

    First is meant as the network declares its parts, and before any that sees fewer pixels.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module.in_channels == 3:
            return name, module.weight.detach().float().cpu()
    return None


def sheet(path: Path, found: Sequence[Filters], *, title: str, note: str = "") -> None:
    """Write a PNG: the filters of each network, one network below the other.

    Each filter is drawn on a scale of its own, grey where it is zero; one over time as a strip of
    its frames.
    """
    blocks = [_block(one) for one in found]
    width = max(2 * MARGIN + max(block.width for block in blocks), 480)
    notes = lines(note, 12, width - 2 * MARGIN)
    height = 70 + sum(block.height + 52 for block in blocks) + 18 * len(notes) + 16
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    write(draw, (MARGIN, 22), title, 21, bold=True, room=width - 2 * MARGIN)
    y = 66
    for one, block in zip(found, blocks, strict=True):
        write(draw, (MARGIN, y), one.name, 15, bold=True, room=width // 2 - MARGIN)
        write(draw, (width - MARGIN, y + 2), f"{one.layer}: {one.size}", 13, GREY, anchor="ra",
              room=width // 2 - MARGIN)  # fmt: skip
        page.paste(block, (MARGIN, y + 26))
        y += block.height + 52
    for number, said in enumerate(notes):
        write(draw, (MARGIN, y + 18 * number), said, 12, GREY)
    save(page, path)


def _block(one: Filters) -> Image.Image:
    weights = one.weights if one.weights.ndim == 5 else one.weights[:, :, None]
    largest = weights.abs().flatten(1).amax(1).clamp(min=torch.finfo(torch.float32).tiny)
    drawn = weights / largest[:, None, None, None, None]
    scale = scale_of(max(drawn.shape[3:]), _CELL)
    high, wide = (max(1, round(side * scale)) for side in drawn.shape[3:])
    frames = drawn.shape[2]
    strip = frames * wide + (frames - 1)
    space = _SPACE if frames == 1 else 3 * _SPACE
    most = max(1, (_WIDE + space) // (strip + space))
    rows = math.ceil(len(drawn) / most)
    columns = math.ceil(len(drawn) / rows)
    size = (columns * (strip + space) - space, rows * (high + space) - space)
    block = Image.new("RGB", size, PAPER)
    for number, filter_ in enumerate(drawn):
        row, column = divmod(number, columns)
        for t in range(frames):
            x = column * (strip + space) + t * (wide + 1)
            block.paste(picture(filter_[:, t], scale), (x, row * (high + space)))
    return block
