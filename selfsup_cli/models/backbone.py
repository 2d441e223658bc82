"""The contract that every network keeps, and how one is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from selfsup_cli.config.blocks import Size
from selfsup_cli.config.fields import Model
from selfsup_cli.config.registry import ARCHS, unknown
from selfsup_cli.errors import InputError

_THESIS_RESIDUAL = ("r3d", "r2plus1d")


@dataclass(frozen=True)
class InputSpec:
    """What a network eats: clips of `frames` frames, scaled to `resize`, cropped to `crop` pixels.

    `mean` and `std` normalise RGB values after division by 255; ½ and ½ give [-1, 1].
    """

    frames: int
    crop: int
    resize: tuple[int, int]
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def pixels(self) -> str:
        """What of a frame is looked at in an evaluation, for the protocol of a number."""
        height, width = self.resize
        return f"centre {self.crop} of {height}×{width}"


class Spec(Model):
    """The arguments of `build`, checked."""

    arch: str
    width: float = Field(1.0, gt=0, le=4)
    shortcut: Literal["standard", "projected"] = "standard"
    frames: int = Field(16, ge=1, le=512)
    crop: int = Field(112, ge=16, le=512)
    resize: Size = (128, 171)

    def channels(self, n: int) -> int:
        """`n` times the width, as a multiple of 8 and at least 8."""
        return max(8, 8 * round(n * self.width / 8))


class Backbone(nn.Module):
    """A network with named layers, run in order.

    Input is float `[B, 3, T, H, W]` in [-1, 1]. `layers` are the names that `features` knows,
    `embedding` the one that `embed` averages, `out_features` the length of what `forward` gives,
    `input` what the network eats, `spec` the JSON-able arguments with which `build(**spec)` makes
    the same network again, `trained_on` what was said of its training when it was saved.
    """

    layers: tuple[str, ...]
    embedding: str

    def __init__(self, spec: Spec, out_features: int) -> None:
        super().__init__()
        self.arch = spec.arch
        self.spec: dict[str, Any] = spec.model_dump(mode="json")
        self.input = InputSpec(spec.frames, spec.crop, spec.resize)
        self.out_features = out_features
        self.trained_on: dict[str, Any] = {}

    def features(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Activations of `layers` after their nonlinearity, in the order asked for.

        `[B, C, T', H', W']`, or `[B, C]` of fully connected layers. Runs no deeper than needed.
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
        """`[B, D]`: the layer `embedding`, averaged over time and space."""
        return self.features(x, [self.embedding])[self.embedding].mean((2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, out_features]`: what a linear head eats."""
        x = self.arrange(x)
        for name in self.layers:
            x = getattr(self, name)(x)
        return self.summarize(x)

    def arrange(self, x: Tensor) -> Tensor:
        """The same clips in the memory layout that suits the network."""
        return x

    def summarize(self, x: Tensor) -> Tensor:
        """From the last layer to what a linear head eats."""
        return x

    def init_weight(self, module: nn.Conv3d | nn.Linear, g: torch.Generator) -> None:
        """Fill `module.weight` from `g` alone; biases are set to zero by `build`."""
        raise NotImplementedError


def build(
    arch: str,
    *,
    width: float = 1.0,
    shortcut: str = "standard",
    frames: int = 16,
    crop: int = 112,
    resize: tuple[int, int] = (128, 171),
    seed: int | None = None,
) -> Backbone:
    """A freshly initialised network on the CPU, the same for the same `seed`.

    `width` multiplies the number of channels and `shortcut` is "standard" or "projected"; both are
    for the networks of the thesis only. Global random state is neither read nor advanced; without a
    seed the weights differ every time. Raises InputError for arguments that name no network.
    """
    try:
        spec = Spec.model_validate(
            {
                "arch": arch,
                "width": width,
                "shortcut": shortcut,
                "frames": frames,
                "crop": crop,
                "resize": tuple(resize),
            }
        )
    except ValidationError as error:
        reasons = problems_in(error)
        raise InputError(f"no such network: {reasons}", kind="network") from error
    backbone = construct(spec).to_empty(device="cpu")
    g = torch.Generator()
    if seed is None:
        g.seed()
    else:
        g.manual_seed(seed)
    _initialize(backbone, g)
    return backbone


def construct(spec: Spec) -> Backbone:
    """The network without values, on PyTorch's `meta` device: quick, and no randomness is used."""
    if spec.arch not in ARCHS:
        raise unknown("arch", spec.arch, tuple(ARCHS))
    if spec.shortcut != "standard" and spec.arch not in _THESIS_RESIDUAL:
        raise InputError(f"shortcut: {spec.arch} has only its standard shortcuts", kind="network")
    with torch.device("meta"):
        if spec.arch == "c3d":
            from selfsup_cli.models.c3d import C3D

            return C3D(spec)
        if spec.arch in _THESIS_RESIDUAL:
            from selfsup_cli.models.resnet3d import ResNet3D

            return ResNet3D(spec)
        if spec.width != 1:
            raise InputError(f"width: the channels of {spec.arch} are fixed", kind="network")
        from selfsup_cli.models.torchvision_video import TorchvisionVideo

        return TorchvisionVideo(spec)


def _initialize(backbone: Backbone, g: torch.Generator) -> None:
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm3d):
            module.reset_parameters()
        elif isinstance(module, nn.Conv3d | nn.Linear):
            backbone.init_weight(module, g)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            raise TypeError(f"nothing is known about initialising a {type(module).__name__}")


def problems_in(error: ValidationError) -> str:
    """What is wrong with which field, in one line."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'content'}: {problem['msg']}"
        for problem in error.errors(include_url=False)
    )
