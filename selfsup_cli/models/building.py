"""How a network is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import ValidationError

from selfsup_cli.config.registry import ARCHS, IMAGENET_ARCHS, PADDED, TIMM, find_arch, unknown
from selfsup_cli.errors import InputError
from selfsup_cli.models.backbone import Backbone, Spec, eats, problems_in
from selfsup_cli.models.batch_norm import strip

if TYPE_CHECKING:
    from selfsup_cli.config.registry import Kind

_THESIS_RESIDUAL = ("r3d", "r2plus1d")
# What a network is built for where it is not said: clips as in section 5.2.3 of the thesis, images
# as on STL-10 in section 4.4.
_SIZES: dict[Kind, dict[str, Any]] = {
    "video": {"frames": 16, "crop": 112, "resize": (128, 171)},
    "image": {"frames": 1, "crop": 64, "resize": (96, 96)},
}


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
    kind = eats(arch)
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
