"""The points of `ring`: where they lie, in what order they come, what counts as covered."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selfsup_cli.config.gan import Ring
from selfsup_cli.config.images import ImageData
from selfsup_cli.data.images import open_images
from selfsup_cli.data.loader import EpochSampler
from selfsup_cli.data.ring import PointLoader, Points, centres, coverage
from selfsup_cli.errors import InputError

SMALL = Ring(points=800, test_points=400)


def test_points_are_those_of_the_modes() -> None:
    points = Points(SMALL, "train").points
    assert points.shape == (800, 2)
    angles = np.arange(8) * np.pi / 4
    middles = 0.8 * np.stack([np.cos(angles), np.sin(angles)], 1)
    np.testing.assert_allclose(centres(SMALL).numpy(), middles, atol=1e-6)
    apart = np.linalg.norm(points.numpy()[:, None] - middles[None], axis=2)
    nearest = apart.argmin(1)
    assert np.bincount(nearest).tolist() == [100] * 8
    offsets = points.numpy() - middles[nearest]
    assert offsets.std() == pytest.approx(0.01, rel=0.05)
    assert abs(offsets.mean()) < 0.001


def test_parts_and_seeds_differ_and_repeat() -> None:
    train, test = Points(SMALL, "train"), Points(SMALL, "test")
    assert torch.equal(train.points, Points(SMALL, "train").points)
    assert not torch.equal(train.points[:400], test.points)
    other = Points(SMALL.model_copy(update={"seed": 1}), "train")
    assert not torch.equal(train.points, other.points)
    prints = {one.fingerprint for one in (train, test, other)}
    assert len(prints) == 3
    assert torch.equal(Points(SMALL, "all").points, torch.cat([train.points, test.points]))
    assert (len(train), len(test), len(Points(SMALL, "all"))) == (800, 400, 1200)


def test_coverage_against_a_loop() -> None:
    g = torch.Generator().manual_seed(0)
    points = torch.cat([
        Points(SMALL, "test").points[:100],
        centres(SMALL)[0] + 0.1 * torch.randn(100, 2, generator=g),
        torch.randn(100, 2, generator=g),
    ])  # fmt: skip
    found = coverage(points, SMALL)
    counts = [0] * 8
    for x, y in points.tolist():
        for k in range(8):
            at = 0.8 * np.cos(k * np.pi / 4), 0.8 * np.sin(k * np.pi / 4)
            counts[k] += (x - at[0]) ** 2 + (y - at[1]) ** 2 <= 0.1**2
    assert found.by_mode == tuple(counts)
    assert found.good == sum(counts)
    assert found.covered == sum(count >= 3 for count in counts)


def test_a_mode_with_less_than_a_hundredth_is_not_covered() -> None:
    middles = centres(SMALL)
    points = torch.cat([middles[:1].expand(199, 2), middles[1:2]])
    assert coverage(points, SMALL).covered == 1
    assert coverage(torch.cat([points[1:], middles[1:2]]), SMALL).covered == 2


@pytest.mark.parametrize("world", [1, 2])
def test_batches_are_those_of_the_sampler_from_any_place(world: int) -> None:
    source = Points(SMALL, "train")
    for rank in range(world):
        loader = PointLoader(source, batch_size=64, seed=3, rank=rank, world=world)
        sampler = EpochSampler(800, 64, 3, rank, world)
        sampler.epoch, sampler.start = 2, 5
        expected = [[position for _, position in keys] for keys in sampler]
        found = list(loader.epoch(2, 5))
        assert [batch["index"].tolist() for batch in found] == expected
        assert len(loader) == 12
        for batch in found:
            assert torch.equal(batch["point"], source.points[batch["index"]])


def test_whoever_reads_images_refuses_it() -> None:
    with pytest.raises(InputError, match="ring is a dataset of points, and this command reads im"):
        open_images(ImageData(source="ring"), "train", labels=False, workers=1)
