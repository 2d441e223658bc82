"""Which part of an image is wanted: always inside of it, always of the size of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfsup_cli.data.framing import Crop, RandomResizedCrop, Region, Scaled, framed, region_of

sides = st.integers(1, 400)
seeds = st.integers(0, 2**32)


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(sides, sides, seeds, st.integers(1, 64), st.integers(0, 3))
def test_every_plan_stays_inside(height: int, width: int, seed: int, side: int, kind: int) -> None:
    size = (side, 2 * side)
    plan = [
        Scaled(size),
        Crop(size, random=True),
        Crop(size, shorter=2 * side, random=True),
        RandomResizedCrop(size),
    ][kind]
    region = region_of(lambda h, w: plan(h, w, source(seed)), height, width)
    assert region.size == size
    assert region == plan(height, width, source(seed))


def test_a_crop_at_scale_is_a_crop_and_no_more() -> None:
    image = torch.arange(3 * 10 * 12, dtype=torch.uint8).reshape(3, 10, 12)
    region = Crop((6, 8))(10, 12, source(0))
    assert region == Region(2, 2, 6, 8, (6, 8))
    assert torch.equal(framed(image, region), image[:, 2:8, 2:10])


def test_a_random_crop_is_anywhere_with_equal_probability() -> None:
    plan, generator = Crop((6, 6), random=True), source(3)
    regions = [plan(10, 8, generator) for _ in range(6000)]
    tops = np.bincount([region.top for region in regions], minlength=5)
    lefts = np.bincount([region.left for region in regions], minlength=3)
    assert np.abs(tops / 6000 - 1 / 5).max() < 0.03
    assert np.abs(lefts / 6000 - 1 / 3).max() < 0.03


def test_the_shorter_side_is_scaled_before_the_crop() -> None:
    """224 of 256 of a 512×1024 image are its middle 448×448 pixels."""
    assert Crop((224, 224), shorter=256)(512, 1024, source(0)) == Region(
        32, 288, 448, 448, (224, 224)
    )
    with pytest.raises(ValueError, match="does not fit"):
        Crop((224, 300), shorter=256)


def test_an_image_smaller_than_the_crop_is_scaled_up() -> None:
    assert Crop((20, 20))(10, 40, source(0)) == Region(0, 15, 10, 10, (20, 20))


def test_random_resized_crops_have_the_areas_and_ratios_that_are_asked_for() -> None:
    plan, generator = RandomResizedCrop((8, 8), scale=(0.2, 0.6), ratio=(0.5, 2.0)), source(1)
    regions = [plan(300, 300, generator) for _ in range(3000)]
    area = np.array([region.height * region.width / 90_000 for region in regions])
    ratio = np.array([region.width / region.height for region in regions])
    assert 0.195 < area.min() < 0.21 < 0.58 < area.max() < 0.605
    assert area.mean() == pytest.approx(0.4, abs=0.02)
    assert 0.49 < ratio.min() < 0.52 < 1.9 < ratio.max() < 2.05
    assert np.log(ratio).mean() == pytest.approx(0.0, abs=0.04)


def test_where_no_draw_fits_it_is_the_middle() -> None:
    plan = RandomResizedCrop((8, 8), scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert plan(10, 100, source(0)) == Region(0, 45, 10, 10, (8, 8))


def test_the_shorter_side_rounds_down_as_torchvision_does() -> None:
    from torchvision.transforms.v2.functional import resize

    for height, width in ((33, 50), (50, 33), (31, 31), (7, 100)):
        expected = resize(torch.zeros(3, height, width, dtype=torch.uint8), [13]).shape[1:]
        assert region_of(13, height, width).size == tuple(expected)
