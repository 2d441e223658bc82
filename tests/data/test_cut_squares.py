"""Squares cut out of pictures, within them and beyond their edges."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from selfsup_cli.data.crops import cut, inside, whole
from selfsup_cli.data.geometry import Box

PICTURE = np.random.default_rng(0).integers(0, 256, (3, 23, 31)).astype(np.uint8)


@given(st.integers(-40, 40), st.integers(-40, 40), st.integers(2, 40))
def test_what_lies_outside_repeats_the_edge(left: int, top: int, size: int) -> None:
    wide = np.pad(PICTURE, ((0, 0), (90, 90), (90, 90)), mode="edge")
    expected = wide[:, 90 + top : 90 + top + size, 90 + left : 90 + left + size]
    box = Box(left, top, size)
    np.testing.assert_array_equal(cut(PICTURE, box, size), expected)
    rows, columns = np.mgrid[top : top + size, left : left + size]
    there = (rows >= 0) & (rows < 23) & (columns >= 0) & (columns < 31)
    np.testing.assert_array_equal(inside(23, 31, box, size), there)


def test_it_is_scaled_antialiased() -> None:
    part = torch.from_numpy(PICTURE[:, 2:22, 5:25].copy())[None]
    expected = interpolate(part, (7, 7), mode="bilinear", antialias=True)[0].numpy()
    np.testing.assert_array_equal(cut(PICTURE, Box(5, 2, 20), 7), expected)


def test_corners_go_to_the_borders_of_pixels() -> None:
    assert whole(Box(1.4, -2.6, 0.3)) == Box(1, -3, 2)
