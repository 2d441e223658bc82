"""Networks of other libraries that some backbones are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from selfsup_cli.config.registry import TIMM
from selfsup_cli.models.backbone import Backbone, Spec
from selfsup_cli.randomness import generator, lent

if TYPE_CHECKING:
    from selfsup_cli.config.registry import Kind


@dataclass(frozen=True)
class Library:
    """Networks of another library that some backbones are.

    `has` says whether it has a network by that name, `archs` which these are, in words. `make`
    gives it without classifier, to be filled, `code` is how a user makes it. `prefix` is what the
    backbone puts before the names of the library's tensors, or of some of them.
    """

    archs: str
    has: Callable[[str], bool]
    make: Callable[[Backbone], nn.Module]
    code: Callable[[Backbone], str]
    prefix: Mapping[Kind, str]


_TORCHVISION = {
    "video": ("r3d_18", "mc3_18", "r2plus1d_18"),
    "image": ("resnet18", "resnet34", "resnet50"),
}


def _torchvision(backbone: Backbone) -> nn.Module:
    from torchvision import models

    place = models.video if backbone.input.kind == "video" else models
    # On `meta` its initialisation does not touch the global generator.
    with torch.device("meta"):
        network: nn.Module = getattr(place, backbone.arch)(weights=None)
        network.fc = nn.Identity()
    return network


def _torchvision_code(backbone: Backbone) -> str:
    place = "models.video" if backbone.input.kind == "video" else "models"
    return f"torchvision.{place}.{backbone.arch}(weights=None) with fc = torch.nn.Identity()"


def _spec(backbone: Backbone) -> Spec:
    return Spec.model_validate({**backbone.spec, "resize": backbone.input.resize})


def _timm(backbone: Backbone) -> nn.Module:
    import timm

    from selfsup_cli.models.timm_image import settings

    name, given = settings(_spec(backbone))
    # Not on `meta`: some tensors are computed where a network is made and are in no state dict.
    with lent(generator(0, "export", "timm")):
        network: nn.Module = timm.create_model(name, **given)
    return network


def _timm_code(backbone: Backbone) -> str:
    from selfsup_cli.models.timm_image import settings

    name, given = settings(_spec(backbone))
    arguments = "".join(f", {key}={value}" for key, value in given.items())
    return f'timm.create_model("{name}"{arguments})'


LIBRARIES: dict[str, Library] = {
    "torchvision": Library(
        archs=", ".join(name for names in _TORCHVISION.values() for name in names),
        has=lambda arch: any(arch in names for names in _TORCHVISION.values()),
        make=_torchvision,
        code=_torchvision_code,
        prefix={"video": "", "image": "stem."},
    ),
    "timm": Library(
        archs=f"those that are called {TIMM}NAME",
        has=lambda arch: arch.startswith(TIMM),
        make=_timm,
        code=_timm_code,
        prefix={"video": "", "image": "network."},
    ),
}
