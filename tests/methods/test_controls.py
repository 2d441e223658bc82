"""The controls of chapter 5: what they ask, and that their labels are true."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfsup_cli.config.controls import (
    ClipSampling,
    PretrainRotnet3d,
    PretrainShuffleLearn,
    PretrainSupervised,
)
from selfsup_cli.config.video import ClipAugmentation, VideoNetwork
from selfsup_cli.errors import InputError
from selfsup_cli.methods import create, uses_labels
from selfsup_cli.methods.shuffle_learn import Plan
from selfsup_cli.randomness import generator

SMALL = {
    "network": VideoNetwork(width=0.125),
    "augment": ClipAugmentation(resize=(32, 32), crop=32),
}


@given(n=st.integers(16, 400), seed=st.integers(0, 10**6))
def test_shuffled_clips_hold_the_frames_of_the_ordered_one(n: int, seed: int) -> None:
    drawn = Plan(ClipSampling())(n, generator(seed, "test"))
    ordered, shuffled = drawn.frames
    skip = max(1, min(n // 16, 4))
    assert (np.diff(ordered) == skip).all()
    assert ordered.min() >= 0
    assert ordered.max() < n
    assert sorted(shuffled) == sorted(ordered)
    assert (shuffled != ordered).any()
    assert drawn.labels["order"].tolist() == [0, 1]


def test_rotnet3d_turns_by_its_labels() -> None:
    method = create(PretrainRotnet3d(**SMALL))
    drawn = method.plan(40, generator(0, "test"))
    assert (drawn.frames == drawn.frames[0]).all()
    labels = {"turn": torch.from_numpy(drawn.labels["turn"])}
    clip = torch.randint(0, 256, (3, 16, 32, 32), dtype=torch.uint8)
    turned = method.transform(torch.stack([clip] * 4), labels)
    for k in range(4):
        by_hand = np.rot90(clip.numpy(), k, axes=(2, 3))
        assert np.array_equal(turned[k].numpy(), by_hand)


def test_rotnet3d_refuses_frames_that_are_not_square() -> None:
    with pytest.raises(InputError, match="square"):
        create(PretrainRotnet3d())


def test_supervised_learns_the_labels_of_the_data_and_alone_reads_them() -> None:
    preset = PretrainSupervised(**SMALL)
    method = create(preset, ("run", "jump", "sit"))
    clips = torch.randint(0, 256, (2, 3, 16, 32, 32), dtype=torch.uint8)
    method.eval()
    assert method.predict(clips, {})["label"].shape == (2, 3)
    with pytest.raises(InputError, match="labels"):
        create(preset)
    assert [uses_labels(p) for p in (preset, PretrainShuffleLearn(), PretrainRotnet3d())] == [
        True,
        False,
        False,
    ]
