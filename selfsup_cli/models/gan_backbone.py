"""The discriminator of a GAN behind the contract of `Backbone`: its convolutions."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from selfsup_cli.models.backbone import Backbone, Judging, Spec
from selfsup_cli.models.gan import (
    Discriminator,
    Layout,
    Norm,
    initialize,
    judging_stages,
    smallest_map,
)

_BASE = 64


class DiscriminatorBackbone(Backbone):
    """All of a discriminator but its last layer, for images of the size it was built for.

    Layers `conv1`, `conv2`, … are stages of `models.gan.Discriminator`, under its names; there is
    one more for each doubling of the size. `forward` gives the last map, flat, which is what the
    logit of a GAN is a linear function of.
    """

    def __init__(self, spec: Spec) -> None:
        judging = spec.judging or Judging.model_validate({})
        if spec.arch == "sngan" and spec.judging is None:
            judging = Judging.model_validate({"norm": "none"})
        layout: Layout = "sngan" if spec.arch == "sngan" else judging.layout
        spec = spec.model_copy(update={"judging": judging})
        stages = judging_stages(
            spec.crop,
            spec.channels(_BASE),
            norm=judging.norm,
            layout=layout,
            activation=judging.activation,
            depth=judging.depth,
        )
        convolutions = [module for module in stages[-1] if isinstance(module, nn.Conv2d)]
        side = smallest_map(spec.crop, layout)
        super().__init__(spec, out_features=convolutions[-1].out_channels * side**2)
        self.layers = tuple(f"conv{i}" for i in range(1, len(stages) + 1))
        self.embedding = self.layers[-1]
        for name, stage in zip(self.layers, stages, strict=True):
            self.add_module(name, stage)

    def initialize(self, g: torch.Generator) -> None:
        initialize(self.allocate(), g)

    def summarize(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def backbone_of(
    discriminator: Discriminator, arch: str, width: float, judging: dict[str, Any]
) -> Backbone:
    """A copy of a discriminator's convolutions on the CPU, in evaluation mode.

    `width` and `judging` (the fields of `Judging`) say how it was built. Weights that are
    normalised by their largest singular value are copied as they act.
    """
    norm: Norm = discriminator.norm
    size = discriminator.size
    spec = Spec.model_validate(
        {
            "arch": arch,
            "width": width,
            "frames": 1,
            "crop": size,
            "resize": (size, size),
            "judging": {**judging, "norm": "none" if norm == "spectral" else norm},
        }
    )
    with torch.device("meta"):
        backbone = DiscriminatorBackbone(spec)
    backbone.allocate()
    source = copy.deepcopy(discriminator).cpu().eval()
    with torch.no_grad():
        for name in backbone.state_dict():
            place, _, last = name.rpartition(".")
            found = getattr(source.get_submodule(place), last)
            getattr(backbone.get_submodule(place), last).copy_(found)
    return backbone.eval()


def settle(backbone: Backbone, batches: Iterable[Tensor]) -> None:
    """Give batch norm the plain averages over `batches` of images `[B, 3, S, S]` in [−1, 1].

    What a discriminator averaged while it was trained is of real and generated images, with and
    without noise; whoever uses it afterwards has real ones.
    """
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    backbone.train()
    with torch.no_grad():
        for images in batches:
            backbone(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    backbone.eval()
