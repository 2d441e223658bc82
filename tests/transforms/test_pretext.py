"""The transformations that a classifier recognises, by their names."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from selfsup_cli.config import registry
from selfsup_cli.transforms import pretext
from selfsup_cli.transforms.images import shuffle_tiles, turn
from selfsup_cli.transforms.inpainting import Inpainted
from selfsup_cli.transforms.pretext import TRANSFORMS, Means, coinciding
from selfsup_cli.transforms.warp import RandomWarp

SIDE = 24


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(b: int = 4) -> Tensor:
    return torch.rand(b, 3, SIDE, SIDE, generator=gen()) * 2 - 1


def means(seed: int = 0, x: Tensor | None = None) -> Means:
    x = images() if x is None else x
    blank = torch.empty(0)
    painted = Inpainted(blank, blank, blank, blank, blank, x * 0.9, x * 0.5)
    return Means(gen(seed), RandomWarp(SIDE, SIDE), inpainted=painted)


def test_each_function_has_its_line_and_each_line_its_function() -> None:
    functions = {
        name
        for name, value in vars(pretext).items()
        if inspect.isfunction(value)
        and value.__module__ == pretext.__name__
        and list(inspect.signature(value).parameters) == ["images", "means"]
        and not name.startswith("_")
    }
    assert set(TRANSFORMS) == set(registry.TRANSFORMS) == functions
    for name, line in registry.TRANSFORMS.items():
        assert line.about
        assert line.inpaints is (name in ("lci", "autoencode"))


def test_the_transformations_of_the_thesis_are_there_and_when_they_are_done() -> None:
    at = {name: line.at for name, line in registry.TRANSFORMS.items()}
    assert {at[f"rotate{angle}"] for angle in (90, 180, 270)} | {at["identity"]} == {"crop"}
    assert {at["warp"], at["lci"], at["autoencode"], at["tiles"]} == {"canvas"}


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_a_transformation_is_pure(name: str) -> None:
    x = images()
    before = x.clone()
    state = torch.random.get_rng_state()
    out = TRANSFORMS[name](x, means(1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(x, before)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert torch.equal(TRANSFORMS[name](x, means(1)), out)
    random = name in ("warp", "tiles")
    assert torch.equal(TRANSFORMS[name](x, means(2)), out) is not random
    assert torch.equal(out, x) is (name == "identity")
    if not random:
        alone = TRANSFORMS[name](x[1:2], means(x=x[1:2]))
        assert torch.equal(alone, out[1:2])


def test_each_does_what_its_name_says() -> None:
    x = images()
    found = {name: transform(x, means(3)) for name, transform in TRANSFORMS.items()}
    for quarters in (1, 2, 3):
        assert torch.equal(found[f"rotate{90 * quarters}"], turn(x, quarters))
    assert torch.equal(found["mirror"], x.flip(3))
    assert torch.equal(found["flip"], x.flip(2))
    assert torch.equal(found["lci"], x * 0.5)
    assert torch.equal(found["autoencode"], x * 0.9)
    warp = RandomWarp(SIDE, SIDE)
    assert torch.equal(found["warp"], warp(x, warp.draw(4, gen(3))))
    for i, image in enumerate(found["tiles"]):
        cells = {
            tuple(cell.flatten().tolist())
            for whole in (image, x[i])
            for cell in whole.unfold(1, 6, 6).unfold(2, 6, 6).permute(1, 2, 0, 3, 4).flatten(0, 1)
        }
        assert len(cells) == 16
        assert not torch.equal(image, x[i])
    one = Means(gen(), tiles=1)
    assert torch.equal(TRANSFORMS["tiles"](x, one), shuffle_tiles(x, torch.zeros(4, 1).long()))


def test_what_is_missing_is_said() -> None:
    bare = Means(gen())
    with pytest.raises(ValueError, match="warp needs to be told how to warp"):
        TRANSFORMS["warp"](images(), bare)
    for name in ("lci", "autoencode"):
        with pytest.raises(ValueError, match="need these images inpainted"):
            TRANSFORMS[name](images(), bare)
        with pytest.raises(ValueError, match="need these images inpainted"):
            TRANSFORMS[name](images(2), means())


THESIS = ["identity", "rotate90", "rotate180", "rotate270", "warp", "lci"]


@pytest.mark.parametrize(("names", "mirrored", "expected"), [
    (THESIS, True, []),
    (list(registry.TRANSFORMS), False, []),
    (list(registry.TRANSFORMS), True, [("identity", "mirror"), ("rotate180", "flip")]),
    (["flip", "rotate180"], True, [("flip", "rotate180")]),
    (["warp", "lci", "warp"], False, [("warp", "warp")]),
    (["identity"], True, []),
])  # fmt: skip
def test_transformations_that_coincide_are_found(
    names: list[str], mirrored: bool, expected: list[tuple[str, str]]
) -> None:
    assert coinciding(names, means(), mirrored=mirrored) == expected


def test_settings_under_which_they_coincide_are_found() -> None:
    still = Means(gen(), RandomWarp(SIDE, SIDE, reach=0), tiles=1)
    names = ["identity", "rotate90", "warp", "tiles"]
    expected = [("identity", "warp"), ("identity", "tiles"), ("warp", "tiles")]
    assert coinciding(names, still, mirrored=False) == expected
    assert coinciding(["identity", "tiles"], Means(gen()), mirrored=True) == []
