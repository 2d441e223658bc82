"""Table 6.1 as presets, both conventions of weight decay, and settings that contradict."""

from __future__ import annotations

from typing import Any

import pytest

from selfsup_cli.config.multiview import FIGURES, PretrainMultiview
from selfsup_cli.config.presets import resolve
from selfsup_cli.config.problems import PresetError

JOB = "pretrain/multiview"


def preset(name: str, **options: Any) -> PretrainMultiview:
    found = resolve(JOB, preset=f"multiview/{name}", options=options, env={}).preset
    assert isinstance(found, PretrainMultiview)
    return found


# What each row differs in from the baseline, and what the thesis measured after transfer.
ROWS: dict[str, dict[str, Any]] = {
    "c": {"background": "keep"},
    "d": {},
    "e": {"signals": "flip"},
    "f": {"signals": "sync"},
    "g": {},
    "h": {"fusion": "concat"},
    "i": {"fusion": "add"},
    "j": {"fusion": "diff"},
    "k": {},
    "l": {"views": "single"},
    "m": {},
}


@pytest.mark.parametrize("row", ROWS)
def test_rows_of_table_6_1_differ_in_what_they_say(row: str) -> None:
    found, base = preset(f"table-6.1/{row}"), preset("base")
    same = ("signals", "background", "views", "min_gap", "max_gap", "flip", "still")
    expected = {name: getattr(base.pairs, name) for name in same} | {"fusion": base.network.fusion}
    own = {name: getattr(found.pairs, name) for name in same} | {"fusion": found.network.fusion}
    assert own == expected | ROWS[row]
    assert found.pairs.jitter.on == (row == "l")
    assert (found.optim, found.train, found.data) == (base.optim, base.train, base.data)


def test_the_baseline_is_that_of_section_6_3() -> None:
    base = preset("base")
    assert (base.train.max_steps, base.train.batch_size, base.data.side) == (200_000, 16, 224)
    assert (base.network.arch, base.network.fusion, base.network.final_relu) == (
        "resnet18", "mult", False,
    )  # fmt: skip
    assert (base.pairs.min_gap, base.pairs.max_gap, base.pairs.background) == (4, 128, "remove")
    optim = base.optim
    assert (optim.name, optim.lr, optim.betas, optim.schedule) == (
        "adamw", 1e-4, (0.9, 0.999), "cosine",
    )  # fmt: skip
    assert optim.lr * optim.final_factor == pytest.approx(1e-7)


def test_both_conventions_of_weight_decay() -> None:
    """PyTorch's AdamW subtracts lr · wd · w, TensorFlow's wd · w."""
    assert preset("base").optim.weight_decay == 1e-4
    other = preset("tensorflow-decay")
    assert other.optim.weight_decay * other.optim.lr == pytest.approx(1e-4)
    assert other.network == preset("base").network


def test_the_networks_of_table_6_2() -> None:
    weights = {"network.init": "imagenet", "network.weights": "resnet50.safetensors"}
    plain, mixed = (preset(name, **weights) for name in ("resnet50", "resnet50-mixed"))
    assert (plain.network.arch, plain.pairs.background) == ("resnet50", "remove")
    assert (mixed.network.arch, mixed.pairs.background) == ("resnet50", "mixed")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pairs.min_gap": 20, "pairs.max_gap": 21}, "no gap is more than 20 and fewer than 21"),
        ({"data.source": "figurs"}, "did you mean 'figures'"),
        ({"data.train_subjects": ["S1"], "data.test_subjects": ["S1"]}, "S1 cannot be held out"),
        ({"train.batch_size": 2, "train.accumulate": 2, "machine.devices": 2}, "cannot be shared"),
        ({"network.arch": "c3d"}, "takes videos, not images"),
    ],
)
def test_what_contradicts_is_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(PresetError) as caught:
        preset("base", **options)
    assert said in str(caught.value)


def test_the_small_preset_learns_from_the_built_in_figures() -> None:
    small = preset("small")
    assert small.data.source == FIGURES
    assert small.train.max_steps is not None
    assert small.train.max_steps <= 20_000
