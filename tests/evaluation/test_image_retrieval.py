from __future__ import annotations

import os
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from selfsup_cli.errors import MachineError
from selfsup_cli.evaluation import image_retrieval
from selfsup_cli.evaluation.features import Features
from selfsup_cli.evaluation.image_retrieval import (
    chance_of_any,
    copies,
    measurements,
    nearest,
    shared,
    sharing,
    standardized,
    vectors_of,
    voted,
)
from selfsup_cli.evaluation.retrieval import Neighbourhood

ABOUT = {"subject": "learned", "dataset": "toy", "split": "as made", "layer": "conv5"}


def numbers(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d))).float()


def test_leave_one_out_agrees_with_scikit_learn_on_all_but_one() -> None:
    x, labels = numbers(60, 5), np.random.default_rng(1).integers(0, 4, 60)
    found = nearest(x, None, 7)
    answers = voted(found, labels, 7)
    same = 0
    for i in range(60):
        rest = np.delete(np.arange(60), i)
        other = KNeighborsClassifier(7, metric="cosine").fit(x[rest], labels[rest])
        near = rest[other.kneighbors(x[i : i + 1], return_distance=False)[0]]
        assert found.rows[i].tolist() == near.tolist()
        votes = Counter(labels[near].tolist()).most_common()
        if len(votes) == 1 or votes[0][1] > votes[1][1]:
            assert answers[i] == other.predict(x[i : i + 1])[0]
            same += 1
    assert same > 30


@given(n=st.integers(2, 9), k=st.integers(1, 12), seed=st.integers(0, 50))
def test_no_query_is_its_own_neighbour_even_among_equals(n: int, k: int, seed: int) -> None:
    # Few different vectors: most have copies, which come in no promised order.
    rng = np.random.default_rng(seed)
    x = torch.eye(3)[rng.integers(0, 3, n)]
    found = nearest(x, None, k)
    assert found.rows.shape == (n, min(k, n - 1))
    for i, row in enumerate(found.rows.tolist()):
        assert i not in row
        assert len(set(row)) == len(row)
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_in_parts_it_is_the_same_and_progress_counts_queries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, gallery = numbers(23, 4), numbers(11, 4, seed=1)
    whole, other = nearest(x, None, 5), nearest(x, gallery, 50)
    assert other.rows.shape == (23, 11)
    monkeypatch.setattr(image_retrieval, "_QUERIES", 4)
    told: list[tuple[int, int]] = []
    parts = nearest(x, None, 5, progress=lambda done, total: told.append((done, total)))
    assert (parts.rows == whole.rows).all()
    assert told == [(4, 23), (8, 23), (12, 23), (16, 23), (20, 23), (23, 23)]
    labels = np.arange(23) % 3
    assert (voted(parts, labels, 5) == voted(whole, labels, 5)).all()


def test_of_equal_votes_the_nearer_class_wins() -> None:
    found = Neighbourhood(np.array([[0, 1, 2, 3]]), np.array([[0.9, 0.8, 0.7, 0.1]], np.float32))
    assert voted(found, np.array([1, 0, 0, 1]), 4)[0] == 0
    assert voted(found, np.array([1, 0, 0, 1]), 1)[0] == 1
    assert voted(found, np.array([1, 0, 1, 0]), 4)[0] == 1


def test_vectors_are_the_crops_side_by_side_in_memory_or_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = np.arange(6 * 3, dtype=np.float32).reshape(6, 3)
    features = Features.of({"conv5": rows}, np.repeat(np.arange(2), 3))
    expected = rows.reshape(2, 9)
    assert (vectors_of(features, "conv5", 2).numpy() == expected).all()
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image_retrieval, "IN_MEMORY_BYTES", 0)
    mapped = vectors_of(features, "conv5", 2)
    standardized(mapped)
    np.testing.assert_allclose(mapped.mean(0), 0, atol=1e-6)
    assert list((tmp_path / "cache").iterdir()) == []

    def full(fd: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(MachineError, match="free") as caught:
        vectors_of(features, "conv5", 2)
    assert "--crops center" in str(caught.value.hint)
    assert list((tmp_path / "cache").iterdir()) == []


def test_uneven_crops_are_refused() -> None:
    features = Features.of({"conv5": np.zeros((4, 2), np.float32)}, np.array([0, 0, 0, 1]))
    with pytest.raises(ValueError, match="different numbers"):
        vectors_of(features, "conv5", 2)


def test_standardising_uses_the_gallery_and_changes_its_blocks_in_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_retrieval, "_BLOCK_BYTES", 100)
    scale = torch.tensor([1.0, 10.0, 0.5, 3.0])
    gallery, queries = numbers(50, 4) * scale + 5, numbers(9, 4, seed=2) * scale
    scaler = StandardScaler().fit(gallery)
    expected = scaler.transform(gallery), scaler.transform(queries)
    standardized(gallery, queries)
    np.testing.assert_allclose(gallery, expected[0], rtol=0.06, atol=0.01)
    np.testing.assert_allclose(queries, expected[1], rtol=0.06, atol=0.01)


@given(
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=5), k=st.integers(1, 6)
)  # of six images
def test_chance_of_any_is_the_mean_over_all_draws(counts: list[int], k: int) -> None:
    draws = list(combinations(range(6), k))
    hits = [any(i < m for i in draw) for m in counts for draw in draws]
    assert chance_of_any(np.array(counts), 6, k) == pytest.approx(np.mean(hits), abs=1e-12)


def test_chance_of_any_on_the_scale_of_places() -> None:
    counts = np.full(36_500, 99)
    assert chance_of_any(counts, 36_499, 50) == pytest.approx(1 - (1 - 99 / 36_499) ** 50, rel=1e-3)


@given(seed=st.integers(0, 40), several=st.booleans(), alone=st.booleans())
def test_sharing_agrees_with_looking_at_every_pair(seed: int, several: bool, alone: bool) -> None:
    rng = np.random.default_rng(seed)
    draw: np.ndarray
    other: np.ndarray
    if several:
        draw = rng.choice([0, 1, 255], (12, 4), p=[0.6, 0.3, 0.1]).astype(np.uint8)
        other = rng.choice([0, 1, 255], (9, 4), p=[0.6, 0.3, 0.1]).astype(np.uint8)
    else:
        draw, other = rng.integers(0, 4, 12), rng.integers(0, 6, 9)
    gallery = draw if alone else other

    def agree(a: np.ndarray, b: np.ndarray) -> bool:
        return bool(((a == 1) & (b == 1)).any()) if several else bool(a == b)

    pairs = np.array([[agree(a, b) for b in gallery] for a in draw])
    found = Neighbourhood(
        np.stack([rng.permutation(len(gallery)) for _ in draw]), np.zeros((12, len(gallery)))
    )
    expected = np.take_along_axis(pairs, found.rows, 1)
    assert (shared(found, draw, gallery) == expected).all()
    if alone:
        np.fill_diagonal(pairs, False)
    assert (sharing(draw, None if alone else gallery) == pairs.sum(1)).all()


def test_rows_for_every_k_that_the_set_can_fill_and_blind_neighbours_are_at_chance() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    found = nearest(numbers(400, 30), None, 60)
    rows = measurements(found, labels, None, [50, 1, 5, 500], protocol={"crops": "five"}, **ABOUT)
    assert [row.metric for row in rows] == [
        "1-NN accuracy", "5-NN accuracy", "precision at 5", "50-NN accuracy", "precision at 50",
    ]  # fmt: skip
    for row in rows:
        assert row.interval is not None
        assert row.chance is not None
        assert row.interval.low - 3 < row.chance < row.interval.high + 3
        assert row.n == 400
        assert row.protocol["gallery"] == 399
        assert "videos" not in row.interval.method
    # Of an image's others, one less of its own class than of the whole set.
    exact = np.mean([(labels == label).sum() - 1 for label in labels]) / 399
    assert rows[2].chance == pytest.approx(100 * exact)
    assert rows[0].chance == pytest.approx(100 * np.bincount(labels).max() / 400)


def test_images_with_several_labels_are_counted_by_what_they_share() -> None:
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 255]], np.uint8)
    x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.1, 1.0], [0.0, 1.0]])
    found = nearest(x, None, 3)
    rows = measurements(found, labels, None, [1, 2], protocol={"crops": "five"}, **ABOUT)
    assert [(row.metric, row.value) for row in rows] == [
        ("top-1", 50.0), ("top-2", 75.0), ("precision at 2", 50.0),
    ]  # fmt: skip
    assert rows[0].protocol["queries_that_share_with_none"] == 1
    assert "vote" not in rows[0].protocol
    assert rows[2].chance == pytest.approx(100 * (1 + 2 + 1 + 0) / 4 / 3)


def test_copies_are_counted() -> None:
    x = numbers(20, 8)
    assert copies(nearest(x, None, 3)) == 0
    x[7] = x[3]
    assert copies(nearest(x, None, 3)) == 2
