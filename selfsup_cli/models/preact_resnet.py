"""ResNet-18 with activations before convolutions, for small images (thesis, table 8.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.models.backbone import Backbone, Spec

# Mean and standard deviation of the values 0 … 1 of CIFAR-10, as the networks compared to have it.
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class PreActResNet(Backbone):
    """PreAct-ResNet-18 as in the work on mixup that the thesis compares with.

    `stem` is a 3×3 convolution at full resolution; blocks of two convolutions follow in `layer1` …
    `layer4`, each convolution after batch norm and ReLU. The shortcuts begin after the first ReLU
    of a block, and nothing is normalised after the last one: the values of layers may be negative.
    With `drop` set, a share of the values between the two convolutions of each block is dropped in
    training.
    """

    layers = ("stem", "layer1", "layer2", "layer3", "layer4")
    embedding = "layer4"

    def __init__(self, spec: Spec) -> None:
        channels = [spec.channels(n) for n in (64, 128, 256, 512)]
        super().__init__(spec, out_features=channels[-1])
        self.stem = nn.Sequential(
            _conv(3, channels[0], 3), nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True)
        )
        before = channels[0]
        for number, after in enumerate(channels, 1):
            first = _Block(before, after, 1 if number == 1 else 2)
            self.add_module(f"layer{number}", nn.Sequential(first, _Block(after, after, 1)))
            before = after

    def drop(self, share: float) -> None:
        """Drop a share (0 … 1) of the values between the convolutions of all blocks."""
        for module in self.modules():
            if isinstance(module, _Block):
                module.dropout.p = share

    def arrange(self, x: Tensor) -> Tensor:
        # Fills wait for no transfer.
        mean, std = (
            torch.cat([x.new_full((1, 1, 1), value) for value in values])
            for values in (_MEAN, _STD)
        )
        return ((x + 1) / 2 - mean) / std

    def summarize(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def init_weight(self, module: nn.Conv2d | nn.Conv3d | nn.Linear, g: torch.Generator) -> None:
        # PyTorch's own: uniform in ±1 / √fan-in.
        bound = module.weight[0].numel() ** -0.5
        nn.init.uniform_(module.weight, -bound, bound, generator=g)


class _Block(nn.Module):
    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = _conv(channels, out_channels, 3, stride)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(0.0)
        self.conv2 = _conv(out_channels, out_channels, 3)
        same = stride == 1 and channels == out_channels
        self.shortcut = nn.Identity() if same else _conv(channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(x))
        y = self.dropout(F.relu(self.norm2(self.conv1(x))))
        out: Tensor = self.conv2(y) + self.shortcut(x)
        return out


def _conv(channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, bias=False)
