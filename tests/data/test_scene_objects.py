"""The built-in scenes with boxes and masks."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup_cli.config.detect import BoxedData
from selfsup_cli.config.images import Rendered
from selfsup_cli.config.segment import MaskData
from selfsup_cli.data import scenes
from selfsup_cli.data.boxed_source import open_boxed
from selfsup_cli.data.framing import Region
from selfsup_cli.data.mask_source import open_masked
from selfsup_cli.data.source import Split

SMALL = Rendered(images=16, test_images=8, side=48)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([32, 48, 64]))
def test_the_outline_is_where_the_object_was_painted(index: int, side: int) -> None:
    there = scenes.outline(0, "train", index, side)
    assert there.shape == (side, side)
    assert 0.04 < there.mean() < 0.6
    ys, xs = np.nonzero(there)
    # The body is round and in the middle of its parts: the centre of mass is of the object.
    assert there[int(ys.mean()), int(xs.mean())]
    # Outside, all that there is are smooth clouds and grain; inside are edges and paint.
    image = scenes.render(0, "train", index, side).astype(np.float64).mean(0)
    inside, outside = image[there], image[~there]
    assert abs(inside.mean() - outside.mean()) > 5 or inside.std() > outside.std()


def test_boxes_are_tight_and_masks_are_of_the_class() -> None:
    parts: tuple[tuple[Split, int], ...] = (("train", 16), ("test", 8))
    for split, count in parts:
        boxed = open_boxed(BoxedData(source="scenes", scenes=SMALL), split, labels=True, workers=0)
        masked = open_masked(MaskData(source="scenes", scenes=SMALL), split, workers=0)
        assert len(boxed) == len(masked) == count
        assert boxed.attributes == scenes.CLASSES
        assert masked.classes == ("background", *scenes.CLASSES)
        for i in range(count):
            mask = masked.mask(i)
            (label,), (box,) = boxed.boxes[i].labels, boxed.boxes[i].boxes
            assert set(mask.flatten().tolist()) == {0, 1 + int(label)}
            assert masked.present[i].nonzero()[0].tolist() == [0, 1 + int(label)]
            ys, xs = mask.nonzero(as_tuple=True)
            edges = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
            assert box.tolist() == edges
            assert torch.equal(boxed.read(i), masked.read(i))


def test_parts_of_masks_and_subsets() -> None:
    masked = open_masked(MaskData(source="scenes", scenes=SMALL), "all", workers=0)
    half = masked.subset(np.array([20, 3]))
    assert torch.equal(half.mask(0), masked.mask(20))
    assert half.present[1].tolist() == masked.present[3].tolist()
    region = Region(8, 4, 24, 32, (24, 32))
    assert torch.equal(masked.mask(3, region), masked.mask(3)[8:32, 4:36])
    assert masked.fingerprint != half.fingerprint
