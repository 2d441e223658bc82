"""What is done to the pixels of clips: scaling, cropping, flipping, colour (thesis, section 5.2.3).

All of it is batched, on the device where the clips are, and waits for nothing there: random
parameters stay tensors. They come from the generator that is passed in and from nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from selfsup_cli.transforms.color import recolor

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup_cli.config.video import ClipAugmentation


@torch.no_grad()
def augment(
    clips: Tensor,
    settings: ClipAugmentation,
    g: torch.Generator,
    *,
    group: int,
    alike: bool = False,
) -> Tensor:
    """Training clips: random scale, crop, flip and colour.

    `clips` is uint8 `[B, 3, T, H, W]`, 0–255 RGB, with the `group` clips of one source video
    adjacent. Scale and crop are drawn per clip and constant over its frames; the coin for the flip
    is shared by a group; colour is drawn per clip or per frame as `settings.color` says. With
    `alike` a group shares scale and crop too: its clips are compared with each other. Returns
    float32 `[B, 3, T, crop, crop]` in [-1, 1]. Raises ValueError for frames smaller than the crop
    or a batch that is not made of whole groups.
    """
    b, _, t, h, w = _checked(clips, settings.crop).shape
    if group < 1 or b % group:
        raise ValueError(f"{b} clips cannot be split into groups of {group}")
    size, device = settings.crop, clips.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=g, device=g.device).to(device)

    scale, top, left = uniform(b), uniform(b), uniform(b)
    if alike:
        scale, top, left = (u[::group].repeat_interleave(group) for u in (scale, top, left))
    flip = (uniform(b // group) < 0.5).repeat_interleave(group) & settings.flip
    low, high = settings.scale
    if low == high == 1:
        x = _crop(clips, _offset(top, h - size), _offset(left, w - size), flip, size)
        x = x.to(torch.float32)
    else:
        factor = low + scale * (high - low)
        x = _scale_and_crop(clips, factor, top, left, flip, size)
    if settings.color != "none":
        frames = t if settings.color == "frame" else 1
        x = recolor(x.div_(255), uniform(4, b, 1, frames, 1, 1))
        return x.mul_(2).sub_(1)
    return _to_unit(x)


def quarter_turns(clips: Tensor, turns: Tensor) -> Tensor:
    """Turn clips `[B, 3, T, S, S]` by `turns` (int64 `[B]`) quarter turns, counter-clockwise."""
    out = torch.empty_like(clips)
    for k in range(4):
        chosen = turns % 4 == k
        out[chosen] = torch.rot90(clips[chosen], k, (3, 4))
    return out


@torch.no_grad()
def center(clips: Tensor, crop: int) -> Tensor:
    """Evaluation clips: the central square of side `crop` and nothing else.

    uint8 `[B, 3, T, H, W]` → float32 `[B, 3, T, crop, crop]` in [-1, 1]. An odd margin leaves its
    extra pixel below and to the right. Raises ValueError for frames smaller than the crop.
    """
    h, w = _checked(clips, crop).shape[-2:]
    top, left = (h - crop) // 2, (w - crop) // 2
    return _to_unit(clips[..., top : top + crop, left : left + crop].to(torch.float32))


def _checked(clips: Tensor, crop: int) -> Tensor:
    if clips.dtype != torch.uint8 or clips.ndim != 5 or clips.shape[1] != 3:
        shape = list(clips.shape)
        raise ValueError(f"clips must be uint8 [B, 3, T, H, W], not {clips.dtype} {shape}")
    if min(clips.shape[-2:]) < crop:
        h, w = clips.shape[-2:]
        raise ValueError(f"a crop of {crop} does not fit into frames of {h}×{w}")
    return clips


def _to_unit(x: Tensor) -> Tensor:
    return x.mul_(2 / 255).sub_(1)


def _offset(u: Tensor, last: Tensor | int) -> Tensor:
    """Uniform integers in {0 … last} from uniform numbers in [0, 1)."""
    offset = (u * (last + 1)).floor()
    # Rounding can carry the product up to last + 1.
    return torch.where(offset > last, offset - 1, offset).to(torch.int64)


def _columns(left: Tensor, flip: Tensor, size: int) -> Tensor:
    """Source column of each output column `[B, size]`, counted backwards where flipped."""
    k = torch.arange(size, device=left.device)
    return left[:, None] + torch.where(flip[:, None], size - 1 - k, k)


def _crop(clips: Tensor, top: Tensor, left: Tensor, flip: Tensor, size: int) -> Tensor:
    b, c, t, h, w = clips.shape
    rows = top[:, None] + torch.arange(size, device=clips.device)
    pixels = rows[:, :, None] * w + _columns(left, flip, size)[:, None, :]
    index = pixels.reshape(b, 1, size * size).expand(b, c * t, size * size)
    return clips.reshape(b, c * t, h * w).gather(2, index).reshape(b, c, t, size, size)


def _scale_and_crop(
    clips: Tensor, factor: Tensor, top: Tensor, left: Tensor, flip: Tensor, size: int
) -> Tensor:
    """Antialiased scaling of each clip by its `factor`, then a crop: as two small products each."""
    b, c, t, h, w = clips.shape
    scaled_h = (h * factor).round().clamp_(min=size)
    scaled_w = (w * factor).round().clamp_(min=size)
    k = torch.arange(size, device=clips.device)
    rows = _offset(top, scaled_h - size)[:, None] + k
    columns = _columns(_offset(left, scaled_w - size), flip, size)
    with torch.autocast(clips.device.type, enabled=False):
        x = clips.reshape(b, c * t, h, w).to(torch.float32)
        x = x @ _resampling(columns, scaled_w, w).transpose(1, 2)[:, None]
        x = _resampling(rows, scaled_h, h)[:, None] @ x
    return x.clamp_(0, 255).reshape(b, c, t, size, size)


def _resampling(positions: Tensor, scaled: Tensor, length: int) -> Tensor:
    """Weights `[B, size, length]` that give pixel `positions` of a line resized to `scaled` pixels.

    Antialiased bilinear resizing to at most `length` pixels: a triangle two output pixels wide.
    """
    ratio = (length / scaled)[:, None, None]
    center = (positions[:, :, None] + 0.5) * ratio
    pixel = torch.arange(length, device=positions.device) + 0.5
    weights = (1 - (pixel - center).abs() / ratio).clamp_(min=0)
    return weights / weights.sum(-1, keepdim=True)
