"""It learns: in 150 updates, on videos it has not seen, well above chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfsup_cli.config.presets import resolve
from selfsup_cli.jobs.pretrain import pretrain

MARGIN = 10.0
"""Points above chance, set before the first run of this test."""


SMALL = {
    "network.width": "0.125",
    "optim.lr": "0.002",
    "optim.weight_decay": "0.05",  # 1e-4 in each step / lr (rule R1)
    "train.batch_size": "16",
    "train.max_steps": "150",
    "monitor.knn_videos": "0",
    "machine.workers": "1",
}


def held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str] | None = None
) -> dict[str, float]:
    """How far above chance each question is answered, in points."""
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path))
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    resolved = resolve(
        "pretrain/temporal",
        options={"data.source": "motion"},
        sets=[f"{name}={value}" for name, value in (SMALL | (changed or {})).items()],
        env={},
    )
    report = pretrain(resolved, run="learns", quiet=True).report
    assert report is not None
    rows = {row.name: row for row in report.measurements}
    return {name: rows[name].value - (rows[name].chance or 0) for name in ("motion", "speed")}


def test_kind_and_speed_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gained = held_out(tmp_path, monkeypatch)
    assert gained["motion"] > MARGIN
    assert gained["speed"] > MARGIN


def test_without_learning_they_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: the same with a learning rate of nothing."""
    gained = held_out(tmp_path, monkeypatch, {"optim.lr": "1e-9", "train.max_steps": "4"})
    assert abs(gained["motion"]) < MARGIN
    assert gained["speed"] < MARGIN
