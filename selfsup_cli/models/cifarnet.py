"""CifarNet, the small network in the style of AlexNet of chapter 8 (thesis, section 8.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.models.backbone import Backbone, Spec
from selfsup_cli.models.layers import truncated_normal

_SIGMA_CONV, _SIGMA_FC = 0.05, 0.04
_BIAS = 0.1
_DROPOUT = 0.5


class CifarNet(Backbone):
    """Two convolutions with response normalisation and two fully connected layers, without batch
    norm; half of the values of the first one are dropped in training.

    A layer gives its activations before what follows it is pooled and normalised. Images are
    standardised one by one. The fully connected layers fix the size of the crop. It is the network
    of that name that the author's framework ships, which the thesis does not describe.
    """

    layers = ("conv1", "conv2", "fc1", "fc2")
    embedding = "conv2"

    def __init__(self, spec: Spec) -> None:
        channels, hidden, last = (spec.channels(n) for n in (64, 384, 192))
        super().__init__(spec, out_features=last)
        self.conv1 = _Layer(nn.Identity(), nn.Conv2d(3, channels, 5, padding=2))
        before = nn.Sequential(nn.MaxPool2d(2), _ResponseNorm())
        self.conv2 = _Layer(before, nn.Conv2d(channels, channels, 5, padding=2))
        cells = channels * (spec.crop // 4) ** 2
        before = nn.Sequential(_ResponseNorm(), nn.MaxPool2d(2), nn.Flatten())
        self.fc1 = _Layer(before, nn.Linear(cells, hidden))
        self.fc2 = _Layer(nn.Dropout(_DROPOUT), nn.Linear(hidden, last))

    def arrange(self, x: Tensor) -> Tensor:
        return standardized(x)

    def initialize(self, g: torch.Generator) -> None:
        super().initialize(g)
        nn.init.constant_(self.fc1.affine.get_parameter("bias"), _BIAS)
        nn.init.constant_(self.fc2.affine.get_parameter("bias"), _BIAS)

    def init_weight(self, module: nn.Conv2d | nn.Conv3d | nn.Linear, g: torch.Generator) -> None:
        sigma = _SIGMA_FC if isinstance(module, nn.Linear) else _SIGMA_CONV
        truncated_normal(module.weight, sigma, g)


def standardized(x: Tensor) -> Tensor:
    """Each image of `[B, 3, H, W]` in [-1, 1] with mean 0 and standard deviation 1.

    Of an image of N values that is almost of one colour, the standard deviation of its values 0–255
    counts as 1 / √N.
    """
    floor = 1 / (127.5 * x[0].numel() ** 0.5)
    mean = x.mean((1, 2, 3), keepdim=True)
    std = (x - mean).square().mean((1, 2, 3), keepdim=True).sqrt()
    return (x - mean) / std.clamp(min=floor)


class _ResponseNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        # Four neighbours on each side; PyTorch divides α by the nine of them.
        return F.local_response_norm(x.float(), 9, alpha=1e-3, beta=0.75, k=1.0)


class _Layer(nn.Module):
    def __init__(self, before: nn.Module, affine: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.before = before
        self.affine = affine

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.affine(self.before(x)), inplace=True)
