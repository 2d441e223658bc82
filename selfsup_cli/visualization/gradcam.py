"""Grad-CAM: which cells of a layer speak for an answer (thesis, section 3.4.3, figure 3.9).

The channels of a layer are weighed by the mean gradient of the answer's logit; what of their sum is
positive is shown (Selvaraju et al., equations 1 and 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from selfsup_cli.errors import InputError
from selfsup_cli.models import Backbone
from selfsup_cli.visualization.drawing import GREY, MARGIN, PAPER, RULE, lines, save, write
from selfsup_cli.visualization.enlarged import picture, scale_of
from selfsup_cli.visualization.sheets import HIT, MISS

Answer = Callable[[Tensor], Tensor]
"""Images float `[B, 3, H, W]` in [-1, 1] → logits `[B, K]`."""

_SPACE, _BORDER = 14, 4
_OPAQUE = 0.7


@dataclass(frozen=True)
class Evidence:
    """Logits `[B, K]`, and maps float `[B, H, W]` of where in the images what speaks for an answer
    lies, 0 … 1 of the largest value of each image; all 0 where nothing does."""

    logits: Tensor
    maps: Tensor


def gradcam(
    answer: Answer, backbone: Backbone, images: Tensor, wanted: Tensor | None, layer: str
) -> Evidence:
    """Where in images float `[B, 3, H, W]` in [-1, 1] the evidence for the answers `wanted` (int64
    `[B]`, by default those given) lies, by cells of `layer` of the `backbone` behind `answer`.

    All is in evaluation mode. Raises InputError where the answer does not depend on that layer, or
    it has no cells.
    """
    with torch.enable_grad(), _watching(backbone, layer) as seen:
        logits = answer(images.detach().requires_grad_())
        if not seen:
            raise InputError(
                f"--layer {layer}: the answer does not go through that layer of {backbone.arch}",
                kind="unknown-layer",
            )
        chosen = logits.argmax(1) if wanted is None else wanted
        of_answer = logits.gather(1, chosen[:, None]).sum()
        (gradient,) = torch.autograd.grad(of_answer, seen[-1], allow_unused=True)
    cells = _cells(backbone, images, seen[-1], layer)
    gradient = None if gradient is None else cells(gradient)
    if gradient is None or not bool(gradient.any()):
        raise InputError(
            f"--layer {layer}: no cell of it has a say in the answer of {backbone.arch} (of a "
            "transformer's last block the class token alone may have); take an earlier layer",
            kind="layer-unused",
        )
    weights = gradient.mean(tuple(range(2, gradient.ndim)), keepdim=True)
    maps = (weights * cells(seen[-1].detach())).sum(1, keepdim=True).relu().float()
    maps = F.interpolate(maps, images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    largest = maps.flatten(1).amax(1)[:, None, None]
    return Evidence(logits.detach(), torch.where(largest > 0, maps / largest, 0.0))


def deepest(answer: Answer, backbone: Backbone, images: Tensor) -> str:
    """The layer that is looked at where none is named: the embedding, or the deepest before it
    whose cells have a say. Raises InputError where there is none."""
    layers = backbone.layers[: backbone.layers.index(backbone.embedding) + 1]
    for layer in reversed(layers):
        try:
            gradcam(answer, backbone, images, None, layer)
        except InputError as error:
            if error.kind != "layer-unused" or layer == layers[0]:
                raise
            continue
        return layer
    raise AssertionError("a network without layers")


@contextmanager
def _watching(backbone: Backbone, layer: str) -> Iterator[list[Tensor]]:
    """The activations of a layer, as they are computed."""
    timm: nn.Module = getattr(backbone, "network", backbone)
    seen: list[Tensor] = []

    def see(module: nn.Module, given: object, found: Tensor) -> None:
        seen.append(found)

    hook = timm.get_submodule(layer).register_forward_hook(see)
    try:
        yield seen
    finally:
        hook.remove()


def _cells(
    backbone: Backbone, images: Tensor, seen: Tensor, layer: str
) -> Callable[[Tensor], Tensor]:
    """How to bring what a module gives, or its gradient, into the form `[B, C, H, W]`."""
    with torch.no_grad():
        shape = backbone.features(images[:1], [layer])[layer].shape[1:]
    if len(shape) < 2:
        raise InputError(
            f"--layer {layer}: a fully connected layer has no cells; take "
            f"{backbone.embedding} or one before it",
            kind="unknown-layer",
        )
    channels, cells = shape[0], int(np.prod(shape[1:]))
    if seen.shape[1:] == shape:
        return lambda x: x
    if seen.shape[1:] == (*shape[1:], channels):
        return lambda x: x.movedim(-1, 1)
    if seen.ndim == 3 and seen.shape[2] == channels and seen.shape[1] >= cells:
        # Tokens of a transformer: those of the class and the like come first.
        return lambda x: x[:, x.shape[1] - cells :].mT.reshape(len(x), *shape)
    raise InputError(
        f"--layer {layer}: its values {tuple(seen.shape[1:])} have no known place in the image",
        kind="unknown-layer",
    )


# The sheet


@dataclass(frozen=True)
class Look:
    """An image, uint8 or float in [-1, 1] `[3, S, S]`, and where the evidence lies in it, `[S, S]`;
    without, the image is shown alone. `good` says which border it has, `said` what stands below."""

    image: Tensor
    evidence: Tensor | None
    head: str
    said: str = ""
    good: bool | None = None


def overlaid(image: Tensor, evidence: Tensor, *, faint: float = 0.5) -> Tensor:
    """An image `[3, S, S]` with evidence 0 … 1 `[S, S]` over it: uint8.

    From blue to red, the less the more transparent (as its power `faint`); where there is none the
    image is as it was.
    """
    pixels = image.float() * 127.5 + 127.5 if image.is_floating_point() else image.float()
    colours = matplotlib.colormaps["turbo"](evidence.clamp(0, 1).cpu().numpy())[..., :3]
    heat = torch.from_numpy(255 * colours).permute(2, 0, 1).to(pixels)
    cover = _OPAQUE * evidence.clamp(0, 1).pow(faint).to(pixels)
    return torch.lerp(pixels, heat, cover).round().clamp(0, 255).to(torch.uint8)


def sheet(
    path: Path,
    rows: Sequence[tuple[str, Sequence[Look]]],
    *,
    title: str,
    note: str = "",
    legend: tuple[str, str] | None = None,
) -> None:
    """Write a PNG with a row for each image: its name, and its looks from left to right.

    `legend` are the words for a green and a red border.
    """
    side = max(look.image.shape[-1] for _, looks in rows for look in looks)
    scale = scale_of(side, 144)
    cell = round(side * scale)
    most = max(len(looks) for _, looks in rows)
    width = max(2 * MARGIN + most * (cell + _SPACE) - _SPACE, 560)
    notes = lines(note, 12, width - 2 * MARGIN)
    row = cell + 66
    height = 64 + len(rows) * row + 30 * (legend is not None) + 18 * len(notes) + 16
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    write(draw, (MARGIN, 22), title, 21, bold=True, room=width - 2 * MARGIN)
    y = 64
    for name, looks in rows:
        for column, look in enumerate(looks):
            x = MARGIN + column * (cell + _SPACE)
            write(draw, (x, y), look.head, 13, bold=True, room=cell)
            if look.good is not None:
                far = cell + _BORDER
                box = (x - _BORDER, y + 22 - _BORDER, x + far - 1, y + 22 + far - 1)
                draw.rectangle(box, HIT if look.good else MISS)
            else:
                draw.rectangle((x - 1, y + 21, x + cell, y + 22 + cell), outline=RULE)
            shown = look.image if look.evidence is None else overlaid(look.image, look.evidence)
            page.paste(picture(shown, scale), (x, y + 22))
            write(draw, (x, y + cell + 28), look.said, 11, GREY, room=cell)
        write(draw, (MARGIN, y + cell + 43), name, 11, GREY, room=width - 2 * MARGIN)
        y += row
    if legend is not None:
        for x, colour, said in zip((MARGIN, MARGIN + 200), (HIT, MISS), legend, strict=True):
            draw.rectangle((x, y + 3, x + 13, y + 16), outline=colour, width=3)
            write(draw, (x + 22, y + 2), said, 13)
        y += 30
    for number, said in enumerate(notes):
        write(draw, (MARGIN, y + 2 + 18 * number), said, 12, GREY)
    save(page, path)
