"""Crops, mirror images, quarter turns and tiles move pixels and change none."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from selfsup_cli.transforms import images as pixels


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=gen(seed))


sides = st.integers(4, 13)
seeds = st.integers(0, 2**32)


@given(seeds)
def test_bytes_and_units_are_each_others_inverse(seed: int) -> None:
    x = noise(2, 3, 8, 8, seed=seed)
    unit = pixels.to_unit(x)
    assert unit.dtype == torch.float32
    assert torch.equal(pixels.to_bytes(unit), x)
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.allclose(pixels.to_unit(levels), levels / 127.5 - 1, atol=1e-6)
    assert pixels.to_bytes(torch.tensor([-2.0, 2.0])).tolist() == [0, 255]
    with pytest.raises(ValueError, match=r"must be uint8, not torch\.float32"):
        pixels.to_unit(unit)


@given(st.data(), sides, sides, seeds)
def test_a_crop_is_a_slice_of_its_own_image(
    data: st.DataObject, high: int, wide: int, seed: int
) -> None:
    size = data.draw(st.integers(1, min(high, wide)))
    x = noise(5, 3, high, wide, seed=seed)
    corners = pixels.random_corners(5, (high, wide), size, gen(seed))
    out = pixels.crop(x, corners, size)
    for image, cropped, (top, left) in zip(x, out, corners.tolist(), strict=True):
        assert 0 <= top <= high - size
        assert 0 <= left <= wide - size
        assert torch.equal(cropped, image[:, top : top + size, left : left + size])
    assert torch.equal(pixels.crop(x[2:3], corners[2:3], size), out[2:3])


@pytest.mark.parametrize("margin", [0, 1, 3])
def test_corners_are_uniform_where_they_may_be(margin: int) -> None:
    corners = pixels.random_corners(20_000, (12, 14), 5, gen(), margin=margin)
    for axis, outer in enumerate((12, 14)):
        found = torch.bincount(corners[:, axis])
        places = outer - 5 - 2 * margin + 1
        assert found[:margin].sum() == 0
        assert len(found) == margin + places
        expected = 20_000 / places
        assert (found[margin:] - expected).abs().max() < 5 * expected**0.5
    with pytest.raises(ValueError, match=r"5×5 pixels with 4 around them need images of 13×13"):
        pixels.random_corners(1, (12, 14), 5, gen(), margin=4)


def test_a_patch_of_48_in_a_canvas_of_80_begins_at_1_to_31() -> None:
    corners = pixels.random_corners(5000, (80, 80), 48, gen(), margin=1)
    assert (int(corners.min()), int(corners.max())) == (1, 31)


@given(sides, sides, seeds)
def test_five_and_ten_crops_are_where_they_say(high: int, wide: int, seed: int) -> None:
    size = 4
    x = noise(2, 3, high, wide, seed=seed)
    five = pixels.five_crops(x, size)
    assert five.shape == (2, 5, 3, size, size)
    corners = [
        ((high - size) // 2, (wide - size) // 2), (0, 0), (0, wide - size), (high - size, 0),
        (high - size, wide - size),
    ]  # fmt: skip
    for index, (top, left) in enumerate(corners):
        expected = x[..., top : top + size, left : left + size]
        assert torch.equal(five[:, index], expected), pixels.CROPS[index]
    ten = pixels.ten_crops(x, size)
    assert torch.equal(ten[:, :5], five)
    assert torch.equal(ten[:, 5:], five.flip(-1))


def test_a_crop_larger_than_the_image_is_refused() -> None:
    x = noise(1, 3, 8, 6)
    for take in (pixels.center_crop, pixels.five_crops, pixels.ten_crops):
        with pytest.raises(ValueError, match="a crop of 7 does not fit into images of 8×6"):
            take(x, 7)
    with pytest.raises(ValueError, match="does not fit"):
        pixels.crop(x, torch.zeros(1, 2, dtype=torch.int64), 7)


@given(seeds)
def test_mirror_images_are_their_own_inverse_and_chosen_one_by_one(seed: int) -> None:
    x = noise(6, 3, 5, 7, seed=seed)
    chosen = pixels.coins(6, 0.5, gen(seed))
    for change, axis in ((pixels.mirror, 3), (pixels.flip, 2)):
        assert torch.equal(change(x), x.flip(axis))
        assert torch.equal(change(change(x, chosen), chosen), x)
        for image, changed, heads in zip(x, change(x, chosen), chosen.tolist(), strict=True):
            assert torch.equal(changed, image.flip(axis - 1) if heads else image)


def test_coins_fall_as_often_as_asked() -> None:
    assert abs(float(pixels.coins(20_000, 0.3, gen()).float().mean()) - 0.3) < 0.02
    assert not pixels.coins(100, 0, gen()).any()
    assert pixels.coins(100, 1, gen()).all()


@given(st.lists(st.integers(-5, 9), min_size=4, max_size=4), st.integers(0, 3), seeds)
def test_quarter_turns_add_up_and_four_are_none(turns: list[int], more: int, seed: int) -> None:
    x = noise(4, 3, 6, 6, seed=seed)
    first = torch.tensor(turns)
    once = pixels.quarter_turns(x, first)
    twice = pixels.quarter_turns(once, torch.full((4,), more))
    assert torch.equal(twice, pixels.quarter_turns(x, first + more))
    assert torch.equal(pixels.turn(pixels.turn(x, 3), 1), x)
    assert torch.equal(pixels.turn(x, 4), x)
    for image, turned, k in zip(x, once, turns, strict=True):
        assert torch.equal(turned, torch.rot90(image, k % 4, (1, 2)))


def test_a_quarter_turn_is_counter_clockwise_and_needs_a_square() -> None:
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 0, 2] = 1  # top right
    assert pixels.turn(x, 1)[0, 0, 0, 0] == 1  # top left
    assert pixels.turn(x, 2)[0, 0, 2, 0] == 1
    oblong = noise(1, 3, 4, 6)
    assert pixels.turn(oblong, 2).shape == oblong.shape
    for turned in (lambda: pixels.turn(oblong, 1), lambda: pixels.quarter_turns(
        oblong, torch.tensor([1])
    )):  # fmt: skip
        with pytest.raises(ValueError, match="images of 4×6 are not square"):
            turned()


@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), seeds)
def test_tiles_come_back_and_what_is_left_over_stays(
    tiles: int, more: int, wider: int, seed: int
) -> None:
    x = noise(5, 3, 4 * tiles + more % tiles, 5 * tiles + wider % tiles, seed=seed)
    order = pixels.random_orders(5, tiles, gen(seed))
    out = pixels.shuffle_tiles(x, order)
    assert torch.equal(pixels.shuffle_tiles(out, order.argsort(1)), x)
    assert torch.equal(out[:, :, 4 * tiles :], x[:, :, 4 * tiles :])
    assert torch.equal(out[..., 5 * tiles :], x[..., 5 * tiles :])
    for i, places in enumerate(order.tolist()):
        assert sorted(places) == list(range(tiles**2))
        assert tiles == 1 or places != list(range(tiles**2))
        for k, source in enumerate(places):
            cells = [
                image[i, :, 4 * (n // tiles) :, 5 * (n % tiles) :][:, :4, :5]
                for image, n in ((out, k), (x, source))
            ]
            assert torch.equal(*cells)
    assert torch.equal(pixels.shuffle_tiles(x[3:4], order[3:4]), out[3:4])


def test_an_order_is_never_the_one_in_which_tiles_lie() -> None:
    orders = pixels.random_orders(3000, 2, gen())
    assert not (orders == torch.arange(4)).all(1).any()
    assert len({tuple(order) for order in orders.tolist()}) == 23
    assert pixels.random_orders(4, 1, gen()).tolist() == [[0]] * 4


def test_images_that_cannot_be_cut_are_refused() -> None:
    x = noise(1, 3, 3, 9)
    with pytest.raises(ValueError, match="images of 3×9 cannot be cut into 16 tiles"):
        pixels.shuffle_tiles(x, torch.arange(16)[None])
    with pytest.raises(ValueError, match="into 5 tiles"):
        pixels.shuffle_tiles(x, torch.arange(5)[None])


@pytest.mark.parametrize(("band", "lines"), [(1, [4, 8]), (2, [3, 4, 7, 8]), (3, [3, 4, 5])])
def test_seams_lie_across_the_borders_of_tiles(band: int, lines: list[int]) -> None:
    seams = pixels.tile_seams(12, 15, 3, band)
    marked = {row for row in range(12) if seams[row].all()}
    assert set(lines) <= marked
    assert len(marked) == 2 * band
    columns = {column for column in range(15) if seams[:, column].all()}
    assert {5, 10} <= columns
    assert len(columns) == 2 * band
    assert int(seams.sum()) == 2 * band * 15 + 2 * band * 12 - (2 * band) ** 2
    assert not pixels.tile_seams(12, 15, 1, band).any()


def test_everything_is_drawn_from_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    for draw in (
        lambda g: pixels.coins(9, 0.5, g),
        lambda g: pixels.random_corners(9, (30, 40), 8, g),
        lambda g: pixels.random_orders(9, 4, g),
    ):
        assert torch.equal(draw(gen(1)), draw(gen(1)))
        assert not torch.equal(draw(gen(1)), draw(gen(2)))
    assert torch.equal(torch.random.get_rng_state(), state)
