"""Mini-batches with the same labels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup_cli.data.matched import MatchedSampler, strata
from selfsup_cli.errors import InputError

LABELS = np.repeat([0, 1, 2, 3], [40, 30, 20, 6])


def splits_of(sampler: MatchedSampler, step: int) -> np.ndarray:
    """Positions `[splits, B / splits]` of a step."""
    positions = np.array([position for _, position in sampler.step(step)])
    return positions.reshape(sampler.splits, -1)


@st.composite
def samplers(draw: st.DrawFn) -> tuple[np.ndarray, MatchedSampler]:
    counts = draw(st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any))
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    splits = draw(st.integers(2, 5))
    validation = draw(st.sampled_from([0.0, 0.2]))
    size = draw(st.integers(1, 3))
    try:
        return labels, MatchedSampler(
            labels, splits * size, splits, draw(st.integers(0, 9)), validation=validation
        )
    except InputError:
        # Too few samples for a batch: as many as there are, and enough.
        labels = np.concatenate([labels, np.full(2 * splits * size + 2, 7)])
        return labels, MatchedSampler(labels, splits * size, splits, 0, validation=validation)


@given(drawn=samplers())
@settings(max_examples=60)
def test_every_split_has_the_same_labels_in_every_step(
    drawn: tuple[np.ndarray, MatchedSampler],
) -> None:
    labels, sampler = drawn
    for step in range(2 * len(sampler) + 2):
        positions = splits_of(sampler, step)
        for split in positions[1:]:
            assert labels[split].tolist() == labels[positions[0]].tolist()
        for label, places in Counter(labels[positions].ravel().tolist()).items():
            images = int((labels == label).sum())
            here = [one[labels[one] == label] for one in positions]
            # Whatever repeats, nothing validates itself but what is alone.
            trained = set(np.concatenate(here[1:]).tolist())
            assert images == 1 or not set(here[0].tolist()) & trained
            if images >= places and len(sampler._pools) == 1:
                assert len({*here[0].tolist(), *trained}) == places


def test_labels_come_as_often_as_they_are_and_images_in_turn() -> None:
    sampler = MatchedSampler(LABELS, 8, 4, 0)
    assert len(sampler) == 12
    positions = np.concatenate([splits_of(sampler, step).ravel() for step in range(48)])
    # 48 steps of two labels each pass through the list of 96 once.
    assert np.bincount(LABELS[positions]).tolist() == (4 * np.bincount(LABELS)).tolist()
    visits = np.bincount(positions, minlength=96)
    for label in range(3):
        of = visits[label == LABELS]
        # Four passes, but for what the queue would have given twice in a step.
        assert of.mean() == 4
        assert (of.min(), of.max()) == pytest.approx((4, 4), abs=1)
    assert visits[LABELS == 3].mean() == 4


def test_the_list_of_labels_is_shuffled_once_and_goes_round() -> None:
    sampler = MatchedSampler(LABELS, 8, 4, 0)
    first = [LABELS[splits_of(sampler, step)[0]].tolist() for step in range(96)]
    assert first[:48] == first[48:]
    once = [label for labels in first[:48] for label in labels]
    assert sorted(once) == LABELS.tolist() != once


def test_a_step_is_a_function_of_seed_and_number() -> None:
    sampler, again = MatchedSampler(LABELS, 8, 4, 0), MatchedSampler(LABELS, 8, 4, 0)
    steps = [sampler.step(step) for step in range(40)]
    assert [again.step(step) for step in (39, 3, 17, 39)] == [steps[i] for i in (39, 3, 17, 39)]
    assert MatchedSampler(LABELS, 8, 4, 1).step(3) != steps[3]
    sampler.epoch, sampler.start = 2, 5
    assert list(sampler) == steps[29:36]


def test_visits_of_an_image_have_numbers_of_their_own() -> None:
    sampler = MatchedSampler(np.repeat([0, 1, 2], [20, 20, 3]), 8, 4, 0)
    keys = [key for step in range(60) for key in sampler.step(step)]
    assert len(set(keys)) == len(keys)


def test_processes_have_whole_mini_batches() -> None:
    whole = MatchedSampler(LABELS, 8, 4, 0)
    halves = [MatchedSampler(LABELS, 8, 4, 0, rank, 2) for rank in range(2)]
    for batch, first, second in zip(whole, *halves, strict=True):
        assert first + second == batch
        assert len(first) == 4


def test_images_that_validate_are_never_trained_on() -> None:
    labels = np.concatenate([LABELS, [4]])
    sampler = MatchedSampler(labels, 8, 4, 0, validation=0.25)
    batches = [splits_of(sampler, step) for step in range(120)]
    first = {int(i) for batch in batches for i in batch[0] if labels[i] != 4}
    rest = {int(i) for batch in batches for i in batch[1:].ravel() if labels[i] != 4}
    assert not first & rest
    # A quarter of the forty, thirty, twenty and six, to the nearest even.
    assert np.bincount(labels[sorted(first)]).tolist() == [10, 8, 5, 2]
    assert len(first) + len(rest) == 96
    alone = [labels[batch] == 4 for batch in batches]
    assert all((one.sum(1) == one.sum() / 4).all() for one in alone)
    assert any(one.any() for one in alone)


def test_small_classes_are_named() -> None:
    assert MatchedSampler(np.repeat([5, 8, 9], [30, 3, 1]), 8, 4, 0).few == {8: 3, 9: 1}
    assert MatchedSampler(LABELS, 8, 4, 0).few == {}


@pytest.mark.parametrize(("values", "message"), [
    ((8, 1), "at least 2 mini-batches"),
    ((60, 8), "batch of 60 cannot be divided into 8 .* use --batch-size 56"),
    ((8, 32), "cannot be divided into 32 .* use --batch-size 32"),
    ((128, 8), "96 training samples do not fill one batch of 128; use --batch-size 96 or less"),
    ((128, 128), "96 training samples do not fill .*; use fewer --mini-batches or more images"),
    ((8, 4, 0, 0, 3), "4 mini-batches cannot be shared equally by 3 devices"),
])  # fmt: skip
def test_batches_that_cannot_be_had_are_refused(values: tuple[Any, ...], message: str) -> None:
    size, splits, *rest = values
    with pytest.raises(InputError, match=message):
        MatchedSampler(LABELS, size, splits, *(rest or [0]))


def test_a_share_of_validation_that_leaves_too_little_is_refused() -> None:
    with pytest.raises(InputError, match=r"at most 0\.5, not 0\.6"):
        MatchedSampler(LABELS, 8, 4, 0, validation=0.6)
    with pytest.raises(InputError, match="48 training samples do not fill one batch of 96"):
        MatchedSampler(LABELS, 96, 4, 0, validation=0.5)


@given(
    rows=st.lists(st.lists(st.sampled_from([0, 1, 1, 255]), min_size=3, max_size=3), min_size=12),
    splits=st.integers(2, 4),
)  # fmt: skip
@settings(max_examples=40)
def test_of_several_labels_all_match_where_enough_images_have_them(
    rows: list[list[int]], splits: int
) -> None:
    labels = np.array(rows, np.uint8)
    groups = strata(labels, splits)
    combinations = Counter(map(tuple, (labels == 1).tolist()))
    for number in np.unique(groups):
        of = (labels == 1)[groups == number]
        if number >= 3:
            assert len(np.unique(of, axis=0)) == 1
            assert combinations[tuple(of[0].tolist())] == len(of)
            assert len(of) >= splits or not of.any()
        else:
            # They have one label in common, and it is the rarest that each of them has.
            assert of[:, number].all()
            frequency = (labels == 1).sum(0)
            assert all(frequency[row].min() == frequency[number] for row in of)
            assert all(combinations[tuple(row.tolist())] < splits for row in of)
    sampler = MatchedSampler(groups, splits * 2, splits, 0)
    positions = splits_of(sampler, 3)
    assert (groups[positions] == groups[positions[0]]).all()
