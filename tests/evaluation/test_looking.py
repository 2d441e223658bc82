"""What is kept of training on labels: weights over time, and what the last layer is fed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfsup_cli.engine.bilevel import Weighting
from selfsup_cli.evaluation.looking import Looking
from selfsup_cli.evaluation.suspects import Suspicion
from selfsup_cli.evaluation.weight_history import WeightHistory
from selfsup_cli.randomness import generator


def test_of_many_steps_evenly_spaced_ones_are_kept() -> None:
    history = WeightHistory()
    for step in range(10_000):
        if step == 6000:
            other = WeightHistory()
            other.remember({name: one.clone() for name, one in history.memory().items()})
            history = other
        history.see(step, torch.full((2,), float(step)), None)
    steps, weights, wrong = history.arrays()
    assert 2048 <= len(history) <= 4097
    assert set(np.diff(steps)) == {4}
    assert np.array_equal(weights[:, 0], steps.astype(np.float32))
    assert np.isnan(wrong).all()


def test_nothing_was_seen_of_a_training_that_has_not_begun() -> None:
    history = WeightHistory()
    history.remember(WeightHistory().memory())
    assert [len(one) for one in history.arrays()] == [0, 0, 0]


def test_the_last_layer_is_watched_in_training_alone() -> None:
    wrong = np.zeros(12, bool)
    wrong[[4, 5, 6, 8]] = True
    looking = Looking(12, wrong)
    last = nn.Linear(5, 3)
    looking.attend(last)
    g = generator(0, "features")
    features = torch.randn(12, 5, generator=g)
    labels = torch.randint(3, (12,), generator=g)
    seen = []
    for part in range(3):
        own = slice(4 * part, 4 * part + 4)
        logits = last(features[own])
        assert torch.equal(looking.fed(), features[own])
        seen.append((torch.arange(12)[own], looking.fed(), logits.detach(), labels[own]))
    weighting = Weighting(torch.tensor([0.25, 0.75]).double(), torch.zeros(2), torch.zeros(3))
    told = looking.see(0, seen, weighting)
    # The second mini-batch has three wrong labels, the third one.
    assert told == {"omega_fewer_wrong": 0.75, "omega_more_wrong": 0.25}
    assert looking.history.arrays()[2].tolist() == [[0.75, 0.25]]
    direct = Suspicion(12)
    direct.see(*(list(part) for part in zip(*seen, strict=True)))
    assert np.array_equal(looking.suspicion.scores("both"), direct.scores("both"))
    losses = F.cross_entropy(last(features), labels, reduction="none").detach().numpy()
    assert np.allclose(looking.suspicion.scores("loss"), losses, atol=1e-6)
    other = Looking(12, wrong)
    other.remember(looking.memory())
    assert np.array_equal(other.suspicion.scores("both"), direct.scores("both"))
    assert len(other.history) == 1


def test_mini_batches_with_as_many_wrong_labels_are_not_told_apart() -> None:
    # Of seven shares of 1/3 the mean in float32 is another number than 1/3.
    wrong = np.arange(24) % 3 == 0
    looking = Looking(24, wrong)
    looking.attend(last := nn.Linear(5, 3))
    seen = []
    for part in range(8):
        own = torch.arange(3 * part, 3 * part + 3)
        logits = last(torch.ones(3, 5))
        seen.append((own, looking.fed(), logits.detach(), torch.zeros(3, dtype=torch.int64)))
    weights = torch.arange(7).double() / 21
    told = looking.see(0, seen, Weighting(weights, torch.zeros(7), torch.zeros(8)))
    mean = pytest.approx(1 / 7)
    assert told == {"omega_fewer_wrong": mean, "omega_more_wrong": mean}
