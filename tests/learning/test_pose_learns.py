"""It learns: after 300 updates, poses of people it has not seen, better than the mean pose."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfsup_cli.config.presets import resolve
from selfsup_cli.jobs.transfer import transfer

MARGIN = 20.0
"""Millimetres below the error of the mean training pose, set before the first run of this test."""


@pytest.mark.slow
def test_poses_of_somebody_else_are_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path))
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    sets = (
        "start.init=random",
        "network.arch=alexnet",
        "network.width=0.25",
        "data.side=48",
        "data.train_subjects=[S1, S5, S6]",
        "data.test_subjects=[S9, S11]",
        "data.figures.actions=[walking, directing]",
        "data.figures.seconds=4.0",
        "train.max_steps=300",
        "train.batch_size=16",
        "check_epochs=0",
        "machine.workers=0",
    )
    resolved = resolve("transfer/pose", options={"data.source": "figures"}, sets=sets, env={})
    report = transfer(resolved, run="learns", quiet=True).report
    assert report is not None
    rows = {row.name: row.value for row in report.measurements}
    assert rows["MPJPE"] < rows["MPJPE of the mean training pose"] - MARGIN
    assert rows["PMPJPE"] < rows["NMPJPE"] <= rows["MPJPE"] + 5
