"""Training shows which labels are wrong: on built-in images, three in ten mislabelled."""

from __future__ import annotations

import pytest

from selfsup_cli.config.bilevel import PretrainBilevel
from selfsup_cli.config.presets import resolve
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.progress import Progress
from selfsup_cli.evaluation.suspects import Ranking, auroc
from selfsup_cli.evaluation.tasks import create
from selfsup_cli.jobs import labels, on_labels
from selfsup_cli.jobs import transfer as transferring
from selfsup_cli.jobs.starting import load_start

STEPS = 512


@pytest.mark.slow
def test_wrong_labels_are_told_from_right_ones() -> None:
    sets = [f"train.max_steps={STEPS}", "check_epochs=0", "machine.workers=0", "machine.device=cpu"]
    resolved = resolve("pretrain/bilevel", preset="bilevel/suspects-scenes", sets=sets, env={})
    preset, hardware = resolved.preset, choose("cpu")
    assert isinstance(preset, PretrainBilevel)
    with Progress(quiet=True) as progress:
        start = load_start(preset, None, 0)
        train, test = transferring._material(preset, start, hardware, progress, None)
        task = create(preset, start.backbone, train.source, 0)
        on_labels.look(task, train)
        transferring._fit(task, None, train, test, hardware, progress)()
    noisy = labels.noise_in(train.source)
    assert noisy is not None
    assert task.looking is not None
    rankings: tuple[Ranking, ...] = ("loss", "both")
    for ranking in rankings:
        area, interval = auroc(task.looking.suspicion.scores(ranking), noisy.wrong)
        assert interval.low > 0.8, (ranking, area)
