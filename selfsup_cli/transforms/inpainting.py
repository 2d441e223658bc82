"""Limited-context inpainting: a patch whose inside is painted anew (thesis, section 4.2.1).

Canvases are float `[B, 3, H, W]` and patches float `[B, 3, P, P]`, both RGB in [-1, 1] as
`to_unit` gives them. Everything is batched, on the device of the canvases, each image by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from selfsup_cli.transforms.images import crop, square

NOISE = 0.1
"""Standard deviation of what the inside of a patch is replaced by (the author's code; 1 in 4.3)."""


@dataclass(frozen=True)
class Inpainted:
    """Patches of canvases as they were, autoencoded and inpainted, and the canvases with them.

    `original`, `erased`, `autoencoded_patches` and `inpainted_patches` are `[B, 3, P, P]`: eᵢ, what
    F was given of it, F(eᵢ) and rᵢ of equation 4.3. `autoencoded` and `inpainted` are the canvases
    `[B, 3, H, W]` with the whole patch replaced, border included (equation 4.4). `corners`
    int64 `[B, 2]` (row, column) is where the patches lie. Gradients reach F through all of F's.
    """

    corners: Tensor
    original: Tensor
    erased: Tensor
    autoencoded_patches: Tensor
    inpainted_patches: Tensor
    autoencoded: Tensor
    inpainted: Tensor


def inside(patch: int, border: int, device: torch.device | str = "cpu") -> Tensor:
    """The mask m: bool `[patch, patch]`, True but for `border` pixels along each side.

    Raises ValueError for a border that leaves nothing inside, or is not there.
    """
    if not 1 <= border <= (patch - 1) // 2:
        raise ValueError(
            f"a border of {border} pixels in a patch of {patch} must keep something on both of its "
            f"sides: 1 to {(patch - 1) // 2}"
        )
    mask = torch.zeros(patch, patch, dtype=torch.bool, device=device)
    mask[border : patch - border, border : patch - border] = True
    return mask


def erase(patches: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
    """eᵢ ⊙ (1 − m) + z ⊙ m (equation 4.3): the same patches, their inside replaced by `noise`."""
    return torch.where(mask, noise, patches)


def paste(canvases: Tensor, patches: Tensor, corners: Tensor) -> Tensor:
    """Canvases with patches at `corners` (equation 4.4); every other pixel stays as it is.

    Raises ValueError for patches that do not fit.
    """
    size = patches.shape[-1]
    h, w = canvases.shape[2:]
    if min(h, w) < size:
        raise ValueError(f"a patch of {size} does not fit into canvases of {h}×{w}")
    index = square(corners.to(canvases.device), size, w)[:, None].expand(-1, canvases.shape[1], -1)
    flat = canvases.flatten(2).scatter(2, index, patches.to(canvases.dtype).flatten(2))
    return flat.view_as(canvases)


def inpaint(
    network: Callable[[Tensor], Tensor],
    canvases: Tensor,
    corners: Tensor,
    noise: Tensor,
    border: int,
) -> Inpainted:
    """Take the patches at `corners`, and let F (`network`) autoencode and inpaint them.

    `noise` float `[B, 3, P, P]` replaces their inside. F sees patches and erased patches in one
    batch, so that they share its batch norm.
    """
    size = noise.shape[-1]
    noise = noise.to(canvases.device, canvases.dtype)
    original = crop(canvases, corners, size)
    erased = erase(original, inside(size, border, canvases.device), noise)
    autoencoded, inpainted = network(torch.cat([original, erased])).chunk(2)
    return Inpainted(
        corners=corners,
        original=original,
        erased=erased,
        autoencoded_patches=autoencoded,
        inpainted_patches=inpainted,
        autoencoded=paste(canvases, autoencoded, corners),
        inpainted=paste(canvases, inpainted, corners),
    )


def draw_noise(count: int, patch: int, g: torch.Generator, sigma: float = NOISE) -> Tensor:
    """What replaces the inside of patches, from N(0, `sigma`): `[count, 3, patch, patch]`."""
    return sigma * torch.randn(count, 3, patch, patch, generator=g, device=g.device)
