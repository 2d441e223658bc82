"""Dropped entries of a code: masks, neighbourhood means, what is damaged and what is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfsup_cli.transforms.damage import damage, draw_kept, neighbourhood_mean, upsample

seeds = st.integers(0, 2**32)
sides = st.integers(1, 6)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def codes(b: int, m: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(b, 5, m, n, generator=gen(seed))


def mean_by_hand(x: Tensor, i: int, j: int) -> Tensor:
    around = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
    return around.flatten(1).mean(1)


@pytest.mark.parametrize("drop_rate", [0.1, 0.5, 0.7, 0.9])
def test_entries_are_dropped_independently_at_the_rate(drop_rate: float) -> None:
    kept = draw_kept(4000, (4, 3), drop_rate, gen())
    assert (kept.shape, kept.dtype) == ((4000, 1, 4, 3), torch.bool)
    sigma = (drop_rate * (1 - drop_rate) / kept.numel()) ** 0.5
    assert abs(float(kept.float().mean()) - (1 - drop_rate)) < 4 * sigma
    correlation = np.corrcoef(kept.flatten(1).T.numpy())
    assert np.abs(correlation - np.eye(12)).max() < 0.08
    assert torch.equal(kept, draw_kept(4000, (4, 3), drop_rate, gen()))
    assert not torch.equal(kept, draw_kept(4000, (4, 3), drop_rate, gen(1)))


@pytest.mark.parametrize("drop_rate", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_drop_rate_is_between_0_and_1(drop_rate: float) -> None:
    with pytest.raises(ValueError, match="is not between 0 and 1"):
        draw_kept(1, (2, 2), drop_rate, gen())


@settings(max_examples=30)
@given(sides, sides, seeds)
def test_the_mean_is_over_neighbours_that_exist(m: int, n: int, seed: int) -> None:
    x = codes(2, m, n, seed)
    found = neighbourhood_mean(x)
    for image, means in zip(x, found, strict=True):
        for i in range(m):
            for j in range(n):
                torch.testing.assert_close(means[:, i, j], mean_by_hand(image, i, j))


@given(sides, sides, seeds)
def test_what_is_kept_stays_and_what_is_dropped_becomes_the_mean_of_the_undamaged(
    m: int, n: int, seed: int
) -> None:
    x, kept = codes(3, m, n, seed), draw_kept(3, (m, n), 0.5, gen(seed))
    found = damage(x, kept)
    for image, mask, out in zip(x, kept[:, 0], found, strict=True):
        for i, j in np.ndindex(m, n):
            if mask[i, j]:
                assert torch.equal(out[:, i, j], image[:, i, j])
            else:
                torch.testing.assert_close(out[:, i, j], mean_by_hand(image, i, j))
    assert torch.equal(damage(x, torch.ones_like(kept)), x)


def test_each_image_is_damaged_by_its_own_mask() -> None:
    x, kept = codes(4, 5, 6), draw_kept(4, (5, 6), 0.5, gen())
    alone = [damage(x[i : i + 1], kept[i : i + 1]) for i in range(4)]
    assert torch.equal(damage(x, kept), torch.cat(alone))
    for wrong in (kept[:1], kept[:, :, :1], kept.expand(-1, 5, -1, -1)):
        with pytest.raises(ValueError, match=r"masks .* for codes"):
            damage(x, wrong)


@given(sides, sides, st.integers(1, 4), st.integers(1, 4), seeds)
def test_upsampled_masks_repeat_every_entry(m: int, n: int, a: int, b: int, seed: int) -> None:
    kept = draw_kept(2, (m, n), 0.5, gen(seed))
    found = upsample(kept, (a * m, b * n)).numpy()
    np.testing.assert_array_equal(found, np.kron(kept.numpy(), np.ones((a, b), bool)))


def test_upsampling_needs_a_whole_multiple() -> None:
    for size in ((6, 9), (2, 4), (8, 0)):
        with pytest.raises(ValueError, match=r"masks of \(4, 4\) entries do not divide"):
            upsample(torch.ones(1, 1, 4, 4), size)
