"""The contract that every network keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from selfsup_cli.config.blocks import Size
from selfsup_cli.config.fields import Model
from selfsup_cli.config.registry import find_arch, unknown
from selfsup_cli.models.layers import ImageNetColours, Scalable

if TYPE_CHECKING:
    from selfsup_cli.config.registry import Kind

Padding = Literal["same", "valid"]


@dataclass(frozen=True)
class InputSpec:
    """What a network eats: images, or clips of `frames` frames, cropped to `crop` pixels.

    They come `resize` pixels high and wide to the crop. `mean` and `std` normalise RGB values after
    division by 255; ½ and ½ give [-1, 1].
    """

    frames: int
    crop: int
    resize: tuple[int, int]
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    kind: Kind = "video"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input: `(3, S, S)` of an image, `(3, T, S, S)` of a clip."""
        time = () if self.kind == "image" else (self.frames,)
        return (3, *time, self.crop, self.crop)

    @property
    def pixels(self) -> str:
        """What of an image or frame an evaluation looks at, for the protocol of a number."""
        height, width = self.resize
        return f"centre {self.crop} of {height}×{width}"


class Judging(Model):
    """How the discriminator of a GAN is built, where it is not the released one."""

    layout: Literal["released", "table"] = "released"
    norm: Literal["batch", "layer", "none"] = "batch"
    activation: Literal["relu", "tanh"] = "relu"
    depth: int = Field(1, ge=1, le=4)


class Spec(Model):
    """The arguments of `build`, checked; `absorbed` and `signed` are None or True."""

    arch: str
    width: float = Field(1.0, gt=0, le=4)
    shortcut: Literal["standard", "projected"] = "standard"
    padding: Padding | None = None
    absorbed: Literal[True] | None = None
    signed: Literal[True] | None = None
    colours: Literal["imagenet"] | None = None
    judging: Judging | None = None
    frames: int = Field(16, ge=1, le=512)
    crop: int = Field(112, ge=16, le=512)
    resize: Size = (128, 171)

    def channels(self, n: int) -> int:
        """`n` times the width, as a multiple of 8 and at least 8."""
        return max(8, 8 * round(n * self.width / 8))


class Backbone(nn.Module):
    """A network with named layers, run in order.

    Input is float in [-1, 1], images `[B, 3, H, W]` or clips `[B, 3, T, H, W]`: `input` says which.
    `layers` are the names that `features` knows, `embedding` the one that `embed` averages,
    `out_features` the length of what `forward` gives, `spec` the JSON-able arguments with which
    `build(**spec)` makes the same network again, `trained_on` what was said of its training when it
    was saved.
    """

    layers: tuple[str, ...]
    embedding: str

    def __init__(self, spec: Spec, out_features: int) -> None:
        super().__init__()
        self.arch = spec.arch
        self.spec: dict[str, Any] = spec.model_dump(mode="json", exclude_none=True)
        self.input = InputSpec(spec.frames, spec.crop, spec.resize, kind=eats(spec.arch))
        self.out_features = out_features
        self.colours = None if spec.colours is None else ImageNetColours()
        self.trained_on: dict[str, Any] = {}

    def features(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Activations of `layers` after their nonlinearity, in the order asked for.

        `[B, C, H', W']` of images, `[B, C, T', H', W']` of clips, or `[B, C]` of fully connected
        layers. Runs no deeper than needed.
        Raises InputError for a layer that the network does not have.
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

    def embed(self, x: Tensor) -> Tensor:
        """`[B, D]`: the layer `embedding`, averaged over (time and) space."""
        found = self.features(x, [self.embedding])[self.embedding]
        return found.mean(tuple(range(2, found.ndim)))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, out_features]`: what a linear head eats."""
        x = self.arrange(x)
        for name in self.layers:
            x = getattr(self, name)(x)
        return self.summarize(x)

    def arrange(self, x: Tensor) -> Tensor:
        """The same input in the memory layout and the range of values that suit the network."""
        return x if self.colours is None else self.colours(x)

    def summarize(self, x: Tensor) -> Tensor:
        """From the last layer to what a linear head eats."""
        return x

    def parts(self, layer: str) -> tuple[list[nn.Module], list[nn.Module]]:
        """What `layer` is computed by, itself included, and the rest of the network.

        Raises InputError for a layer that the network does not have.
        """
        if layer not in self.layers:
            raise unknown("layer", layer, self.layers)
        count = self.layers.index(layer) + 1
        modules = [getattr(self, name) for name in self.layers]
        return modules[:count], modules[count:]

    def allocate(self) -> Self:
        """Give the network memory on the CPU; what is in it is to be filled in."""
        return self.to_empty(device="cpu")

    def initialize(self, g: torch.Generator) -> None:
        """Give the network memory on the CPU, and the values that training starts from."""
        self.allocate()
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | Scalable):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
                self.init_weight(module, g)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                raise TypeError(f"nothing is known about initialising a {type(module).__name__}")

    def init_weight(self, module: nn.Conv2d | nn.Conv3d | nn.Linear, g: torch.Generator) -> None:
        """Fill `module.weight` from `g` alone; biases are set to zero by `initialize`."""
        raise NotImplementedError


def eats(arch: str) -> Kind:
    """What the network eats; of a name that no network has, a clip."""
    found = find_arch(arch)
    return "video" if found is None else found.kind


def problems_in(error: ValidationError) -> str:
    """What is wrong with which field, in one line."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'content'}: {problem['msg']}"
        for problem in error.errors(include_url=False)
    )
