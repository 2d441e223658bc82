"""Splines against SciPy, folds, small rotations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import map_coordinates
from torch import Tensor

from selfsup_cli.transforms.images import crop, random_corners, turn
from selfsup_cli.transforms.warp import (
    Controls,
    Placement,
    RandomWarp,
    Spline,
    folded,
    random_angles,
    rotate,
    rotated_crops,
    spline_displacement,
)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(b: int, high: int, wide: int, seed: int = 0) -> Tensor:
    return torch.rand(b, 3, high, wide, generator=gen(seed)) * 2 - 1


def pixel_grid(high: int, wide: int) -> np.ndarray:
    """(column, row) of every pixel, row by row."""
    rows, columns = np.mgrid[:high, :wide]
    return np.stack([columns.ravel(), rows.ravel()], 1).astype(float)


def scipys(points: Tensor, offsets: Tensor, high: int, wide: int) -> Tensor:
    fitted = RBFInterpolator(
        points.double().numpy(), offsets.double().numpy(), kernel="thin_plate_spline", degree=1
    )
    return torch.from_numpy(fitted(pixel_grid(high, wide)).T.reshape(2, high, wide)).float()


seeds = st.integers(0, 2**32)
placements = st.sampled_from(["grid", "random"])


@settings(max_examples=20)
@given(placements, st.integers(2, 5), st.integers(20, 40), st.integers(20, 40), seeds)
def test_displacements_are_those_of_scipy(
    placement: Placement, points: int, high: int, wide: int, seed: int
) -> None:
    warp = RandomWarp(high, wide, points=points, placement=placement)
    controls = warp.draw(3, gen(seed))
    assert controls.offsets.shape == (3, points**2, 2)
    assert (controls.offsets.abs() <= torch.tensor([wide, high]) / 10).all()
    found = warp.displacement(controls)
    assert found.shape == (3, 2, high, wide)
    where = controls.points.expand(3, -1, -1)
    for ours, place, offsets in zip(found, where, controls.offsets, strict=True):
        torch.testing.assert_close(ours, scipys(place, offsets, high, wide), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("placement", ["grid", "random"])
def test_images_are_warped_as_scipy_would_look_them_up(placement: Placement) -> None:
    high, wide = 40, 52
    warp = RandomWarp(high, wide, placement=placement)
    controls = warp.draw(2, gen(3))
    x = images(2, high, wide)
    out = warp(x, controls)
    where = controls.points.expand(2, -1, -1)
    for image, warped, place, offsets in zip(x, out, where, controls.offsets, strict=True):
        columns, rows = scipys(place, offsets, high, wide).numpy()
        grid = pixel_grid(high, wide).T.reshape(2, high, wide)
        source = np.stack([grid[1] - rows, grid[0] - columns])
        for channel, seen in zip(image, warped, strict=True):
            expected = map_coordinates(channel.numpy(), source, order=1, mode="nearest")
            np.testing.assert_allclose(seen.numpy(), expected, atol=5e-3)


@given(placements, st.integers(2, 6), st.integers(8, 40), st.integers(8, 40), seeds)
def test_offsets_of_nothing_are_the_identity(
    placement: Placement, points: int, high: int, wide: int, seed: int
) -> None:
    warp = RandomWarp(high, wide, points=points, reach=0, placement=placement)
    x = images(2, high, wide, seed)
    torch.testing.assert_close(warp(x, warp.draw(2, gen(seed))), x, rtol=0, atol=1e-4)


@given(st.integers(2, 5), seeds)
def test_the_image_moves_at_the_control_points_by_their_offsets(points: int, seed: int) -> None:
    side = 6 * (points - 1) + 1  # so that the points of the grid are pixels
    warp = RandomWarp(side, side, points=points)
    controls = warp.draw(2, gen(seed))
    assert controls.points[0, 0].tolist() == [0, 0]
    assert controls.points[0, -1].tolist() == [side - 1, side - 1]
    assert controls.points[0, 1].tolist() == [6, 0]
    columns, rows = controls.points[0].round().long().unbind(1)
    moved = warp.displacement(controls)[:, :, rows, columns].transpose(1, 2)
    torch.testing.assert_close(moved, controls.offsets, atol=1e-3, rtol=0)


@given(placements, seeds)
def test_affine_offsets_move_everything_affinely(placement: Placement, seed: int) -> None:
    high, wide = 24, 30
    points = RandomWarp(high, wide, placement=placement).draw(1, gen(seed)).points
    matrix, shift = torch.randn(2, 2, generator=gen(seed)) / 10, torch.tensor([1.0, -2.0])
    offsets = points @ matrix.T + shift
    grid = torch.from_numpy(pixel_grid(high, wide)).float()
    expected = (grid @ matrix.T + shift).T.reshape(1, 2, high, wide)
    exact = spline_displacement(points, offsets, high, wide)
    torch.testing.assert_close(exact, expected, rtol=0, atol=2e-2)
    if placement == "grid":
        torch.testing.assert_close(Spline(points[0], high, wide)(offsets), exact, atol=1e-3, rtol=0)


@pytest.mark.parametrize("placement", ["grid", "random"])
def test_a_positive_offset_moves_the_image_right_and_down(placement: Placement) -> None:
    warp = RandomWarp(20, 24, placement=placement)
    drawn = warp.draw(1, gen())
    controls = Controls(drawn.points, torch.tensor([3.0, 5.0]).expand_as(drawn.offsets))
    x = images(1, 20, 24)
    out = warp(x, controls)
    torch.testing.assert_close(out[..., 5:, 3:], x[..., :-5, :-3], atol=1e-3, rtol=0)
    # What comes from beyond the border is its nearest pixel.
    edge = x[..., :1, :-3].expand(-1, -1, 5, -1)
    torch.testing.assert_close(out[..., :5, 3:], edge, atol=1e-3, rtol=0)


@pytest.mark.parametrize("placement", ["grid", "random"])
def test_an_image_is_warped_alike_in_any_batch_and_precision(placement: Placement) -> None:
    warp = RandomWarp(32, 32, placement=placement)
    controls = warp.draw(4, gen())
    x = images(4, 32, 32)
    out = warp(x, controls)
    points = controls.points if placement == "grid" else controls.points[2:3]
    alone = warp(x[2:3], Controls(points, controls.offsets[2:3]))
    torch.testing.assert_close(alone, out[2:3], atol=1e-5, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(warp(x, controls), out)
    half = warp(x.bfloat16(), controls)
    assert half.dtype == torch.bfloat16
    assert (half.float() - out).abs().max() < 0.02


@pytest.mark.parametrize("placement", ["grid", "random"])
def test_warps_come_from_the_generator_alone(placement: Placement) -> None:
    warp = RandomWarp(32, 40, points=3, placement=placement)
    state = torch.random.get_rng_state()
    first, again, other = (warp.draw(50, gen(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.offsets, again.offsets)
    assert torch.equal(first.points, again.points)
    assert not torch.equal(first.offsets, other.offsets)
    most = first.offsets.abs().amax((0, 1))
    assert 3.9 < most[0] <= 4
    assert 3.1 < most[1] <= 3.2
    if placement == "random":
        assert first.points.amin() >= 0
        assert 38 < first.points[..., 0].max() <= 39
        assert 30 < first.points[..., 1].max() <= 31


def test_a_fold_is_where_the_image_is_turned_inside_out() -> None:
    x = torch.arange(12.0).expand(10, 12)
    still = torch.zeros(3, 2, 10, 12)
    mirrored, stretched = still.clone(), still.clone()
    mirrored[1, 0] = 2 * x  # q − 2q
    stretched[1, 0] = -x / 2
    assert folded(still).tolist() == [0, 0, 0]
    assert folded(mirrored).tolist() == [0, 1, 0]
    assert folded(stretched).tolist() == [0, 0, 0]
    half = still.clone()
    half[2, 0, 5:] = 2 * x[5:]  # and a tear above it, which folds nothing
    share = folded(half)
    assert share[:2].tolist() == [0, 0]
    assert 0.4 < share[2] < 0.6
    # A half turn in place turns nothing inside out.
    turned = torch.stack([2 * x, 2 * torch.arange(10.0)[:, None].expand(10, 12)])[None]
    assert folded(turned).tolist() == [0]


@pytest.mark.parametrize(("points", "placement", "reach", "low", "high", "crossing"), [
    (3, "grid", 0.1, 0, 0, False),
    (4, "grid", 0.1, 0, 0, False),
    (6, "grid", 0.1, 0.6, 1, True),
    (8, "grid", 0.1, 1, 1, True),
    (4, "random", 1 / 16, 0.35, 0.65, False),
])  # fmt: skip
def test_the_grid_of_the_thesis_does_not_fold_and_finer_ones_do(
    points: int, placement: Placement, reach: float, low: float, high: float, crossing: bool
) -> None:
    """Shares of folding images as simulated for 80 pixels independently of this code."""
    warp = RandomWarp(80, 80, points=points, placement=placement, reach=reach)
    found = warp.folding(gen(), 100)
    assert low <= found.images <= high
    assert found.crossing is crossing
    assert (found.pixels > 0) is (found.images > 0)
    assert found.pixels <= found.images


def test_what_is_no_warp_is_refused() -> None:
    for values in ({"points": 1}, {"reach": -0.1}):
        with pytest.raises(ValueError, match="no warp of 8×8 pixels"):
            RandomWarp(8, 8, **values)  # type: ignore[arg-type]
    warp = RandomWarp(8, 8)
    controls = warp.draw(1, gen())
    with pytest.raises(ValueError, match=r"the warp is for images of 8×8, not \(9, 8\)"):
        warp(images(1, 9, 8), controls)
    with pytest.raises(ValueError, match=r"images must be float, not torch\.uint8"):
        warp(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), controls)


# Rotations


@given(st.integers(4, 20), st.integers(4, 20), seeds)
def test_no_angle_is_the_identity_and_right_ones_are_quarter_turns(
    high: int, wide: int, seed: int
) -> None:
    x = images(2, high, wide, seed)
    torch.testing.assert_close(rotate(x, torch.zeros(2)), x, atol=1e-5, rtol=0)
    half = rotate(x, torch.full((2,), math.pi))
    torch.testing.assert_close(half, turn(x, 2), atol=1e-4, rtol=0)
    square = images(3, high, high, seed)
    angles = torch.tensor([0.5, 0.0, -0.5]) * math.pi
    expected = torch.cat([turn(square[:1], 1), square[1:2], turn(square[2:], 3)])
    torch.testing.assert_close(rotate(square, angles), expected, atol=1e-4, rtol=0)


@given(st.floats(-0.3, 0.3), seeds)
def test_rotated_images_are_looked_up_about_the_centre(angle: float, seed: int) -> None:
    high, wide = 18, 23
    x = images(1, high, wide, seed)
    out = rotate(x, torch.tensor([angle]))
    middle = np.array([[(high - 1) / 2], [(wide - 1) / 2]])
    rows, columns = pixel_grid(high, wide).T[::-1] - middle
    source = middle + np.stack([
        rows * math.cos(angle) + columns * math.sin(angle),
        columns * math.cos(angle) - rows * math.sin(angle),
    ])  # fmt: skip
    padded = np.pad(x[0].numpy(), ((0, 0), (2, 2), (2, 2)))
    for channel, seen in zip(padded, out[0], strict=True):
        expected = map_coordinates(channel, source + 2, order=1, mode="grid-constant")
        np.testing.assert_allclose(seen.numpy().ravel(), expected, atol=1e-4)


@given(seeds)
def test_rotated_crops_are_crops_of_rotated_images(seed: int) -> None:
    x = images(4, 20, 24, seed)
    angles = random_angles(4, 0.07 * math.pi, gen(seed))
    assert float(angles.abs().max()) <= 0.07 * math.pi
    corners = random_corners(4, (20, 24), 12, gen(seed), margin=1)
    out = rotated_crops(x, angles, corners, 12)
    torch.testing.assert_close(out, crop(rotate(x, angles), corners, 12), atol=1e-5, rtol=0)
    alone = rotated_crops(x[1:2], angles[1:2], corners[1:2], 12)
    torch.testing.assert_close(alone, out[1:2], atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="a crop of 21 does not fit into images of 20×24"):
        rotated_crops(x, angles, corners, 21)


def test_beyond_a_rotated_image_lies_mid_grey() -> None:
    x = torch.ones(1, 3, 21, 21)
    out = rotate(x, torch.tensor([math.pi / 4]))
    assert torch.equal(out[..., 0, 0], torch.zeros(1, 3))
    assert torch.allclose(out[..., 10, 10], torch.ones(1, 3))


def test_gradients_pass_through_warps_and_rotations() -> None:
    warp = RandomWarp(16, 16)
    x = images(2, 16, 16).requires_grad_()
    out = warp(x, warp.draw(2, gen())) + rotate(x, torch.tensor([0.1, -0.1]))
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
