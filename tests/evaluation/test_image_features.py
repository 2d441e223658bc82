"""Views of images and features of them: all layers in one pass, whatever is in the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from evaluation_toys import CPU, ToySource, small_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from image_toys import ToyImages, small_network

from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.clips import ClipProtocol
from selfsup_cli.evaluation.features import EMBEDDING, embed, extract
from selfsup_cli.evaluation.pooling import (
    MOST,
    WINDOWS,
    AtMost,
    Cells,
    Unpooled,
    Windowed,
    averaged,
    of_thesis,
    pool,
)
from selfsup_cli.evaluation.views import Crops, ImageViews, read_images, shorter_side
from selfsup_cli.models import build
from selfsup_cli.transforms.images import five_crops, ten_crops, to_unit

SHAPES = [(40, 40), (60, 45), (33, 80), (20, 20), (41, 40)]
VIEWS = [ImageViews(), ImageViews("five"), ImageViews("ten"), ImageViews("random", 3, 5)]


# Views


@pytest.mark.parametrize("views", VIEWS, ids=lambda one: one.crops)
def test_views_are_squares_of_the_image_as_it_was_scaled(views: ImageViews) -> None:
    source, spec = ToyImages(SHAPES), small_network().input
    for item in read_images(source, range(len(source)), views, spec, 0):
        assert min(item.image.shape[1:]) == 40 == shorter_side(spec)
        found = torch.stack(list(item.inputs(torch.device("cpu"))))
        assert found.shape == (len(views), 3, 32, 32)
        # Each view lies in the image, or its mirror image does.
        for view in found:
            places = item.image.unfold(1, 32, 1).unfold(2, 32, 1).flatten(1, 2)
            both = torch.stack([places, places.flip(-1)])
            assert (both == view[None, :, None]).flatten(3).all(3).all(1).any()
    assert len(views) == views.count_each(source)[0]


def test_five_and_ten_are_those_of_the_transforms() -> None:
    image = ToyImages(SHAPES).whole(1)
    assert torch.equal(ImageViews("five")(image, 32, "a"), five_crops(image[None], 32)[0])
    assert torch.equal(ImageViews("ten")(image, 32, "a"), ten_crops(image[None], 32)[0])
    assert torch.equal(ImageViews()(image, 32, "a"), five_crops(image[None], 32)[0, :1])


def test_random_views_are_a_function_of_seed_id_and_view() -> None:
    image = ToyImages([(80, 80)]).whole(0)
    few, many = ImageViews("random", 2, 1), ImageViews("random", 5, 1)
    assert torch.equal(few(image, 32, "a"), many(image, 32, "a")[:2])
    assert not torch.equal(many(image, 32, "a"), many(image, 32, "b"))
    assert not torch.equal(many(image, 32, "a"), ImageViews("random", 5, 2)(image, 32, "a"))
    # Half of them are mirrored: on an image that is brighter to the right, some are not.
    ramp = torch.arange(80, dtype=torch.uint8).expand(3, 80, 80)
    steps = ImageViews("random", 400)(ramp, 32, "a").int().diff(dim=3)[:, 0, 0, 0]
    assert set(steps.tolist()) == {1, -1}
    assert 0.4 < float((steps == 1).float().mean()) < 0.6
    corners = ImageViews("random", 400)(ramp, 32, "a").amin((1, 2, 3))
    assert corners.min() == 0
    assert corners.max() == 48


def test_views_say_what_they_are() -> None:
    told = [one.told() for one in VIEWS]
    assert told == [
        "single centre crop", "five crops", "ten crops", "3 random crops, half of them mirrored",
    ]  # fmt: skip
    assert len({str(one.describe()) for one in [*VIEWS, ImageViews("random", 3, 6)]}) == 5
    for wrong in (("center", 2), ("random", 0), ("ten", 10)):
        with pytest.raises(ValueError, match="times the crops"):
            ImageViews(wrong[0], wrong[1])


# Pooling


def brute(x: torch.Tensor, side: int, padding: str) -> torch.Tensor:
    """TensorFlow's average pool with a stride as wide as the window, one cell at a time."""
    n = x.shape[2]
    cells = -(-n // side) if padding == "same" else n // side
    before = (cells * side - n) // 2 if padding == "same" else 0
    spans = [(max(0, k * side - before), min(n, (k + 1) * side - before)) for k in range(cells)]
    rows = [torch.stack([x[:, :, a:b, c:d].mean((2, 3)) for c, d in spans], 2) for a, b in spans]
    return torch.stack(rows, 2)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(4, 30), side=st.integers(1, 6), same=st.booleans())
def test_windows_average_as_a_brute_force_loop_does(n: int, side: int, same: bool) -> None:
    side = min(side, n)
    x = torch.randn(2, 3, n, n, generator=torch.Generator().manual_seed(n))
    padding = "same" if same else "valid"
    torch.testing.assert_close(
        averaged(x, side, padding), brute(x, side, padding), atol=1e-6, rtol=1e-5
    )


def test_the_thesis_pooling_leaves_the_features_of_its_table() -> None:
    """Section 2.4 of the report on the methods: flat sizes at 64 and 227 pixels."""
    small, large = build("alexnet", seed=0), build("alexnet", padding="valid", crop=227, seed=0)
    layers = list(WINDOWS)
    sizes = []
    for network in (small, large):
        pooling = of_thesis(network)
        with torch.no_grad():
            found = network.eval().features(torch.zeros(1, *network.input.shape), layers)
        sizes.append([pooling(layer, found[layer]).shape[1] for layer in layers])
        table = {name: averaged(found[name], *WINDOWS[name]).numel() for name in layers}
        assert sizes[-1] == list(table.values())
    assert sizes == [[864, 1024, 1536, 1536, 1024], [9600, 9216, 9600, 9600, 9216]]


@settings(deadline=None, max_examples=30)
@given(channels=st.integers(1, 12000), side=st.integers(1, 30))
def test_at_most_takes_the_finest_grid_that_fits(channels: int, side: int) -> None:
    found = AtMost()("x", torch.zeros(1, channels, side, side)).shape[1]
    cells = round((found / channels) ** 0.5)
    assert found == cells**2 * channels
    assert found <= max(MOST, channels)
    assert cells == side or (cells + 1) ** 2 * channels > MOST


def test_no_pooling_and_vectors() -> None:
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(Unpooled()("x", x), x.flatten(1))
    assert torch.equal(pool(x, 2), F.adaptive_avg_pool2d(x, 2).flatten(1))
    vector = torch.randn(2, 7)
    for pooling in (Unpooled(), AtMost(), Windowed(), Cells(2)):
        assert torch.equal(pooling("conv1", vector), vector)
    # A network without such layers, and a map that is smaller than the window.
    assert Windowed()("layer4", torch.zeros(1, 512, 5, 5)).shape == (1, 512 * 16)
    assert Windowed()("conv5", torch.zeros(1, 8, 1, 1)).shape == (1, 8)
    assert isinstance(of_thesis(build("alexnet", width=0.125, crop=96, seed=0)), AtMost)
    assert isinstance(of_thesis(build("resnet18", crop=64, seed=0)), AtMost)


# Features


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("views", VIEWS, ids=lambda one: one.crops)
def test_features_equal_those_of_one_view_at_a_time(
    views: ImageViews, workers: int, tmp_path: Path
) -> None:
    network, source = small_network(), ToyImages(SHAPES)
    found = extract(
        network, source, views, hardware=CPU, grid=2, batch=4, workers=workers, root=tmp_path
    )
    assert list(found.dims) == [*network.layers, EMBEDDING]
    assert found.video.tolist() == np.repeat(range(len(SHAPES)), len(views)).tolist()
    rows = []
    with torch.no_grad():
        for i in range(len(source)):
            for view in views(source.read(i, 40), 32, source.ids[i]):
                x = to_unit(view[None])
                rows.append(network.eval().features(x, ["conv2", "conv5", "fc1"]))
    for layer in ("conv2", "fc1"):
        whole = torch.cat([pool(row[layer], 2) for row in rows])
        torch.testing.assert_close(found.read(layer), whole, atol=1e-5, rtol=1e-5)
    last = torch.cat([row["conv5"] for row in rows]).mean((2, 3))
    torch.testing.assert_close(found.read(EMBEDDING), last, atol=1e-5, rtol=1e-5)
    means, kept = embed(network, source, views, hardware=CPU, batch=4)
    assert kept.tolist() == list(range(len(SHAPES)))
    expected = last.reshape(len(SHAPES), len(views), -1).mean(1)
    torch.testing.assert_close(means, expected, atol=1e-5, rtol=1e-5)


def test_an_image_is_read_once_and_only_where_the_views_are_new(tmp_path: Path) -> None:
    network, source = small_network(), ToyImages(SHAPES)
    for count, views in enumerate(VIEWS, 1):
        extract(network, source, views, hardware=CPU, root=tmp_path)
        assert sorted(source.reads) == list(range(len(SHAPES)))
        source.reads.clear()
        assert len(list((tmp_path / "features").iterdir())) == count
    for views in VIEWS:
        extract(network, source, views, hardware=CPU, root=tmp_path)
    assert source.reads == []
    for pooling in (Unpooled(), AtMost(500)):
        extract(network, source, VIEWS[0], hardware=CPU, pooling=pooling, root=tmp_path)
    assert len(list((tmp_path / "features").iterdir())) == len(VIEWS) + 2


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    source = ToyImages(SHAPES, broken=("toy/002.png",))
    with pytest.raises(InputError, match=r"toy/002\.png of toy cannot be read: no image.*--quara"):
        extract(small_network(), source, ImageViews(), hardware=CPU, root=tmp_path)
    told: list[str] = []
    _, kept = embed(
        small_network(), source, ImageViews(), hardware=CPU, bad=lambda name, why: told.append(name)
    )
    assert kept.tolist() == [0, 1, 3, 4]
    assert told == ["toy/002.png"]


def test_clips_and_views_are_not_confused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="takes images"):
        embed(small_network(), ToySource([20]), ClipProtocol(8, 2, 3), hardware=CPU)
    with pytest.raises(TypeError, match="takes videos"):
        embed(small_backbone(), ToyImages(SHAPES), ImageViews(), hardware=CPU)


def test_crops_are_what_the_type_says() -> None:
    kinds: list[Crops] = ["center", "five", "ten", "random"]
    assert [len(ImageViews(kind)) for kind in kinds] == [1, 5, 10, 1]
