"""Generators on disk: weights and their average, and where the noise came from, in one file.

`NAME.safetensors` holds them under `raw.`, `average.` and `noise.`; its sidecar says how to rebuild
each. Nothing has to be said of a network to keep it: its recipe is read off its layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import nn

from selfsup_cli.config.fields import Model
from selfsup_cli.errors import InputError
from selfsup_cli.models.gan import Generator, PointGenerator
from selfsup_cli.models.gan_noise import GaussianNoise, LearnedNoise
from selfsup_cli.models.weights import Described, fill, read_weights, sidecar_path, write_tensors

AnyGenerator = Generator | PointGenerator
Noise = GaussianNoise | LearnedNoise
Which = Literal["average", "raw"]

FILE = "generator.safetensors"
_FORMAT: Literal["selfsup.generator/1"] = "selfsup.generator/1"


class ImageRecipe(Model):
    """How to build a `Generator`."""

    kind: Literal["image"] = "image"
    size: int
    latent: int = Field(ge=1, le=65_536)
    base: int = Field(ge=1, le=8192)
    channels: int = Field(ge=1, le=16)
    norm: Literal["batch", "none"]
    activation: Literal["relu", "tanh"]
    depth: int = Field(ge=1, le=16)
    reach: float = Field(gt=0)

    def build(self) -> Generator:
        """The network with weights of no meaning."""
        return Generator(torch.Generator(), **self.model_dump(exclude={"kind"}))


class PointRecipe(Model):
    """How to build a `PointGenerator`."""

    kind: Literal["point"] = "point"
    latent: int = Field(ge=1, le=65_536)
    hidden: int = Field(ge=1, le=8192)
    dims: int = Field(ge=1, le=8192)
    reach: float | None = Field(gt=0)

    def build(self) -> PointGenerator:
        """The network with weights of no meaning."""
        return PointGenerator(torch.Generator(), **self.model_dump(exclude={"kind"}))


class GaussianRecipe(Model):
    """How to build a `GaussianNoise`."""

    kind: Literal["gaussian"] = "gaussian"
    shape: list[int] = Field(min_length=1, max_length=3)
    sigma: float = Field(ge=0)
    learned: bool

    def build(self) -> GaussianNoise:
        """The noise as it began."""
        return GaussianNoise(self.shape, sigma=self.sigma, learned=self.learned)


class LearnedRecipe(Model):
    """How to build a `LearnedNoise`."""

    kind: Literal["learned"] = "learned"
    network: ImageRecipe | PointRecipe = Field(discriminator="kind")
    latent: int = Field(ge=1, le=65_536)
    reduction: Literal["mean", "sum"]

    def build(self) -> LearnedNoise:
        """The noise of a network with weights of no meaning."""
        return LearnedNoise(self.network.build(), latent=self.latent, reduction=self.reduction)


class _File(Described):
    wanted: ClassVar[str] = FILE

    format: Literal["selfsup.generator/1"]
    generator: ImageRecipe | PointRecipe = Field(discriminator="kind")
    averaged: bool
    noise: GaussianRecipe | LearnedRecipe | None = Field(discriminator="kind")


@dataclass(frozen=True)
class Generators:
    """What a file holds, on the CPU: G as trained, its moving average, where the noise came from.

    `facts` is what was said of the training when it was written, `sha256` that of the weights.
    """

    raw: AnyGenerator
    average: AnyGenerator | None
    noise: Noise | None
    facts: dict[str, Any]
    sha256: str

    def network(self, which: Which) -> AnyGenerator:
        """G of these weights. Raises InputError where no average was kept."""
        if which == "raw":
            return self.raw
        if self.average is None:
            raise InputError(
                "these weights have no moving average: sample with --weights raw",
                kind="no-average",
            )
        return self.average


def save_generator(
    path: Path | str,
    generator: AnyGenerator,
    facts: Mapping[str, Any],
    *,
    average: AnyGenerator | None = None,
    noise: Noise | None = None,
) -> str:
    """Write G, its moving average and the noise where there are, and the sidecar, both atomically.

    `facts` is anything that JSON can hold, such as the run, the step and the fingerprint of the
    data. Gives the SHA-256 of the weights in hex. Raises MachineError if the disk does not take
    them.
    """
    parts: dict[str, nn.Module | None] = {"raw": generator, "average": average, "noise": noise}
    tensors = {
        f"{name}.{key}": value
        for name, part in parts.items()
        if part is not None
        for key, value in part.state_dict().items()
    }
    described = {
        "format": _FORMAT,
        "generator": recipe_of(generator).model_dump(mode="json"),
        "averaged": average is not None,
        "noise": None if noise is None else _noise_recipe(noise).model_dump(mode="json"),
        "trained_on": dict(facts),
    }
    return write_tensors(path, tensors, described)


def load_generator(path: Path | str) -> Generators:
    """What `save_generator` wrote, every network in evaluation mode.

    Raises InputError, naming the file and what is wrong with it, as `load_backbone` does.
    """
    file, tensors = read_weights(path, _File)
    try:
        raw = file.generator.build()
        average = file.generator.build() if file.averaged else None
        noise = None if file.noise is None else file.noise.build()
    except InputError as error:
        raise InputError(f"{sidecar_path(path)}: {error}", kind="weights") from error
    parts = {"raw": raw} | ({"average": average} if average is not None else {})
    whole = nn.ModuleDict({**parts, **({"noise": noise} if noise is not None else {})})
    fill(path, whole, tensors, "the generator")
    whole.eval()
    return Generators(raw, average, noise, file.trained_on, file.weights.sha256)


def recipe_of(network: AnyGenerator) -> ImageRecipe | PointRecipe:
    """With what a generator was built, read off its layers."""
    if isinstance(network, PointGenerator):
        first, last = network.body[0], network.body[-1]
        return PointRecipe(
            latent=network.latent,
            hidden=cast(nn.Linear, first).out_features,
            dims=cast(nn.Linear, last).out_features,
            reach=network.reach,
        )
    inside = list(network.modules())
    stage = list(getattr(network, network.layers[0]))
    return ImageRecipe(
        size=network.size,
        latent=network.latent,
        base=network.last.in_channels,
        channels=network.channels,
        norm="batch" if any(isinstance(m, nn.BatchNorm2d) for m in inside) else "none",
        activation="tanh" if any(isinstance(m, nn.Tanh) for m in inside) else "relu",
        depth=sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in stage),
        reach=float(network.reach),
    )


def _noise_recipe(noise: Noise) -> GaussianRecipe | LearnedRecipe:
    if isinstance(noise, GaussianNoise):
        learned = isinstance(noise.sigma, nn.Parameter)
        return GaussianRecipe(shape=list(noise.shape), sigma=noise.start, learned=learned)
    network = noise.network
    if not isinstance(network, Generator | PointGenerator):
        raise TypeError(f"noise of a {type(network).__name__} cannot be kept")
    return LearnedRecipe(network=recipe_of(network), latent=noise.latent, reduction=noise.reduction)
