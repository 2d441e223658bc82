"""Where the noise of chapter 7 comes from: a Gaussian, fixed, annealed or learned, or a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Reduction = Literal["mean", "sum"]


class GaussianNoise(nn.Module):
    """ε = σ·n with n from N(0, I), images of `shape` (C, H, W) or points of `shape` (D,).

    σ is the standard deviation, though the thesis writes N(ε; 0, σI); it is a parameter where it is
    `learned` (row e of table 7.1) and else a buffer, which `anneal` moves (row c).
    """

    def __init__(self, shape: Sequence[int], *, sigma: float = 1.0, learned: bool = False) -> None:
        super().__init__()
        if sigma < 0:
            raise ValueError(f"a standard deviation of {sigma:g}")
        self.shape = tuple(shape)
        self.start = sigma
        self.sigma: Tensor
        if learned:
            self.sigma = nn.Parameter(torch.tensor(float(sigma)))
        else:
            self.register_buffer("sigma", torch.tensor(float(sigma)))

    def forward(self, count: int, g: torch.Generator) -> Tensor:
        """`[count, *shape]`, drawn from `g`, which lives on the device of σ."""
        n = torch.randn(count, *self.shape, generator=g, device=g.device)
        return self.sigma * n

    def magnitude(self, noise: Tensor) -> Tensor:
        """Γ = σ² (section 7.2.1), whatever was drawn."""
        return self.sigma**2

    def anneal(self, step: int, steps: int) -> None:
        """Set σ for `step` (from 0) of `steps`: from its start to 0, linearly."""
        with torch.no_grad():
            self.sigma.fill_(annealed(self.start, step, steps))


class LearnedNoise(nn.Module):
    """ε = N(w) with w from N(0, I) (section 7.2.1): `network` maps `[B, latent]` to the noise.

    w is drawn independently of the generator's z, as the theory wants; the released code gives both
    the same, which `forward`'s `w` allows. Γ is the mean of ε² over batch, pixels and channels as
    in the released code ("mean"), or of its sum over those of each image as in Algorithm 1 ("sum"):
    the same λ then weighs C·H·W times as much, and λ = 1 leaves no noise.
    """

    def __init__(self, network: nn.Module, *, latent: int, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.network, self.latent, self.reduction = network, latent, reduction

    def forward(self, count: int, g: torch.Generator, w: Tensor | None = None) -> Tensor:
        """`[count, …]`, from `w` `[count, latent]` or from one drawn from `g`."""
        if w is None:
            w = torch.randn(count, self.latent, generator=g, device=g.device)
        out: Tensor = self.network(w)
        return out

    def magnitude(self, noise: Tensor) -> Tensor:
        """Γ of a batch of noise, a scalar."""
        return magnitude(noise, self.reduction)


def magnitude(noise: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Mean of ε² over everything, or of |ε|² over the batch; `[B, …]` → a scalar, in float32."""
    squares = noise.float().square()
    return squares.mean() if reduction == "mean" else squares.flatten(1).sum(1).mean()


def annealed(start: float, step: int, steps: int) -> float:
    """`start` at step 0, 0 from step `steps` on, linear between."""
    return start * max(0.0, 1 - step / steps)
