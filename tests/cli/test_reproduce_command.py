"""`selfsup reproduce` as it is typed: killed and resumed, by hand, with a stage that fails."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from selfsup_cli.config import experiment_files
from selfsup_cli.config.experiment import ScaleName
from selfsup_cli.jobs.reproduce_plan import plan
from selfsup_cli.runs.lock import held_by
from selfsup_cli.runs.run import Run

ROOT = Path(__file__).resolve().parents[2]
Process = Callable[..., subprocess.CompletedProcess[str]]

TINY = """\
version: 1
experiment: tiny
title: A test
columns:
  - key: motion
    head: Kinds
    stage: pretrain
    measured: {task: pretext, name: motion, metric: held-out accuracy}
stages:
  - {name: pretrain, job: pretrain/temporal}
rows:
  - {key: a, label: A, set: {pretrain: {time.kinds: [speed, warp]}}}
  - {key: b, label: B, set: {pretrain: {time.kinds: [speed, random]}}}
findings:
  - {says: a is better, better: {pairs: [[a, b]], columns: [motion]}}
pictures:
  - {row: a, stage: pretrain, file: pictures/pretext.png, caption: What it is fed.}
scales:
  smoke:
    about: a few steps
    cost: {hours: 0, machine: "measured: mine"}
    stages:
      - name: pretrain
        preset: temporal/c3d-motion
        set:
          network.width: 0.0625
          train.max_steps: 30
          train.epochs: 30
          train.batch_size: 2
          data.motion.videos: 8
          data.motion.test_videos: 8
          data.motion.length: 32
          monitor.every_epochs: 0
          monitor.videos: 8
          monitor.draws: 1
          monitor.knn_videos: 0
          machine.workers: 0
"""

BROKEN = """\
version: 1
experiment: broken
title: A test
columns:
  - key: motion
    head: Kinds
    stage: pretrain
    measured: {task: pretext, name: motion, metric: held-out accuracy}
  - {key: top, head: Top, stage: probe, measured: {task: probe, metric: top-1 accuracy}}
stages:
  - {name: pretrain, borrow: {experiment: tiny, row: a, stage: pretrain}}
  - {name: elsewhere, job: pretrain/temporal, set: {data.source: ./no-such-folder}}
  - {name: probe, job: probe, needs: [pretrain], set: {data.source: motion}}
rows:
  - {key: bad, label: Bad, use: {pretrain: elsewhere}}
  - key: good
    label: Good
    use: {probe: pretrain}
    measured: {task: pretext, name: motion, metric: held-out accuracy}
scales:
  smoke:
    about: nothing
    cost: {hours: 0, machine: "measured: mine"}
"""


@pytest.fixture
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two experiments that can be called by name."""
    folder = tmp_path / "presets" / "paper"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    (folder / "broken.yaml").write_text(BROKEN, encoding="utf-8")
    monkeypatch.setenv("SELFSUP_PRESET_PATH", str(folder.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def begin(tmp_path: Path, runs: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the command and leave it running."""
    return subprocess.Popen(
        [sys.executable, "-m", "selfsup_cli", "reproduce", "tiny", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SELFSUP_RUNS": str(runs)},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def until(what: Callable[[], Any], patience: float = 300) -> None:
    """Wait for something to be so."""
    end = time.monotonic() + patience
    while not what():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def steps(run: Path) -> int:
    """How many updates have been logged."""
    try:
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def test_killed_it_goes_on(tmp_path: Path, process: Process, experiments: None) -> None:
    killed, by_hand = tmp_path / "killed", tmp_path / "by-hand"
    run = killed / "tiny.smoke.b.pretrain"
    command = begin(tmp_path, killed, "--rows", "b")
    until(lambda: steps(run) > 1)
    command.kill()
    command.wait(60)
    # Its stage is asked to stop; until it has, the next who wants it waits.
    done = process("reproduce", "tiny", "--rows", "b", env={"SELFSUP_RUNS": str(killed)})
    assert done.returncode == 0, done.stderr
    assert len(Run.open(run).attempts) == 2
    printed = process("reproduce", "tiny", "--rows", "b", "--print-commands")
    line = next(line for line in printed.stdout.splitlines() if line.startswith("selfsup pre"))
    typed = process(*shlex.split(line)[1:], env={"SELFSUP_RUNS": str(by_hand)})
    assert typed.returncode == 0, typed.stderr
    reports = [Run.open(folder / run.name).report() for folder in (killed, by_hand)]
    assert reports[0] is not None
    assert reports[1] is not None
    assert reports[0].weights == reports[1].weights
    table = Run.open(killed / "tiny.smoke").report()
    assert table is not None
    assert [m.value for m in table.measurements] == [reports[1].measurements[0].value]


@pytest.mark.slow
def test_killed_and_resumed_it_is_as_if_typed_by_hand(
    tmp_path: Path, process: Process, experiments: None
) -> None:
    killed, by_hand = tmp_path / "killed", tmp_path / "by-hand"
    a, b = (killed / f"tiny.smoke.{row}.pretrain" for row in "ab")

    # Both rows at once, and a polite request to stop while they learn.
    command = begin(tmp_path, killed, "--jobs", "2")
    until(lambda: steps(a) > 1 and steps(b) > 1)
    command.send_signal(signal.SIGTERM)
    assert command.wait(120) == 143
    states = [Run.open(run).status.state for run in (a, b)]
    assert set(states) <= {"preempted", "complete"}
    assert "preempted" in states
    assert not (killed / "tiny.smoke").exists()

    # A kill while one row learns: its stage is asked to stop, too.
    before = sum(map(steps, (a, b)))
    command = begin(tmp_path, killed)
    until(lambda: sum(map(steps, (a, b))) > before + 1)
    command.kill()
    command.wait(60)
    until(lambda: not any(held_by(run / "run.lock") for run in (a, b)), 60)
    assert Run.open(b).status.state in ("preempted", "complete")
    assert not (killed / "tiny.smoke").exists()

    done = process("reproduce", "tiny", env={"SELFSUP_RUNS": str(killed)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(killed / "tiny.smoke")
    assert "a is better: " in done.stdout
    assert "pictures/a-pretext.png" in done.stdout

    # The same by hand, without the machinery.
    printed = process("reproduce", "tiny", "--print-commands")
    assert printed.returncode == 0
    lines = [line for line in printed.stdout.splitlines() if line.startswith("selfsup ")]
    assert [line.split(" --")[0] for line in lines] == [
        "selfsup pretrain temporal",
        "selfsup pretrain temporal",
        "selfsup reproduce tiny",
    ]
    for line in lines:
        typed = process(*shlex.split(line)[1:], env={"SELFSUP_RUNS": str(by_hand)})
        assert typed.returncode == 0, typed.stderr
    assert "2 of 2 stages are done" in typed.stderr
    for name in ("tiny.smoke.a.pretrain", "tiny.smoke.b.pretrain"):
        runs = [Run.open(folder / name) for folder in (killed, by_hand)]
        reports = [run.report() for run in runs]
        assert len({one.weights for one in reports if one}) == 1
        assert len({(run.path / "metrics.jsonl").read_bytes() for run in runs}) == 1
    tables = [Run.open(folder / "tiny.smoke").report() for folder in (killed, by_hand)]
    assert tables[0] is not None
    assert tables[1] is not None
    assert tables[0].measurements == tables[1].measurements
    assert tables[0].table == tables[1].table

    # With nothing to do it says the same again, quickly.
    began = time.monotonic()
    again = process("reproduce", "tiny", env={"SELFSUP_RUNS": str(killed)})
    took = time.monotonic() - began
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert took < 15  # under a second, on a machine that has nothing else to do

    # One broken stage: what follows from it is not begun, all else is, and the table has a gap.
    bad = process("reproduce", "broken", "--json", env={"SELFSUP_RUNS": str(killed)})
    assert bad.returncode == 2
    document = json.loads(bad.stdout)
    assert not document["ok"]
    problems = document["error"]["problems"]
    assert problems[0].startswith("broken.smoke.bad.elsewhere: ")
    assert "no-such-folder" in problems[0]
    assert problems[1] == "1 stages were not begun because of these"
    report = document["data"]["report"]
    assert [(m["subject"], m["name"]) for m in report["measurements"]] == [
        ("Good", "Kinds"),
        ("Good", "Top"),
    ]
    assert len({m["value"] for m in report["measurements"]}) == 1
    gaps = [cell["gap"] for cell in report["table"]["rows"][0]["cells"]]
    assert all("no-such-folder" in gap for gap in gaps)
    run = Run.open(killed / "broken.smoke")
    assert (run.status.state, run.status.reason) == ("failed", "2 stages failed")
    shown = process("reproduce", "broken", "--rows", "good", env={"SELFSUP_RUNS": str(killed)})
    assert shown.returncode == 0, shown.stderr
    assert "– [1]" in shown.stdout

    listed = process("reproduce", "--list", "--json", env={"SELFSUP_RUNS": str(killed)})
    found = {one["name"]: one["scales"] for one in json.loads(listed.stdout)["data"]["experiments"]}
    smoke = found["tiny"]["smoke"]
    assert (smoke["done"], smoke["stages"]) == (2, 2)
    assert (found["broken"]["smoke"]["done"], found["broken"]["smoke"]["stages"]) == (1, 3)
    assert found["table-5.1"]["paper"] == {
        "done": 0, "stages": 50, "hours": 80, "machine": found["table-5.1"]["paper"]["machine"],
    }  # fmt: skip


@pytest.mark.slow
def test_a_stage_that_somebody_else_is_working_on_is_waited_for(
    tmp_path: Path, process: Process, experiments: None
) -> None:
    runs = tmp_path / "runs"
    path = runs / "tiny.smoke.a.pretrain"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from selfsup_cli.runs.lock import RunLock;"
            "path = Path(sys.argv[1]); path.mkdir(parents=True); lock = RunLock(path / 'run.lock');"
            "print('held', flush=True); time.sleep(6)",
            str(path),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    told = process("reproduce", "tiny", "--rows", "a", env={"SELFSUP_RUNS": str(runs)})
    holder.wait()
    assert told.returncode == 0, told.stderr
    assert f"process {holder.pid} on " in told.stderr
    assert "is working on it; waiting for that" in told.stderr
    assert Run.open(runs / "tiny.smoke").status.reason == "1 of 2 stages are done"


def test_every_printed_command_is_one_that_is_understood(
    selfsup: Callable[..., Any], jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line, typed, asks the job for just the preset that the experiment means."""
    for name, function in (("transfer", "transfer"), ("score", "score"), ("sample_gan", "dfgan")):
        module = ModuleType(f"selfsup_cli.jobs.{name}")
        setattr(module, function, jobs.job(name))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    seen = set()
    scales: tuple[ScaleName, ...] = ("smoke", "paper")
    for name, scale in product(experiment_files.names({}), scales):
        for stage in plan(experiment_files.load(name), scale).stages.values():
            # Of those with the same options one is typed.
            words = stage.arguments()
            options = {one.partition("=")[0] for one in words if one[0] == "-" or "=" in one}
            kind = (stage.job, frozenset(options))
            if kind in seen:
                continue
            seen.add(kind)
            jobs.calls.clear()
            told = selfsup(*words)
            assert told.status == 0, (stage.command(), told.err)
            ((_, resolved, more),) = jobs.calls
            assert resolved.preset == stage.resolved.preset, stage.command()
            if stage.is_picture or stage.is_sample:
                assert more["out"] in (stage.path, [stage.path])
            else:
                assert more["run"] == stage.run


def test_mistakes(selfsup: Callable[..., Any]) -> None:
    for arguments, said in (
        (["reproduce"], "name an experiment"),
        (
            ["reproduce", "table-5.1", "--scale", "smal"],
            "unknown scale 'smal' (did you mean 'small'",
        ),
        (["reproduce", "table-9.9"], "unknown experiment 'table-9.9'"),
        (["reproduce", "table-5.1", "--jobs", "0"], "--jobs must be at least 1"),
        (["reproduce", "table-5.1", "--rows", "spead"], "no row of table-5.1 is called 'spead'"),
        (
            ["reproduce", "table-5.1", "--scale", "paper", "--data", "motion"],
            "--data: at the scale",
        ),
    ):
        told = selfsup(*arguments)
        assert told.status == 2
        assert f"selfsup: error: {said}" in told.err
        assert told.out == ""


def test_at_paper_scale_without_the_data(
    selfsup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    told = selfsup("reproduce", "table-5.1", "--scale", "paper")
    assert told.status == 2
    assert told.err.count("selfsup: error: table-5.1.paper needs ") == 2
    assert "$SELFSUP_DATA, which is not set" in told.err
    assert "selfsup: hint: selfsup reproduce table-5.1 --scale smoke needs no data" in told.err
    # Without the data it can at least be printed.
    told = selfsup("reproduce", "table-5.1", "--scale", "paper", "--print-commands")
    assert told.status == 0
    assert told.out.startswith("#!/bin/sh\n")
    assert (
        "\nselfsup transfer action --preset action/frozen --init random --data ucf101" in told.out
    )


def test_the_list(
    selfsup: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = selfsup("reproduce", "--list")
    assert told.status == 0
    head, *lines = told.out.splitlines()
    assert head.split() == ["experiment", "smoke", "small", "paper", "about"]
    assert [line.split()[0] for line in lines] == experiment_files.names({})
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "mine.yaml").write_text("version: 1\n", encoding="utf-8")
    monkeypatch.setenv("SELFSUP_PRESET_PATH", str(tmp_path))
    told = selfsup("reproduce", "--list")
    assert told.status == 0
    assert "experiment: is missing" in told.out.splitlines()[1]
    told = selfsup("reproduce", "figure-5.5", "--list")
    assert [line.split()[:4] for line in told.out.splitlines()[1:]] == [
        ["temporal", "pretrain", "not", "begun"],
        ["temporal", "retrieve", "not", "begun"],
    ]
