"""Built-in images: what tells their classes apart, and what says where up is."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from test_image_sources import opened

from selfsup_cli.config.images import Rendered
from selfsup_cli.data import facelike, scenes

RENDER = {"scenes": scenes.render, "facelike": facelike.render}
SMALL = Rendered(images=40, test_images=24)


@pytest.mark.parametrize("name", list(RENDER))
def test_an_image_is_a_function_of_its_address(name: str) -> None:
    render = RENDER[name]
    first = render(3, "train", 5, 64)
    assert first.shape == (3, 64, 64)
    assert first.dtype == np.uint8
    assert np.array_equal(first, render(3, "train", 5, 64))
    others = [(4, "train", 5), (3, "test", 5), (3, "train", 6)]
    assert all(not np.array_equal(first, render(*other, 64)) for other in others)
    assert render(3, "train", 5, 96).shape == (3, 96, 96)


@pytest.mark.parametrize("name", list(RENDER))
def test_as_a_source(name: str) -> None:
    train, test = (opened(name, part, labels=True, **{name: SMALL}) for part in ("train", "test"))
    assert (len(train), len(test)) == (40, 24)
    assert list(train.ids)[:2] == ["train/000000", "train/000001"]
    assert np.array_equal(test.read(3).numpy(), RENDER[name](0, "test", 3, 64))
    assert test.read(3, 32).shape == (3, 32, 32)
    some = test.subset(np.array([3]))
    assert torch.equal(some.read(0), test.read(3))
    assert opened(name, "train", **{name: SMALL}).labels is None
    other = opened(name, "train", labels=True, **{name: Rendered(images=40, seed=1)})
    assert len({train.fingerprint, test.fingerprint, other.fingerprint}) == 3
    whole = opened(name, "all", labels=True, **{name: SMALL})
    assert [*train.ids, *test.ids] == list(whole.ids)
    assert torch.equal(whole.read(43), test.read(3))


def test_classes_of_scenes_are_balanced_and_shuffled() -> None:
    source = opened("scenes", "train", labels=True, scenes=SMALL)
    assert source.labels is not None
    rows = source.labels.reshape(-1, 8)
    assert all(sorted(row) == list(range(8)) for row in rows.tolist())
    assert len({tuple(row) for row in rows.tolist()}) > 1
    assert source.classes == scenes.CLASSES


def test_attributes_of_faces_are_independent_coins() -> None:
    has = np.stack([facelike.attributes_of(0, "train", i) for i in range(4000)]).astype(float)
    assert np.abs(has.mean(0) - 0.5).max() < 0.03
    correlated = np.corrcoef(has.T) - np.eye(has.shape[1])
    assert np.abs(correlated).max() < 0.06


def test_no_arrangement_becomes_another_by_turning_or_mirroring() -> None:
    """Else an image that is turned could be one of another object, upright."""

    def turned(slots: tuple[int, ...], quarters: int, mirrored: bool) -> tuple[Any, ...]:
        disc, wedge, *bars = ((-slot if mirrored else slot) + 2 * quarters for slot in slots)
        return disc % 8, wedge % 8, frozenset(bar % 8 for bar in bars)

    seen = set()
    for slots in scenes.ARRANGEMENTS.values():
        assert len(set(slots)) == 4
        forms = {turned(slots, q, m) for q, m in itertools.product(range(4), (False, True))}
        assert not any(
            turned(slots, quarters, mirrored) in (turned(slots, 0, False), turned(slots, 0, True))
            for quarters, mirrored in itertools.product((1, 2, 3), (False, True))
        )
        assert not forms & seen
        seen |= forms


def rendered(name: str, count: int, part: str = "train") -> np.ndarray:
    return np.stack([RENDER[name](0, part, i, 64) for i in range(count)])


def accuracy(features: np.ndarray, labels: np.ndarray, train: int) -> float:
    """Of a ridge classifier on the first `train` rows, on the others."""
    features = np.hstack([features - features[:train].mean(0), np.ones((len(features), 1))])
    scale = features[:train].std(0) + 1e-6
    scale[-1] = 1.0
    features = features / scale
    wanted = np.eye(labels.max() + 1)[labels[:train]]
    gram = features[:train].T @ features[:train] + 10.0 * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features[:train].T @ wanted)
    return float(((features[train:] @ weights).argmax(1) == labels[train:]).mean())


def patches(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A 16×16 patch of each image at a random place, turned at random; and by how much."""
    draws = np.random.default_rng(0)
    found, turns = [], draws.integers(0, 4, count)
    for image, turn in zip(rendered(name, count), turns, strict=True):
        top, left = draws.integers(0, 49, 2)
        grey = image[:, top : top + 16, left : left + 16].mean(0)
        found.append(np.rot90(grey, turn).astype(np.float64))
    return np.stack(found), turns


def slopes(found: np.ndarray) -> np.ndarray:
    """How often, and how far, it gets brighter or darker in some directions, `[N, F]`."""
    features = []
    for down, across in ((1, 0), (2, 0), (2, 1), (2, -1), (0, 1), (0, 2), (1, 2), (-1, 2)):
        far = found[:, 2 + down : 14 + down, 2 + across : 14 + across]
        step = np.clip(far - found[:, 2:14, 2:14], -40.0, 40.0).reshape(len(found), -1)
        features += [step.mean(1), np.median(step, axis=1), (step**3).mean(1)]
    return np.stack(features, 1)


def test_a_patch_says_where_up_is_in_faces_and_not_in_scenes() -> None:
    """Thesis, section 4.4: that rotations can be told locally is why they teach little on faces."""
    scores = {}
    for name in RENDER:
        found, turns = patches(name, 1600)
        scores[name] = accuracy(slopes(found), turns, 1100)
    assert scores["facelike"] > 0.8
    assert scores["scenes"] < 0.33


def test_pixels_and_colors_say_nothing_of_the_class_of_a_scene() -> None:
    images = rendered("scenes", 1600).astype(np.float64)
    labels = np.array([scenes.class_of(0, "train", i) for i in range(1600)])
    small = images.reshape(1600, 3, 16, 4, 16, 4).mean((3, 5))
    grey = small.mean(1).reshape(1600, -1)
    colors = np.hstack([images.mean((2, 3)), images.std((2, 3)), small.reshape(1600, 3, -1).max(2)])
    assert accuracy(grey, labels, 1100) < 0.2
    assert accuracy(colors, labels, 1100) < 0.18


def test_the_mean_face_is_a_face_and_the_mean_scene_is_nothing() -> None:
    """Figure 4.5 of the thesis."""
    contrast = {name: rendered(name, 300).astype(float).mean((0, 1)).std() for name in RENDER}
    assert contrast["facelike"] > 4 * contrast["scenes"]
