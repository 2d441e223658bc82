"""Questions about clips: which frames, what is right, what is counted."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfsup_cli.config.presets import resolve
from selfsup_cli.config.registry import TASKS
from selfsup_cli.config.transfer import OrderPairs, SyncPairs, TransferVideo
from selfsup_cli.data.clips import open_source
from selfsup_cli.evaluation import action, order, sync
from selfsup_cli.evaluation.clip_task import Answers
from selfsup_cli.evaluation.tasks import task_of
from selfsup_cli.models import build

ABOUT: dict[str, Any] = {
    "task": "t", "subject": "learned", "dataset": "d", "split": "s", "layer": None,
}  # fmt: skip


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def answers(truth: list[int], given_: list[int], video: list[int], classes: int) -> Answers:
    probabilities = np.full((len(truth), classes), 0.1)
    probabilities[np.arange(len(truth)), given_] = 1.0
    names = tuple(f"c{k}" for k in range(classes))
    ids = [f"q{k}" for k in range(len(truth))]
    return Answers(ids, np.array(video), np.array(truth), probabilities, names)


@given(st.integers(0, 2**31), st.integers(-6, 6), st.integers(22, 300))
def test_two_clips_are_the_delay_apart_and_inside(seed: int, delay: int, n: int) -> None:
    first, second = sync.pair(n, 16, delay, generator(seed))
    assert (second - first == delay).all()
    assert (np.diff(first) == 1).all()
    assert min(first.min(), second.min()) >= 0
    assert max(first.max(), second.max()) < n


def test_every_place_of_a_pair_occurs() -> None:
    places = {sync.pair(24, 16, -3, generator(seed))[0, 0] for seed in range(200)}
    assert places == {3, 4, 5, 6, 7, 8}
    with pytest.raises(ValueError, match="no two clips"):
        sync.pair(21, 16, 6, generator(0))


@given(
    st.integers(0, 2**31),
    st.integers(16, 300),
    st.integers(1, 4),
    st.none() | st.integers(0, 40),
)
def test_halves_are_in_order_apart_and_inside(
    seed: int, n: int, max_skip: int, max_gap: int | None
) -> None:
    pairs = OrderPairs(max_skip=max_skip, max_gap=max_gap)
    clip = order.halves(n, 16, pairs, generator(seed))
    skip = min(n // 16, max_skip)
    steps = np.diff(clip)
    assert (np.delete(steps, 7) == skip).all()
    assert steps[7] >= skip
    if max_gap is not None:
        assert steps[7] - skip <= max_gap
    assert clip[0] >= 0
    assert clip[-1] < n
    assert (order.joined(clip, 0) == clip).all()
    assert (order.joined(clip, 1) == [*clip[8:], *clip[:8]]).all()


def test_all_places_of_two_halves_are_as_likely() -> None:
    """Against a count of all pairs of places."""
    n, seen = 20, Counter[tuple[int, int]]()
    for seed in range(6000):
        clip = order.halves(n, 16, OrderPairs(), generator(seed))
        seen[int(clip[0]), int(clip[8])] += 1
    places = [(a, b) for a in range(n) for b in range(a + 8, n - 7)]
    assert set(seen) == set(places)
    expected = 6000 / len(places)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in seen.values())


@pytest.mark.parametrize("quick", [False, True])
def test_test_questions_are_repeatable_and_their_answers_true(quick: bool) -> None:
    source = SimpleNamespace(ids=["a", "b"], num_frames=np.array([40, 90]))
    asked = sync.Questions(source, 16, SyncPairs(test=2), quick=quick)  # type: ignore[arg-type]
    for video in range(2):
        clips = asked(video)
        assert (clips == asked(video)).all()
        pairs = clips.reshape(-1, 2, 16)
        assert len(pairs) == (1 if quick else 26)
        told = [asked.truth(video, number) for number in range(len(pairs))]
        assert [answer - 6 for answer, _ in told] == [int(b[0] - a[0]) for a, b in pairs]
        assert len({name for _, name in told}) == len(told)
    if not quick:
        assert Counter(answer for answer, _ in told) == dict.fromkeys(range(13), 2)


def test_both_orders_are_asked_at_the_same_places() -> None:
    source = SimpleNamespace(ids=["a"], num_frames=np.array([64]))
    asked = order.Questions(source, 16, OrderPairs(), 3)  # type: ignore[arg-type]
    clips = asked(0)
    for number, clip in enumerate(clips):
        answer, _ = asked.truth(0, number)
        assert (clip[0] < clip[8]) == (answer == 0)
    assert (np.sort(clips[0]) == np.sort(clips[1])).all()


def test_delays_are_counted_by_video() -> None:
    found = answers([0, 1, 2, 0, 1, 2], [0, 1, 2, 2, 1, 1], [0, 0, 0, 1, 1, 1], 3)
    right, wrong_by = sync.of_delays(found, 1, ABOUT, {"a": 1})
    assert right.value == pytest.approx(100 * (1 + 1 / 3) / 2)
    assert right.n == wrong_by.n == 2
    assert wrong_by.value == pytest.approx((0 + (2 + 0 + 1) / 3) / 2)
    assert wrong_by.chance == pytest.approx(2 / 3)
    assert right.chance == pytest.approx(100 / 3)


def test_classes_are_counted_by_sample_and_by_class() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((60, 7))
    truth = rng.integers(0, 6, 60)
    names = tuple("abcdefg")
    found = Answers([str(k) for k in range(60)], np.arange(60), truth, probabilities, names)
    top1, top5, balanced = action.of_classes(found, ABOUT, {"a": 1})
    ranks = [(probabilities[k] > probabilities[k, truth[k]]).sum() for k in range(60)]
    assert top1.value == pytest.approx(100 * np.mean([rank == 0 for rank in ranks]))
    assert top5.value == pytest.approx(100 * np.mean([rank < 5 for rank in ranks]))
    each = [
        np.mean([r == 0 for r, t in zip(ranks, truth, strict=True) if t == c]) for c in range(6)
    ]
    assert balanced.value == pytest.approx(100 * np.mean(each))


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"classify", "segment", "detect", "pose"}))
def test_a_task_trains_on_what_it_plans(name: str) -> None:
    """A loss on a real batch reaches the weights that are not frozen, and no others."""
    resolved = resolve(
        f"transfer/{name}",
        options={"data.source": "motion"},
        sets=["data.motion.videos=8", "data.motion.side=16", "start.freeze=conv"],
        env={},
    )
    preset = resolved.preset
    assert isinstance(preset, TransferVideo)
    kind = task_of(preset)
    preset = preset.model_copy(
        update={"augment": preset.augment.model_copy(update={"resize": (16, 16), "crop": 16})}
    )
    source = open_source(preset.data, "train", labels=kind.labelled, workers=0)
    backbone = build("c3d", width=0.125, crop=16, resize=(16, 16), seed=0)
    task = kind(preset, backbone, kind.answers(preset, source), seed=0)
    plan = task.plan(160, generator(1))
    clips = torch.from_numpy(np.stack([plan.frames % 16] * 4)).flatten(0, 1)
    fed = clips[:, None, :, None, None].expand(-1, 3, -1, 16, 16).float() / 8 - 1
    logits = task.network(fed)
    assert logits.shape == (4, len(task.classes))
    logits.logsumexp(1).sum().backward()
    moved = {n for n, p in task.network.named_parameters() if p.grad is not None}
    assert moved
    assert not any(n.startswith("backbone") for n in moved)
