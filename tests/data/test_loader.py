"""Data order is a function of (seed, epoch) alone, whatever the workers and processes."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup_cli.data.loader import ClipDataset, ClipPlan, EpochLoader, EpochSampler
from selfsup_cli.errors import BadMediaError, InputError, TrainingError


class Numbers:
    """A source whose frames hold their own index; some videos cannot be read."""

    def __init__(self, bad: frozenset[int] = frozenset()) -> None:
        self.name = "numbers"
        self.ids = [f"v{i}" for i in range(12)]
        self.num_frames = np.full(12, 40)
        self.labels = None
        self.classes = None
        self.split, self.split_rule, self.fingerprint = "all", "", ""
        self.left_out: list[Any] = []
        self.bad = bad

    def __len__(self) -> int:
        return 12

    def read(self, i: int, frames: np.ndarray, size: tuple[int, int] | None) -> torch.Tensor:
        if i in self.bad:
            raise BadMediaError(self.ids[i], "made bad")
        values = torch.from_numpy(frames).to(torch.uint8)
        return values[None, :, None, None].expand(3, -1, *(size or (4, 4))).clone()

    def subset(self, indices: np.ndarray) -> Numbers:
        raise AssertionError(indices)


def plan(n: int, g: torch.Generator) -> ClipPlan:
    start = torch.randint(0, n - 8, (2, 1), generator=g).numpy()
    return ClipPlan(start + np.arange(4), {"motion": np.array([0, 1])})


def batches(workers: int, epoch: int, start: int = 0) -> list[dict[str, Any]]:
    dataset = ClipDataset(Numbers(), plan, (4, 6), seed=5)
    loader = EpochLoader(dataset, 12, batch_size=3, seed=5, workers=workers)
    return list(loader.epoch(epoch, start))


def test_workers_and_start_change_nothing() -> None:
    whole = batches(0, 1)
    for other, expected in ((batches(2, 1), whole), (batches(0, 1, 2), whole[2:])):
        assert len(other) == len(expected)
        for a, b in zip(other, expected, strict=True):
            assert torch.equal(a["clip"], b["clip"])
            assert torch.equal(a["index"], b["index"])


def test_epochs_differ_and_each_sees_every_sample() -> None:
    first, second = batches(0, 0), batches(0, 1)
    order = [torch.cat([b["index"] for b in e]).tolist() for e in (first, second)]
    assert order[0] != order[1]
    assert sorted(order[0]) == sorted(order[1]) == list(range(12))
    assert not torch.equal(first[0]["clip"], second[0]["clip"])


def test_clips_of_a_video_are_adjacent() -> None:
    batch = batches(0, 0)[0]
    assert batch["clip"].shape == (6, 3, 4, 4, 6)
    assert batch["motion"].tolist() == [0, 1] * 3
    steps = batch["clip"][:, 0, :, 0, 0].int().diff(dim=1)
    assert (steps == 1).all()


@settings(max_examples=40, deadline=None)
@given(samples=st.integers(8, 60), share=st.integers(1, 4), world=st.integers(1, 4))
def test_processes_share_the_global_batch(samples: int, share: int, world: int) -> None:
    size = share * world
    if samples < size:
        return
    alone = list(EpochSampler(samples, size, seed=1, rank=0, world=1))
    shared = [list(EpochSampler(samples, size, seed=1, rank=r, world=world)) for r in range(world)]
    for number, batch in enumerate(alone):
        assert [key for rank in shared for key in rank[number]] == batch


def test_bad_sample_is_replaced_by_the_next_and_named() -> None:
    dataset = ClipDataset(Numbers(bad=frozenset({4, 5})), plan, (4, 4), seed=0)
    sample = dataset[(0, 4)]
    assert int(sample["index"]) == 6
    assert sample["bad"] == [("v4", "made bad"), ("v5", "made bad")]
    with pytest.raises(TrainingError, match="in a row"):
        ClipDataset(Numbers(bad=frozenset(range(12))), plan, (4, 4), seed=0)[(0, 0)]


def test_impossible_batches_are_refused() -> None:
    dataset = ClipDataset(Numbers(), plan, (4, 4), seed=0)
    with pytest.raises(InputError, match="--batch-size 12"):
        EpochLoader(dataset, 12, batch_size=13, seed=0)
    with pytest.raises(InputError, match="--batch-size 4"):
        EpochSampler(12, 5, seed=0, rank=0, world=2)


def test_workers_ignore_signals_that_are_meant_for_the_parent() -> None:
    dataset = ClipDataset(Numbers(), plan, (4, 6), seed=5)
    loader = EpochLoader(dataset, 12, batch_size=3, seed=5, workers=2)
    arriving = loader.epoch(0)
    first = [next(arriving), next(arriving)]  # one of each worker: both have begun
    for worker in loader._loader._iterator._workers:  # type: ignore[union-attr]
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(worker.pid, signum)
    assert len([*first, *arriving, *loader.epoch(1)]) == 8
