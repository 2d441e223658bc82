"""Fully convolutional networks on any backbone (Long et al., "Fully convolutional networks for
semantic segmentation", CVPR 2015), with which the thesis segments (section 3.4.2)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, Lt
from pydantic import Field
from torch import Tensor, nn

from selfsup_cli.config.fields import Model
from selfsup_cli.errors import InputError
from selfsup_cli.models.backbone import Backbone
from selfsup_cli.models.classifier import OnBackbone
from selfsup_cli.models.layers import SameConv2d, SameMaxPool2d, truncated_normal
from selfsup_cli.models.weights import (
    Sidecar,
    blank,
    fill,
    read_weights,
    sidecar_path,
    write_weights,
)

_COARSEST = 32
_LEVELS = {"32s": 1, "16s": 2, "8s": 3}
_SIDES = (128, 256)
# What networks raise where an image is of a size that they do not take.
_REFUSALS = (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError)
_SIGMA = 0.01


class FcnSpec(Model):
    """How the head of a `Segmenter` is built.

    `outputs` classes; `finest` says how many strides are looked at (32s: one, 16s: two, 8s:
    three). `hidden` units lie on top of the last layer, the first of them sees `kernel`×`kernel`
    cells; ReLU and `dropout` follow each.
    """

    outputs: int = Field(ge=1, le=255)
    finest: Literal["32s", "16s", "8s"] = "8s"
    hidden: list[Annotated[int, Ge(1), Le(1 << 18)]] = Field([], max_length=8)
    kernel: Annotated[int, Ge(1), Le(15)] = 6
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.5


@dataclass(frozen=True)
class Grid:
    """The cells of a layer: one for `stride`×`stride` pixels, `channels` values in each."""

    layer: str
    stride: int
    channels: int


@dataclass(frozen=True)
class Plan:
    """Which layers a `Segmenter` looks at: the last one, halved `pools` times, and `skips`.

    Strides of the skips fall by halves from that of the halved last one. `side` is that of the only
    square the backbone takes, None where it takes any.
    """

    last: Grid
    pools: int
    skips: tuple[Grid, ...]
    side: int | None

    @property
    def coarsest(self) -> int:
        """Pixels between the cells of the halved last layer."""
        return self.last.stride << self.pools


class Segmenter(OnBackbone):
    """Images → scores of the classes of each pixel.

    The score of the last layer is upsampled to the stride of the next finer one, to which that
    one's score is added, and so on; the sum is upsampled to pixels. Upsampling is by transposed
    convolutions that begin as bilinear interpolation; the last one stays it. Images are padded
    below and to the right to whole cells. A cell is taken for the middle of its pixels.
    """

    def __init__(
        self, backbone: Backbone, spec: FcnSpec, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(backbone)
        self.head_spec = spec
        self.plan = plan = planned(backbone, spec.finest)
        width = plan.last.channels
        layers: list[nn.Module] = [SameMaxPool2d() for _ in range(plan.pools)]
        for number, units in enumerate(spec.hidden):
            conv = SameConv2d(width, units, 1 if number else spec.kernel, bias=True)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", generator=generator)
            assert conv.bias is not None  # noqa: S101 (asked for above)
            nn.init.zeros_(conv.bias)
            layers += [conv, nn.ReLU(inplace=True), nn.Dropout2d(spec.dropout)]
            width = units
        self.hidden = nn.Sequential(*layers)
        self.score = _score(width, spec.outputs)
        truncated_normal(self.score.weight, _SIGMA, generator)
        self.skips = nn.ModuleList(_score(grid.channels, spec.outputs) for grid in plan.skips)
        self.doubled = nn.ModuleList(Upsampling(spec.outputs, 2) for _ in plan.skips)
        factor = plan.coarsest >> len(plan.skips)
        self.enlarged = Upsampling(spec.outputs, factor, mixing=False).requires_grad_(False)
        for module in backbone.parts(plan.last.layer)[1]:
            module.requires_grad_(False)  # never run, so never trained

    def forward(self, x: Tensor) -> Tensor:
        """Images float `[B, 3, H, W]` in [−1, 1] → logits float32 `[B, outputs, H, W]`.

        Raises ValueError for a size that the backbone does not take.
        """
        return self.judged(self.seen(x), (x.shape[2], x.shape[3]))

    def seen(self, x: Tensor) -> list[Tensor]:
        """The layers that are looked at, the last one first, each with the cells of its stride."""
        height, width = x.shape[2:]
        side, step = self.plan.side, self.plan.coarsest
        if side is not None and (height, width) != (side, side):
            raise ValueError(f"{height}×{width} pixels for a network that takes {side}×{side} only")
        down, across = -height % step, -width % step
        if side is None and (down or across):
            x = F.pad(x, (0, across, 0, down))
        grids = (self.plan.last, *self.plan.skips)
        found = self.backbone.features(x, list(dict.fromkeys(grid.layer for grid in grids)))
        return [_on_grid(found[grid.layer], grid.stride, x) for grid in grids]

    def judged(self, seen: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """What `seen` gave → logits float32 `[B, outputs, H, W]` of images of that `size`."""
        score = self.coarse(seen[0])
        for skip, doubled, found in zip(self.skips, self.doubled, seen[1:], strict=True):
            upsampled = doubled(score)[..., : found.shape[2], : found.shape[3]]
            score = upsampled + skip(found)
        logits: Tensor = self.enlarged(score.float())
        return logits[..., : size[0], : size[1]]

    def coarse(self, last: Tensor) -> Tensor:
        """Activations of the last layer → scores of its (halved) cells, `[B, outputs, H', W']`."""
        score: Tensor = self.score(self.hidden(last))
        return score

    def check_run(self, layer: str) -> None:
        names = self.backbone.layers
        last = self.plan.last.layer
        if names.index(layer) > names.index(last):
            raise InputError(
                f"start.freeze: {layer} lies above {last}, on which the network that segments is "
                "built; freeze conv or a layer of it",
                kind="freeze",
            )

    def describe(self) -> dict[str, Any]:
        plan, spec = self.plan, self.head_spec
        strides = [plan.coarsest, *(grid.stride for grid in plan.skips)]
        layers = [plan.last.layer, *(grid.layer for grid in plan.skips)]
        said = ", ".join(
            f"{layer} at {stride}" for layer, stride in zip(layers, strides, strict=True)
        )
        hidden = ", ".join(map(str, spec.hidden))
        between = f", {hidden} hidden units on the first" if spec.hidden else ""
        return {"head": f"FCN-{spec.finest}: strides of {said} pixels{between}"}


class Upsampling(nn.Module):
    """A transposed convolution by a factor that begins as bilinear interpolation.

    Cells at the border are repeated outwards first, so that it is interpolation up to the very
    border. With `mixing` each channel sees all others, whose weights begin at 0.
    """

    def __init__(self, channels: int, factor: int, *, mixing: bool = True) -> None:
        super().__init__()
        self.factor = factor
        self.groups = 1 if mixing else channels
        kernel = bilinear(factor)
        if mixing:
            weight = torch.zeros(channels, channels, *kernel.shape)
            weight[range(channels), range(channels)] = kernel
        else:
            weight = kernel.expand(channels, 1, *kernel.shape).clone()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` → `[B, C, H·factor, W·factor]`."""
        f = self.factor
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        out = F.conv_transpose2d(
            x, self.weight, stride=f, padding=f // 2, groups=self.groups, output_padding=f % 2
        )
        height, width = ((size - 2) * f for size in x.shape[2:])
        return out[..., f : f + height, f : f + width]


def bilinear(factor: int) -> Tensor:
    """The kernel `[K, K]` with which a transposed convolution interpolates by `factor`.

    K is 2·factor, or one less of an odd factor.
    """
    size = 2 * factor - factor % 2
    center = factor - 1 if size % 2 else factor - 0.5
    line = 1 - (torch.arange(size, dtype=torch.float32) - center).abs() / factor
    return line[:, None] * line[None]


def planned(backbone: Backbone, finest: str) -> Plan:
    """Which layers of a backbone to look at.

    The last one is pooled until its cells are 32 pixels apart, or as near to it as halving comes.
    Raises InputError where the backbone has no layer of a stride that is asked for.
    """
    grids, side = measured(backbone)
    last = grids[backbone.embedding]
    pools = max(0, int(math.log2(_COARSEST / last.stride)))
    coarsest = last.stride << pools
    skips: list[Grid] = []
    for level in range(1, _LEVELS[finest]):
        fitting = [grid for grid in grids.values() if grid.stride << level == coarsest]
        if not fitting:
            possible = next(name for name, count in _LEVELS.items() if count == level)
            raise InputError(
                f"head.finest: {backbone.arch} has no layer whose cells are "
                f"{coarsest >> level} pixels apart, as {finest} needs; use --fcn {possible}",
                kind="fcn",
            )
        skips.append(fitting[-1])
    return Plan(last, pools, tuple(skips), side)


def measured(backbone: Backbone) -> tuple[dict[str, Grid], int | None]:
    """The cells of each layer up to the embedding, by its name, and the only side of images that
    the backbone takes (None: any).

    Leaves the backbone as it was.
    """
    names = backbone.layers[: backbone.layers.index(backbone.embedding) + 1]
    crop = backbone.input.crop
    device = next(backbone.parameters()).device

    def sizes(side: int) -> dict[str, torch.Size]:
        found = backbone.features(torch.zeros(1, 3, side, side, device=device), names)
        return {name: found[name].shape for name in names}

    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            own = sizes(crop)
            try:
                small, large = (sizes(side) for side in _SIDES)
            except _REFUSALS:
                return {n: Grid(n, round(crop / own[n][2]), own[n][1]) for n in names}, crop
    finally:
        backbone.train(training)
    more = _SIDES[1] - _SIDES[0]
    grids = {
        name: Grid(name, round(more / max(1, large[name][2] - small[name][2])), small[name][1])
        for name in names
    }
    return grids, None


def _score(channels: int, outputs: int) -> nn.Conv2d:
    """A convolution of single cells that gives 0 at first."""
    score = nn.Conv2d(channels, outputs, 1)
    nn.init.zeros_(score.weight)
    assert score.bias is not None  # noqa: S101 (it is the default)
    nn.init.zeros_(score.bias)
    return score


def _on_grid(found: Tensor, stride: int, x: Tensor) -> Tensor:
    """Activations with a cell for each `stride` pixels of `x`; of layers without padding, which
    have fewer, stretched to as many."""
    height, width = (-(-size // stride) for size in x.shape[2:])
    if tuple(found.shape[2:]) == (height, width):
        return found
    return F.interpolate(found, (height, width), mode="bilinear", align_corners=False)


# -- on disk

_FORMAT: Literal["selfsup.segmenter/1"] = "selfsup.segmenter/1"


class _File(Sidecar):
    format: Literal["selfsup.segmenter/1"]
    head: FcnSpec
    task: Literal["segment"]
    classes: list[str]
    facts: dict[str, Any]


@dataclass(frozen=True)
class TrainedSegmenter:
    """A trained `Segmenter`, its classes, and how images come to it and masks from it."""

    network: Segmenter
    classes: tuple[str, ...]
    facts: dict[str, Any]
    weights: str = ""


def save_segmenter(path: Path | str, trained: TrainedSegmenter, trained_on: dict[str, Any]) -> str:
    """Write weights and sidecar atomically; gives the SHA-256 of the weights in hex."""
    network = trained.network
    facts = {
        "format": _FORMAT,
        "spec": network.backbone.spec,
        "head": network.head_spec.model_dump(mode="json"),
        "task": "segment",
        "classes": list(trained.classes),
        "facts": trained.facts,
        "trained_on": trained_on,
    }
    return write_weights(path, network, facts)


def is_segmenter(path: Path) -> bool:
    """Whether the sidecar of weights says that they are those of a `Segmenter`."""
    try:
        said = json.loads(sidecar_path(path).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and said.get("format") == _FORMAT


def load_segmenter(path: Path | str) -> TrainedSegmenter:
    """What `save_segmenter` wrote, on the CPU, ready to be used. Raises InputError as
    `load_backbone` does."""
    file, tensors = read_weights(path, _File)
    if file.head.outputs != len(file.classes):
        raise InputError(
            f"{path} names {len(file.classes)} classes for {file.head.outputs} outputs",
            kind="weights",
        )
    # With memory, though without values: the sizes of its layers are asked for.
    network = Segmenter(blank(path, file).allocate(), file.head)
    fill(path, network, tensors, f"{network.backbone.arch} that segments")
    network.backbone.trained_on = file.trained_on
    return TrainedSegmenter(network.eval(), tuple(file.classes), file.facts, file.weights.sha256)
