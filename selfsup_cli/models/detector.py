"""Detectors on a backbone: Fast R-CNN on proposals, and Faster R-CNN, which makes its own.

Proposals are sampled, matched, classified and refined by torchvision's own parts (Girshick, "Fast
R-CNN", ICCV 2015; Ren et al., "Faster R-CNN", NeurIPS 2015), on the convolutions of any network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, cast

import torch
from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field
from torch import Tensor, nn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import roi_align, roi_pool

from selfsup_cli.config.fields import Model
from selfsup_cli.config.registry import PADDED, TIMM, unknown
from selfsup_cli.errors import InputError
from selfsup_cli.models.backbone import Backbone, Spec
from selfsup_cli.models.classifier import OnBackbone
from selfsup_cli.randomness import lent

Share = Annotated[float, Ge(0), Le(1)]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_RATIOS = (0.5, 1.0, 2.0)
_PROBE = 256


class DetectorSpec(Model):
    """How a `Detector` is built; see `config.detect` for what the numbers mean.

    `outputs` is the number of classes, the background not counted. Of `layer`, `cells`² cells of
    each region are pooled; with `own` the layers of the backbone above it see them, else fully
    connected layers of `hidden` units with fresh weights.
    """

    kind: Literal["fast", "faster"]
    outputs: int = Field(ge=1, le=1 << 16)
    layer: str
    own: bool
    cells: int = Field(ge=1, le=64)
    pooling: Literal["max", "align"] = "max"
    hidden: list[Annotated[int, Ge(1), Le(1 << 18)]] = Field([], max_length=8)
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    batch_norm: Literal["fixed", "batch"] = "fixed"
    regions: int = Field(64, ge=1, le=4096)
    foreground: Share = 0.25
    overlap: Share = 0.5
    background_from: Share = 0.1
    anchors: list[Annotated[int, Ge(4), Le(2048)]] = Field([], max_length=16)
    score: Share = 0.05
    nms: Annotated[float, Gt(0), Le(1)] = 0.3
    most: int = Field(100, ge=1, le=10_000)


class Detector(OnBackbone):
    """Images, and of Fast R-CNN proposals, → losses in training, else detections."""

    def __init__(
        self, backbone: Backbone, spec: DetectorSpec, *, generator: torch.Generator
    ) -> None:
        super().__init__(backbone)
        if spec.layer not in backbone.layers:
            raise unknown("layer", spec.layer, backbone.layers)
        self.spec = spec
        self.stride, channels = measured(backbone, spec.layer)
        width = channels * spec.cells**2
        self.hidden = nn.Sequential()
        with lent(generator):
            for units in () if spec.own else spec.hidden:
                layer = nn.Linear(width, units)
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
                self.hidden.extend([layer, nn.ReLU(), nn.Dropout(spec.dropout)])
                width = units
            if spec.own:
                width = backbone.out_features
            self.rpn = _proposing(channels, spec, self.stride) if spec.kind == "faster" else None
            # As numbers apart, so that the backbone's own layers are not its parameters as well.
            self.regions = _regions(self._pooled, self._above, width, spec)
            nn.init.normal_(self.regions.box_predictor.cls_score.weight, std=0.01)
            nn.init.normal_(self.regions.box_predictor.bbox_pred.weight, std=0.001)
            for one in (self.regions.box_predictor.cls_score, self.regions.box_predictor.bbox_pred):
                nn.init.zeros_(one.bias)
        if not spec.own:
            for module in backbone.parts(spec.layer)[1]:
                module.requires_grad_(False)  # never run, so never trained
        self.train(self.training)

    def check_run(self, layer: str) -> None:
        layers = self.backbone.layers
        if not self.spec.own and layers.index(layer) > layers.index(self.spec.layer):
            raise InputError(
                f"start.freeze: {layer} lies above {self.spec.layer}, where the fresh fully "
                f"connected layers begin; freeze conv or a layer up to {self.spec.layer}",
                kind="freeze",
            )

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for frozen layers and batch norm of fixed statistics."""
        super().train(mode)
        if self.spec.batch_norm == "fixed":
            for module in self.backbone.modules():
                if isinstance(module, _NORMS):
                    module.eval()
        return self

    def forward(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        proposals: list[Tensor] | None = None,
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Images float `[B, 3, H, W]` in [−1, 1] → detections (outside of training), and losses.

        `sizes` are their heights and widths, the rest is padding. `proposals` (for Fast R-CNN) are
        float `[P, 4]` of each, in its pixels. In training, `targets` have `boxes` float `[N, 4]`
        and `labels` int64 `[N]` from 1 on; 0 is the background. A detection is `boxes` float
        `[D, 4]`, `scores` float `[D]` and `labels` as in the targets.
        """
        found = self.features(images)
        shapes = [(int(height), int(width)) for height, width in sizes]
        losses: dict[str, Tensor] = {}
        if self.rpn is not None:
            proposals, losses = self.rpn(ImageList(images, shapes), {"0": found}, targets)
        assert proposals is not None  # noqa: S101 (Fast R-CNN is given them)
        detections, own = self.regions({"0": found}, proposals, shapes, targets)
        return detections, {**own, **losses}

    def features(self, images: Tensor) -> Tensor:
        """What regions are pooled from: float32 `[B, C, h, w]`."""
        return self.backbone.features(images, [self.spec.layer])[self.spec.layer].float()

    def outputs(self, images: Tensor, regions: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits `[R, outputs + 1]` and offsets `[R, 4·(outputs + 1)]` of `regions` (`[P, 4]` of
        each image) in the order of the images."""
        return self.judged(self.fed(images, regions))

    def fed(self, images: Tensor, regions: list[Tensor]) -> Tensor:
        """What the fresh layers see of regions."""
        pooled = self._pooled({"0": self.features(images)}, regions, [])
        return self._above(pooled) if self.spec.own else pooled

    def judged(self, fed: Tensor) -> tuple[Tensor, Tensor]:
        """What they make of it: see `outputs`."""
        scores, offsets = self.regions.box_predictor(fed if self.spec.own else self._above(fed))
        return scores, offsets

    @property
    def fresh(self) -> list[nn.Linear | tuple[nn.Linear, ...]]:
        """The layers of each region that start from fresh weights, in their order."""
        last = self.regions.box_predictor
        hidden = [one for one in self.hidden if isinstance(one, nn.Linear)]
        return [*hidden, (last.cls_score, last.bbox_pred)]

    def describe(self) -> dict[str, Any]:
        spec = self.spec
        how = {"max": "maxima of", "align": "bilinear means of"}[spec.pooling]
        where = f"{how} {spec.cells}×{spec.cells} cells of {spec.layer} (stride {self.stride:g})"
        above = f"the network's own layers above {spec.layer}"
        if not spec.own:
            sizes = ", ".join(str(units) for units in spec.hidden)
            above = f"fully connected layers ({sizes}), dropout {spec.dropout:g}"
        name = {"fast": "Fast R-CNN", "faster": "Faster R-CNN"}[spec.kind]
        return {"head": f"{name}: {where}, {above}"}

    def _pooled(
        self, found: dict[str, Tensor], regions: list[Tensor], _shapes: Sequence[Any]
    ) -> Tensor:
        """Cells of regions `[P, 4]` of each image: `[R, C, cells, cells]`."""
        cells, scale = self.spec.cells, 1 / self.stride
        if self.spec.pooling == "max":
            return cast(Tensor, roi_pool(found["0"], regions, cells, scale))
        pooled = roi_align(found["0"], regions, cells, scale, sampling_ratio=2, aligned=True)
        return cast(Tensor, pooled)

    def _above(self, x: Tensor) -> Tensor:
        """From the cells of regions to what classifies them, `[R, D]`."""
        if not self.spec.own:
            return cast(Tensor, self.hidden(x.flatten(1)))
        backbone = self.backbone
        for name in backbone.layers[backbone.layers.index(self.spec.layer) + 1 :]:
            x = getattr(backbone, name)(x)
        return backbone.summarize(x)


class _Matching(Matcher):  # type: ignore[misc]
    """Which object a region is taken for; those that overlap none by `least` are not used at all.

    They are the easiest of the background (section 2.3 of Fast R-CNN).
    """

    def __init__(self, overlap: float, least: float) -> None:
        super().__init__(overlap, overlap, allow_low_quality_matches=False)
        self.least = least

    def __call__(self, shares: Tensor) -> Tensor:
        found: Tensor = super().__call__(shares)
        return torch.where(shares.max(0).values < self.least, self.BETWEEN_THRESHOLDS, found)


class _Predictor(FastRCNNPredictor):  # type: ignore[misc]
    """Classes and boxes of regions, in full precision whatever the layers are computed in."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, offsets = super().forward(x)
        return scores.float(), offsets.float()


def _regions(pooled: Any, above: Any, width: int, spec: DetectorSpec) -> Any:
    heads = RoIHeads(
        pooled,
        above,
        _Predictor(width, spec.outputs + 1),
        fg_iou_thresh=spec.overlap,
        bg_iou_thresh=spec.overlap,
        batch_size_per_image=spec.regions,
        positive_fraction=spec.foreground,
        bbox_reg_weights=None,
        score_thresh=spec.score,
        nms_thresh=spec.nms,
        detections_per_img=spec.most,
    )
    # Of the regions that Faster R-CNN proposes, few overlap nothing.
    least = spec.background_from if spec.kind == "fast" else 0.0
    heads.proposal_matcher = _Matching(spec.overlap, least)
    return heads


def _proposing(channels: int, spec: DetectorSpec, stride: float) -> Any:
    sizes = tuple(spec.anchors or [round(stride * 2**n) for n in range(1, 6)])
    anchors = AnchorGenerator((sizes,), (_RATIOS,))
    head = RPNHead(channels, anchors.num_anchors_per_location()[0])
    return RegionProposalNetwork(
        anchors,
        head,
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2000, "testing": 1000},
        post_nms_top_n={"training": 1000, "testing": 300},
        nms_thresh=0.7,
    )


def fixed_size(backbone: Backbone) -> int | None:
    """The side of the only images that a network takes (of some of timm's), else None."""
    if not backbone.arch.startswith(TIMM):
        return None
    from selfsup_cli.models.timm_image import settings

    spec = {**backbone.spec, "resize": backbone.input.resize}
    fixed = "img_size" in settings(Spec.model_validate(spec))[1]
    return backbone.input.crop if fixed else None


@torch.no_grad()
def measured(backbone: Backbone, layer: str) -> tuple[float, int]:
    """How many pixels lie between the cells of a layer, and its number of channels.

    Raises InputError for a layer that is no map of the image.
    """
    if backbone.layers.index(layer) > backbone.layers.index(backbone.embedding):
        raise _no_map(backbone, layer)
    side = fixed_size(backbone) or _PROBE
    was = backbone.training
    backbone.eval()
    device = next(backbone.parameters()).device
    sides = (side,) if fixed_size(backbone) else (side, 2 * side)
    maps = [
        backbone.features(torch.zeros(1, 3, one, one, device=device), [layer])[layer]
        for one in sides
    ]
    backbone.train(was)
    if maps[0].ndim != 4 or min(maps[0].shape[2:]) < 2:
        raise _no_map(backbone, layer)
    cells = maps[-1].shape[3] - (maps[0].shape[3] if len(maps) == 2 else 0)
    return side / cells, maps[0].shape[1]


def _no_map(backbone: Backbone, layer: str) -> InputError:
    return InputError(
        f"detector.layer: {layer} of {backbone.arch} is no map of the image that regions could be "
        "cut out of; choose a layer below it",
        kind="layer",
    )


def own_layer(backbone: Backbone) -> tuple[str, int]:
    """The layer above which a network's own layers classify regions, and how many cells they take.

    Raises InputError for a network that has none.
    """
    if backbone.arch in PADDED and backbone.layers[-1] != "conv5":
        return "conv5", math.ceil(backbone.input.crop / 16)
    if backbone.layers[-2:] == ("layer3", "layer4"):
        return "layer3", 14
    raise InputError(
        f"{backbone.arch} has no layers of its own above its convolutions that regions could go "
        "through; use --head fresh, which puts fully connected ones there",
        kind="head",
    )
