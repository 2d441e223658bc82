"""The built-in videos: only motion tells their classes apart."""

from __future__ import annotations

import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom, ks_2samp, kstest, norm
from sklearn.ensemble import ExtraTreesClassifier

from selfsup_cli.config.blocks import Motion
from selfsup_cli.data.motion import CLASSES, MotionSource, Scene, law_of
from selfsup_cli.data.source import ClipSource

SMALL = Motion(videos=24, test_videos=16, side=32, length=160, seed=3)


@pytest.fixture(scope="module")
def source() -> MotionSource:
    return MotionSource(SMALL, "train", labels=True)


def _digest(source: MotionSource) -> str:
    clips = [source.read(i, np.array([0, 77, 159]), None).numpy() for i in range(len(source))]
    return hashlib.sha256(np.stack(clips).tobytes()).hexdigest()


def test_it_is_a_source_of_uint8_clips(source: MotionSource) -> None:
    assert isinstance(source, ClipSource)
    clip = source.read(0, np.arange(0, 160, 10), None)
    assert (clip.dtype, clip.shape) == (torch.uint8, (3, 16, 32, 32))
    assert clip.is_contiguous()
    assert clip.float().std() > 10
    assert source.num_frames.tolist() == [160] * 24
    assert source.num_frames.dtype == np.int64
    assert source.left_out == ()


def test_at_least_eight_classes_all_equally_frequent(source: MotionSource) -> None:
    assert source.classes == CLASSES
    assert len(set(CLASSES)) >= 8
    assert source.labels is not None
    assert np.bincount(source.labels).tolist() == [3] * 8
    # in an order of its own, so that a position does not tell the class
    assert source.labels[:8].tolist() != source.labels[8:16].tolist()


def test_without_labels_nothing_tells_the_class(source: MotionSource) -> None:
    unlabelled = MotionSource(SMALL, "train", labels=False)
    assert unlabelled.labels is None
    assert unlabelled.classes is None
    assert list(unlabelled.ids) == [f"train/{i:06d}" for i in range(24)]
    frames = np.array([4, 90])
    assert torch.equal(unlabelled.read(7, frames, None), source.read(7, frames, None))
    assert unlabelled.fingerprint == source.fingerprint


def test_other_processes_render_the_same(source: MotionSource) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        assert pool.submit(_digest, source).result() == _digest(source)


def test_a_frame_does_not_depend_on_those_asked_for_with_it(source: MotionSource) -> None:
    for i in range(8):
        clip = source.read(i, np.array([150, 3, 150, 9]), None)
        assert torch.equal(clip[:, 0], clip[:, 2])
        assert torch.equal(clip[:, 1], source.read(i, np.array([3]), None)[:, 0])
        assert not torch.equal(clip[:, 1], clip[:, 3])


def test_train_and_test_are_disjoint_and_all_holds_both() -> None:
    train, test, both = (MotionSource(SMALL, s, labels=True) for s in ("train", "test", "all"))
    assert (len(train), len(test), len(both)) == (24, 16, 40)
    assert list(both.ids) == [*train.ids, *test.ids]
    assert both.labels is not None
    assert train.labels is not None
    assert test.labels is not None
    assert both.labels.tolist() == [*train.labels.tolist(), *test.labels.tolist()]
    first = np.array([0])
    stills = {both.read(i, first, None).numpy().tobytes() for i in range(40)}
    assert len(stills) == 40
    assert torch.equal(both.read(24, first, None), test.read(0, first, None))
    assert len({train.fingerprint, test.fingerprint, both.fingerprint}) == 3


def test_test_videos_stay_the_same_when_training_videos_are_added() -> None:
    more = MotionSource(SMALL.model_copy(update={"videos": 240}), "test", labels=True)
    test = MotionSource(SMALL, "test", labels=True)
    assert _digest(more) == _digest(test)
    assert list(more.ids) == list(test.ids)


def test_subset_keeps_order_labels_and_pictures(source: MotionSource) -> None:
    chosen = source.subset(np.array([9, 2, 20]))
    assert source.labels is not None
    assert chosen.labels is not None
    assert list(chosen.ids) == ["train/000009", "train/000002", "train/000020"]
    assert chosen.labels.tolist() == source.labels[[9, 2, 20]].tolist()
    frames = np.array([11])
    assert torch.equal(chosen.read(2, frames, None), source.read(20, frames, None))
    assert chosen.fingerprint != source.fingerprint
    assert list(chosen.subset(np.array([1])).ids) == ["train/000002"]
    assert chosen.ids[-1] == "train/000020"
    assert list(chosen.ids[1:]) == ["train/000002", "train/000020"]


@pytest.mark.parametrize("change", [{"seed": 4}, {"length": 128}, {"side": 40}, {"videos": 32}])
def test_fingerprint_changes_with_what_is_rendered(
    source: MotionSource, change: dict[str, int]
) -> None:
    other = MotionSource(SMALL.model_copy(update=change), "train", labels=True)
    assert other.fingerprint != source.fingerprint


def test_frames_are_scaled_to_the_size_asked_for(source: MotionSource) -> None:
    frames = np.array([0, 50, 100])
    clip = source.read(1, frames, None)
    assert torch.equal(source.read(1, frames, (32, 32)), clip)
    scaled = source.read(1, frames, (16, 20))
    assert (scaled.dtype, scaled.shape) == (torch.uint8, (3, 3, 16, 20))
    halves = source.read(1, frames, (16, 16)).float()
    cells = torch.nn.functional.avg_pool2d(clip.float(), 2)
    assert (halves - cells).abs().mean() < 6  # a triangle filter against a box: near, not equal
    assert (halves.mean((2, 3)) - clip.float().mean((2, 3))).abs().max() < 1


@pytest.mark.parametrize("frame", [-1, 160])
def test_frames_that_do_not_exist_are_refused(source: MotionSource, frame: int) -> None:
    with pytest.raises(IndexError, match="159"):
        source.read(0, np.array([0, frame]), None)


def test_a_million_videos_are_opened_at_once() -> None:
    many = MotionSource(Motion(videos=1_000_000), "train", labels=False)
    assert many.ids[999_999] == "train/999999"
    assert many.read(999_999, np.array([0]), None).shape[:2] == (3, 1)


# Only motion


def _states(frames: NDArray[np.int64], per_class: int) -> dict[int, list[NDArray[np.float64]]]:
    """Per class: for each of its videos `[4, T]`: x, y, radius, angle (turns, modulo 1)."""
    found: dict[int, list[NDArray[np.float64]]] = {c: [] for c in range(len(CLASSES))}
    for i in range(per_class * len(CLASSES)):
        x, y, radius, angle = Scene(11, "train", i, 16).state(frames)
        turns = angle / (2 * np.pi) % 1.0
        found[law_of(11, "train", i)].append(np.stack([x, y, radius, turns]))
    return found


@pytest.mark.parametrize("frame", [0, 83, 159])
def test_place_size_and_angle_of_one_frame_are_distributed_alike_in_all_classes(frame: int) -> None:
    states = _states(np.array([frame]), 250)
    pooled = np.concatenate([np.concatenate(s, 1) for s in states.values()], 1)
    tests = len(CLASSES) * 4
    for label, of_class in states.items():
        own = np.concatenate(of_class, 1)
        for quantity, name in enumerate(("x", "y", "radius", "angle")):
            p = (
                ks_2samp(own[quantity], pooled[quantity]).pvalue
                if name == "radius"
                else kstest(own[quantity], "uniform").pvalue
            )
            assert p > 0.001 / tests, f"{name} tells {CLASSES[label]} in frame {frame}: p = {p:.1e}"


def _single_frame_features(clip: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Thumbnail, contrasts and spectrum of one frame `[3, H, W]`, whatever a class might leave."""
    grey = clip.mean(0)
    small = grey.reshape(8, 4, 8, 4).mean((1, 3))
    spectrum = np.log1p(np.abs(np.fft.rfft2(grey - grey.mean())))[:8, :8]
    edges = [np.abs(np.diff(grey, axis=a)).mean() for a in (0, 1)]
    levels = np.percentile(clip, [1, 10, 50, 90, 99], axis=(1, 2))
    parts = (small, spectrum, levels, clip.mean((1, 2)), clip.std((1, 2)), edges)
    return np.concatenate([np.ravel(p) for p in parts])


def _change_features(clip: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Where the frames `[3, T, H, W]` differ from one to the next."""
    changes = np.abs(np.diff(clip.astype(np.float64), axis=1)).mean(0)
    return np.ravel(changes.reshape(-1, 8, 4, 8, 4).mean((2, 4)))


def _largest_z(features: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Largest |z| of any class's mean, or mean square, of any feature against the other classes."""
    standard = (features - features.mean(0)) / features.std(0)
    values = np.concatenate([standard, standard**2], 1)
    largest = 0.0
    for label in range(len(CLASSES)):
        own, others = values[labels == label], values[labels != label]
        error = np.sqrt(own.var(0) / len(own) + others.var(0) / len(others))
        largest = max(largest, float(np.abs((own.mean(0) - others.mean(0)) / error).max()))
    return largest


def test_single_frames_say_nothing_of_the_class_and_their_order_does() -> None:
    source = MotionSource(Motion(videos=3200, side=32), "train", labels=True)
    labels = source.labels
    assert labels is not None
    rng = np.random.default_rng(0)
    single, moving = [], []
    for i in range(len(source)):
        frames = int(rng.integers(0, 160 - 16)) + np.array([0, 8, 16])
        clip = source.read(i, frames, None).numpy()
        single.append(_single_frame_features(clip[:, 0]))
        moving.append(_change_features(clip))

    def hits(features: NDArray[np.float64]) -> int:
        """Of a classifier trained on the first 2400 videos, on the other 800."""
        trees = ExtraTreesClassifier(60, min_samples_leaf=3, random_state=0)
        trees.fit(features[:2400], labels[:2400])
        return int((trees.predict(features[2400:]) == labels[2400:]).sum())

    stills = np.stack(single)
    questions = 2 * stills.shape[1] * len(CLASSES)
    assert _largest_z(stills, labels) < norm.isf(0.001 / questions / 2)
    chance = binom(800, 1 / len(CLASSES))
    assert chance.ppf(0.001) <= hits(stills) <= chance.ppf(0.999)
    assert hits(np.stack(moving)) > chance.ppf(1 - 1e-9)


def _path_features(state: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a perfect tracker of one clip `[4, T]` could say about its motion."""
    steps = (np.diff(state[:2]) + 0.5) % 1.0 - 0.5
    path = np.concatenate([np.zeros((2, 1)), steps.cumsum(1)], 1)
    length = np.hypot(*steps)
    spin = (np.diff(state[3]) + 0.5) % 1.0 - 0.5
    centred = path - path.mean(1, keepdims=True)
    spread = np.linalg.svd(centred, compute_uv=False)
    return np.array(
        [
            np.abs(spin).max(),
            np.ptp(state[2]) * (length.max() < 1e-9),
            length.std(),
            length.min(),
            length.max(),
            np.hypot(*path[:, -1]),
            np.hypot(*centred).max(),
            np.hypot(*centred).min(),
            *spread,
            spread[1] / (spread[0] + 1e-9),
            np.ptp(path[0]) / (np.ptp(path).sum() + 1e-9),
            np.abs(np.diff(steps)).max(),
        ]
    )


def test_the_law_can_be_told_from_the_path() -> None:
    states = _states(np.arange(40, 104, 4), 60)  # what evaluation sees: 16 frames, every 4th
    features = [[_path_features(s) for s in of_class] for of_class in states.values()]
    train = np.concatenate([f[:40] for f in features])
    test = np.concatenate([f[40:] for f in features])
    trees = ExtraTreesClassifier(100, random_state=0)
    trees.fit(train, np.repeat(range(len(CLASSES)), 40))
    accuracy = (trees.predict(test) == np.repeat(range(len(CLASSES)), 20)).mean()
    assert accuracy > 0.95


def test_tempo_is_narrow_so_that_speeds_can_be_told() -> None:
    frames = np.arange(0, 144, 1)
    paces = []
    for label, of_class in _states(frames, 20).items():
        if CLASSES[label] in ("spin", "grow-shrink"):
            continue
        for state in of_class:
            steps = (np.diff(state[:2]) + 0.5) % 1.0 - 0.5
            paces.append(np.hypot(*steps).mean())
    middle = float(np.median(paces))
    assert middle == pytest.approx(0.02, rel=0.1)  # sides per frame
    assert np.max(paces) / middle < 1.5
    assert np.min(paces) / middle > 1 / 1.5


def test_the_shape_is_drawn_where_its_state_says() -> None:
    """The centre of what differs from the background (the median over time), on the torus."""
    frames = np.arange(0, 160, 4)
    errors = []
    for index in (i for i in range(100) if CLASSES[law_of(0, "train", i)] in ("drift", "zigzag")):
        scene = Scene(0, "train", index, 48)
        clip = scene.render(frames).astype(np.float64)
        change = np.abs(clip - np.median(clip, axis=1, keepdims=True)).mean(0)
        change = np.clip(change - 25, 0, None)
        phase = np.exp(2j * np.pi * (np.arange(48) + 0.5) / 48)
        x, y, *_ = scene.state(frames)
        for axis, true in ((1, x), (2, y)):
            mean = (change.sum(axis) * phase).sum(1)
            seen = np.angle(mean) / (2 * np.pi)
            errors.append(np.abs((seen - true + 0.5) % 1.0 - 0.5)[np.abs(mean) > 200])
    assert sum(len(e) for e in errors) > 200
    assert np.median(np.concatenate(errors)) < 0.03
