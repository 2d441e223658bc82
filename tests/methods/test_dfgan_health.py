"""What is said of a GAN, and that it names what goes wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from selfsup_cli.data.ring import Coverage
from selfsup_cli.methods.dfgan_health import (
    Distance,
    GanHealth,
    Noise,
    Told,
    Variety,
    mean_distance,
    told_apart,
)
from selfsup_cli.methods.dfgan_losses import MINIMAX, NON_SATURATING, Scores

SOUND = GanHealth(
    Told(0.7, 0.55, 100, 0.6, 1.5), Noise(0.4, 2.0), Variety(9.0, 10.0, 50),
    Distance("FD-x", 3.0, 100),
)  # fmt: skip


def bad(health: GanHealth) -> str:
    return " ".join(one.text for one in health.findings() if one.verdict == "bad")


def test_a_sound_game_is_called_so() -> None:
    assert bad(SOUND) == ""
    assert SOUND.metrics() == {
        "heldout_gradient_at_fakes": 1.5, "variety": 0.9, "heldout_discriminator_clean": 0.7,
        "heldout_discriminator_noisy": 0.55, "heldout_noise_rms": 0.4, "FD-x": 3.0,
    }  # fmt: skip
    assert set(SOUND.chances()) <= set(SOUND.metrics())


@pytest.mark.parametrize(("changed", "said"), [
    ({"told": Told(0.97, 0.9, 100, 0.01, 1e-4)}, "use --objective non-saturating, add noise"),
    ({"told": Told(0.99, None, 100, 1.0, 3.0)}, "add noise (--noise learned), or lower the lear"),
    ({"told": Told(0.99, 0.99, 100, 1.0, 3.0)}, "let the noise grow (a smaller --noise-weight"),
    ({"noise": Noise(0.001, 2.0)}, "hardly any is left; use a smaller --noise-weight"),
    ({"noise": Noise(1.97, 2.0)}, "noisy images say nothing; use a larger --noise-weight"),
    ({"variety": Variety(1.0, 10.0, 50)}, "10% as much as real images do: collapsed"),
    ({"coverage": Coverage(100, 90, (45, 45, 0, 0))}, "2 of 4 modes are covered, 90.0% of the"),
])  # fmt: skip
def test_what_goes_wrong_is_named_with_a_remedy(changed: dict[str, object], said: str) -> None:
    found = bad(replace(SOUND, **changed))  # type: ignore[arg-type]
    assert said in found
    assert "--" in found


def test_numbers_for_a_report() -> None:
    covered = replace(SOUND, distance=None, coverage=Coverage(200, 150, (75, 75)), many="points")
    rows = {
        row.name: row
        for row in covered.measurements(
            dataset="ring", split="s", subject="generator", protocol={"seed": 0}
        )
    }
    assert rows["clean points told apart"].value == 70
    assert rows["clean points told apart"].n == 200
    assert rows["modes covered"].value == 2
    assert rows["good samples"].value == 75
    assert rows["variety of samples"].value == 0.9


def test_what_is_told_by_hand() -> None:
    real = [Scores(torch.tensor([1.0, -1.0]), None), Scores(torch.tensor([2.0, 3.0]), None)]
    fake = [Scores(torch.tensor([-1.0, 2.0]), None), Scores(torch.tensor([-3.0, -4.0]), None)]
    logits = (-1.0, 2.0, -3.0, -4.0)
    told = told_apart(MINIMAX, real, fake)
    assert told.clean == pytest.approx((0.5 + 1.0) / 2)
    assert (told.noisy, told.n) == (None, 4)
    assert told.slope == pytest.approx(sum(1 / (1 + math.exp(-x)) for x in logits) / 4)
    other = told_apart(NON_SATURATING, real, fake)
    assert other.slope == pytest.approx(sum(1 / (1 + math.exp(x)) for x in logits) / 4)


def test_mean_distance_against_a_loop() -> None:
    x = torch.randn(7, 3, 2, generator=torch.Generator().manual_seed(0))
    flat = x.flatten(1).numpy()
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(flat) for b in flat[:i]]
    assert mean_distance(x) == pytest.approx(np.mean(pairs), rel=1e-5)
