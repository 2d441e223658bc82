"""Generators and discriminators of chapter 7 (thesis, table 7.2), and the small ones of a toy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from selfsup_cli.config.registry import GAN_SIZES as SIZES
from selfsup_cli.config.registry import unknown
from selfsup_cli.errors import InputError
from selfsup_cli.randomness import lent

Norm = Literal["batch", "layer", "spectral", "none"]
Activation = Literal["relu", "tanh"]
Layout = Literal["released", "table", "sngan"]

LATENT = 128
NOISE_BASE = 8
NOISE_RANGE = 2.0

_SLOPE = 0.2
_SNGAN_SLOPE = 0.1


class Staged(nn.Module):
    """A network of named stages that run in order; the last one is not among `layers`."""

    layers: tuple[str, ...]

    def features(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Activations `[B, C, H, W]` of `layers` after their nonlinearity, in the order asked for.

        Runs no deeper than needed. Raises InputError for a layer that the network does not have.
        """
        for name in layers:
            if name not in self.layers:
                raise unknown("layer", name, self.layers)
        found: dict[str, Tensor] = {}
        x = self.arrange(x)
        for name in self.layers:
            if len(found) == len(set(layers)):
                break
            x = getattr(self, name)(x)
            if name in layers:
                found[name] = x
        return {name: found[name] for name in layers}

    def arrange(self, x: Tensor) -> Tensor:
        """The same input in the shape that the first stage takes."""
        return x

    def run(self, x: Tensor) -> Tensor:
        """What the last of `layers` gives."""
        x = self.arrange(x)
        for name in self.layers:
            x = getattr(self, name)(x)
        return x

    def _add(self, stages: Sequence[nn.Module], name: str) -> None:
        self.layers = tuple(f"{name}{i}" for i in range(1, len(stages) + 1))
        for layer, stage in zip(self.layers, stages, strict=True):
            self.add_module(layer, stage)


class Generator(Staged):
    """G, or N: latents `[B, latent]` from N(0, I) → images `[B, channels, S, S]` (table 7.2).

    A fully connected layer to the smallest map, transposed convolutions 4×4 at stride 2 that double
    it and halve the channels down to `base`, and one 3×3 with bias; the first map has
    base · 2^(number of doublings) channels. Values are in (−`reach`, `reach`) by tanh. `norm` is
    "batch" or "none" (setting a of table 7.4); `activation` "tanh" is its setting b. Of `depth` 2
    every stage has a 3×3 convolution more: the doubled depth of section 7.3.3, which does not say
    which layers it added. Weights are Xavier's, uniform, drawn from `generator` (on the CPU) alone.

    Raises InputError for a size that is not among `SIZES`.
    """

    def __init__(
        self,
        generator: torch.Generator,
        *,
        size: int = 32,
        latent: int = LATENT,
        base: int = 64,
        channels: int = 3,
        norm: Norm = "batch",
        activation: Activation = "relu",
        depth: int = 1,
        reach: float = 1.0,
    ) -> None:
        super().__init__()
        start, doublings = _scale(size)
        if norm not in ("batch", "none"):
            raise ValueError(f"a generator has batch norm or none, not {norm}")
        if min(latent, base, channels, depth) < 1:
            raise ValueError(f"{latent} latents, {base} channels of {channels}, depth {depth}")
        self.size, self.latent, self.channels, self.reach = size, latent, channels, reach
        widths = [base * 2**i for i in range(doublings, -1, -1)]
        bias = norm == "none"

        def finish(width: int) -> list[nn.Module]:
            block = [*_normed(norm, width), _active(activation, 0.0)]
            for _ in range(depth - 1):
                block.append(nn.Conv2d(width, width, 3, padding=1, bias=bias))
                block += [*_normed(norm, width), _active(activation, 0.0)]
            return block

        with torch.device("meta"):
            first = nn.ConvTranspose2d(latent, widths[0], start, bias=bias)
            stages = [nn.Sequential(first, *finish(widths[0]))]
            for wide, narrow in pairwise(widths):
                up = nn.ConvTranspose2d(wide, narrow, 4, 2, padding=1, bias=bias)
                stages.append(nn.Sequential(up, *finish(narrow)))
            self._add(stages, "stage")
            self.last = nn.ConvTranspose2d(base, channels, 3, padding=1)
        initialize(self.to_empty(device="cpu"), generator)

    def arrange(self, x: Tensor) -> Tensor:
        """`[B, latent]` → `[B, latent, 1, 1]`."""
        if x.ndim != 2 or x.shape[1] != self.latent:
            raise ValueError(f"latents must be [B, {self.latent}], not {tuple(x.shape)}")
        return x[:, :, None, None]

    def forward(self, z: Tensor) -> Tensor:
        """Images, float, whatever the batch; see `batch_statistics` for how they are normalised."""
        out: Tensor = torch.tanh(self.last(self.run(z)))
        return out if self.reach == 1 else out * self.reach


def noise_network(
    generator: torch.Generator,
    *,
    size: int = 32,
    latent: int = LATENT,
    base: int = NOISE_BASE,
    channels: int = 3,
    depth: int = 1,
) -> Generator:
    """N of section 7.2.2: the generator with an eighth of its channels, w `[B, latent]` → noise.

    Noise is in (−2, 2): 2·tanh is the released code's, the thesis does not say.
    """
    return Generator(
        generator,
        size=size,
        latent=latent,
        base=base,
        channels=channels,
        depth=depth,
        reach=NOISE_RANGE,
    )


class Discriminator(Staged):
    """D: images `[B, channels, S, S]` → logits `[B]`, above 0 for real ones.

    Layouts, each with a last layer over the whole map:
    "released": 3×3 at `base` channels, then 4×4 at stride 2, doubling, down to 4×4 pixels (the
    author's code; the default). "table": one 4×4 at stride 2 more, the first of which keeps the
    width (table 7.2). "sngan": per size a 3×3 and a 4×4 at stride 2 of one width, doubling, and a
    last 3×3, slope 0.1 (the original network of table 7.3's SNGAN).

    The first convolution is never normalised by "batch" or "layer"; "spectral" divides all weights
    by their largest singular value, estimated by one power iteration per forward pass in training.
    A convolution that is normalised has no bias. `activation` and `depth` as in `Generator`.

    Raises InputError for a size that is not among `SIZES`.
    """

    def __init__(
        self,
        generator: torch.Generator,
        *,
        size: int = 32,
        base: int = 64,
        channels: int = 3,
        norm: Norm = "batch",
        layout: Layout = "released",
        activation: Activation = "relu",
        depth: int = 1,
    ) -> None:
        super().__init__()
        self.size, self.channels, self.norm = size, channels, norm
        with torch.device("meta"):
            stages = judging_stages(
                size, base, channels, norm=norm, layout=layout, activation=activation, depth=depth
            )
            self._add(stages, "conv")
            self.last = nn.Conv2d(_width(stages[-1]), 1, smallest_map(size, layout))
        initialize(self.to_empty(device="cpu"), generator)
        if norm == "spectral":
            _normalize_spectrally(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Raises ValueError for images of another size than that the network is for."""
        wanted = (self.channels, self.size, self.size)
        if tuple(x.shape[1:]) != wanted:
            raise ValueError(f"images must be [B, {wanted}], not {tuple(x.shape)}")
        out: Tensor = self.last(self.run(x))
        return out.flatten()


def judging_stages(
    size: int,
    base: int,
    channels: int = 3,
    *,
    norm: Norm = "batch",
    layout: Layout = "released",
    activation: Activation = "relu",
    depth: int = 1,
) -> list[nn.Sequential]:
    """The convolutions of a `Discriminator`, its last layer left out; "spectral" is not applied.

    Raises InputError for a size that is not among `SIZES`.
    """
    _, halvings = _scale(size)
    if min(base, channels, depth) < 1:
        raise ValueError(f"{base} channels of {channels}, depth {depth}")
    slope = _SNGAN_SLOPE if layout == "sngan" else _SLOPE
    stages: list[nn.Sequential] = []
    inside = channels
    for width, kernel in _convolutions(layout, base, halvings):
        normed = _normed(norm, width) if stages else []
        stride, padding = (1, 1) if kernel == 3 else (2, 1)
        conv = nn.Conv2d(inside, width, kernel, stride, padding, bias=not normed)
        block = [conv, *normed, _active(activation, slope)]
        for _ in range(depth - 1):
            normed = _normed(norm, width)
            block.append(nn.Conv2d(width, width, 3, padding=1, bias=not normed))
            block += [*normed, _active(activation, slope)]
        stages.append(nn.Sequential(*block))
        inside = width
    return stages


def smallest_map(size: int, layout: Layout) -> int:
    """The side in pixels of what the last of the `judging_stages` gives."""
    side, _ = _scale(size)
    return side // 2 if layout == "table" else side


class PointGenerator(nn.Module):
    """G or N of the toy: latents `[B, latent]` → points `[B, dims]`, two hidden layers.

    Points are unbounded, or in (−`reach`, `reach`) by tanh. Weights and biases are PyTorch's,
    uniform in ±1 / √(inputs): its first points lie close together, inside of the ring.
    """

    def __init__(
        self,
        generator: torch.Generator,
        *,
        latent: int = 16,
        hidden: int = 64,
        dims: int = 2,
        reach: float | None = None,
    ) -> None:
        super().__init__()
        self.latent, self.reach = latent, reach
        self.body = _perceptron(generator, latent, hidden, dims)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.body(z)
        return out if self.reach is None else self.reach * torch.tanh(out)


class PointDiscriminator(nn.Module):
    """D of the toy: points `[B, dims]` → logits `[B]`, above 0 for real ones; two hidden layers."""

    def __init__(
        self,
        generator: torch.Generator,
        *,
        hidden: int = 64,
        dims: int = 2,
        norm: Norm = "none",
    ) -> None:
        super().__init__()
        if norm not in ("none", "spectral"):
            raise ValueError(f"points are judged without normalisation or spectral, not {norm}")
        self.body = _perceptron(generator, dims, hidden, 1)
        if norm == "spectral":
            _normalize_spectrally(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out.squeeze(1)


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Batch norm by the statistics of each batch, leaving the running averages as they are.

    The thesis' samples are made so, in batches of 100. Outside of it, `network.eval()` uses the
    running averages and `network.train()` moves them, as always.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, (training, tracking) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracking


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through `network` but none are computed for its parameters."""
    moving = [p for p in network.parameters() if p.requires_grad]
    for parameter in moving:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in moving:
            parameter.requires_grad_(True)


def average_into(
    average: list[Tensor], parameters: list[Tensor], updates: int, limit: float
) -> None:
    """Move the tensors of `average` towards `parameters`, in place (section 7.3's EMA).

    The decay is min(`limit`, (1 + updates) / (10 + updates)), `updates` counting from 0; the
    author's is .9999, after each update of D and of G. Buffers are left alone: batch norm uses the
    batch.
    """
    decay = average_decay(updates, limit)
    with torch.no_grad():
        torch._foreach_lerp_(average, parameters, 1 - decay)


def average_decay(updates: int, limit: float) -> float:
    """How much of the average stays after so many updates."""
    return min(limit, (1 + updates) / (10 + updates))


def _scale(size: int) -> tuple[int, int]:
    """The side of the smallest map, and how often it is doubled to `size`."""
    if size not in SIZES:
        raise InputError(
            f"there is no generator or discriminator of {size}×{size} pixels; there are those of "
            f"{', '.join(map(str, SIZES))}",
            kind="size",
        )
    return SIZES[size], (size // SIZES[size]).bit_length() - 1


def _convolutions(layout: Layout, base: int, halvings: int) -> list[tuple[int, int]]:
    """Width and kernel of every convolution of a discriminator but the last."""
    if layout == "sngan":
        pairs = [(base * 2**i, kernel) for i in range(halvings) for kernel in (3, 4)]
        return [*pairs, (base * 2**halvings, 3)]
    doubling = [(base * 2**i, 4) for i in range(1, halvings + 1)]
    if layout == "table":
        return [(base, 3), (base, 4), *doubling]
    if layout == "released":
        return [(base, 3), *doubling]
    raise ValueError(f"no layout {layout}")


def _normed(norm: Norm, channels: int) -> list[nn.Module]:
    if norm == "batch":
        return [nn.BatchNorm2d(channels, eps=1e-3, momentum=0.025)]
    return [nn.GroupNorm(1, channels)] if norm == "layer" else []


def _active(activation: Activation, slope: float) -> nn.Module:
    if activation == "tanh":
        return nn.Tanh()
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)


def _perceptron(g: torch.Generator, inside: int, hidden: int, outside: int) -> nn.Sequential:
    with torch.device("meta"):
        body = nn.Sequential(
            nn.Linear(inside, hidden),
            _active("relu", _SLOPE),
            nn.Linear(hidden, hidden),
            _active("relu", _SLOPE),
            nn.Linear(hidden, outside),
        )
    body.to_empty(device="cpu")
    for module in body:
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound, generator=g)
            nn.init.uniform_(module.bias, -bound, bound, generator=g)
    return body


def _normalize_spectrally(network: nn.Module, g: torch.Generator) -> None:
    with lent(g):
        for module in list(network.modules()):
            if isinstance(module, nn.Conv2d | nn.Linear):
                spectral_norm(module)


def _width(stage: nn.Sequential) -> int:
    """Channels of what a stage gives."""
    convolutions = [module for module in stage if isinstance(module, nn.Conv2d)]
    return convolutions[-1].out_channels


def initialize(network: nn.Module, g: torch.Generator) -> None:
    """Xavier's uniform weights from `g`, biases of 0, norms as they begin."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=g)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
