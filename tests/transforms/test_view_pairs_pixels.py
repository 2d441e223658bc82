"""What is done to views before they are compared: mirror images, backgrounds, random changes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from selfsup_cli.config.multiview import Jitter, Pairs
from selfsup_cli.randomness import generator
from selfsup_cli.transforms.views import (
    ANCHOR,
    FILL,
    LATER,
    MIRRORED,
    PARTNER,
    Prepared,
    jittered,
    prepare,
    remove_background,
    substitute_background,
)

SIDE = 12


def drawn(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    views = torch.randint(0, 256, (count, 3, 3, SIDE, SIDE), generator=g).to(torch.uint8)
    masks = torch.rand(count, 3, SIDE, SIDE, generator=g) > 0.5
    others = torch.randint(0, 256, (count, 4, 3, SIDE, SIDE), generator=g).to(torch.uint8)
    return views, masks, others


def kept(count: int, seed: int, **settings: object) -> tuple[Tensor, Prepared]:
    views, masks, others = drawn(count)
    pairs = Pairs(background="keep", **settings)  # type: ignore[arg-type]
    return views, prepare(views, masks, others, pairs, generator(seed, "test"))


@given(st.integers(0, 10_000))
def test_both_images_of_a_pair_are_mirrored_or_neither(seed: int) -> None:
    views, found = kept(4, seed)
    for one, images in zip(views, found.images, strict=True):
        as_it_is = torch.equal(images[:3], one)
        assert as_it_is or torch.equal(images[:3], one.flip(-1))


@given(st.integers(0, 10_000))
def test_the_fourth_image_is_one_of_the_first_two_mirrored_once_more(seed: int) -> None:
    _, found = kept(4, seed)
    for second, images in zip(found.second.tolist(), found.images, strict=True):
        twin = images[PARTNER if second else ANCHOR]
        assert torch.equal(images[MIRRORED].flip(-1), twin)
        # Twice mirrored is not mirrored.
        assert torch.equal(images[MIRRORED].flip(-1).flip(-1), images[MIRRORED])


def test_both_happen_half_of_the_time() -> None:
    views, found = kept(400, 0)
    turned = sum(
        torch.equal(images[LATER], one[2].flip(-1))
        for one, images in zip(views, found.images, strict=True)
    )
    assert 160 < turned < 240
    assert 160 < int(found.second.sum()) < 240
    assert torch.equal(kept(400, 0, flip=False)[1].images[:, :3], views)


def test_a_removed_background_has_the_mean_colour_and_follows_the_mirror() -> None:
    views, masks, _ = drawn(8)
    found = prepare(views, masks, None, Pairs(), generator(1, "test")).images
    plain = remove_background(views, masks)
    assert (set(plain[~masks.unsqueeze(2).expand_as(plain)].tolist())) == set(FILL)
    for one, images in zip(plain, found, strict=True):
        assert torch.equal(images[:3], one) or torch.equal(images[:3], one.flip(-1))
        assert any(torch.equal(images[MIRRORED], one[k].flip(-1)) for k in (0, 1)) or any(
            torch.equal(images[MIRRORED], one[k]) for k in (0, 1)
        )


def test_a_substituted_background_is_its_own_for_each_image_mirrored_or_not() -> None:
    views, masks, others = drawn(300)
    masks = torch.zeros_like(masks)  # nothing but background is seen
    pairs = Pairs(background="substitute")
    found = prepare(views, masks, others, pairs, generator(2, "test")).images
    straight = (found == others).flatten(2).all(2)
    mirrored = (found == others.flip(-1)).flatten(2).all(2)
    assert bool((straight | mirrored).all())
    # Whether a background is mirrored says nothing about the image, the mirrored one included.
    shares = mirrored.float().mean(0)
    assert bool(((shares > 0.4) & (shares < 0.6)).all())


def test_of_mixed_backgrounds_half_are_removed() -> None:
    views, masks, others = drawn(300)
    masks = torch.zeros_like(masks)
    pairs = Pairs(background="mixed")
    found = prepare(views, masks, others, pairs, generator(3, "test")).images
    fill = torch.tensor(FILL, dtype=torch.uint8).view(3, 1, 1)
    removed = (found == fill).flatten(2).all(2).float().mean()
    assert 0.45 < float(removed) < 0.55


def test_the_subject_stays_before_another_background() -> None:
    views, masks, others = drawn(2)
    found = substitute_background(views, masks, others[:, :3])
    for channel in range(3):
        assert torch.equal(found[:, :, channel][masks], views[:, :, channel][masks])
        assert torch.equal(found[:, :, channel][~masks], others[:, :3, channel][~masks])


def test_without_what_is_asked_for_nothing_is_made() -> None:
    views, masks, _ = drawn(1)
    with pytest.raises(ValueError, match="masks"):
        prepare(views, None, None, Pairs(), generator(0, "test"))
    with pytest.raises(ValueError, match="backgrounds"):
        prepare(views, masks, None, Pairs(background="mixed"), generator(0, "test"))


def test_random_changes_of_nothing_change_nothing() -> None:
    views, masks, _ = drawn(2)
    found, covered = jittered(views, masks, Jitter(), generator(0, "test"))
    assert torch.equal(found, views)
    assert covered is not None
    assert torch.equal(covered, masks)


def test_a_turned_image_takes_its_mask_along() -> None:
    """A white disc off the centre: after turns and shifts it still is where its mask is."""
    y, x = torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")
    disc = (y - 10) ** 2 + (x - 14) ** 2 < 25
    images = (disc * 255).to(torch.uint8).expand(20, 1, 3, 33, 33)
    masks = disc.expand(20, 1, 33, 33)
    settings = Jitter(rotate=60, scale=0.2, shift=0.1)
    found, covered = jittered(images, masks, settings, generator(0, "test"))
    assert covered is not None
    bright = found[:, :, 0] > 127
    assert float((bright != covered).float().mean()) < 0.02
    areas = covered.flatten(1).sum(1)
    # Sizes differ, but not by more than they may.
    assert len(set(areas.tolist())) > 5
    assert bool((areas < 1.6 * disc.sum()).all() and (areas > 0.6 * disc.sum()).all())
    assert not torch.equal(covered[0], covered[1])
