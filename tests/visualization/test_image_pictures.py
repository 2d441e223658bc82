"""Pictures of images: every pixel that is shown is the one that was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from selfsup_cli.randomness import generator
from selfsup_cli.transforms.warp import RandomWarp
from selfsup_cli.visualization import mean_image, pretext_images, shares, transformed
from selfsup_cli.visualization.enlarged import picture, scale_of

HOSTILE = "../é\u202e\x1b[31m\n" + "x" * 300


def load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def noise(count: int, side: int, seed: int = 0) -> Tensor:
    """Images uint8 [count, 3, side, side]."""
    g = generator(seed, "noise")
    return torch.randint(0, 256, (count, 3, side, side), generator=g, dtype=torch.uint8)


def places(page: np.ndarray, image: Image.Image) -> list[tuple[int, int]]:
    """Where (row, column) an image stands in a page, exactly as it is."""
    part = np.asarray(image).astype(int)
    high, wide = part.shape[:2]
    rows, columns = np.nonzero((page == part[0, 0]).all(-1))
    return [
        (int(y), int(x))
        for y, x in zip(rows, columns, strict=True)
        if y + high <= len(page)
        and x + wide <= page.shape[1]
        and (page[y : y + high, x : x + wide] == part).all()
    ]


@pytest.mark.parametrize("side", [16, 32, 56, 64, 100, 128, 160])
def test_small_images_are_enlarged_pixel_by_pixel(side: int) -> None:
    scale = scale_of(side)
    assert scale == int(scale) >= 1
    assert 85 <= side * scale <= 192
    image = noise(1, side)[0]
    shown = np.asarray(picture(image, scale))
    expected = image.permute(1, 2, 0).numpy().repeat(int(scale), 0).repeat(int(scale), 1)
    assert (shown == expected).all()


def test_large_images_become_smaller_and_floats_are_read_from_minus_one_to_one() -> None:
    assert scale_of(512) * 512 == 128
    assert picture(noise(1, 512)[0], scale_of(512)).size == (128, 128)
    levels = torch.tensor([-1.0, 0.0, 1.0, 9.0]).expand(3, 1, 4)
    assert np.asarray(picture(levels))[0, :, 0].tolist() == [0, 128, 255, 255]


def test_a_contact_sheet_has_a_row_for_each_image_and_a_column_for_each_kind(
    tmp_path: Path,
) -> None:
    canvases, crops = noise(2, 40), noise(6, 32, seed=1).view(2, 3, 3, 32, 32)
    rows = [pretext_images.Fed(HOSTILE, canvases[i], crops[i]) for i in range(2)]
    path = tmp_path / "sheet.png"
    pretext_images.contact_sheet(path, rows, ["identity", "warp", "l" * 90], title=HOSTILE)
    page = load(path)
    at = [[places(page, picture(crops[i, k], 4)) for k in range(3)] for i in range(2)]
    assert all(len(found) == 1 for row in at for found in row)
    for i in range(2):
        assert len({found[0][0] for found in at[i]}) == 1
        (canvas,) = places(page, picture(canvases[i], 4))
        assert canvas[1] < at[i][0][0][1]
    for k in range(3):
        assert at[0][k][0][1] == at[1][k][0][1]
        assert at[0][k][0][0] < at[1][k][0][0]
    columns = [at[0][k][0][1] for k in range(3)]
    assert columns == sorted(columns)


def sample(side: int = 40, patch: int = 16) -> transformed.Sample:
    canvas, pasted = noise(2, side, seed=2)
    pieces = noise(3, patch, seed=3)
    warp = RandomWarp(side, side)
    drawn = warp.draw(1, generator(0, "warp"))
    return transformed.Sample(
        "one",
        canvas,
        transformed.Painted(pieces[0], pieces[1], pieces[2], pasted, (7, 12)),
        transformed.Warped(noise(1, side, seed=4)[0], drawn.points[0], drawn.offsets[0]),
        [("flip", noise(1, side, seed=5)[0])],
    )


def test_what_was_painted_and_warped_stands_beside_the_original(tmp_path: Path) -> None:
    one = sample()
    path = tmp_path / "sheet.png"
    transformed.sheet(path, [one, one], title="t", note="n " * 200)
    page = load(path)
    scale = scale_of(40, 144)
    assert one.painted is not None
    assert one.warped is not None
    shown = [
        one.canvas, one.painted.erased, one.painted.inpainted, one.painted.autoencoded,
        one.painted.pasted, one.warped.image, one.others[0][1],
    ]  # fmt: skip
    at = [places(page, picture(image, scale)) for image in shown]
    assert [len(found) for found in at] == [2] * 7
    assert [found[0][1] for found in at] == sorted(found[0][1] for found in at)
    # The outlined copy differs around the patch and nowhere else.
    left = at[4][0][1] + (at[4][0][1] - at[0][0][1]) // 4
    top, size = at[4][0][0], round(40 * scale)
    plain = np.asarray(picture(one.painted.pasted, scale)).astype(int)
    outlined = page[top : top + size, left : left + size]
    rows, columns = np.nonzero((outlined != plain).any(-1))
    s = int(scale)
    assert (rows.min(), rows.max()) == (7 * s - 2, 23 * s + 1)
    assert (columns.min(), columns.max()) == (12 * s - 2, 28 * s + 1)
    inside = outlined[7 * s : 23 * s, 12 * s : 28 * s]
    assert (inside == plain[7 * s : 23 * s, 12 * s : 28 * s]).all()


def test_arrows_lead_from_where_pixels_were_to_where_they_are(tmp_path: Path) -> None:
    """A dot that is drawn where an arrow begins is seen where it ends."""
    side = 48
    warp = RandomWarp(side, side, points=4)
    drawn = warp.draw(1, generator(3, "warp"))
    k = 5
    points = drawn.points[0]
    start = (points - drawn.offsets[0])[k]
    image = torch.zeros(1, 1, side, side)
    column, row = (int(value) for value in start.round())
    image[0, 0, row - 1 : row + 2, column - 1 : column + 2] = 1
    seen = warp(image, drawn)[0, 0]
    y, x = divmod(int(seen.flatten().argmax()), side)
    end = points[k]
    assert abs(x - float(end[0])) <= 2
    assert abs(y - float(end[1])) <= 2
    # And that is how it is drawn.
    canvas = torch.full((3, side, side), 255, dtype=torch.uint8)
    warped = transformed.Warped(canvas, points, drawn.offsets[0])
    path = tmp_path / "sheet.png"
    transformed.sheet(path, [transformed.Sample("white", canvas, None, warped)], title="t")
    page = load(path)
    orange = (page == [0xE8, 0x62, 0x2C]).all(-1)
    scale = scale_of(side, 144)
    (white, *_) = places(page, picture(canvas, scale))
    width = round(side * scale) + 10
    x0, y0 = white[1] + 2 * width, white[0]
    for point in (start, end):
        at = ((point + 0.5) * scale).round().int().tolist()
        near = orange[y0 + at[1] - 3 : y0 + at[1] + 4, x0 + at[0] - 3 : x0 + at[0] + 4]
        assert near.any()


def test_a_sheet_without_inpainting_has_fewer_columns(tmp_path: Path) -> None:
    one = sample()
    bare = transformed.Sample("bare", one.canvas, None, one.warped)
    for name, samples in (("all", [one]), ("bare", [bare])):
        transformed.sheet(tmp_path / f"{name}.png", samples, title="t")
    assert load(tmp_path / "bare.png").shape[1] < load(tmp_path / "all.png").shape[1]


def blob(side: int = 32) -> Tensor:
    """Grey, but for one corner between bright and dark."""
    mean = torch.full((3, side, side), 128.0, dtype=torch.float64)
    mean[:, 4:8, 20:28] = 220
    mean[:, 8:12, 20:28] = 30
    return mean


def test_the_telling_patches_are_those_that_look_different_when_turned() -> None:
    found = mean_image.telling_patches(blob(), 8)
    assert found[0] == (4, 20)
    assert len(found) == 4
    for first in found:
        for second in found:
            apart = max(abs(a - b) for a, b in zip(first, second, strict=True))
            assert first == second or apart >= 8
    assert len(mean_image.telling_patches(blob(), 20)) == 1


def test_an_average_knows_how_it_looks_when_it_is_turned() -> None:
    side = 24
    rings = torch.linspace(-1, 1, side, dtype=torch.float64)
    round_ = 128 + 60 * (rings[:, None] ** 2 + rings**2).expand(3, side, side)
    deviation = torch.full_like(round_, 10)
    symmetric = mean_image.Average(round_, deviation, 5)
    assert symmetric.turned(1) == pytest.approx(0, abs=1e-9)
    assert symmetric.spread == 10
    ramp = (100 * rings)[:, None].expand(3, side, side)
    lit = mean_image.Average(ramp, deviation, 5)
    assert lit.turned(2) == pytest.approx(2 * float(ramp.square().mean().sqrt()))
    assert lit.contrast == pytest.approx(float(ramp.std(correction=0)))


def test_the_mean_is_drawn_with_its_patches_in_all_turns(tmp_path: Path) -> None:
    found = mean_image.Average(blob(), torch.zeros(3, 32, 32, dtype=torch.float64), 100)
    path = tmp_path / "mean.png"
    mean_image.sheet(path, found, patch=8, title=HOSTILE, note="of a test")
    page = load(path)
    own = found.mean[:, 4:12, 20:28] / 127.5 - 1
    at = [places(page, picture(torch.rot90(own, k, (-2, -1)), 8)) for k in range(4)]
    assert all(len(one) >= 1 for one in at)
    assert len({one[0][0] for one in at}) == 1
    assert [one[0][1] for one in at] == sorted(one[0][1] for one in at)


def test_shares_that_matter_are_outlined(tmp_path: Path) -> None:
    cells = {
        ("lci", "patch"): shares.Share(0.93, 0.02, 0.5, marked=True),
        ("lci", "network"): shares.Share(0.97, None, 0.5),
        ("warp", "patch"): shares.Share(0.4, 0.1, 0.5),
    }
    path = tmp_path / "shares.png"
    shares.table(path, ["lci", "warp", HOSTILE], ["patch", "network"], cells, title="t", note="n")
    page = load(path)
    marked = (page == [0xA3, 0x34, 0x0F]).all(-1)
    rows, columns = np.nonzero(marked)
    assert rows.max() - rows.min() == 40
    assert columns.max() - columns.min() == 118
    cells["lci", "patch"] = shares.Share(0.93, 0.02, 0.5)
    shares.table(path, ["lci", "warp", HOSTILE], ["patch", "network"], cells, title="t", note="n")
    assert not (load(path) == [0xA3, 0x34, 0x0F]).all(-1).any()
