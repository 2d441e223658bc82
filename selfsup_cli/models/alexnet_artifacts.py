"""AlexNet with local response normalisation, and the discriminator C of chapter 3 on top of it
(thesis, section 3.3.4)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.errors import InputError
from selfsup_cli.models.backbone import Backbone, Spec
from selfsup_cli.models.layers import SameConv2d, SameMaxPool2d, Scalable

# Mean of RGB values 0–255 that the network takes off, whatever the data.
_MEAN = (123.68, 116.78, 103.94)
_BIAS = 0.1
_DROPOUT = 0.5
# Below this, conv3 sees nothing of a crop without padding.
_LEAST_VALID = 35


class AlexNetLRN(Backbone):
    """Five convolutions and a fully connected layer with ReLU, the discriminator without its heads.

    conv2, conv4 and conv5 work in two streams. conv1 and conv2 are pooled and then normalised over
    neighbouring channels, both before the next convolution: a layer gives its activations without
    either. conv1 … conv4 have biases, conv5 and fc1 batch norm that shifts but does not scale.
    Nothing pools after conv5, so that with `padding="same"` its cells are those of the code of an
    autoencoder, one for 16×16 pixels; fc1 fixes the size of the crop.

    With `"valid"` conv1 and the pools are not padded and there is no fc1, as in `AlexNet`.
    """

    layers: tuple[str, ...] = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc1")
    embedding = "conv5"

    def __init__(self, spec: Spec) -> None:
        spec = spec.model_copy(update={"padding": spec.padding or "same"})
        c = [spec.channels(n) for n in (96, 256, 384, 384, 256)]
        hidden = spec.channels(4096)
        same = spec.padding == "same"
        super().__init__(spec, out_features=hidden if same else c[4])
        pool = SameMaxPool2d() if same else nn.MaxPool2d(3, 2)
        kind = ScaledResponseNorm if spec.absorbed else ResponseNorm
        calm = [nn.Sequential(pool, kind()) for _ in range(2)]
        none = nn.Identity()
        conv1 = SameConv2d(3, c[0], 11, 4, bias=True) if same else nn.Conv2d(3, c[0], 11, 4)
        conv5 = nn.Conv2d(c[3], c[4], 3, padding=1, groups=2, bias=False)
        self.conv1 = _Layer(none, conv1, none)
        self.conv2 = _Layer(calm[0], nn.Conv2d(c[0], c[1], 5, padding=2, groups=2), none)
        self.conv3 = _Layer(calm[1], nn.Conv2d(c[1], c[2], 3, padding=1), none)
        self.conv4 = _Layer(none, nn.Conv2d(c[2], c[3], 3, padding=1, groups=2), none)
        self.conv5 = _Layer(none, conv5, ShiftNorm2d(c[4]))
        if same:
            self.cells = (-(-spec.crop // 16)) ** 2
            self.fc1 = _FullyConnected(c[4] * self.cells, hidden)
        elif spec.crop < _LEAST_VALID:
            raise InputError(
                f"crop: {spec.arch} with padding valid takes at least {_LEAST_VALID} pixels, not "
                f"{spec.crop}",
                kind="network",
            )
        else:
            self.layers = self.layers[:5]

    def arrange(self, x: Tensor) -> Tensor:
        # Back to 0–255, less the mean: what is normalised over channels depends on the scale, and
        # next to nothing would happen to it in [-1, 1]. Fills wait for no transfer.
        less = torch.cat([x.new_full((1, 1, 1), 127.5 - mean) for mean in _MEAN])
        return x * 127.5 + less

    def summarize(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.ndim == 4 else x

    def initialize(self, g: torch.Generator) -> None:
        """Uniform weights of Glorot and Bengio, biases 0.1 in conv1 and conv2 and 0 elsewhere."""
        super().initialize(g)
        for layer in (self.conv1, self.conv2):
            nn.init.constant_(layer.get_parameter("conv.bias"), _BIAS)

    def init_weight(self, module: nn.Conv2d | nn.Conv3d | nn.Linear, g: torch.Generator) -> None:
        if isinstance(module, nn.Linear):
            # A convolution of all cells in the author's code: its fan-out counts them as well.
            fans = module.in_features + module.out_features * self.cells
            bound = math.sqrt(6 / fans)
            nn.init.uniform_(module.weight, -bound, bound, generator=g)
        else:
            for stream in module.weight.chunk(module.groups):
                nn.init.xavier_uniform_(stream, generator=g)


class ResponseNorm(nn.Module):
    """aᵢ / (1 + 2·10⁻⁵ Σ aⱼ²)^¾ over the five channels j around i (those that exist).

    float32 whatever comes in: squares of activations in 0–255 leave the range of float16.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]`, float32 of the same shape."""
        # PyTorch divides α by the number of channels.
        return F.local_response_norm(x.float(), 5, alpha=1e-4, beta=0.75, k=1.0)


class ScaledResponseNorm(ResponseNorm, Scalable):
    """The same of activations that were scaled: s·norm(a / s)."""

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]`, float32 of the same shape."""
        return super().forward(x.float() / self.scale) * self.scale


class ShiftNorm2d(nn.BatchNorm2d):
    """Batch norm with β and without γ."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.025, eps=1e-3)
        self.register_parameter("weight", None)

    def reset_parameters(self) -> None:
        """Statistics of nothing seen, β zero."""
        self.reset_running_stats()
        nn.init.zeros_(self.bias)


class ShiftNorm1d(nn.BatchNorm1d):
    """Batch norm with β and without γ."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.025, eps=1e-3)
        self.register_parameter("weight", None)

    def reset_parameters(self) -> None:
        """Statistics of nothing seen, β zero."""
        self.reset_running_stats()
        nn.init.zeros_(self.bias)


class Verdicts(NamedTuple):
    """What C says: `classes` `[B, 2]`, the logits of corrupt (0) and real (1), and `masks`
    `[B, 1, M, N]`, the logits of each cell being intact; None without mask head."""

    classes: Tensor
    masks: Tensor | None

    def split(self, count: int) -> tuple[Verdicts, Verdicts]:
        """Those on the first `count` images, and those on the rest."""
        masks = self.masks
        return (
            Verdicts(self.classes[:count], None if masks is None else masks[:count]),
            Verdicts(self.classes[count:], None if masks is None else masks[count:]),
        )


class Discriminator(nn.Module):
    """C: images float `[B, 3, S, S]` in [-1, 1] → `Verdicts` (section 3.3.3).

    `backbone` is an `AlexNetLRN` with `padding="same"`, trained along with the heads. Without
    `locates` there is no mask head: ablation (b) of table 3.1. The weights of the heads are drawn
    from `generator` (on the CPU) alone.
    """

    def __init__(
        self, backbone: AlexNetLRN, generator: torch.Generator, *, locates: bool = True
    ) -> None:
        super().__init__()
        if "fc1" not in backbone.layers:
            raise ValueError("a backbone without fc1 cannot be a discriminator")
        self.backbone = backbone
        self.dropout = nn.Dropout(_DROPOUT)
        with torch.device("meta"):
            channels = backbone.conv5.conv.out_channels
            self.masks = nn.Conv2d(channels, 1, 3, padding=1) if locates else None
            self.classes = nn.Linear(backbone.out_features, 2)
        for head in (self.masks, self.classes):
            if head is not None:
                head.to_empty(device="cpu")
                nn.init.xavier_uniform_(head.weight, generator=generator)
                nn.init.zeros_(head.get_parameter("bias"))

    def forward(self, images: Tensor) -> Verdicts:
        """Raises ValueError for images of another size than the backbone was built for."""
        found = self.backbone.features(images, ("conv5", "fc1"))
        masks = None if self.masks is None else self.masks(found["conv5"])
        return Verdicts(self.classes(self.dropout(found["fc1"])), masks)


class _Layer(nn.Module):
    def __init__(self, before: nn.Module, conv: nn.Conv2d, norm: nn.Module) -> None:
        super().__init__()
        self.before = before
        self.conv = conv
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(self.before(x))), inplace=True)


class _FullyConnected(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.norm = ShiftNorm1d(out_features)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if x.shape[1] != self.linear.in_features:
            raise ValueError(
                f"an image makes {x.shape[1]} values here instead of {self.linear.in_features}: "
                "the fully connected layers take only crops of the size they were built for"
            )
        return F.relu(self.norm(self.linear(x)), inplace=True)
