"""Views of one moment, and mirrored ones, are recognised of a subject that was never seen."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from tiny_views import TinyViews

from selfsup_cli.config.multiview import PretrainMultiview
from selfsup_cli.config.presets import resolve
from selfsup_cli.data.loader import EpochLoader
from selfsup_cli.data.view_pairs import AnchorDataset, Anchors, Stretch
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.fit import Fit
from selfsup_cli.engine.progress import Progress
from selfsup_cli.evaluation.synchrony import Answers, answers
from selfsup_cli.methods.multiview import Multiview
from selfsup_cli.models.siamese import Question
from selfsup_cli.randomness import generator

STEPS = 400


def asked_about(method: Multiview, part: Anchors) -> Answers:
    method.eval()

    def judge(batch: Mapping[str, Tensor], number: int) -> Mapping[Question, Tensor]:
        with torch.no_grad():
            return method.judge(method.prepare(dict(batch), generator(0, number, "test")))

    return answers(judge, part, seed=0, count=200)


@pytest.mark.slow
def test_both_signals_are_learned_and_hold_for_somebody_else() -> None:
    views = TinyViews(frames=600, subjects=("S1", "S5", "S6", "S9"))
    options = {
        "data.side": 32,
        "network.arch": "timm/test_resnet",
        "optim.lr": 2e-3,
        "train.max_steps": STEPS,
        "train.batch_size": 8,
    }
    preset = resolve("pretrain/multiview", preset="multiview/base", options=options, env={}).preset
    assert isinstance(preset, PretrainMultiview)
    seen, unseen = (
        Anchors(
            views,
            [Stretch(k, 0, 600) for k in which],
            preset.pairs,
            name="bars",
            split=split,
            split_rule="one held out",
        )
        for split, which in (("train", (0, 1, 2)), ("test", (3,)))
    )
    method = Multiview(preset)
    before = asked_about(method, unseen)
    loader = EpochLoader(AnchorDataset(seen, 0), len(seen), batch_size=8, seed=0)
    with Progress(quiet=True) as progress:
        Fit(method, loader, preset.train, preset.optim, choose("cpu", "32"), progress)()
    after = asked_about(method, unseen)
    for question in ("sync", "flip"):
        untrained = before.score(question).errors_above
        learned = after.score(question).errors_above
        assert untrained is None or untrained < 4
        assert learned is not None
        assert learned > 4
