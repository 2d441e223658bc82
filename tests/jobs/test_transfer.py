"""Transfers from their command line to their reports, small."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from selfsup_cli.__main__ import main
from selfsup_cli.config.presets import resolve
from selfsup_cli.errors import InputError, Stopped
from selfsup_cli.jobs.few_labels import few
from selfsup_cli.jobs.repeats import mean_of
from selfsup_cli.jobs.transfer import transfer
from selfsup_cli.models import build, load_backbone, save_backbone
from selfsup_cli.models.classifier import load_classifier
from selfsup_cli.runs.run import Run

TINY = (
    "data.motion.videos=16",
    "data.motion.test_videos=16",
    "data.motion.side=16",
    "network.width=0.125",
    "augment.resize=[16, 16]",
    "augment.crop=16",
    "head.hidden=[64]",
    "train.epochs=2",
    "train.batch_size=8",
    "machine.workers=0",
)


class Labels:
    """Videos of which only names and labels are known."""

    name = "s"
    classes = ("a", "b", "c")

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels
        self.ids = [f"v{k}" for k in range(len(labels))]

    def __len__(self) -> int:
        return len(self.ids)


def settings(*more: str) -> list[str]:
    return [part for one in (*TINY, *more) for part in ("--set", one)]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "selfsup_cli", *arguments],
        capture_output=True, text=True, env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def run_of(task: str, name: str, *more: str, init: str = "random") -> Run:
    resolved = resolve(
        f"transfer/{task}",
        options={"data.source": "motion", "start.init": init},
        sets=[*TINY, *more],
        env={},
    )
    outcome = transfer(resolved, run=name, quiet=True)
    assert outcome.run_dir is not None
    return Run.open(outcome.run_dir)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "backbone.safetensors"
    network = build("c3d", width=0.125, crop=16, resize=(16, 16), seed=0)
    save_backbone(path, network, {"method": "temporal", "data": "motion"})
    return path


def test_the_command_trains_reports_and_ends_with_its_run(weights: Path) -> None:
    arguments = ["transfer", "action", "--data", "motion", "--init", str(weights), "--run", "a",
                 "--freeze", "conv2", *settings()]  # fmt: skip
    found = command(*arguments)
    assert found.returncode == 0, found.stderr
    run = Run.open(Path(found.stdout.splitlines()[-1]))
    report = run.report()
    assert report is not None
    top1 = report.measurements[0]
    assert (top1.task, top1.metric, top1.subject, top1.n) == (
        "action", "top-1 accuracy", "learned", 16,
    )  # fmt: skip
    assert top1.protocol["frozen"] == "conv1, conv2"
    with (run.path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "label", "prediction", "confidence"]
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert top1.value == pytest.approx(100 * right / 16)
    trained = load_classifier(run.path / "model.safetensors")
    assert trained.task == "action"
    before, after = (
        load_backbone(path).state_dict() for path in (weights, run.path / "backbone.safetensors")
    )
    assert after["conv2.conv.weight"].equal(before["conv2.conv.weight"])
    assert not after["conv3.conv.weight"].equal(before["conv3.conv.weight"])
    assert run.problems() == []
    again = command(*arguments)
    assert again.returncode == 0
    assert "complete already" in again.stderr
    other = command(*arguments, "--lr", "1e-2")
    assert other.returncode == 2
    assert "optim.lr" in other.stderr


@pytest.mark.parametrize(("task", "questions"), [("sync", 13), ("order", 8)])
def test_pairs_are_asked_of_every_video(task: str, questions: int) -> None:
    run = run_of(task, task)
    report = run.report()
    assert report is not None
    assert report.measurements[0].n == 16
    assert len((run.path / "predictions.csv").read_text().splitlines()) == 1 + 16 * questions
    assert report.measurements[0].subject == "random weights"
    assert (run.path / "pictures" / "confusion.png").is_file()
    assert (run.path / "pictures" / "offsets.png").is_file() == (task == "sync")


def test_a_transfer_that_was_stopped_ends_as_if_it_had_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from selfsup_cli.evaluation.action import Action

    whole = run_of("action", "whole")
    step = Action.step

    def stopping(self: Action, batch: dict, update: object) -> dict:  # type: ignore[type-arg]
        if update.step == 1:  # type: ignore[attr-defined]
            signal.raise_signal(signal.SIGUSR1)
        return step(self, batch, update)  # type: ignore[arg-type]

    monkeypatch.setattr(Action, "step", stopping)
    with pytest.raises(Stopped):
        run_of("action", "cut")
    monkeypatch.undo()
    monkeypatch.setenv("SELFSUP_RUNS", str(whole.path.parent))
    cut = run_of("action", "cut")
    for name in ("model.safetensors", "predictions.csv", "metrics.jsonl"):
        assert (cut.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_several_seeds_are_reported_together() -> None:
    run = run_of("action", "both", "seeds=[0, 3]", "train.max_steps=1")
    report = run.report()
    assert report is not None
    top1 = report.measurements[0]
    own = [Run.open(run.path.parent / f"both-seed{seed}").report() for seed in (0, 3)]
    values = [one.measurements[0].value for one in own if one is not None]
    assert top1.value == pytest.approx(np.mean(values))
    assert top1.protocol["standard_deviation"] == pytest.approx(np.std(values, ddof=1), abs=1e-3)
    assert top1.n == 2
    assert "seed" not in top1.protocol
    assert run.info.parents[1]["run"] == "both-seed3"
    mean = mean_of([one.measurements[0] for one in own if one is not None])
    assert mean == top1


def test_the_newest_pretraining_is_taken_and_kept(weights: Path) -> None:
    """A run that goes on starts from what it began with, whatever was trained since."""
    with pytest.raises(InputError, match="no run"):
        run_of("action", "x", init="latest")
    with pytest.raises(InputError, match="supervised"):
        run_of("action", "x", init="supervised")
    for name in ("first", "second"):
        made = command(
            "pretrain", "temporal", "--data", "motion", "--run", name, "--max-steps", "1",
            *[part for one in TINY if not one.startswith("head") for part in ("--set", one)],
            "--set", "monitor.knn_videos=0", "--set", "monitor.videos=8",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        if name == "first":
            resolved = resolve(
                "transfer/action", options={"data.source": "motion"}, sets=TINY, env={}
            )
            Run.open(Path(transfer(resolved, run="t", quiet=True).run_dir or ""))
    again = transfer(resolved, run="t", quiet=True)
    assert again.run_dir is not None
    assert Run.open(again.run_dir).info.parents[0]["run"] == "first"


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_few_labels_are_the_same_share_of_every_class(fraction: float) -> None:
    labels = np.repeat([0, 1, 2], [40, 20, 10])
    source = Labels(labels)
    kept = few(source, fraction, seed=0)  # type: ignore[arg-type]
    assert np.bincount(labels[kept]).tolist() == [round(fraction * n) for n in (40, 20, 10)]
    more = few(source, min(1.0, 2 * fraction), seed=0)  # type: ignore[arg-type]
    assert set(kept) <= set(more)
    assert set(kept) != set(few(source, fraction, seed=1))  # type: ignore[arg-type]


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.safetensors"
    save_backbone(other, build("c3d", width=0.125, crop=32, resize=(40, 40), seed=0), {})
    for arguments, said in (
        (["action", "--data", "motion", "--init", "random", "--fraction", "0.01"], "leaves the"),
        (["action", "--data", "motion", "--init", str(other)], "trained on crops of 32"),
        (["action", "--data", "motion", "--init", "random", "--freeze", "conv7"], "did you mean"),
        (["sync", "--data", "motion", "--init", "random", "--freeze", "fc1"], "lies above conv5"),
        (["action", "--data", "motion", "--init", "nowhere"], "no run"),
        (["acton"], "did you mean 'action'"),
    ):
        status = main(["transfer", *arguments, *(settings() if len(arguments) > 1 else [])])
        captured = capsys.readouterr()
        assert status == 2
        assert captured.out == ""
        assert said in captured.err
        assert "Traceback" not in captured.err
        assert len(captured.err.splitlines()) <= 6


def test_a_rehearsal_tells_what_would_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["transfer", "action", "--data", "motion", "--init", "random", "--freeze", "conv"]
    assert main([*arguments, "--dry-run", "--json", *settings()]) == 0
    said = json.loads(capsys.readouterr().out)["data"]
    assert said["updates"] == 4
    assert said["frozen"] == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert said["trained_parameters"] < said["parameters"]
    assert not Path(said["run"]).exists()
