"""What is done to views of a subject before a network compares them (sections 6.2.1 and 6.2.2).

Images are uint8 `[..., 3, S, S]`, masks bool `[..., S, S]` and True on the subject. Everything is
batched, on the device where the images are, and draws from the generator that is passed in alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup_cli.transforms.images import coins

if TYPE_CHECKING:
    from selfsup_cli.config.multiview import Jitter, Pairs

FILL = (124, 116, 104)
"""What takes the place of a removed background: the mean colour of ImageNet, RGB, rounded."""

ANCHOR, PARTNER, LATER, MIRRORED = range(4)
"""The four images of an anchor: at its time by both cameras, by the second one at another time,
and one of the first two mirrored."""


@dataclass(frozen=True)
class Prepared:
    """What the network sees of B anchors.

    `images` uint8 `[B, 4, 3, S, S]` in the order above; `second` bool `[B]` says of which it was
    the partner that was mirrored, so that the anchor belongs to it, and not the other way around.
    """

    images: Tensor
    second: Tensor


def remove_background(images: Tensor, masks: Tensor) -> Tensor:
    """The subject on the mean colour of ImageNet."""
    fill = torch.tensor(FILL, dtype=torch.uint8, device=images.device).view(3, 1, 1)
    return torch.where(masks.unsqueeze(-3), images, fill)


def substitute_background(images: Tensor, masks: Tensor, backgrounds: Tensor) -> Tensor:
    """The subject before other backgrounds, uint8 like the images."""
    return torch.where(masks.unsqueeze(-3), images, backgrounds)


def prepare(
    views: Tensor,
    masks: Tensor | None,
    backgrounds: Tensor | None,
    settings: Pairs,
    g: torch.Generator,
) -> Prepared:
    """Make the images of B anchors of what was read.

    `views` uint8 `[B, 3, 3, S, S]` are anchor, partner and the later image; `backgrounds` uint8
    `[B, 4, 3, S, S]` those of random views, one for each image, so that a background tells nothing
    of a pair. First all of an anchor's images are mirrored, or none; then one of the first two is
    mirrored once more; then each is changed by itself, and its background goes last.
    Raises ValueError where masks or backgrounds are missing that the settings ask for.
    """
    count, device = len(views), views.device
    if settings.flip:
        turned = coins(count, 0.5, g)[:, None]
        views = _mirrored(views, turned)
        masks = None if masks is None else _mirrored(masks[:, :, None], turned)[:, :, 0]
    second = coins(count, 0.5, g)
    views = _with_mirrored(views, second)
    masks = None if masks is None else _with_mirrored(masks[:, :, None], second)[:, :, 0]
    if settings.jitter.on:
        views, masks = jittered(views, masks, settings.jitter, g)
    if settings.background == "keep":
        return Prepared(views, second)
    if masks is None:
        raise ValueError("without masks no background is removed")
    shown = remove_background(views, masks)
    if settings.background != "remove":
        if backgrounds is None:
            raise ValueError("there are no backgrounds to substitute")
        # A background is mirrored or not whatever becomes of the subject before it.
        others = _mirrored(backgrounds, coins(4 * count, 0.5, g).view(count, 4))
        replaced = substitute_background(views, masks, others)
        share = 0.5 if settings.background == "mixed" else 1.0
        chosen = coins(4 * count, share, g).view(count, 4, 1, 1, 1)
        shown = torch.where(chosen.to(device), replaced, shown)
    return Prepared(shown, second)


def _mirrored(images: Tensor, chosen: Tensor) -> Tensor:
    """Left and right exchanged in those `chosen`, bool `[B, 1]` or `[B, K]`."""
    where = chosen.to(images.device)[..., None, None, None]
    return torch.where(where, images.flip(-1), images)


def _with_mirrored(views: Tensor, second: Tensor) -> Tensor:
    """`[B, 3, …]` and as a fourth image the partner mirrored, or the anchor where not `second`."""
    where = second.to(views.device)[:, None, None, None]
    twin = torch.where(where, views[:, PARTNER], views[:, ANCHOR]).flip(-1)
    return torch.cat([views, twin[:, None]], 1)


def jittered(
    images: Tensor, masks: Tensor | None, settings: Jitter, g: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Each of the images `[B, K, 3, S, S]` turned, scaled and shifted by itself, masks alike.

    Bilinear, masks by the nearest pixel; what was outside of an image continues its border, and is
    outside of its mask.
    """
    b, k = images.shape[:2]
    grid = _grid(b * k, images.shape[-1], settings, g).to(images.device)
    floating = images.flatten(0, 1).float()
    moved = F.grid_sample(floating, grid, padding_mode="border", align_corners=False)
    out = moved.round_().to(torch.uint8).view(images.shape)
    if masks is None:
        return out, None
    found = F.grid_sample(
        masks.flatten(0, 1).float()[:, None], grid, mode="nearest", align_corners=False
    )
    return out, (found[:, 0] > 0.5).view(masks.shape)


def _grid(count: int, side: int, settings: Jitter, g: torch.Generator) -> Tensor:
    """Where the pixels of changed images come from, float `[count, S, S, 2]` in [-1, 1]."""
    drawn = torch.rand(count, 4, generator=g, device=g.device) * 2 - 1
    angle = drawn[:, 0] * math.radians(settings.rotate)
    # As often that much larger as that much smaller.
    scale = (drawn[:, 1] * math.log1p(settings.scale)).exp()
    shift = drawn[:, 2:] * settings.shift * 2
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = torch.stack(
        [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1
    )
    return F.affine_grid(rows, [count, 1, side, side], align_corners=False)
