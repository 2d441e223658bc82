"""The empty scene: the running median against sorting, and masks against SciPy's morphology."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from selfsup_cli.data.background import RunningMedian, foreground, opened_closed


def film(frames: int, seed: int = 0) -> np.ndarray:
    source = np.random.default_rng(seed)
    scene = source.integers(20, 230, (3, 12, 17))
    noise = source.normal(0, 2.5, (frames, 3, 12, 17))
    return np.clip(scene + noise, 0, 255).astype(np.uint8)


def running(pictures: np.ndarray, piece: int = 7) -> RunningMedian:
    median = RunningMedian(pictures[:: max(1, len(pictures) // 15)][:15])
    for start in range(0, len(pictures), piece):
        median.add(pictures[start : start + piece])
    return median


@settings(max_examples=15, deadline=None)
@given(frames=st.integers(15, 300), seed=st.integers(0, 5))
def test_it_is_the_lower_median_of_every_value(frames: int, seed: int) -> None:
    pictures = film(frames, seed)
    scene = running(pictures).result()
    assert scene.frames == frames
    assert scene.clipped == 0
    np.testing.assert_array_equal(scene.picture, np.sort(pictures, 0)[(frames - 1) // 2])


def test_who_passes_by_is_not_in_it() -> None:
    pictures = film(120)
    for frame in range(120):
        left = frame * 17 // 120
        pictures[frame, :, 3:10, left : left + 2] = 255
    empty = running(film(120)).result().picture
    np.testing.assert_allclose(running(pictures).result().picture, empty, atol=2)


def test_values_that_were_not_counted_are_told_and_lie_at_the_edge() -> None:
    pictures = film(61)
    pictures[:, 0, 0, 0] = 200
    seeds = pictures[:15].copy()
    seeds[:, 0, 0, 0] = 30
    median = RunningMedian(seeds)
    median.add(pictures)
    scene = median.result()
    assert scene.clipped == pytest.approx(1 / (3 * 12 * 17))
    assert scene.picture[0, 0, 0] == 30 - 8 + 15


@pytest.mark.parametrize("level", [0, 255])
def test_the_darkest_and_the_lightest_are_counted(level: int) -> None:
    pictures = np.full((20, 3, 4, 4), level, np.uint8)
    scene = running(pictures).result()
    assert (scene.picture == level).all()
    assert scene.clipped == 0


def test_masks_are_opened_and_closed_as_scipy_does() -> None:
    masks = np.random.default_rng(3).random((4, 20, 31)) < 0.6
    square = np.ones((3, 3), bool)
    for mask, found in zip(masks, opened_closed(masks), strict=True):
        eroded = ndimage.binary_erosion(mask, square, border_value=1)
        opened = ndimage.binary_dilation(eroded, square)
        dilated = ndimage.binary_dilation(opened, square)
        closed = ndimage.binary_erosion(dilated, square, border_value=1)
        np.testing.assert_array_equal(found, closed)


def test_the_threshold_is_on_the_colour_that_differs_most() -> None:
    scene = np.full((3, 9, 9), 100, np.uint8)
    picture = np.repeat(scene[None], 3, 0)
    picture[0, 1, 2:7, 2:7] = 131
    picture[1, 1, 2:7, 2:7] = 130
    picture[2, :, 4, 4] = 255
    found = foreground(picture, scene)
    assert found[0].sum() == 25
    assert not found[1].any()
    assert not found[2].any(), "one pixel is smaller than 3×3"
