"""Images, boxes and proposals on their way to a detector."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfsup_cli.config.detect import DetectImages
from selfsup_cli.data.boxes import Boxes
from selfsup_cli.data.framing import framed, region_of
from selfsup_cli.evaluation.detect_images import (
    GREY,
    DetectDataset,
    Scaling,
    join,
    parts_of,
    placed,
)

sides = st.integers(1, 3000)


@given(sides, sides)
def test_the_shorter_side_unless_the_longer_one_is_too_long(height: int, width: int) -> None:
    size = Scaling(600, 1000)(height, width)
    assert max(size) <= 1000
    assert min(size) <= 600
    assert min(size) == 600 or max(size) == 1000
    longest = max(Scaling(600, 1000, fixed=224)(height, width))
    assert longest == 224


@given(st.integers(0, 99), st.booleans())
def test_boxes_follow_the_image(seed: int, flip: bool) -> None:
    """A box around a bright patch is around it still when both were scaled and mirrored."""
    random = np.random.default_rng(seed)
    height, width = random.integers(20, 60, 2).tolist()
    left, top = int(random.integers(0, width - 8)), int(random.integers(0, height - 8))
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, top : top + 8, left : left + 8] = 255
    size = 3 * height, 2 * width
    scaled = framed(image, region_of(size, height, width))
    scaled = scaled.flip(2) if flip else scaled
    box = np.array([[left, top, left + 8, top + 8]])
    (found,) = placed(box, (height, width), size, flip=flip)
    bright = scaled[0] > 127
    ys, xs = torch.nonzero(bright.any(1)), torch.nonzero(bright.any(0))
    around = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    np.testing.assert_allclose(found, np.array(around, np.float64), atol=1)
    back = placed(found[None], size, (height, width), flip=False)
    assert flip or np.allclose(back, box, atol=1e-4)


class Shades:
    """Images of one shade each."""

    def __init__(self, shapes: list[tuple[int, int]], boxes: list[Boxes]) -> None:
        self.ids = [f"{i}.png" for i in range(len(shapes))]
        self.sizes = np.array(shapes)
        self.boxes = boxes

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, i: int, size: Any = None) -> torch.Tensor:
        height, width = self.sizes[i].tolist()
        return framed(
            torch.full((3, height, width), 10 * (i + 1), dtype=torch.uint8),
            region_of(size, height, width),
        )


@pytest.fixture
def dataset() -> DetectDataset:
    boxes = [
        Boxes(np.array([[0, 0, 10, 20], [5, 5, 9, 9]]), np.array([2, 0]), np.array([False, True])),
        Boxes(np.zeros((0, 4)), np.zeros(0, np.int64)),
    ]
    source: Any = Shades([(20, 40), (40, 40)], boxes)
    how = DetectImages(shorter=[40, 80], longest=120, flip=True)
    regions = {"0.png": np.array([[0.0, 0, 40, 20]]), "1.png": np.zeros((0, 4))}
    return DetectDataset(source, how, seed=3, regions=regions)


def test_a_sample_is_a_function_of_epoch_and_image(dataset: DetectDataset) -> None:
    seen = set()
    for epoch in range(40):
        one, again = dataset[epoch, 0], dataset[epoch, 0]
        assert one["boxes"].equal(again["boxes"])
        height, width = one["image"].shape[1:]
        assert (height, width) in ((40, 80), (60, 120))  # 80 would be 160 on the longer side
        assert one["label"].tolist() == [3]  # the difficult one is not learned from
        assert one["proposals"].tolist() == [[0, 0, width, height]]
        left = one["boxes"][0, 0].item()
        seen.add((height, left > 0))
    assert seen == {(40, False), (40, True), (60, False), (60, True)}


def test_a_batch_takes_them_apart_again(dataset: DetectDataset) -> None:
    samples = [dataset[0, 0], dataset[0, 1]]
    batch = join(samples)
    sizes, proposals, targets = parts_of(batch)
    for place, sample in enumerate(samples):
        height, width = sample["image"].shape[1:]
        assert sizes[place] == (height, width)
        assert batch["image"][place, :, :height, :width].equal(sample["image"])
        assert (batch["image"][place, :, height:] == GREY).all()
        assert targets[place]["boxes"].equal(sample["boxes"])
        assert targets[place]["labels"].equal(sample["label"])
        assert proposals[place][:-1].equal(sample["proposals"])
        assert proposals[place][-1].tolist() == [0, 0, width, height]
    assert batch["image"].shape[2:] == tuple(np.array(sizes).max(0))
    assert join(samples, fixed=128)["image"].shape == (2, 3, 128, 128)


def test_no_objects_and_no_proposals_are_a_batch_too(dataset: DetectDataset) -> None:
    (size,), (rows,), (target,) = parts_of(join([dataset[0, 1]]))
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert rows.tolist() == [[0, 0, size[1], size[0]]]


def test_unknown_regions_are_none(dataset: DetectDataset) -> None:
    dataset.regions = None
    assert dataset[0, 0]["proposals"].shape == (0, 4)
    assert SimpleNamespace(**dataset[0, 0]).id == "0.png"
