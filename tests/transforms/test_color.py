"""Colour of images against the standard library and plain arithmetic."""

from __future__ import annotations

import colorsys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfsup_cli.transforms.color import contrast, grey, recolor, saturate

levels = st.tuples(*[st.integers(0, 255)] * 3)


@given(levels, st.floats(0, 3, width=32))
def test_saturation_is_that_of_hsv(rgb: tuple[int, int, int], factor: float) -> None:
    values = tuple(v / 255 for v in rgb)
    h, s, v = colorsys.rgb_to_hsv(*values)
    expected = colorsys.hsv_to_rgb(h, min(s * factor, 1.0), v)
    x = torch.tensor(values).view(1, 3, 1, 1)
    assert saturate(x, torch.tensor(factor)).flatten().tolist() == pytest.approx(expected, abs=1e-5)


@given(levels)
def test_grey_is_the_luminance(rgb: tuple[int, int, int]) -> None:
    x = torch.tensor([float(v) for v in rgb]).view(1, 3, 1, 1)
    expected = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
    assert float(grey(x)) == pytest.approx(expected, abs=1e-3)


def test_contrast_is_about_the_mean_of_each_channel_of_each_image() -> None:
    x = torch.rand(3, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    factor = torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1)
    out = contrast(x, factor)
    mean = x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(out[0], mean[0].expand(3, 5, 6))
    torch.testing.assert_close(out[1], x[1])
    torch.testing.assert_close(out[2] - mean[2], 2 * (x[2] - mean[2]))
    torch.testing.assert_close(contrast(x[2:], factor[2:]), out[2:])


def test_images_are_coloured_as_clips_are() -> None:
    x = torch.rand(6, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    u = torch.rand(4, 6, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    out = recolor(x, u)
    torch.testing.assert_close(out, recolor(x[:, :, None], u[..., None])[:, :, 0])
    torch.testing.assert_close(out[2:3], recolor(x[2:3], u[:, 2:3]))
