"""What is done to images that a network is fine-tuned on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from selfsup_cli.randomness import generator
from selfsup_cli.transforms.color import recolor
from selfsup_cli.transforms.finetuning import MOVE, SCALE, cut_out, recolored, turned


def images(count: int = 64, side: int = 40) -> Tensor:
    return 0.2 + 0.7 * torch.rand(count, 3, side, side, generator=generator(0))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_that_share_is_changed_and_the_rest_is_not(share: float) -> None:
    x = images(400, 12)
    for found in (turned(x, share, generator(1)), cut_out(x, share, (0.3, 0.5), generator(1))):
        changed = (found != x).flatten(1).any(1).float().mean()
        assert float(changed) == pytest.approx(share, abs=0.08)


def test_a_square_lies_inside_and_anywhere() -> None:
    x = images(600)
    holes = (cut_out(x, 1.0, (0.2, 0.7), generator(2)) == 0).all(1)
    touched = holes.float().mean(0)
    assert float(touched.min()) > 0
    for hole in holes:
        rows, columns = hole.any(1), hole.any(0)
        assert torch.equal(hole, rows[:, None] & columns[None, :])
        assert 8 <= int(rows.sum()) == int(columns.sum()) <= 28
        first = int(rows.nonzero()[0])
        assert bool(rows[first : first + int(rows.sum())].all())
    sides = holes.any(2).sum(1)
    assert len(set(sides.tolist())) > 15


def test_an_affine_map_moves_a_blob_as_far_as_it_says() -> None:
    """A small blob in the middle moves by no more than MOVE; one away from it is turned about."""
    x = torch.zeros(300, 3, 101, 101)
    x[:, :, 48:53, 48:53] = 1.0
    found = turned(x, 1.0, generator(3))
    mass = found[:, 0]
    at = torch.arange(101.0)
    centre = torch.stack(
        [(mass.sum(2) * at).sum(1) / mass.sum((1, 2)), (mass.sum(1) * at).sum(1) / mass.sum((1, 2))]
    )
    moved = (centre - 50) / 101
    # The move is looked up in the turned and sheared frame, which is why it may be a little longer.
    assert float(moved.abs().max()) < MOVE * 1.45 * SCALE[1]
    assert float(moved.abs().max()) > MOVE * 0.8
    assert abs(float(moved.mean())) < 0.01
    area = mass.sum((1, 2))
    assert float(area.mean()) == pytest.approx(25, rel=0.03)
    assert float(area.max()) < 25 * SCALE[1] ** 2 * 1.05
    assert float(area.min()) > 25 * SCALE[0] ** 2 * 0.95


def test_each_image_has_colours_of_its_own() -> None:
    x = images(32)
    found = recolored(x, generator(4))
    u = torch.rand(4, 32, 1, 1, 1, generator=generator(4))
    assert torch.equal(found, recolor(x, u))
    grey = (found.amax(1) - found.amin(1)).flatten(1).amax(1) == 0
    assert 0 < int(grey.sum()) < 16
