"""A machine that is short of something, signals, rivals, dying helpers, losses that explode."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import harness
import pytest
import torch
from harness import DISK, STEP, Server

from selfsup_cli.engine.checkpoints import Checkpoints, read_tensors
from selfsup_cli.runs.run import Run

# Each with what ends the job, and with what ends well when the same command is run again.
SIGNALS = {"SIGTERM": 143, "SIGINT": 130, "SIGUSR1": 75, "SIGUSR2": 75}


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_saves_the_step_it_met(
    server: Server, undisturbed: Path, tmp_path: Path, name: str
) -> None:
    for nth in harness.places(harness.STEPS - 1, name, most=max(1, harness.KILLS // 3)):
        hint = f"{name} in step {nth}, FAULT_SEED={harness.SEED}"
        runs = tmp_path / f"{nth}"
        command = harness.pretrain("whole", "train.checkpoint_steps=5")
        ended = server(command, runs, harness.striking([STEP], nth, f"signal:{name}"))
        assert ended.status == SIGNALS[name], f"{hint}\n{ended.said}"
        assert len(ended.errors()) == 1
        assert f"stopped by {name} after saving step {nth}" in ended.errors()[0]
        assert Checkpoints(runs / "whole" / "checkpoints").steps()[-1] == nth, hint
        status = Run.open(runs / "whole").status
        assert (status.state, status.step) == ("preempted", nth), hint
        again = server(command, runs)
        assert again.status == 0, f"{hint}\n{again.said}"
        assert harness.content(runs / "whole") == harness.content(undisturbed / "whole"), hint


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EACCES"])
def test_a_disk_that_takes_no_more(
    server: Server, undisturbed: Path, events: dict[str, int], tmp_path: Path, number: str
) -> None:
    """From some call on nothing can be written: full, or permission taken away."""
    expected = harness.content(undisturbed / "whole")
    place = "any opening" if number == "EACCES" else "any write"
    for nth in harness.places(events[place], number, most=1 if number == "EDQUOT" else None):
        hint = f"{number} at call {nth} of {events[place]}, FAULT_SEED={harness.SEED}"
        runs = tmp_path / f"{nth}"
        ended = server(
            harness.pretrain("whole"),
            runs,
            harness.striking(harness.PLACES[place][0], nth, f"errno:{number}"),
        )
        assert ended.status == 3, f"{hint}\n{ended.said}"
        assert len(ended.errors()) == 1, f"{hint}\n{ended.said}"
        assert "Traceback" not in ended.said, f"{hint}\n{ended.said}"
        assert "cannot write" in ended.errors()[0], f"{hint}\n{ended.said}"
        checkpoints = Checkpoints(runs / "whole" / "checkpoints")
        assert all(checkpoints.problem(step) is None for step in checkpoints.steps()), hint
        assert harness.temporaries(runs) == [], hint
        again = server(harness.pretrain("whole"), runs)
        assert again.status == 0, f"{hint}\n{again.said}"
        assert harness.content(runs / "whole") == expected, hint


def test_files_that_may_not_grow(server: Server, undisturbed: Path, tmp_path: Path) -> None:
    """A limit that also binds what libraries write by themselves."""
    sizes = sorted(p.stat().st_size for p in (undisturbed / "whole").rglob("*") if p.is_file())
    for number, size in enumerate(sizes[:: max(1, len(sizes) // (harness.KILLS + 1))][1:]):
        runs = tmp_path / f"{number}"
        ended = server(harness.pretrain("whole"), runs, largest_file=size - 1)
        assert ended.status == 3, f"limit {size - 1}\n{ended.said}"
        assert len(ended.errors()) == 1, f"limit {size - 1}\n{ended.said}"
        assert "Traceback" not in ended.said
        assert harness.temporaries(runs) == []
    again = server(harness.pretrain("whole"), runs)
    assert again.status == 0, again.said
    assert harness.content(runs / "whole") == harness.content(undisturbed / "whole")


def test_a_full_disk_while_extracting(server: Server, copied: Path) -> None:
    command = harness.probe("probed", "whole")
    within = harness.EXTRACT
    counted = server(harness.probe("count", "whole"), copied, harness.counting(DISK, within))
    expected = harness.shards(copied)
    for nth in harness.places(counted.counts[0], "full cache"):
        cache = copied / ".cache"
        cache.rename(copied / f".cache-{nth}")
        ended = server(command, copied, harness.striking(["os:write"], 1, "errno:ENOSPC", within))
        assert ended.status == 3, ended.said
        assert len(ended.errors()) == 1
        assert harness.temporaries(cache) == []
        break
    again = server(command, copied)
    assert again.status == 0, again.said
    assert harness.shards(copied) == expected


def test_a_dead_loader_worker_ends_the_job_and_nothing_else(
    server: Server, undisturbed: Path, tmp_path: Path
) -> None:
    command = harness.pretrain("whole", workers=2)
    ended = server(command, tmp_path, harness.striking([STEP], 3, "kill-worker"))
    assert ended.status == 3, ended.said
    assert len(ended.errors()) == 1
    assert "a loader process was killed" in ended.errors()[0]
    assert Run.open(tmp_path / "whole").status.state == "failed"
    again = server(command, tmp_path)
    assert again.status == 0, again.said
    assert harness.content(tmp_path / "whole") == harness.content(undisturbed / "whole")


def test_a_loss_that_is_not_finite(server: Server, tmp_path: Path) -> None:
    command = harness.pretrain("whole")
    fault = harness.striking(["selfsup_cli.methods.pretext:losses"], 4, "nan")
    ended = server(command, tmp_path, fault)
    assert ended.status == 4, ended.said
    assert "the loss (main) became nan in step 4" in ended.errors()[0]
    run = Run.open(tmp_path / "whole")
    assert (run.status.state, run.status.step) == ("diverged", 3)
    evidence = read_tensors(run.path / "debug" / "nonfinite-step-4-rank-0.pt")
    assert evidence["batch"]["clip"].dtype == torch.uint8
    saved = read_tensors(run.path / "checkpoints" / "step-00000003" / "state.pt")
    for name, value in saved["model"].items():
        assert torch.isfinite(value).all()
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(value, evidence["state"]["model"][name]), name


def test_of_many_jobs_on_one_run_one_works(tmp_path: Path) -> None:
    """Eight at once: one runs (it waits to be told to go on), seven are told who does."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from selfsup_cli.errors import InputError\n"
        "from selfsup_cli.runs import lock\n"
        "from selfsup_cli.runs.run import Run\n"
        "lock._PATIENCE_S = 0.1\n"
        "try:\n"
        "    run = Run.create_or_continue(Path(sys.argv[1]), 'mine', preset={}, identity={},\n"
        "        command=[], job='probe', seed=0, dataset=None, parents=[])\n"
        "except InputError as error:\n"
        "    print(error, flush=True)\n"
        "    sys.exit(2)\n"
        "print('working', flush=True)\n"
        "sys.stdin.read()\n"
    )
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(8)
    ]  # fmt: skip
    said = [job.stdout.readline() for job in jobs if job.stdout is not None]
    for job in jobs:
        job.communicate()
    assert sorted(job.returncode for job in jobs) == [0] + [2] * 7
    assert said.count("working\n") == 1
    assert all("is being written by process" in line for line in said if line != "working\n")


def test_a_second_command_on_a_running_run(server: Server, tmp_path: Path) -> None:
    """The whole way: the first job is stopped in the middle, the second refused, the first ends."""
    environment = {**os.environ, "SELFSUP_RUNS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with Run.create_or_continue(
        tmp_path, "whole", preset={}, identity={}, command=[], job="pretrain/temporal", seed=0,
        dataset=None, parents=[],
    ) as run:  # fmt: skip
        run.set_status("running", step=1)
        listed = subprocess.run(
            [sys.executable, "-m", "selfsup_cli", "runs", "verify", "whole"],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert "is being written by process" in listed.stdout + listed.stderr
        (run.path / "run.json").unlink()  # so that the identity is not asked before the lock is
        refused = server(harness.pretrain("whole"), tmp_path)
    assert refused.status == 2, refused.said
    assert "is being written by process" in refused.said


def test_ended_commands_leave_no_process_behind(server: Server, tmp_path: Path) -> None:
    """Loader processes of a killed job notice and end."""
    command = harness.pretrain("whole", workers=2)
    ended = server(command, tmp_path, harness.striking([STEP], 3, "kill"))
    assert ended.status == -signal.SIGKILL
    until = time.monotonic() + 20
    while _workers_of(tmp_path) and time.monotonic() < until:
        time.sleep(0.2)
    assert _workers_of(tmp_path) == []


def _workers_of(runs: Path) -> list[str]:
    """Processes that were started for the runs in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            open_files = [str(fd.readlink()) for fd in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(str(runs) in name for name in open_files):
            found.append(process.name)
    return found


def test_all_that_is_said_is_json_where_it_was_asked_for(server: Server, tmp_path: Path) -> None:
    command = [*harness.pretrain("whole"), "--json", "--quiet"]
    ended = server(command, tmp_path, harness.striking(["os:write"], 40, "errno:ENOSPC"))
    assert ended.status == 3, ended.said
    document = json.loads(ended.said[ended.said.index("{") :])
    assert document["ok"] is False
    assert document["error"]["code"] == 3
