"""torchvision's ResNets behind the contract of `Backbone`."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck

from selfsup_cli.models.backbone import Backbone, Spec


class TorchvisionImage(Backbone):
    """ResNet-18, -34 or -50 without its classifier, for images of any size.

    Parameters keep torchvision's names, those of the first convolution and its norm after `stem.`,
    and its initialisation. `stem` ends after the max pool. A `signed` one lacks the last ReLU.
    """

    layers = ("stem", "layer1", "layer2", "layer3", "layer4")
    embedding = "layer4"

    def __init__(self, spec: Spec) -> None:
        network = getattr(models, spec.arch)(weights=None)
        super().__init__(spec, out_features=network.fc.in_features)
        stem = ("conv1", "bn1", "relu", "maxpool")
        self.stem = nn.Sequential(OrderedDict((name, getattr(network, name)) for name in stem))
        for name in self.layers[1:]:
            self.add_module(name, getattr(network, name))
        if spec.signed:
            *others, last = network.layer4
            self.layer4 = nn.Sequential(*others, unrectified(last))

    def summarize(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def init_weight(self, module: nn.Conv2d | nn.Conv3d | nn.Linear, g: torch.Generator) -> None:
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=g)


class _SignedBasic(BasicBlock):  # type: ignore[misc]
    """A block that ends with its sum."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        summed: Tensor = x + self.bn2(self.conv2(out))
        return summed


class _SignedBottleneck(Bottleneck):  # type: ignore[misc]
    """A block that ends with its sum."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        summed: Tensor = x + self.bn3(self.conv3(out))
        return summed


def unrectified(block: nn.Module) -> nn.Module:
    """The last block of a network, with the same parameters, but for the ReLU that ends it."""
    if isinstance(block, Bottleneck):
        return _SignedBottleneck(block.conv1.in_channels, block.conv2.out_channels)
    assert isinstance(block, BasicBlock)  # noqa: S101 (ResNets have no other)
    return _SignedBasic(block.conv1.in_channels, block.conv2.out_channels)
