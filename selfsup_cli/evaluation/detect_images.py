"""How images, boxes and proposals come to a detector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from selfsup_cli.config.detect import DetectImages
from selfsup_cli.data.boxes import BoxedImages
from selfsup_cli.data.framing import Region
from selfsup_cli.data.loader import SourceDataset
from selfsup_cli.errors import BadMediaError
from selfsup_cli.evaluation.reading import Unreadable, read_items
from selfsup_cli.randomness import generator

GREY = 128

Size = tuple[int, int]
Regions = Mapping[str, np.ndarray]
"""Proposals float32 [P, 4] of each image, in its own pixels, by its id."""


@dataclass(frozen=True)
class Scaling:
    """Images whose shorter side becomes `shorter`, unless the longer one would exceed `longest`.

    With `fixed`, the longer side becomes that.
    """

    shorter: int
    longest: int
    fixed: int | None = None

    def __call__(self, height: int, width: int) -> Size:
        """The height and width to which an image is scaled."""
        if self.fixed is not None:
            scale = self.fixed / max(height, width)
        else:
            scale = min(self.shorter / min(height, width), self.longest / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def region(self, height: int, width: int) -> Region:
        """The same for `ImageSource.read`."""
        return Region(0, 0, height, width, self(height, width))


def placed(boxes: np.ndarray, was: Sequence[int], size: Size, *, flip: bool = False) -> np.ndarray:
    """Boxes [N, 4] of an image of `was` (H, W) in one of `size`, mirrored if `flip`: float32."""
    across, down = size[1] / was[1], size[0] / was[0]
    out = boxes.astype(np.float64) * [across, down, across, down]
    if flip:
        out[:, [0, 2]] = size[1] - out[:, [2, 0]]
    return out.astype(np.float32)


class DetectDataset(SourceDataset):
    """Training images in a size drawn for each and epoch, mirrored or not, with boxes in it.

    A sample is `image` uint8 [3, h, w], `boxes` float32 [N, 4] and `label` int64 [N] (from 1 on) of
    the objects that are not difficult, `proposals` float32 [P, 4], `index` and `id`. `regions` may
    be filled in later; without, there are no proposals.
    """

    MANY = "images"

    def __init__(
        self,
        source: BoxedImages,
        how: DetectImages,
        seed: int,
        *,
        fixed: int | None = None,
        regions: Regions | None = None,
    ) -> None:
        super().__init__(source)
        self.source = source
        self.how = how
        self.seed = seed
        self.fixed = fixed
        self.regions = regions

    def _sample(self, epoch: int, index: int) -> dict[str, Any]:
        g = generator(self.seed, epoch, index, "detect")
        drawn = int(torch.randint(len(self.how.shorter), (), generator=g))
        flip = bool(torch.rand((), generator=g) < 0.5) and self.how.flip
        scaling = Scaling(self.how.shorter[drawn], self.how.longest, self.fixed)
        image = self.source.read(index, scaling.region)
        was, size = self.source.sizes[index].tolist(), (image.shape[1], image.shape[2])
        identifier, objects = self.source.ids[index], self.source.boxes[index]
        easy = objects.easy
        proposals = np.zeros((0, 4)) if self.regions is None else self.regions[identifier]
        return {
            "image": (image.flip(2) if flip else image).contiguous(),
            "boxes": torch.from_numpy(placed(objects.boxes[easy], was, size, flip=flip)),
            "label": torch.from_numpy(objects.labels[easy] + 1),
            "proposals": torch.from_numpy(placed(proposals, was, size, flip=flip)),
            "index": torch.tensor(index),
            "id": identifier,
        }


def join(samples: Sequence[dict[str, Any]], fixed: int | None = None) -> dict[str, Any]:
    """A batch: images in the upper left of a canvas uint8 [B, 3, H, W] that holds all of them.

    With `fixed`, that is its side. `sizes` int64 [B, 2] are their own; `boxes` [B, N, 4], `label`
    [B, N] and `proposals` [B, P, 4] are filled up, and of the last `count` int64 [B] are there. A
    label of 0 is none.
    """
    sizes = [tuple(sample["image"].shape[1:]) for sample in samples]
    height, width = (fixed or max(side) for side in zip(*sizes, strict=True))
    images = torch.full((len(samples), 3, height, width), GREY, dtype=torch.uint8)
    for place, sample in enumerate(samples):
        h, w = sizes[place]
        images[place, :, :h, :w] = sample["image"]
    return {
        "image": images,
        "sizes": torch.tensor(sizes),
        "boxes": _filled([sample["boxes"] for sample in samples]),
        "label": _filled([sample["label"] for sample in samples]),
        "proposals": _filled([sample["proposals"] for sample in samples]),
        "count": torch.tensor([len(sample["proposals"]) for sample in samples]),
        "index": torch.stack([sample["index"] for sample in samples]),
        "id": [sample["id"] for sample in samples],
        "bad": [entry for sample in samples for entry in sample["bad"]],
    }


def parts_of(
    batch: Mapping[str, Tensor],
) -> tuple[list[Size], list[Tensor], list[dict[str, Tensor]]]:
    """Sizes, proposals and targets of the images of a batch, as `Detector` takes them.

    The whole image is always a proposal.
    """
    sizes = [(int(height), int(width)) for height, width in batch["sizes"].tolist()]
    proposals = [
        torch.cat([rows[:count], whole(size, rows)])
        for rows, count, size in zip(
            batch["proposals"], batch["count"].tolist(), sizes, strict=True
        )
    ]
    targets = [
        {"boxes": boxes[label > 0], "labels": label[label > 0]}
        for boxes, label in zip(batch["boxes"], batch["label"], strict=True)
    ]
    return sizes, proposals, targets


def whole(size: Size, like: Tensor) -> Tensor:
    """The box of all of an image, [1, 4]."""
    return like.new_tensor([[0.0, 0.0, size[1], size[0]]])


def _filled(parts: Sequence[Tensor]) -> Tensor:
    """Tensors [n, …] of different lengths as one [B, most, …], zeros behind them."""
    most = max(len(part) for part in parts)
    out = parts[0].new_zeros((len(parts), most, *parts[0].shape[1:]))
    for row, part in zip(out, parts, strict=True):
        row[: len(part)] = part
    return out


@dataclass(frozen=True)
class TestImage:
    """A test image as it was read, uint8 [3, h, w]."""

    __test__ = False
    position: int
    image: Tensor

    def inputs(self, device: torch.device) -> Iterator[Tensor]:
        """The image, uint8 [3, h, w]."""
        return iter((self.image.to(device, non_blocking=True),))


class _TestImages(Dataset[TestImage | Unreadable]):
    def __init__(self, source: BoxedImages, scaling: Scaling) -> None:
        self.source = source
        self.scaling = scaling

    def __getitem__(self, position: int) -> TestImage | Unreadable:
        try:
            return TestImage(position, self.source.read(position, self.scaling.region))
        except BadMediaError as error:
            return Unreadable(position, error.reason)


def read_tests(
    source: BoxedImages,
    scaling: Scaling,
    workers: int,
    bad: Callable[[str, str], None] | None = None,
) -> Iterator[TestImage]:
    """The images in their order, scaled; see `reading.read_items`."""
    return read_items(_TestImages(source, scaling), source, range(len(source)), workers, bad)
