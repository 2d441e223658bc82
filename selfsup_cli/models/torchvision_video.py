"""torchvision's video ResNets behind the contract of `Backbone`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import video

from selfsup_cli.models.backbone import Backbone, Spec


class TorchvisionVideo(Backbone):
    """R3D-18, MC3-18 or R(2+1)D-18 without its classifier.

    Parameters keep torchvision's names and its initialisation.
    """

    layers = ("stem", "layer1", "layer2", "layer3", "layer4")
    embedding = "layer4"

    def __init__(self, spec: Spec) -> None:
        network = getattr(video, spec.arch)(weights=None)
        super().__init__(spec, out_features=network.fc.in_features)
        for name in self.layers:
            self.add_module(name, getattr(network, name))

    def summarize(self, x: Tensor) -> Tensor:
        return x.mean((2, 3, 4))

    def init_weight(self, module: nn.Conv2d | nn.Conv3d | nn.Linear, g: torch.Generator) -> None:
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=g)
