"""Damage: entries of an autoencoder's code that are dropped, each with all its channels (thesis,
section 3.3.1).

A code φ is float `[B, L, M, N]`, a mask Ω bool `[B, 1, M, N]`, True where an entry is kept.
Everything is batched, on the device of the codes, each image by itself; what is random is drawn
beforehand, from the generator that is passed in and from nowhere else.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def draw_kept(count: int, size: tuple[int, int], drop_rate: float, g: torch.Generator) -> Tensor:
    """Masks Ω, bool `[count, 1, *size]`: each entry is dropped with probability θ = `drop_rate`,
    whatever happens to the others.

    Raises ValueError for a drop rate outside (0, 1), which would leave nothing to tell apart.
    """
    if not 0 < drop_rate < 1:
        raise ValueError(f"a drop rate of {drop_rate:g} is not between 0 and 1")
    return torch.rand(count, 1, *size, generator=g, device=g.device) >= drop_rate


def neighbourhood_mean(codes: Tensor) -> Tensor:
    """u ∗ φ: each entry becomes the mean of the 3×3 around it, of those that exist at the border.

    The thesis calls the kernel large in section 3.3.1 and 3×3 in section 3.3.4, as the author's
    code has it: a ninth of an entry, or a fourth in a corner, remains in its own mean.
    """
    return F.avg_pool2d(codes, 3, 1, 1, count_include_pad=False)


def damage(codes: Tensor, kept: Tensor) -> Tensor:
    """φ̂ = Ω ⊙ φ + (1 − Ω) ⊙ (u ∗ φ) (section 3.2), the mean taken of the undamaged code.

    What is kept is not scaled up for what is dropped. Raises ValueError for masks of another shape.
    """
    b, _, m, n = codes.shape
    if kept.shape != (b, 1, m, n):
        raise ValueError(f"masks {tuple(kept.shape)} for codes {tuple(codes.shape)}")
    return torch.where(kept, codes, neighbourhood_mean(codes))


def upsample(kept: Tensor, size: tuple[int, int]) -> Tensor:
    """U(Ω): masks `[B, 1, M, N]` of any type with every entry repeated, `[B, 1, *size]`.

    Raises ValueError for a size that is no whole multiple of theirs.
    """
    high, wide = (outer / inner for outer, inner in zip(size, kept.shape[2:], strict=True))
    if min(high, wide) < 1 or not (high.is_integer() and wide.is_integer()):
        raise ValueError(f"masks of {tuple(kept.shape[2:])} entries do not divide {size} evenly")
    return kept.repeat_interleave(int(high), 2).repeat_interleave(int(wide), 3)
