"""The checks of a pretraining run on very little data."""

from __future__ import annotations

import numpy as np
import pytest
from pretraining import preset

from selfsup_cli.config.video import ClipAugmentation, PretrainVideo
from selfsup_cli.data.clips import open_source
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.progress import Progress
from selfsup_cli.jobs import common
from selfsup_cli.jobs.common import Videos
from selfsup_cli.jobs.monitoring import VideoMonitoring
from selfsup_cli.methods import create


@pytest.mark.parametrize("few", [1, 2])
def test_few_held_out_videos_neither_end_the_training_nor_raise_an_alarm(
    monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    resolved = preset(0).preset
    assert isinstance(resolved, PretrainVideo)
    train, test = (
        open_source(resolved.data, part, labels=True, workers=0) for part in ("train", "test")
    )
    held = test.subset(np.arange(few))
    monkeypatch.setattr(common, "open_labelled", lambda *_: (Videos(train, []), Videos(held, [])))
    monitor = VideoMonitoring(create(resolved), held, choose("cpu"), Progress(quiet=True))
    judgement = monitor.judge()
    assert judgement.health is None
    assert judgement.knn is not None
    assert not any("collapsed" in finding.text for finding in judgement.findings())


def test_frames_are_scaled_to_the_middle_of_the_range_for_a_check() -> None:
    resolved = preset(0).preset
    assert isinstance(resolved, PretrainVideo)
    scaled = ClipAugmentation(resize=(64, 80), scale=(0.5, 1.0), crop=32)
    resolved = resolved.model_copy(update={"augment": scaled})
    # As in the author's test: frames of 192×192 for a network that trained on ½ … 1 of 256×256.
    assert resolved.augment.resize_to_evaluate == (48, 60)
    method = create(resolved)
    assert method.backbone.input.resize == (48, 60)
    assert method.backbone.input.pixels == "centre 32 of 48×60"
