"""The inpainter F and the patch discriminator D of limited-context inpainting (thesis, 4.2.1)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from selfsup_cli.randomness import lent

_SLOPE = 0.1
_WIDEST = 512


class Inpainter(nn.Module):
    """F: patches float `[B, 3, P, P]` in [-1, 1], partly noise → complete patches, the same shape.

    `layers` − 1 convolutions at stride 2 after the first, as many transposed ones back, no skip
    connections; layer i has min(`base` · 2^i, 512) channels. P is a multiple of `multiple`. Batch
    norm always uses the statistics of the batch, in evaluation too, as in the author's code, so
    nothing is kept of them. Weights are drawn from `generator` (on the CPU) alone.
    """

    def __init__(self, generator: torch.Generator, *, layers: int = 4, base: int = 48) -> None:
        super().__init__()
        if layers < 2 or base < 1:
            raise ValueError(f"an inpainter of {layers} layers and {base} channels")
        self.multiple = 2 ** (layers - 1)
        widths = [min(base * 2**i, _WIDEST) for i in range(layers)]
        with torch.device("meta"):
            encoder: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1), _leaky()]
            decoder: list[nn.Module] = []
            for wide, narrow in pairwise(reversed(widths)):
                up = nn.ConvTranspose2d(wide, narrow, 4, 2, padding=1, bias=False)
                decoder += [up, _norm(narrow), _leaky()]
            for narrow, wide in pairwise(widths):
                down = nn.Conv2d(narrow, wide, 4, 2, padding=1, bias=False)
                encoder += [down, _norm(wide), _leaky()]
            decoder += [nn.ConvTranspose2d(widths[0], 3, 3, padding=1), nn.Tanh()]
            self.encoder = nn.Sequential(*encoder)
            self.decoder = nn.Sequential(*decoder)
        _initialize(self.to_empty(device="cpu"), generator)

    def forward(self, patches: Tensor) -> Tensor:
        """Raises ValueError for patches whose size is no multiple of `multiple`."""
        if any(size % self.multiple for size in patches.shape[2:]):
            raise ValueError(
                f"patches of {tuple(patches.shape[2:])} pixels; the sides must be multiples of "
                f"{self.multiple}"
            )
        out: Tensor = self.decoder(self.encoder(patches))
        return out


class PatchDiscriminator(nn.Module):
    """D: patches float `[B, 3, P, P]` → decisions `[B / pack]`, above 0 for real ones.

    The batch is split into `pack` parts that are stacked along the channels, so that D sees several
    patches at once (not in the thesis; the author's code has pairs). Stage i of `layers` − 2 has
    two convolutions of 64 · 2^i channels, the second at stride 2; a last one doubles them; their
    sum over space is judged by a linear layer. Every weight is divided by its largest singular
    value, estimated by one power iteration per forward pass in training. Weights and the starts of
    those estimates are drawn from `generator` (on the CPU) alone.
    """

    def __init__(
        self, generator: torch.Generator, *, layers: int = 4, base: int = 64, pack: int = 2
    ) -> None:
        super().__init__()
        if layers < 2 or base < 1 or pack < 1:
            raise ValueError(f"a discriminator of {layers} layers, {base} channels, pack {pack}")
        self.pack = pack
        widths = [min(base * 2**i, _WIDEST) for i in range(layers - 1)]
        with torch.device("meta"):
            convolutions: list[nn.Module] = []
            inside = 3 * pack
            for width in widths[:-1]:
                convolutions += [nn.Conv2d(inside, width, 3, padding=1), _leaky()]
                convolutions += [nn.Conv2d(width, width, 4, 2, padding=1), _leaky()]
                inside = width
            convolutions += [nn.Conv2d(inside, widths[-1], 3, padding=1), _leaky()]
            self.convolutions = nn.Sequential(*convolutions)
            self.last = nn.Linear(widths[-1], 1)
        _initialize(self.to_empty(device="cpu"), generator)
        with lent(generator):
            for module in _weighted(self):
                spectral_norm(module)

    def forward(self, patches: Tensor) -> Tensor:
        """Raises ValueError for a batch that cannot be split into `pack` equal parts."""
        if patches.shape[0] % self.pack:
            raise ValueError(
                f"{patches.shape[0]} patches cannot be stacked in groups of {self.pack}"
            )
        stacked = torch.cat(patches.chunk(self.pack), 1)
        out: Tensor = self.last(self.convolutions(stacked).sum((2, 3)))
        return out.squeeze(1)


def _leaky() -> nn.Module:
    return nn.LeakyReLU(_SLOPE, inplace=True)


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=1e-3, track_running_stats=False)


def _weighted(network: nn.Module) -> Iterator[nn.Conv2d | nn.ConvTranspose2d | nn.Linear]:
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            yield module


def _initialize(network: nn.Module, g: torch.Generator) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    for weighted in _weighted(network):
        nn.init.xavier_uniform_(weighted.weight, generator=g)
        if weighted.bias is not None:
            nn.init.zeros_(weighted.bias)
