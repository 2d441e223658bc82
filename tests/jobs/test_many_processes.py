"""Jobs on two processes, from the command line to their exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from selfsup_cli.models import build, save_backbone
from selfsup_cli.runs.run import Run

TINY = (
    "data.motion.videos=12",
    "data.motion.test_videos=8",
    "data.motion.side=16",
)
TRAINING = (
    *TINY,
    "network.width=0.125",
    "augment.resize=[16, 16]",
    "augment.crop=16",
    "train.epochs=2",
    "train.batch_size=4",
    "monitor.every_epochs=0",
    "monitor.videos=4",
    "monitor.draws=1",
    "monitor.knn_videos=4",
)


def sets(settings: tuple[str, ...]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def pretrain(name: str) -> list[str]:
    return ["pretrain", "temporal", "--data", "motion", "--run", name, "--workers", "0",
            *sets(TRAINING)]  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "SELFSUP_RUNS": str(folder / "runs"),
        "SELFSUP_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "selfsup_cli", *arguments],
        env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_signal_stops_two_processes_which_then_go_on(tmp_path: Path) -> None:
    process = start(tmp_path, *pretrain("two"), "--devices", "2")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step="):
            break
    process.send_signal(signal.SIGUSR2)
    said = process.stderr.read()
    assert process.wait() == 75, said
    assert [line for line in said.splitlines() if "error" in line.lower()] == [
        line for line in said.splitlines() if "stopped by SIGUSR2 after saving step" in line
    ]
    run = Run.open(tmp_path / "runs" / "two")
    assert run.status.state == "preempted"
    # One process may go on with what two have begun, and says what that changes.
    again = start(tmp_path, *pretrain("two"))
    out, said = again.communicate()
    assert again.returncode == 0, said
    assert out.splitlines()[-1] == str(run.path)
    assert "was begun with 2 processes and goes on with 1" in said
    assert Run.open(run.path).problems() == []


def test_two_processes_extract_the_same_bytes(tmp_path: Path) -> None:
    """The second of two processes has shards of its own; the cache is as one process makes it."""
    weights = tmp_path / "backbone.safetensors"
    save_backbone(weights, build("c3d", width=0.125, crop=16, resize=(16, 16), seed=0), {})
    probe = ["probe", "--from", str(weights), "--data", "motion", "--workers", "0", "--run", "p",
             *sets((*TINY, "clips.train=1", "clips.test=1", "probe.epochs=1"))]  # fmt: skip
    found = []
    for devices in ("1", "2"):
        folder = tmp_path / devices
        process = start(folder, *probe, "--devices", devices)
        _, said = process.communicate()
        assert process.returncode == 0, said
        cache = folder / "cache"
        found.append(
            {
                str(path.relative_to(cache)): path.read_bytes()
                for path in sorted(cache.rglob("*"))
                if path.name == "index.json" or path.suffix == ".h5"
            }
        )
        report = json.loads((folder / "runs" / "p" / "report.json").read_text())
        found.append({"measurements": report["measurements"]})
    assert found[0] == found[2]
    assert found[1] == found[3]
    assert len(found[0]) >= 4


@pytest.mark.slow
def test_torchrun_trains_what_devices_does(tmp_path: Path) -> None:
    done = start(tmp_path, *pretrain("two"), "--devices", "2")
    assert done.wait() == 0
    torchrun = Path(sys.executable).with_name("torchrun")
    command = [str(torchrun), "--standalone", "--nproc-per-node", "2", "-m", "--", "selfsup_cli"]
    subprocess.run([*command, *pretrain("launched")], env=environment(tmp_path), check=True)
    weights = [
        (tmp_path / "runs" / name / "backbone.safetensors").read_bytes()
        for name in ("two", "launched")
    ]
    assert weights[0] == weights[1]
