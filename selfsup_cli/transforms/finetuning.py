"""What is done to images that a network is fine-tuned on, besides crops.

All of it is batched, on the device where the images are. Images are float `[B, 3, H, W]` in [0, 1],
and what is random is drawn from the generator that is passed in.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup_cli.transforms.color import contrast, recolor
from selfsup_cli.transforms.images import coins

# Of Ji et al. (IIC), whose augmentation the thesis' ResNet-34 on STL-10 follows.
ANGLE, SCALE, MOVE, SHEAR = 18.0, (0.9, 1.1), 0.1, 10.0
# Of the thesis on CIFAR (section 8.4).
BRIGHTNESS, CONTRAST = 63 / 255, (0.2, 1.8)


def recolored(images: Tensor, g: torch.Generator) -> Tensor:
    """Each image with a brightness and saturation of its own, some grey (see `color.recolor`)."""
    u = torch.rand(4, len(images), 1, 1, 1, generator=g, device=g.device)
    return recolor(images, u.to(images.device))


def relit(images: Tensor, g: torch.Generator) -> Tensor:
    """Each image brighter or darker by up to `BRIGHTNESS`, then with `CONTRAST` times its own about
    the mean of each channel; values may leave [0, 1]."""
    u = torch.rand(2, len(images), 1, 1, 1, generator=g, device=g.device).to(images.device)
    factor = CONTRAST[0] + u[1] * (CONTRAST[1] - CONTRAST[0])
    return contrast(images + (2 * u[0] - 1) * BRIGHTNESS, factor)


def cut_from_padded(images: Tensor, pad: int, side: int, g: torch.Generator) -> Tensor:
    """A square of `side` pixels from a place of its own in each image with `pad` zeros around it.

    Of any type; each place is as likely.
    """
    padded = F.pad(images, (pad,) * 4)
    room = torch.tensor([length - side + 1 for length in padded.shape[2:]], device=g.device)
    u = torch.rand(2, len(images), generator=g, device=g.device)
    corner = (u * room[:, None]).floor().long().to(images.device)
    at = torch.arange(side, device=images.device)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    rows, columns = (corner[axis][:, None] + at for axis in (0, 1))
    cut = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2).contiguous()


def turned(images: Tensor, share: float, g: torch.Generator) -> Tensor:
    """A `share` of the images through a random affine map each; what comes from outside is black.

    About the centre: turned by up to `ANGLE` degrees, scaled by `SCALE`, sheared horizontally by up
    to `SHEAR` degrees, then moved by up to `MOVE` of the sides. Bilinear.
    """
    count = len(images)
    chosen = coins(count, share, g)
    u = torch.rand(5, count, generator=g, device=g.device) * 2 - 1
    angle, shear = (math.radians(most) * u[k] for k, most in enumerate((ANGLE, SHEAR)))
    scale = SCALE[0] + (u[2] + 1) / 2 * (SCALE[1] - SCALE[0])
    # A pixel of the result is looked up where the inverse of the map puts it.
    cos, sin, tilt = angle.cos() / scale, angle.sin() / scale, shear.tan()
    move_x, move_y = 2 * MOVE * u[3], 2 * MOVE * u[4]
    top = torch.stack([cos - tilt * sin, sin + tilt * cos, move_x], 1)
    bottom = torch.stack([-sin, cos, move_y], 1)
    theta = torch.stack([top, bottom], 1)
    same = torch.eye(2, 3, device=g.device).expand(count, 2, 3)
    theta = torch.where(chosen[:, None, None], theta, same).to(images.device, images.dtype)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    return torch.where(chosen.to(images.device)[:, None, None, None], moved, images)


def cut_out(images: Tensor, share: float, sides: tuple[float, float], g: torch.Generator) -> Tensor:
    """A `share` of the images with a black square, its side a share in `sides` of the image's.

    The square lies anywhere inside of the image, each place as likely.
    """
    count, (height, width) = len(images), images.shape[2:]
    chosen = coins(count, share, g)
    u = torch.rand(3, count, generator=g, device=g.device)
    side = ((sides[0] + u[0] * (sides[1] - sides[0])) * min(height, width)).round()
    inside = chosen[:, None, None]
    for axis, length in ((1, height), (2, width)):
        first = (u[axis] * (length - side + 1)).floor()[:, None]
        at = torch.arange(length, device=g.device)
        within = (at >= first) & (at < first + side[:, None])
        inside = inside & (within[:, :, None] if axis == 1 else within[:, None, :])
    return images.masked_fill(inside.to(images.device)[:, None], 0.0)
