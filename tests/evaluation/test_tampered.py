from __future__ import annotations

import copy

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_toys import ToyImages

from selfsup_cli.evaluation.tampered import (
    CLASSES,
    Pairs,
    Tampering,
    band_of,
    harmonic_fill,
    painted,
    seam_statistics,
)


def solved(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Every pixel of the hole the mean of its neighbours, by a sparse factorisation."""
    h, w = hole.shape
    places = {tuple(at): n for n, at in enumerate(np.argwhere(hole).tolist())}
    matrix = scipy.sparse.lil_matrix((len(places), len(places)))
    right = np.zeros(len(places))
    for (y, x), n in places.items():
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not (0 <= v < h and 0 <= u < w):
                continue
            matrix[n, n] += 1
            if (v, u) in places:
                matrix[n, places[v, u]] -= 1
            else:
                right[n] += image[v, u]
    out = image.copy()
    out[hole] = scipy.sparse.linalg.spsolve(matrix.tocsc(), right)
    return out


@pytest.mark.parametrize(("side", "tiles", "band"), [(64, 4, 4), (30, 4, 3), (32, 2, 9)])
def test_painting_solves_laplaces_equation(side: int, tiles: int, band: int) -> None:
    images = torch.randint(0, 256, (2, 3, side, side), generator=torch.manual_seed(0)).float()
    hole = painted(side, tiles, band)
    found = harmonic_fill(images, hole, tolerance=1e-3)
    for b in range(2):
        for c in range(3):
            expected = solved(images[b, c].numpy().astype(float), hole.numpy())
            np.testing.assert_allclose(found[b, c], expected, atol=0.02)
    assert (found[..., ~hole] == images[..., ~hole]).all()


@given(seed=st.integers(0, 30))
def test_paint_stays_between_its_edges_and_copies_what_is_linear(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    hole = painted(24, 3, 3)
    image = torch.rand(1, 1, 24, 24, generator=g) * 255
    found = harmonic_fill(image, hole)
    known = image[..., ~hole]
    assert known.min() - 0.1 <= found.min()
    assert found.max() <= known.max() + 0.1
    slope = torch.arange(24.0).expand(1, 1, 24, 24) * 5
    inside = torch.zeros(24, 24, dtype=torch.bool)
    inside[6:14, 8:20] = True
    np.testing.assert_allclose(harmonic_fill(slope, inside, 1e-3), slope, atol=0.02)
    assert (harmonic_fill(torch.full((1, 1, 24, 24), 7.0), hole) - 7).abs().max() < 0.1


def test_a_hole_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        harmonic_fill(torch.zeros(1, 3, 8, 8), torch.ones(8, 8, dtype=torch.bool))


@pytest.mark.parametrize(("side", "tiles"), [(64, 4), (227, 4), (35, 3), (32, 8)])
def test_every_border_of_a_tile_is_painted_over(side: int, tiles: int) -> None:
    """No two pixels that touch come from different tiles: between them there is paint."""
    band = band_of(side, tiles, 0.25)
    mask = painted(side, tiles, band)
    numbers = torch.arange(tiles * tiles).view(tiles, tiles)
    owner = torch.full((side, side), -1)
    tile = side // tiles
    owner[: tile * tiles, : tile * tiles] = numbers.repeat_interleave(tile, 0).repeat_interleave(
        tile, 1
    )
    for axis in (0, 1):
        differ = owner.diff(dim=axis) != 0
        first, second = (mask.narrow(axis, start, side - 1) for start in (0, 1))
        assert bool((first & second)[differ].all())
    assert 0 < float(mask.float().mean()) < 0.8


def test_bands_are_a_share_of_a_tile_and_two_pixels_at_least() -> None:
    assert (band_of(64, 4, 0.25), band_of(32, 4, 0.25), band_of(32, 16, 0.25)) == (4, 2, 2)


def pairs(**changes: object) -> Pairs:
    source = ToyImages([(48, 60), (40, 40), (70, 44)])
    return Pairs(source, 32, Tampering(**{"tiles": 4, "band": 2, "seed": 0, **changes}))  # type: ignore[arg-type]


def test_a_pair_differs_by_its_tiles_alone() -> None:
    made = pairs()
    assert len(made) == 6
    assert [made.classes[label] for label in made.truth()] == [*CLASSES] * 3  # type: ignore[index]
    assert len(set(made.ids)) == 6
    assert made.names() == [name for name in made.source.ids for _ in range(2)]
    mask = painted(32, 4, 2)
    for i in range(3):
        real, shuffled = made.read(2 * i, 40), made.read(2 * i + 1, 40)
        assert real.shape == shuffled.shape == (3, 32, 32)
        assert real.dtype == torch.uint8
        image = made.source.read(i, 40)
        top, left = ((length - 32) // 2 for length in image.shape[1:])
        middle = image[:, top : top + 32, left : left + 32]
        assert (real[:, ~mask] == middle[:, ~mask]).all()
        # The insides of the tiles are the same ones, in another order.
        cut = [
            {tuple(tile.flatten().tolist()) for tile in tiles_of(one)} for one in (real, shuffled)
        ]
        assert cut[0] == cut[1]
        assert len(cut[0]) == 16
        assert (real != shuffled).any()


def test_grey_paint_is_the_same_everywhere() -> None:
    made = pairs(paint="grey")
    mask = painted(32, 4, 2)
    for i in range(6):
        image = made.read(i, 40)
        assert (image[:, mask] == 128).all()
        assert (image[:, ~mask] == pairs().read(i, 40)[:, ~mask]).all()
    assert made.fingerprint != pairs().fingerprint


def tiles_of(image: torch.Tensor) -> list[torch.Tensor]:
    """The pixels of each of 16 tiles that are not painted over."""
    return [
        image[:, y + 1 : y + 7, x + 1 : x + 7] for y in range(0, 32, 8) for x in range(0, 32, 8)
    ]


def test_what_is_made_is_a_function_of_seed_and_id() -> None:
    first, again, other = pairs(), copy.deepcopy(pairs()), pairs(seed=1)
    assert (first.read(1, 40) == again.read(1, 40)).all()
    assert (first.read(1, 40) != other.read(1, 40)).any()
    assert (first.read(0, 40) == other.read(0, 40)).all()
    prints = {p.fingerprint for p in (first, other, pairs(band=3), pairs(tiles=2))}
    assert len(prints) == 4
    assert first.fingerprint == again.fingerprint


def test_statistics_of_seams_know_steep_paint_and_nothing_of_the_rest() -> None:
    mask = painted(32, 4, 4)
    image = torch.randint(0, 256, (3, 32, 32), generator=torch.manual_seed(0)).to(torch.uint8)
    found = seam_statistics(image, mask)
    assert found.shape == (12,)
    assert bool(found.isfinite().all())
    inside = image.clone()
    inside[:, 3, 3] = 255 - inside[:, 3, 3]  # in the middle of a tile
    assert not mask[2:5, 2:5].any()
    assert torch.equal(seam_statistics(inside, mask), found)
    flat = torch.full((3, 32, 32), 9, dtype=torch.uint8)
    assert float(seam_statistics(flat, mask).abs().max()) == 0
    # By hand: steps to the right, between two painted pixels.
    total, count = 0.0, 0
    for y in range(32):
        for x in range(31):
            if mask[y, x] and mask[y, x + 1]:
                total += abs(int(image[0, y, x]) - int(image[0, y, x + 1]))
                count += 1
    assert float(found[0]) == pytest.approx(np.log1p(total / count), rel=1e-5)
