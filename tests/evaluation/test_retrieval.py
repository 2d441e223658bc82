from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup_cli.evaluation.retrieval import (
    Neighbourhood,
    chance_at,
    hits_at,
    measurements,
    neighbours_of,
    pick_queries,
)

labels_of = st.lists(st.integers(0, 3), min_size=1, max_size=8).map(np.array)


@settings(deadline=None)
@given(query=labels_of, gallery=labels_of, k=st.integers(1, 8))
def test_chance_is_the_mean_over_all_draws(query: np.ndarray, gallery: np.ndarray, k: int) -> None:
    draws = list(combinations(range(len(gallery)), min(k, len(gallery))))
    hits = [any(gallery[i] == label for i in draw) for label in query for draw in draws]
    assert chance_at(query, gallery, k) == pytest.approx(np.mean(hits), abs=1e-12)


def test_chance_on_the_scale_of_ucf101() -> None:
    gallery = np.repeat(np.arange(101), 95)
    query = np.repeat(np.arange(101), 37)
    assert chance_at(query, gallery, 1) == pytest.approx(1 / 101, rel=1e-6)
    assert chance_at(query, gallery, 50) == pytest.approx(1 - (100 / 101) ** 50, rel=5e-3)


@settings(deadline=None)
@given(data=st.data(), seed=st.integers(0, 100))
def test_hits_agree_with_looking_at_every_video(data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gallery, queries = rng.normal(size=(12, 3)), rng.normal(size=(5, 3))
    gallery_labels, query_labels = rng.integers(0, 3, 12), rng.integers(0, 4, 5)
    k = data.draw(st.integers(1, 12))
    found = neighbours_of(
        torch.from_numpy(queries).float(), torch.from_numpy(gallery).float(), 12, standardize=False
    )
    for q in range(5):
        cosines = [
            float(queries[q] @ g / np.linalg.norm(queries[q]) / np.linalg.norm(g)) for g in gallery
        ]
        order = sorted(range(12), key=lambda i: -cosines[i])
        assert found.rows[q].tolist() == order
        expected = query_labels[q] in [gallery_labels[i] for i in order[:k]]
        assert hits_at(found.rows, query_labels, gallery_labels, k)[q] == expected


def test_standardising_takes_its_statistics_from_the_gallery_alone() -> None:
    rng = np.random.default_rng(0)
    gallery = torch.from_numpy(rng.normal(size=(50, 6)) * [1, 9, 1, 3, 1, 1] + 20).float()
    queries = torch.from_numpy(rng.normal(size=(8, 6)) * 5 + 15).float()
    together = neighbours_of(queries, gallery, 10)
    alone = neighbours_of(queries[:1], gallery, 10)
    assert (together.rows[0] == alone.rows[0]).all()
    g = gallery.double().numpy()
    z = (g - g.mean(0)) / g.std(0)
    q = (queries.double().numpy() - g.mean(0)) / g.std(0)
    cosine = (q @ z.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(z, axis=1)
    assert (np.argsort(-cosine, 1)[:, :3] == together.rows[:, :3]).mean() > 0.9
    np.testing.assert_allclose(together.scores[:, 0], cosine.max(1), atol=0.01)
    # Without it the large common offset makes everything similar.
    assert neighbours_of(queries, gallery, 10, standardize=False).scores.min() > 0.5


def test_measurements_for_every_k_that_the_gallery_can_fill() -> None:
    rng = np.random.default_rng(0)
    gallery_labels = np.arange(12) % 3
    query_labels = np.array([0, 1, 2, 3])  # class 3 is not in the gallery
    found = neighbours_of(
        torch.from_numpy(rng.normal(size=(4, 5))).float(),
        torch.from_numpy(rng.normal(size=(12, 5))).float(),
        50,
    )
    assert found.rows.shape == (4, 12)
    numbers = measurements(
        found, query_labels, gallery_labels, [10, 1, 5, 20, 50],
        subject="learned", control="reversed", dataset="toy", split="official split 1",
        layer="embedding", protocol={"clips": 10},
    )  # fmt: skip
    assert [m.metric for m in numbers] == ["top-1", "top-5", "top-10"]
    assert [m.n for m in numbers] == [4, 4, 4]
    values = [m.value for m in numbers]
    assert values == sorted(values)
    assert values[-1] <= 75
    for m, k in zip(numbers, (1, 5, 10), strict=True):
        assert m.chance == pytest.approx(100 * chance_at(query_labels, gallery_labels, k))
        assert m.control == "reversed"
        assert m.interval is not None
        assert m.protocol["queries_without_class_in_gallery"] == 1
        assert m.protocol["gallery"] == 12
        assert m.protocol["clips"] == 10


def test_blind_neighbours_are_right_as_often_as_chance_says() -> None:
    rng = np.random.default_rng(0)
    gallery_labels, query_labels = rng.integers(0, 8, 200), rng.integers(0, 8, 500)
    rows = np.stack([rng.permutation(200)[:10] for _ in range(500)])
    blind = Neighbourhood(rows, np.zeros((500, 10), np.float32))
    for m in measurements(
        blind, query_labels, gallery_labels, [1, 5, 10],
        subject="learned", dataset="d", split="s", layer="embedding", protocol={"clips": 1},
    ):  # fmt: skip
        assert m.interval is not None
        assert m.chance is not None
        assert m.interval.low - 2 < m.chance < m.interval.high + 2


def test_queries_for_the_picture_come_from_all_classes_in_turn() -> None:
    labels = np.array([0] * 20 + [1] * 3 + [2] * 7)
    ids = [f"{i}.avi" for i in range(30)]
    chosen = pick_queries(8, 0, ids, labels)
    assert sorted(labels[chosen[:3]]) == [0, 1, 2]
    assert sorted(labels[chosen[3:6]]) == [0, 1, 2]
    assert (chosen == pick_queries(8, 0, ids, labels)).all()
    assert set(chosen) != set(pick_queries(8, 1, ids, labels))
    assert len(pick_queries(50, 0, ids)) == 30
    assert len(set(pick_queries(8, 0, ids))) == 8
