"""Masks drawn over images: colours where they belong, and nothing where nothing counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from selfsup_cli.visualization.masks import (
    OPACITY,
    Legend,
    Shown,
    annotated_mask,
    mask_sheet,
    overlay,
)

COLORS = ((200, 0, 0), (0, 100, 250))


def scene(size: tuple[int, int] = (40, 60)) -> tuple[torch.Tensor, np.ndarray]:
    """A grey image, and a mask of two halves under a border that does not count."""
    image = torch.full((3, *size), 100, dtype=torch.uint8)
    mask = np.zeros(size, np.uint8)
    mask[:, size[1] // 2 :] = 1
    mask[:5] = 255
    return image, mask


def test_pixels_get_the_colour_of_their_class() -> None:
    image, mask = scene()
    found = np.array(overlay(image, mask, COLORS)).astype(int)
    assert (found[:4] == 100).all()
    for column, color in ((10, COLORS[0]), (50, COLORS[1])):
        expected = np.round(100 * (1 - OPACITY) + np.array(color) * OPACITY)
        np.testing.assert_allclose(found[20, column], expected, atol=1)
    np.testing.assert_array_equal(found[20, 29], COLORS[0])  # the outline
    small = np.array(overlay(image, mask[::2, ::2], COLORS))
    np.testing.assert_array_equal(small[20, 10], found[20, 10])


def test_sheets_hold_every_row_and_name(tmp_path: Path) -> None:
    image, mask = scene()
    legend = Legend(
        [f"a long name of class {k}" for k in range(30)], [COLORS[k % 2] for k in range(30)]
    )
    rows = [Shown(f"{k}.png", image, [mask, 1 - np.minimum(mask, 1)], "50 %") for k in range(2)]
    mask_sheet(tmp_path / "s.png", rows, ("image", "truth", "found"), legend, title="t", note="n")
    pixels = np.array(Image.open(tmp_path / "s.png").convert("RGB")).astype(int)
    expected = np.round(100 * (1 - OPACITY) + np.array(COLORS[1]) * OPACITY)
    painted = (np.abs(pixels - expected) <= 2).all(2).sum()
    assert painted > 2 * 2 * 0.4 * 190 * 285 * 0.8
    assert pixels.shape[0] > 2 * 190 + 6 * 24
    annotated_mask(tmp_path / "a.png", image, mask, legend, name="x" * 300)
    found = np.array(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    assert ((np.abs(found - expected) <= 2).all(2)).sum() > 900
