"""The transformations of images that a classifier learns to recognise (thesis, section 4.2).

Another one takes a function here and a line in `config.registry.TRANSFORMS`, which says what it is
and when it is done: on the canvas, before the augmentation that all images go through, or on the
crop after it. A function takes float images `[B, 3, S, S]` in [-1, 1] and what it needs besides,
and gives images of the same shape; what it does to one of them depends on no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from selfsup_cli.config import registry
from selfsup_cli.randomness import generator
from selfsup_cli.transforms import images as pixels
from selfsup_cli.transforms.inpainting import Inpainted
from selfsup_cli.transforms.warp import RandomWarp


@dataclass(frozen=True)
class Means:
    """What transformations need besides images: a generator, the kind of warp, tiles per side, and
    these images as they were inpainted. None where no transformation asks for it."""

    g: torch.Generator
    warp: RandomWarp | None = None
    tiles: int = 4
    inpainted: Inpainted | None = None


Transform = Callable[[Tensor, Means], Tensor]


def identity(images: Tensor, means: Means) -> Tensor:
    return images


def rotate90(images: Tensor, means: Means) -> Tensor:
    return pixels.turn(images, 1)


def rotate180(images: Tensor, means: Means) -> Tensor:
    return pixels.turn(images, 2)


def rotate270(images: Tensor, means: Means) -> Tensor:
    return pixels.turn(images, 3)


def warp(images: Tensor, means: Means) -> Tensor:
    if means.warp is None:
        raise ValueError("the transformation warp needs to be told how to warp")
    return means.warp(images, means.warp.draw(len(images), means.g))


def lci(images: Tensor, means: Means) -> Tensor:
    return _of(images, means).inpainted


def autoencode(images: Tensor, means: Means) -> Tensor:
    return _of(images, means).autoencoded


def mirror(images: Tensor, means: Means) -> Tensor:
    return pixels.mirror(images)


def flip(images: Tensor, means: Means) -> Tensor:
    return pixels.flip(images)


def tiles(images: Tensor, means: Means) -> Tensor:
    return pixels.shuffle_tiles(images, pixels.random_orders(len(images), means.tiles, means.g))


def _of(images: Tensor, means: Means) -> Inpainted:
    found = means.inpainted
    if found is None or found.inpainted.shape != images.shape:
        raise ValueError("the transformations lci and autoencode need these images inpainted")
    return found


TRANSFORMS: dict[str, Transform] = {name: globals()[name] for name in registry.TRANSFORMS}
"""The transformations by their names."""


def coinciding(
    names: Sequence[str], means: Means, *, mirrored: bool, side: int = 48
) -> list[tuple[str, str]]:
    """Pairs of transformations that no classifier could tell apart, tried on an image without
    symmetries.

    With `mirrored` images are mirrored at random beforehand, so that an image and its mirror image
    are one: a half turn and a flip coincide then, and doing nothing and a mirror. An offset of 0, a
    single tile or one name twice are found too. How LCI and autoencoding come out is the
    inpainter's business: they are taken to differ from all others. `means.warp` is for its own
    size, and `side` the size where there is none.
    """
    size = (side, side) if means.warp is None else means.warp.size
    images = torch.rand(4, 3, *size, generator=generator(0, "coinciding")) * 2 - 1
    blank = torch.empty(0)
    painted = Inpainted(blank, blank, blank, blank, blank, images / 3, images / 2)
    means = replace(means, inpainted=painted)
    seen = {
        name: [
            TRANSFORMS[name](x, replace(means, g=generator(0, "coinciding", name)))
            for x in ((images, images.flip(-1)) if mirrored else (images,))
        ]
        for name in names
    }
    pairs = [(first, second) for first, second in combinations(names, 2)]
    return [
        (first, second)
        for first, second in pairs
        if any(torch.allclose(seen[first][0], one, atol=1e-3) for one in seen[second])
    ]
