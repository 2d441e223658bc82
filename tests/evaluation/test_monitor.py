from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from evaluation_toys import CPU, ToySource
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from selfsup_cli.data.loader import ClipPlan
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.monitor import (
    Predict,
    PretextAccuracy,
    embedding_health,
    knn_accuracy,
    pretext_accuracy,
    question,
)

SPEEDS = 2
QUESTIONS = {"motion": ("speed", "reversed", "constant"), "speed": ("×1", "×2")}


def plan(n: int, g: torch.Generator) -> ClipPlan:
    """Clips of 8 frames: forwards at speed 1 or, if it fits, 2; backwards; one frame repeated."""
    kappa = int(torch.randint(0, 2 if n >= 16 else 1, (), generator=g))
    start = int(torch.randint(0, n - 8 * 2**kappa + 1, (), generator=g))
    forward = start + 2**kappa * np.arange(8)
    frames = np.stack([forward, forward[::-1], np.full(8, start)])
    return ClipPlan(frames, {"motion": np.arange(3), "speed": np.array([kappa, -1, -1])})


def oracle(clips: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reads the frame numbers that the source writes into the corner of its frames."""
    steps = clips[:, 0, :, 15, 15].int().diff(dim=1)[:, 0]
    motion = torch.where(steps == 0, 2, (steps < 0).long())
    speed = (steps.abs() == 2).long()
    eye = torch.eye(3)
    # Labels come with their own clips.
    assert torch.equal(labels["motion"], motion)
    assert (labels["speed"] == torch.where(motion == 0, speed, -1)).all()
    return {"motion": eye[motion], "speed": torch.eye(SPEEDS)[speed]}


def constant(clips: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"motion": torch.tensor([0.0, 1, 0]).expand(len(clips), 3)}


def check(
    predict: Predict, source: ToySource, asked: Sequence[str] = ("motion", "speed"), **settings: int
) -> PretextAccuracy:
    questions = {name: answers for name, answers in QUESTIONS.items() if name in asked}
    return pretext_accuracy(
        predict, source, plan, questions=questions, size=(16, 20), hardware=CPU, seed=0, **settings
    )


@pytest.mark.parametrize(("workers", "batch"), [(0, 32), (0, 5), (2, 7)])
def test_an_oracle_is_always_right(workers: int, batch: int) -> None:
    found = check(oracle, ToySource([40] * 12), workers=workers, batch=batch)
    names = [score.name for score in found.scores()]
    assert names == [
        "motion", "motion speed", "motion reversed", "motion constant", "speed", "speed ×1",
        "speed ×2",
    ]  # fmt: skip
    assert all(score.value == 1 for score in found.scores())
    assert found.metrics()["heldout_speed_x2"] == 1
    assert found.metrics()["heldout_motion_constant"] == 1
    assert found.questions["motion"].overall.clips == 12 * 2 * 3
    assert len(found.questions["motion"].overall.shares) == 12
    assert (found.questions["motion"].confusion == 24 * np.eye(3)).all()
    assert found.questions["speed"].overall.clips == 24
    assert [finding.verdict for finding in found.findings()] == ["good", "good"]


def test_a_constant_answer_is_at_chance_and_that_is_said() -> None:
    found = check(constant, ToySource([40] * 12), asked=["motion"])
    assert list(found.questions) == ["motion"]
    assert found.questions["motion"].overall.value == pytest.approx(1 / 3)
    assert found.questions["motion"].overall.chance == pytest.approx(1 / 3)
    assert found.questions["motion"].overall.above_chance is False
    # Knowing one answer by always giving it is no better than the rate at which it is given.
    _, backwards, _ = found.questions["motion"].by_answer
    assert (backwards.value, backwards.chance) == (1, 1)
    (finding,) = found.findings()
    assert finding.verdict == "bad"
    assert "not above chance" in finding.text
    assert "--lr" in finding.text


def test_a_question_with_one_answer_is_no_failure() -> None:
    # Videos this short have one speed alone.
    found = check(oracle, ToySource([12] * 8))
    assert found.questions["speed"].overall.chance == 1
    finding = found.findings()[-1]
    assert finding.verdict == "unclear"
    assert "the same answer" in finding.text


def test_chance_of_the_speed_is_that_of_the_clips_that_were_drawn() -> None:
    # Of ten videos eight are too short for the second speed.
    found = check(oracle, ToySource([12] * 8 + [64] * 2), draws=8)
    assert 0.8 < found.questions["speed"].overall.chance < 1
    truth = found.questions["speed"].confusion.sum(1)
    assert found.questions["speed"].overall.chance == pytest.approx(truth[0] / truth.sum())


def test_the_same_clips_are_drawn_at_every_check() -> None:
    seen: list[Tensor] = []

    def remember(clips: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        seen.append(clips)
        return oracle(clips, labels)

    for _ in range(2):
        check(remember, ToySource([40] * 9), videos=4)
    assert torch.equal(seen[0], seen[1])
    assert len(seen[0]) == 4 * 2 * 3


def test_unreadable_videos_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    source = ToySource([40] * 6, broken=("toy/002.avi", "toy/004.avi"))
    found = check(oracle, source)
    assert found.unreadable == 2
    assert len(found.questions["motion"].overall.shares) == 4
    assert all(score.value == 1 for score in found.scores())
    assert "toy/002.avi" in caplog.text
    with pytest.raises(InputError, match="no held-out video"):
        check(oracle, ToySource([40], broken=("toy/000.avi",)))


@settings(deadline=None)
@given(
    clips=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=40
    )
)
def test_scores_agree_with_counting(clips: list[tuple[int, int, int]]) -> None:
    given_, truth, video = (np.array(column) for column in zip(*clips, strict=True))
    found = question("q", ("a", "b", "c"), given_, truth, video)
    per_video = [
        np.mean([g == t for g, t, w in clips if w == v]) for v in sorted({w for *_, w in clips})
    ]
    assert found.overall.value == pytest.approx(np.mean(per_video))
    constants = [
        np.mean([np.mean([t == c for _, t, w in clips if w == v]) for v in {w for *_, w in clips}])
        for c in range(3)
    ]
    assert found.overall.chance == pytest.approx(max(constants))
    assert found.confusion.sum() == len(clips)
    assert np.trace(found.confusion) == sum(g == t for g, t, _ in clips)
    for score in found.by_answer:
        c = "abc".index(score.name[-1])
        assert score.clips == sum(t == c for _, t, _ in clips)
        assert score.chance == pytest.approx(np.mean(given_ == c))
    measured = found.overall.measurement(dataset="d", split="s", protocol={"draws": 1})
    assert measured.value == pytest.approx(100 * found.overall.value)
    assert measured.n == len(per_video)
    assert measured.protocol == {"draws": 1, "clips": len(clips)}


def test_clips_of_a_video_are_not_counted_as_independent() -> None:
    truth = np.zeros(100, dtype=np.int64)
    given_ = np.repeat([0, 1] * 5, 10)  # all ten clips of a video right, or all wrong
    clustered = question("q", ("a", "b"), given_, truth, np.repeat(np.arange(10), 10)).overall
    independent = question("q", ("a", "b"), given_, truth, np.arange(100)).overall
    assert clustered.value == independent.value == 0.5
    assert clustered.standard_error > 3 * independent.standard_error
    alone = question("q", ("a", "b"), truth, truth, truth).overall
    assert alone.standard_error == math.inf


# Embeddings


def test_an_evenly_covered_sphere_has_spread_one_and_full_rank() -> None:
    x = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    health = embedding_health(x)
    assert health.spread == pytest.approx(1, abs=0.02)
    assert health.effective_rank == pytest.approx(16, rel=0.02)
    assert not health.collapsed
    assert health.finding().verdict == "good"
    assert embedding_health(1000 * x).spread == pytest.approx(health.spread)


@pytest.mark.parametrize("noise", [0, 1e-4])
def test_equal_embeddings_are_collapsed(noise: float) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(16, generator=g) + noise * torch.randn(100, 16, generator=g)
    health = embedding_health(x)
    assert health.spread < 1e-3
    assert health.collapsed
    assert health.finding().verdict == "bad"
    assert "--lr" in health.finding().text


def test_embeddings_on_one_line_are_collapsed() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 1, generator=g) * torch.randn(16, generator=g)
    health = embedding_health(x)
    assert health.spread > 0.5
    assert health.effective_rank == pytest.approx(1, abs=1e-4)
    assert health.collapsed


@pytest.mark.parametrize("rank", [2, 5])
def test_the_effective_rank_counts_equal_directions(rank: int) -> None:
    x = torch.cat([torch.eye(rank), -torch.eye(rank)])
    x = torch.cat([x, torch.zeros(2 * rank, 9 - rank)], dim=1)
    assert embedding_health(x).effective_rank == pytest.approx(rank)


def test_health_needs_two_videos() -> None:
    with pytest.raises(InputError, match="two videos"):
        embedding_health(torch.ones(1, 4))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), k=st.sampled_from([1, 3, 7]))
def test_votes_agree_with_sklearn(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 60)  # two classes and an odd k: no ties
    x, y = rng.normal(size=(60, 5)) + labels[:, None], rng.integers(0, 2, 40)
    q = rng.normal(size=(40, 5)) + y[:, None]
    model = KNeighborsClassifier(k, metric="cosine").fit(x, labels)
    found = knn_accuracy(torch.from_numpy(x).float(), labels, torch.from_numpy(q).float(), y, k)
    assert found.hits == int((model.predict(q) == y).sum())
    assert found.value == found.hits / 40
    assert found.chance == max(np.mean(y), 1 - np.mean(y))
    assert found.interval.low <= found.value <= found.interval.high


def test_ties_go_to_the_nearer_neighbours_and_k_to_the_size_of_the_gallery() -> None:
    gallery = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    labels = np.array([0, 0, 1, 1])
    query = torch.tensor([[1.0, 0.9]])
    assert knn_accuracy(gallery, labels, query, np.array([0]), 50).hits == 1
    assert knn_accuracy(gallery, labels, query, np.array([0]), 50).k == 4
    assert knn_accuracy(gallery, labels, query[:, [1, 0]], np.array([1]), 4).hits == 1
