"""The autoencoder {E, D} and the repair network R of damaged images (thesis, section 3.3.4).

Images are float `[B, 3, H, W]` in [-1, 1], H and W multiples of 16; codes φ = E(x) are
`[B, 16·base, H/16, W/16]`; masks Ω are `[B, 1, H/16, W/16]`, 1 or True where an entry is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.models.layers import SameConv2d, truncated_normal

STRIDE = 16
"""How many pixels an entry of a code stands for, in each direction."""

_LAYERS = 5
# ⅒ of the thesis; the author's code has 0.2. E, D and what repairs D's maps must agree.
_SLOPE = 0.1
# The author's framework widens a normal distribution that is cut at 2σ, so that what is left of it
# has about the variance that is asked for.
_CUT = 1.3


class Encoder(nn.Module):
    """E: images → codes. A 3×3 convolution and four of 2×2 at stride 2, with batch norm.

    Layer i has `base` · 2^i channels. An entry sees 18×18 pixels, 2 of which it shares with the
    entry on either side; with `kernel=3`, ablation (d) of table 3.1, it sees 33×33. Weights are
    drawn from `generator` (on the CPU) alone.
    """

    def __init__(
        self, generator: torch.Generator, *, base: int = 32, kernel: Literal[2, 3] = 2
    ) -> None:
        super().__init__()
        widths = _widths(base)
        with torch.device("meta"):
            layers = [_normed(SameConv2d(3, widths[0], 3))]
            layers += [
                _normed(SameConv2d(inside, outside, kernel, 2))
                for inside, outside in pairwise(widths)
            ]
        self.layers = nn.Sequential(*layers)
        self.out_channels = widths[-1]
        _initialize(self, generator)

    def forward(self, images: Tensor) -> Tensor:
        """Raises ValueError for images whose sides are no multiples of 16."""
        if any(side % STRIDE or not side for side in images.shape[2:]):
            raise ValueError(
                f"images of {tuple(images.shape[2:])} pixels; the sides must be multiples of "
                f"{STRIDE}"
            )
        out: Tensor = self.layers(images)
        return out


class Decoder(nn.Module):
    """D = {D₁ … D₅}: codes → images. Four layers double the size bilinearly before a convolution.

    All convolutions are 3×3; the last has neither batch norm nor a change of size, and ends in
    tanh, as in the author's code. Weights are drawn from `generator` (on the CPU) alone.
    """

    def __init__(self, generator: torch.Generator, *, base: int = 32) -> None:
        super().__init__()
        widths = _widths(base)[::-1]
        with torch.device("meta"):
            layers = [
                nn.Sequential(_Doubled(), *_normed(SameConv2d(inside, outside, 3)))
                for inside, outside in pairwise(widths)
            ]
            layers.append(nn.Sequential(nn.Conv2d(widths[-1], 3, 3, padding=1), nn.Tanh()))
        self.layers = nn.ModuleList(layers)
        _initialize(self, generator)

    def forward(self, codes: Tensor) -> Tensor:
        """D(φ), in [-1, 1]."""
        for layer in self.layers:
            codes = layer(codes)
        return codes


class Autoencoder(nn.Module):
    """{E, D}: images → their replicas D(E(x)) (section 3.3.2)."""

    def __init__(
        self, generator: torch.Generator, *, base: int = 32, kernel: Literal[2, 3] = 2
    ) -> None:
        super().__init__()
        self.encoder = Encoder(generator, base=base, kernel=kernel)
        self.decoder = Decoder(generator, base=base)
        self.frozen = False

    def forward(self, images: Tensor) -> Tensor:
        """Raises ValueError for images whose sides are no multiples of 16."""
        out: Tensor = self.decoder(self.encoder(images))
        return out

    def freeze(self) -> Self:
        """Keep everything as it is from now on, the statistics of batch norm included.

        Gradients still pass through it to its input.
        """
        self.frozen = True
        self.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training mode, unless it is frozen."""
        return super().train(mode and not self.frozen)

    def get_extra_state(self) -> Tensor:
        """Whether it is frozen: part of its weights on disk."""
        return torch.tensor(self.frozen)

    def set_extra_state(self, state: Tensor) -> None:
        """Freeze it if it was."""
        if bool(state):
            self.freeze()


class RepairLayer(nn.Module):
    """Rᵢ: a residual block that may change only what was dropped (figure 3.5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _normed(SameConv2d(channels + 1, channels, 3))
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, kept: Tensor, *, gated: bool = True) -> Tensor:
        """x + (1 − Ω) ⊙ R(x, Ω), the same shape; without the factor if not `gated`.

        `x` is `[B, channels, H', W']`, `kept` float `[B, 1, H', W']`.
        """
        change: Tensor = self.second(self.first(torch.cat([x, kept], 1)))
        return x + (1 - kept) * change if gated else x + change


class RepairNetwork(nn.Module):
    """R = {R₁ … R₅}, one before each layer of a decoder: D̂ with it (section 3.3.1).

    With `local` they all come before the first, on the code: ablation (c) of table 3.1. Without
    `gated` they may change everything: ablation (e). The decoder is not part of the network; `base`
    is that of the decoder. Weights are drawn from `generator` (on the CPU) alone.
    """

    def __init__(
        self,
        generator: torch.Generator,
        *,
        base: int = 32,
        local: bool = False,
        gated: bool = True,
    ) -> None:
        super().__init__()
        self.local = local
        self.gated = gated
        widths = _widths(base)[::-1]
        with torch.device("meta"):
            layers = [RepairLayer(widths[0] if local else width) for width in widths]
        self.layers = nn.ModuleList(layers)
        _initialize(self, generator)

    def forward(
        self, damaged: Tensor, kept: Tensor, decoder: Decoder, *, gated: bool | None = None
    ) -> Tensor:
        """D̂(φ̂) (equations 3.1 and 3.2, for i = 2 … 5): damaged codes → images in [-1, 1].

        Where Ω is 1 everywhere it is D(φ) exactly. `gated` is as it was built if not said. The
        decoder should be frozen: in training mode it would learn statistics of damaged images.
        """
        gated = self.gated if gated is None else gated
        x, mask = damaged, kept.to(damaged.dtype)
        if self.local:
            for repair in self.layers:
                x = repair(x, mask, gated=gated)
            out: Tensor = decoder(x)
            return out
        for repair, layer in zip(self.layers, decoder.layers, strict=True):
            at = F.interpolate(mask.to(x.dtype), x.shape[2:], mode="nearest")
            x = layer(repair(x, at, gated=gated))
        return x


class _Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return out


def _widths(base: int) -> list[int]:
    if base < 1:
        raise ValueError(f"an autoencoder of {base} channels")
    return [base * 2**i for i in range(_LAYERS)]


def _normed(conv: nn.Conv2d) -> nn.Sequential:
    norm = nn.BatchNorm2d(conv.out_channels, momentum=0.025, eps=1e-3)
    return nn.Sequential(conv, norm, nn.LeakyReLU(_SLOPE, inplace=True))


def _initialize(network: nn.Module, g: torch.Generator) -> None:
    for module in _each(network.to_empty(device="cpu")):
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        else:
            fan_in, fan_out = module.weight[0].numel(), module.weight[:, 0].numel()
            truncated_normal(module.weight, math.sqrt(_CUT * 2 / ((fan_in + fan_out) / 2)), g)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _each(network: nn.Module) -> Iterable[nn.BatchNorm2d | nn.Conv2d]:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Conv2d):
            yield module
