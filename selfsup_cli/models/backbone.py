"""The contract that every network keeps, and how one is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from selfsup_cli.config.blocks import Size
from selfsup_cli.config.fields import Model
from selfsup_cli.config.registry import ARCHS, IMAGENET_ARCHS, PADDED, TIMM, find_arch, unknown
from selfsup_cli.errors import InputError
from selfsup_cli.models.layers import ImageNetColours, Scalable

if TYPE_CHECKING:
    from selfsup_cli.config.registry import Kind

_THESIS_RESIDUAL = ("r3d", "r2plus1d")
# What a network is built for where it is not said: clips as in section 5.2.3 of the thesis, images
# as on STL-10 in section 4.4.
_SIZES: dict[Kind, dict[str, Any]] = {
    "video": {"frames": 16, "crop": 112, "resize": (128, 171)},
    "image": {"frames": 1, "crop": 64, "resize": (96, 96)},
}

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
        self.input = InputSpec(spec.frames, spec.crop, spec.resize, kind=_kind(spec.arch))
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


def build(
    arch: str,
    *,
    width: float = 1.0,
    shortcut: str = "standard",
    padding: str | None = None,
    absorbed: bool = False,
    signed: bool = False,
    colours: Literal["imagenet"] | None = None,
    judging: dict[str, Any] | None = None,
    frames: int | None = None,
    crop: int | None = None,
    resize: tuple[int, int] | None = None,
    seed: int | None = None,
) -> Backbone:
    """A freshly initialised network on the CPU, the same for the same `seed`.

    `width` multiplies the number of channels and `shortcut` is "standard" or "projected"; both are
    for the networks of the thesis only. `padding` is "same" or "valid", for alexnet and
    alexnet_lrn; `absorbed` leaves out batch norm, which the layers before it then have absorbed;
    `signed` leaves out the ReLU that ends the last block, and `colours` normalises them as networks
    for ImageNet expect it: both for torchvision's ResNets and timm's networks;
    `judging` are the fields of `Judging`, for dcgan and sngan. By default clips have 16 frames of
    112 pixels from 128×171, images 64 pixels from 96×96, or with another `crop` nothing around it.
    Global random state is neither read nor advanced; without a seed the weights differ every time.
    Raises InputError for arguments that name no network.
    """
    given = {
        "width": width,
        "shortcut": shortcut,
        "padding": padding,
        "absorbed": True if absorbed else None,
        "signed": True if signed else None,
        "colours": colours,
        "judging": judging,
        "frames": frames,
        "crop": crop,
        "resize": None if resize is None else tuple(resize),
    }
    kind = _kind(arch)
    if kind == "image" and crop is not None and resize is None:
        given["resize"] = (crop, crop)
    try:
        spec = Spec.model_validate(
            {"arch": arch, **_SIZES[kind]}
            | {name: value for name, value in given.items() if value is not None}
        )
    except ValidationError as error:
        reasons = problems_in(error)
        raise InputError(f"no such network: {reasons}", kind="network") from error
    g = torch.Generator()
    if seed is None:
        g.seed()
    else:
        g.manual_seed(seed)
    backbone = construct(spec)
    backbone.initialize(g)
    return backbone


def construct(spec: Spec) -> Backbone:
    """The network without values, on PyTorch's `meta` device: quick, and no randomness is used."""
    network = _constructed(spec)
    if spec.absorbed:
        from selfsup_cli.models.absorb import strip

        strip(network)
    return network


def _constructed(spec: Spec) -> Backbone:
    """The same, with batch norm wherever the network has any."""
    arch = find_arch(spec.arch)
    if arch is None:
        raise unknown("arch", spec.arch, (*ARCHS, f"{TIMM}NAME"))
    if spec.shortcut != "standard" and spec.arch not in _THESIS_RESIDUAL:
        raise InputError(f"shortcut: {spec.arch} has only its standard shortcuts", kind="network")
    if spec.padding is not None and spec.arch not in PADDED:
        raise InputError(f"padding: {spec.arch} has only its own padding", kind="network")
    if (spec.signed or spec.colours) and not _imagenet_like(spec.arch):
        raise InputError(
            f"signed, colours: {spec.arch} has its own last layer and its own colours; "
            "torchvision's ResNets and timm's networks can be built otherwise",
            kind="network",
        )
    if spec.judging is not None and spec.arch not in ("dcgan", "sngan"):
        raise InputError(f"judging: {spec.arch} is no discriminator", kind="network")
    if arch.kind == "image" and spec.frames != 1:
        raise InputError(f"frames: {spec.arch} takes images, which are one frame", kind="network")
    with torch.device("meta"):
        if spec.arch == "c3d":
            from selfsup_cli.models.c3d import C3D

            return C3D(spec)
        if spec.arch in _THESIS_RESIDUAL:
            from selfsup_cli.models.resnet3d import ResNet3D

            return ResNet3D(spec)
        if spec.arch == "alexnet":
            from selfsup_cli.models.alexnet import AlexNet

            return AlexNet(spec)
        if spec.arch == "alexnet_lrn":
            from selfsup_cli.models.alexnet_artifacts import AlexNetLRN

            return AlexNetLRN(spec)
        if spec.arch == "cifarnet":
            from selfsup_cli.models.cifarnet import CifarNet

            return CifarNet(spec)
        if spec.arch == "inception_small":
            from selfsup_cli.models.inception_small import InceptionSmall

            return InceptionSmall(spec)
        if spec.arch == "preact_resnet18":
            from selfsup_cli.models.preact_resnet import PreActResNet

            return PreActResNet(spec)
        if spec.arch in ("dcgan", "sngan"):
            from selfsup_cli.models.gan_backbone import DiscriminatorBackbone

            return DiscriminatorBackbone(spec)
        if spec.width != 1:
            raise InputError(f"width: the channels of {spec.arch} are fixed", kind="network")
        if spec.arch.startswith(TIMM):
            from selfsup_cli.models.timm_image import TimmImage

            return TimmImage(spec)
        if arch.kind == "image":
            from selfsup_cli.models.torchvision_image import TorchvisionImage

            return TorchvisionImage(spec)
        from selfsup_cli.models.torchvision_video import TorchvisionVideo

        return TorchvisionVideo(spec)


def _imagenet_like(arch: str) -> bool:
    return arch.startswith(TIMM) or arch in IMAGENET_ARCHS


def _kind(arch: str) -> Kind:
    """What the network eats; of a name that no network has, a clip."""
    found = find_arch(arch)
    return "video" if found is None else found.kind


def problems_in(error: ValidationError) -> str:
    """What is wrong with which field, in one line."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'content'}: {problem['msg']}"
        for problem in error.errors(include_url=False)
    )
