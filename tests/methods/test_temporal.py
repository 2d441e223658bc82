"""The method: its labels, its losses against plain statements of them, its determinism."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup_cli.config.temporal import PretrainTemporal, TimeTransformations
from selfsup_cli.methods.pretext import UNASKED, losses
from selfsup_cli.methods.temporal import Plan, Temporal
from selfsup_cli.randomness import generator

KINDS = ["speed", "random", "periodic", "warp"]


@settings(max_examples=60, deadline=None)
@given(
    n=st.sampled_from([16, 29, 31, 32, 63, 64, 127, 128, 300]),
    others=st.sets(st.sampled_from(KINDS[1:])),
    on_periodic=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_plan_labels_say_what_was_done(
    n: int, others: set[str], on_periodic: bool, seed: int
) -> None:
    kinds = ["speed", *(kind for kind in KINDS[1:] if kind in others)]
    chosen = TimeTransformations(kinds=kinds, speed_on_periodic=on_periodic)
    drawn = Plan(chosen)(n, generator(seed, "test"))
    assert drawn.frames.shape == (len(kinds), 16)
    assert drawn.frames.min() >= 0
    assert drawn.frames.max() < n
    if len(kinds) > 1:
        assert drawn.labels["motion"].tolist() == list(range(len(kinds)))
    else:
        assert "motion" not in drawn.labels
    speeds = dict(zip(kinds, drawn.labels["speed"].tolist(), strict=True))
    assert set(np.diff(drawn.frames[0])) == {2 ** speeds["speed"]}
    for kind in kinds[1:]:
        expected = speeds["speed"] if kind == "periodic" and on_periodic else UNASKED
        assert speeds[kind] == expected


def test_losses_are_equation_5_1() -> None:
    g = generator(0, "logits")
    logits = {"motion": torch.randn(8, 4, generator=g), "speed": torch.randn(8, 4, generator=g)}
    batch = {
        "motion": torch.tensor([0, 1, 2, 3] * 2),
        "speed": torch.tensor([2, -1, -1, -1, 0, -1, -1, -1]),
    }
    out = losses(logits, batch)
    by_hand = 0.0
    for row in range(8):
        p = torch.softmax(logits["motion"][row].double(), 0)[batch["motion"][row]]
        by_hand -= math.log(float(p)) / 8
    for row in (0, 4):
        p = torch.softmax(logits["speed"][row].double(), 0)[batch["speed"][row]]
        by_hand -= math.log(float(p)) / 2
    assert float(out["loss"]) == pytest.approx(by_hand, rel=1e-5)
    right = (logits["motion"].argmax(1) == batch["motion"]).float().mean()
    assert float(out["acc_motion"]) == pytest.approx(float(right))


def tiny(**time: object) -> PretrainTemporal:
    return PretrainTemporal.model_validate_json(
        PretrainTemporal()
        .model_copy(
            update={
                "network": PretrainTemporal().network.model_copy(update={"width": 0.125}),
                "time": TimeTransformations(**time),
                "augment": PretrainTemporal().augment.model_copy(
                    update={"resize": (32, 32), "crop": 32}
                ),
            }
        )
        .model_dump_json()
    )


@pytest.mark.parametrize(
    ("time", "motions", "speeds"),
    [
        ({}, 4, 4),
        ({"kinds": ["speed", "warp"], "speed_loss": False}, 2, 0),
        ({"kinds": ["speed"]}, 0, 4),
    ],
)
def test_heads_follow_the_kinds(time: dict[str, object], motions: int, speeds: int) -> None:
    method = Temporal(tiny(**time)).eval()
    clips = torch.randint(0, 256, (2, 3, 16, 32, 32), dtype=torch.uint8)
    found = method.predict(clips, {})
    assert {name: logits.shape[1] for name, logits in found.items()} == {
        name: size for name, size in (("motion", motions), ("speed", speeds)) if size
    }


def test_the_seed_decides_the_weights_and_global_randomness_does_not() -> None:
    torch.manual_seed(1)
    first = Temporal(tiny()).state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = Temporal(tiny()).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
