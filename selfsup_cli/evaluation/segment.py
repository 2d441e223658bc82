"""Segmentation: which class each pixel is of (thesis, sections 3.4.2 and 4.4.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from selfsup_cli.config.registry import PADDED
from selfsup_cli.config.segment import SegmentAugmentation, TransferSegment
from selfsup_cli.data.framing import Region
from selfsup_cli.data.mask_dataset import GREY, MaskDataset, ScaledCrop
from selfsup_cli.data.mask_source import open_masked
from selfsup_cli.data.masked_images import MaskedImages
from selfsup_cli.data.masks import VOID, Color, encode_mask
from selfsup_cli.data.matched import strata
from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.trainable import Batch, Update
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.evaluation.fresh import first_samples, layers_of
from selfsup_cli.evaluation.reading import Unreadable, read_items
from selfsup_cli.evaluation.segment_scores import Segmentations, measured
from selfsup_cli.evaluation.segmentation import Confusion
from selfsup_cli.evaluation.steps import Passed
from selfsup_cli.evaluation.task import Task, Told
from selfsup_cli.models import Backbone
from selfsup_cli.models.fcn import FcnSpec, Segmenter, TrainedSegmenter, save_segmenter
from selfsup_cli.models.rescale import affine, between, within
from selfsup_cli.randomness import derive, generator
from selfsup_cli.runs.report import Measurement, ProtocolValue
from selfsup_cli.transforms.finetuning import recolored
from selfsup_cli.transforms.images import coins, mirror, to_unit

MOST_PIXELS = 4_000_000
"""Images of more pixels are scaled down to as many for the network."""

_QUICK = 64
_RESCALED_ON = 16
_CHUNK = 4


@dataclass(frozen=True)
class Answers:
    """The classes of pixels, which of them training masks have, and how masks show them."""

    classes: tuple[str, ...]
    trained: tuple[bool, ...]
    label_of: tuple[int, ...]
    palette: tuple[Color, ...]

    def __len__(self) -> int:
        return len(self.classes)


class Segment(Task):
    """The task as the engine sees it."""

    name = "segment"
    many = "images"
    labelled = True
    opener = staticmethod(open_masked)
    preset: TransferSegment

    def __init__(
        self, preset: TransferSegment, backbone: Backbone, answers: Answers, seed: int
    ) -> None:
        super().__init__()
        self.preset = preset
        self.answered = answers
        self.classes = answers.classes
        self.seed = seed
        head, width = preset.head, float(backbone.spec["width"])
        spec = FcnSpec(
            outputs=len(answers),
            finest=head.finest,
            hidden=[max(8, 8 * round(n * width / 8)) for n in head.hidden],
            kernel=head.kernel,
            dropout=head.dropout,
        )
        network = Segmenter(backbone, spec, generator=generator(seed, "head"))
        side = network.plan.side
        if side is not None and preset.augment.crop != side:
            raise InputError(
                f"augment.crop: {backbone.arch} takes squares of {side} pixels only; use --crop "
                f"{side}",
                kind="augment",
            )
        self.network = network.freeze(preset.start.freeze)

    @property
    def plain(self) -> Segmenter:
        network = super().plain
        assert isinstance(network, Segmenter)  # noqa: S101 (it makes no other)
        return network

    @property
    def layer(self) -> str | None:
        return None  # the head says which it is on

    @classmethod
    def answers(cls, preset: TransferSegment, source: ImageSource) -> Answers:
        """What the network is to answer, from the masks of the training part."""
        assert isinstance(source, MaskedImages)  # noqa: S101 (`opener` opens no other)
        trained = np.asarray(source.present.any(0))
        if trained.sum() < 2:
            raise InputError(
                f"{source.name}: the masks of the {len(source)} training images have no two "
                "classes, so there is nothing to learn",
                kind="one-label",
            )
        assert source.classes is not None  # noqa: S101 (masks have them)
        has = tuple(bool(one) for one in trained)
        return Answers(source.classes, has, source.label_of, source.palette)

    def samples(self, source: MaskedImages) -> MaskDataset:
        how = self.preset.augment
        return MaskDataset(source, self.seed, ScaledCrop(how.crop, how.shorter, how.scale))

    def matched(self, source: MaskedImages, splits: int) -> np.ndarray:
        return strata(source.present.astype(np.uint8), splits)

    def passed(self, batch: Batch, update: Update, g: torch.Generator) -> Passed:
        images, masks = augmented(batch["image"], batch["mask"], self.preset.augment, g)
        with update.autocast():
            logits = self.network(images)
        loss, right = pixel_loss(logits, masks)
        return Passed(loss, {"acc": right})

    def rescale(self, source: MaskedImages, hardware: Hardware) -> None:
        network = self.plain
        training = network.training
        network.to(hardware.device).eval()
        x = first_samples(self.samples(source), self.seed, _RESCALED_ON)["image"]
        x = to_unit(x.to(hardware.device))
        head = layers_of([network.hidden, network.score])
        below = layers_of(network.backbone.parts(network.plan.last.layer)[0])
        with torch.no_grad():
            last = torch.cat([network.seen(part)[0] for part in torch.split(x, _CHUNK)])

        def above() -> Tensor:
            return network.coarse(last)

        def everything() -> Tensor:
            return network.coarse(network.seen(x)[0])

        random = self.preset.start.init == "random"
        within(affine([*below, *head] if random else head), everything if random else above)
        g = generator(self.seed, "rescale")
        backbone = network.backbone
        # Scores of finer layers begin as 0, whatever the scales of those.
        if backbone.spec.get("absorbed") and backbone.arch in PADDED:
            frozen = network.frozen
            still = len(layers_of(backbone.parts(frozen[-1])[0])) if frozen else 0
            between([*below[still:], *head], everything, g)
        else:
            between(head, everything if random else above, g)
        network.train(training)

    def ask(
        self,
        source: MaskedImages,
        hardware: Hardware,
        *,
        workers: int,
        quick: bool = False,
        told: Told | None = None,
    ) -> Segmentations:
        if quick and len(source) > _QUICK:
            order = sorted(range(len(source)), key=lambda i: derive(0, source.ids[i], "quick"))
            source = source.subset(np.array(sorted(order[:_QUICK]), dtype=np.int64))
        network, shorter = self.plain, self.preset.augment.shorter
        network.eval().to(hardware.device)
        files = _Pairs(source, shorter)
        confusions, masks = [], []
        for item in read_items(files, source, range(len(source)), workers):
            truth = item.mask.to(hardware.device)
            size = (truth.shape[0], truth.shape[1])
            found = segmented(network, item.image, size, hardware)
            confusions.append(_counted(found, truth, len(self.classes)))
            if not quick:
                masks.append(drawn(found, self.answered.label_of, self.answered.palette))
            if told is not None:
                told(item.position + 1, len(source))
        return Segmentations(source, np.stack(confusions), masks)

    def grade(self, found: Segmentations) -> tuple[str, float]:
        return "test_mean_iou", found.together.mean_iou

    def measurements(
        self,
        found: Segmentations,
        about: Mapping[str, Any],
        protocol: dict[str, ProtocolValue],
    ) -> list[Measurement]:
        return measured(found, {**about, "task": self.name}, protocol, self.answered.trained)

    def save(self, path: Path, trained_on: dict[str, Any]) -> str:
        trained = TrainedSegmenter(self.plain, self.classes, self.facts)
        return save_segmenter(path, trained, trained_on)

    @property
    def seen(self) -> dict[str, ProtocolValue]:
        how = self.preset.augment
        side = self.plain.plan.side
        looked = "whole images" if side is None else f"squares of {side} pixels, half overlapping"
        return {
            "images": "of their own size" if how.shorter is None else f"shorter side {how.shorter}",
            "crop": how.crop,
            "augmentation": described(how),
            "test": looked,
            **({"rescaled": self._rescaled()} if self.preset.start.rescale else {}),
        }

    def _rescaled(self) -> str:
        which = "all layers" if self.preset.start.init == "random" else "fresh layers"
        return f"{which}, on up to {_RESCALED_ON} training images"

    @property
    def facts(self) -> dict[str, Any]:
        given = self.answered
        palette = [list(color) for color in given.palette]
        return {
            "shorter": self.preset.augment.shorter,
            "labels": list(given.label_of),
            "palette": palette,
        }


def augmented(
    images: Tensor, masks: Tensor, how: SegmentAugmentation, g: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What is done to crops uint8 `[B, 3, S, S]` and their masks `[B, S, S]`: both mirrored or
    neither, images float32 in [-1, 1]."""
    if how.flip:
        chosen = coins(len(images), 0.5, g)
        images, masks = mirror(images, chosen), mirror(masks[:, None], chosen)[:, 0]
    if not how.color:
        return to_unit(images), masks
    x = recolored(images.float().div_(255), g)
    return x.mul_(2).sub_(1), masks


def described(how: SegmentAugmentation) -> str:
    """The augmentation in a phrase."""
    low, high = how.scale
    parts = [
        f"scaled by {low:g} to {high:g}" if low < high else f"scaled by {low:g}",
        "random crops",
        "mirrored" if how.flip else "",
        "colours" if how.color else "",
    ]
    return ", ".join(part for part in parts if part)


def pixel_loss(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the pixels that count, and the share of them that is right.

    `logits` [B, K, H, W]; `masks` uint8 [B, H, W], of which `VOID` does not count. Both are 0 where
    nothing counts.
    """
    target = masks.long()
    counted = masks != VOID
    count = counted.sum().clamp(min=1)
    loss = F.cross_entropy(logits, target, ignore_index=VOID, reduction="sum") / count
    right = ((logits.argmax(1) == target) & counted).sum() / count
    return loss, right


# -- answers


@torch.no_grad()
def segmented(
    network: Segmenter, image: Tensor, size: tuple[int, int], hardware: Hardware
) -> Tensor:
    """The classes uint8 [H, W] of an image uint8 [3, h, w], at `size` (H, W), on the device.

    A network of a fixed size looks at squares that overlap by half, whose probabilities are added.
    """
    side = network.plan.side
    image = image.to(hardware.device)[None]
    scores: Tensor
    with hardware.autocast():
        scores = network(to_unit(image)) if side is None else _in_squares(network, image, side)
    if tuple(scores.shape[2:]) == size:
        return scores[0].argmax(0).to(torch.uint8)
    if math.prod(size) <= MOST_PIXELS:
        scores = F.interpolate(scores, size, mode="bilinear", align_corners=False)
        return scores[0].argmax(0).to(torch.uint8)
    found = scores.argmax(1, keepdim=True).to(torch.uint8)
    return F.interpolate(found, size, mode="nearest-exact")[0, 0]


def _in_squares(network: Segmenter, image: Tensor, side: int) -> Tensor:
    """Summed probabilities [1, K, h, w] of squares that cover an image uint8 [1, 3, h, w]."""
    height, width = image.shape[2:]
    room = (0, max(0, side - width), 0, max(0, side - height))
    image = F.pad(image, room, value=GREY)
    rows, columns = image.shape[2:]
    sums = torch.zeros(1, network.head_spec.outputs, rows, columns, device=image.device)
    for top in starts(rows, side):
        for left in starts(columns, side):
            square = image[..., top : top + side, left : left + side]
            shares = network(to_unit(square)).softmax(1)
            sums[..., top : top + side, left : left + side] += shares
    return sums[..., :height, :width]


def starts(length: int, side: int) -> list[int]:
    """Where squares begin that cover `length` ≥ `side` pixels, each at most half a square on."""
    steps = math.ceil(2 * (length - side) / side)
    return [round(i * (length - side) / max(1, steps)) for i in range(steps + 1)]


def whole(shorter: int | None, height: int, width: int) -> Region:
    """All of an image, its shorter side scaled to `shorter`, but to `MOST_PIXELS` at most."""
    scale = 1.0 if shorter is None else shorter / min(height, width)
    scale = min(scale, math.sqrt(MOST_PIXELS / (height * width)))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return Region(0, 0, height, width, size)


def drawn(found: Tensor, label_of: tuple[int, ...], palette: tuple[Color, ...]) -> bytes:
    """The classes [H, W] of an image as a PNG of their labels, in the colours of their masks."""
    labels = np.array(label_of, np.uint8)[found.cpu().numpy()]
    return encode_mask(labels, palette)


def _counted(found: Tensor, truth: Tensor, classes: int) -> np.ndarray:
    if not bool((truth != VOID).any()):
        return np.zeros((classes, classes), np.int64)
    confusion = Confusion(classes)
    confusion.add(found, truth)
    return confusion.result().confusion


@dataclass(frozen=True)
class _Pair:
    """An image that was read, uint8 [3, h, w], and its mask, uint8 [H, W] of its own size."""

    position: int
    image: Tensor
    mask: Tensor

    def inputs(self, device: torch.device) -> Iterator[Tensor]:
        return iter([self.image.to(device, non_blocking=True)])


class _Pairs(Dataset[_Pair | Unreadable]):
    def __init__(self, source: MaskedImages, shorter: int | None) -> None:
        self.source = source
        self.shorter = shorter

    def __getitem__(self, position: int) -> _Pair | Unreadable:
        try:
            image = self.source.read(position, lambda h, w: whole(self.shorter, h, w))
            return _Pair(position, image, self.source.mask(position))
        except BadMediaError as error:
            return Unreadable(position, error.reason)


TASK = Segment
