"""AlexNet with batch norm and two streams, the classifier of chapter 4 (thesis, section 4.4)."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.errors import InputError
from selfsup_cli.models.backbone import Backbone, Spec
from selfsup_cli.models.layers import SameConv2d, SameMaxPool2d, truncated_normal

_norm2d = partial(nn.BatchNorm2d, momentum=0.025, eps=1e-3)
# Mean of RGB values 0–255 that the network takes off, whatever the data.
_MEAN = (123.68, 116.78, 103.94)
_SIGMA_CONV, _SIGMA_FC = 0.01, 0.005
# Below this, conv3 sees nothing of a crop without padding.
_LEAST_VALID = 35


class AlexNet(Backbone):
    """Five convolutions and two fully connected layers, each with batch norm and ReLU.

    conv2, conv4 and conv5 work in two streams. A layer gives its activations before the pool that
    follows. With `padding="same"` every convolution and pool is padded and nothing pools after
    conv5, as the thesis pretrains it; the fully connected layers fix the size of the crop.

    With `"valid"` conv1 and the pools are not padded, and there are no fully connected layers: the
    convolutions of the network for 227 pixels, as probes on ImageNet and fine-tuning see them (see
    `unpadded`). The convolutions of either take crops of any size.
    """

    layers: tuple[str, ...] = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2")
    embedding = "conv5"

    def __init__(self, spec: Spec) -> None:
        spec = spec.model_copy(update={"padding": spec.padding or "same"})
        c = [spec.channels(n) for n in (96, 256, 384, 384, 256)]
        hidden = spec.channels(4096)
        same = spec.padding == "same"
        super().__init__(spec, out_features=hidden if same else c[4])
        pool = SameMaxPool2d() if same else nn.MaxPool2d(3, 2)
        conv1 = SameConv2d(3, c[0], 11, 4) if same else nn.Conv2d(3, c[0], 11, 4, bias=False)
        self.conv1 = _Convolution(conv1, nn.Identity())
        self.conv2 = _Convolution(SameConv2d(c[0], c[1], 5, groups=2), pool)
        self.conv3 = _Convolution(SameConv2d(c[1], c[2], 3), pool)
        self.conv4 = _Convolution(SameConv2d(c[2], c[3], 3, groups=2), nn.Identity())
        self.conv5 = _Convolution(SameConv2d(c[3], c[4], 3, groups=2), nn.Identity())
        if same:
            self.fc1 = _FullyConnected(c[4] * (-(-spec.crop // 16)) ** 2, hidden)
            self.fc2 = _FullyConnected(hidden, hidden)
        elif spec.crop < _LEAST_VALID:
            raise InputError(
                f"crop: alexnet with padding valid takes at least {_LEAST_VALID} pixels, not "
                f"{spec.crop}",
                kind="network",
            )
        else:
            self.layers = self.layers[:5]

    def arrange(self, x: Tensor) -> Tensor:
        # Back to 0–255, less the mean, as in the author's code. Fills wait for no transfer.
        less = torch.cat([x.new_full((1, 1, 1), 127.5 - mean) for mean in _MEAN])
        return x * 127.5 + less

    def summarize(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.ndim == 4 else x

    def init_weight(self, module: nn.Conv2d | nn.Conv3d | nn.Linear, g: torch.Generator) -> None:
        sigma = _SIGMA_FC if isinstance(module, nn.Linear) else _SIGMA_CONV
        truncated_normal(module.weight, sigma, g)


class _Convolution(nn.Module):
    def __init__(self, conv: nn.Conv2d, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool
        self.conv = conv
        self.norm = _norm2d(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(self.pool(x))), inplace=True)


class _FullyConnected(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.norm = nn.BatchNorm1d(out_features, momentum=0.025, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if x.shape[1] != self.linear.in_features:
            raise ValueError(
                f"an image makes {x.shape[1]} values here instead of {self.linear.in_features}: "
                "the fully connected layers take only crops of the size they were built for"
            )
        return F.relu(self.norm(self.linear(x)), inplace=True)
