"""The whole job on built-in videos: what it leaves behind, and that a kill changes nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pretraining import SETTINGS, STEPS, VIDEOS, preset

from selfsup_cli.config.presets import resolve
from selfsup_cli.engine.checkpoints import read_tensors
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.pretrain import pretrain
from selfsup_cli.models import load_backbone
from selfsup_cli.runs.run import Run, runs_dir

SCRIPT = Path(__file__).with_name("pretraining.py")


def run_script(*arguments: str, runs: Path) -> None:
    environment = {**os.environ, "SELFSUP_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it comes out when nobody disturbs it."""
    runs = tmp_path_factory.mktemp("runs")
    run_script("temporal", "whole", "0", runs=runs)
    return runs / "whole"


def test_a_run_holds_what_the_design_promises(uninterrupted: Path) -> None:
    names = {path.name for path in uninterrupted.iterdir()}
    assert names >= {
        "preset.yaml", "run.json", "status.json", "metrics.jsonl", "log.txt", "checkpoints",
        "backbone.safetensors", "report.json", "pictures", "manifest.json", "events",
    }  # fmt: skip
    run = Run.open(uninterrupted)
    assert run.complete
    assert run.problems() == []
    report = run.report()
    assert report is not None
    said = {row.name for row in report.measurements}
    assert said >= {"motion", "speed", "motion warp", "k-NN"}
    for picture in report.pictures:
        assert (uninterrupted / picture.file).read_bytes()[:4] == b"\x89PNG"
    backbone = load_backbone(uninterrupted / "backbone.safetensors")
    assert backbone.trained_on["kinds"] == ["speed", "random", "periodic", "warp"]
    state = json.loads((uninterrupted / "status.json").read_text())
    assert (state["state"], state["step"]) == ("complete", STEPS)


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_five_random_steps_it_ends_the_same(
    uninterrupted: Path, tmp_path: Path, workers: int
) -> None:
    steps = sorted(random.Random(workers).sample(range(1, STEPS), 5))
    kills = [f"{s}:{'checkpoint' if n == 2 else 'update'}" for n, s in enumerate(steps)]
    run_script("temporal", "killed", str(workers), *kills, runs=tmp_path)
    killed = tmp_path / "killed"
    for name in ("metrics.jsonl", "backbone.safetensors"):
        assert (killed / name).read_bytes() == (uninterrupted / name).read_bytes(), (name, steps)
    ends = [Run.open(path) for path in (killed, uninterrupted)]
    states = [read_tensors(run.path / f"checkpoints/step-{STEPS:08d}/state.pt") for run in ends]
    assert states[0]["at"] == states[1]["at"]
    reports = [run.report() for run in ends]
    assert reports[0] is not None
    assert reports[1] is not None
    assert reports[0].measurements == reports[1].measurements
    assert reports[0].curves == reports[1].curves
    assert not list(killed.glob("checkpoints/.tmp*"))


def test_another_seed_is_another_run(uninterrupted: Path, tmp_path: Path) -> None:
    """Negative control of the test above: its comparison can tell runs apart."""
    runs = uninterrupted.parent
    environment = pytest.MonkeyPatch()
    environment.setenv("SELFSUP_RUNS", str(runs))
    try:
        pretrain(preset(0, "train.seed=1", "train.max_steps=4"), run="other", quiet=True)
        rows = [
            (runs / name / "metrics.jsonl").read_text().splitlines() for name in ("other", "whole")
        ]
        assert rows[0][0] != rows[1][0]
    finally:
        environment.undo()


def test_complete_and_changed_runs(uninterrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_RUNS", str(uninterrupted.parent))
    before = (uninterrupted / "status.json").read_bytes()
    again = pretrain(preset(1), run="whole", quiet=True)
    assert again.run_dir == uninterrupted
    assert again.report is not None
    assert (uninterrupted / "status.json").read_bytes() == before
    with pytest.raises(InputError, match=r"optim\.lr: 0\.001 → 0\.5"):
        pretrain(preset(0, "optim.lr=0.5"), run="whole", quiet=True)


def test_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path / "runs"))
    outcome = pretrain(preset(0), run="planned", dry_run=True)
    assert not (tmp_path / "runs").exists()
    assert outcome.data["videos"] == 24
    assert outcome.data["updates"] == STEPS
    assert outcome.data["parameters"] > 10_000
    assert "24 videos of motion" in outcome.text
    assert "planned" in outcome.text


def test_a_signal_saves_and_the_same_command_goes_on(uninterrupted: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "SELFSUP_RUNS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    sets = [part for setting in preset_arguments() for part in ("--set", setting)]
    command = [
        sys.executable, "-m", "selfsup_cli", "pretrain", "temporal", "--data", "motion",
        "--run", "whole", "--workers", "0", *sets,
    ]  # fmt: skip
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step="):
            break
    process.send_signal(signal.SIGUSR1)
    said = process.stderr.read()
    assert process.wait() == 75, said
    assert "the same command goes on" in said
    assert json.loads((tmp_path / "whole" / "status.json").read_text())["state"] == "preempted"
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "whole")
    assert (tmp_path / "whole" / "metrics.jsonl").read_bytes() == (
        uninterrupted / "metrics.jsonl"
    ).read_bytes()


def preset_arguments() -> list[str]:
    return [*SETTINGS, *VIDEOS]


def test_what_cannot_be_read_is_listed_where_the_next_run_can_leave_it_out(
    data_dir: Path, tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for number, clip in enumerate(sorted(data_dir.glob("actions/Run/*.avi"))[:12]):
        (videos / f"{number}.avi").write_bytes(clip.read_bytes())
    for name in ("zero_byte.mp4", "text_renamed.mp4", "truncated_half.avi"):
        (videos / name).write_bytes((data_dir / "broken" / name).read_bytes())
    sets = [*SETTINGS, *VIDEOS, "machine.workers=0", "train.max_steps=1"]

    def run(name: str, **options: Any) -> Run:
        given = {"data.source": str(videos), **options}
        pretrain(resolve("pretrain/temporal", options=given, sets=sets, env={}), run=name)
        return Run.open(runs_dir() / name)

    first = run("first", **{"data.max_bad": 0.5})
    report, listed = first.report(), first.path / "quarantine.jsonl"
    bad = {json.loads(line)["path"] for line in listed.read_text().splitlines()}
    assert bad == {"zero_byte.mp4", "text_renamed.mp4", "truncated_half.avi"}
    assert report is not None
    assert ({out.id for out in report.left_out}, report.left_out_total) == (bad, 3)
    second = run("second", **{"data.quarantine": str(listed)})
    report = second.report()
    assert report is not None
    assert {out.id for out in report.left_out} == bad
    assert not (second.path / "quarantine.jsonl").exists()
