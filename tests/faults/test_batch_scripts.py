"""The scripts of docs/batch-jobs.md, run as plain shell with SLURM's variables set."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import harness
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"


def tool(path: Path, text: str) -> Path:
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def started(script: str, folder: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "SELFSUP_RUNS": str(folder / "runs"),
        "SELFSUP_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "SELFSUP": f"{sys.executable} -m selfsup_cli",
        "SLURM_JOB_ID": "4711",
        **more,
    }
    return subprocess.Popen(
        ["bash", str(EXAMPLES / script), *arguments], env=environment, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def tiny() -> list[str]:
    command = harness.pretrain("x")
    return [*command[command.index("--workers") :]]


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.sh")))
def test_a_script_is_sound_shell_with_what_a_requeue_needs(script: str) -> None:
    subprocess.run(["bash", "-n", str(EXAMPLES / script)], check=True)
    text = (EXAMPLES / script).read_text()
    options = re.findall(r"^#SBATCH (--[a-z-]+)", text, flags=re.MULTILINE)
    assert {"--signal", "--requeue", "--open-mode"} <= set(options)
    assert script in (ROOT / "docs" / "batch-jobs.md").read_text()


def test_a_preempted_job_finds_its_run_when_it_comes_again(tmp_path: Path) -> None:
    """Without --run: the id of the job is enough. What goes on is what the signal stopped."""
    first = started("single.sh", tmp_path, *tiny())
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("step="):
            break
    first.send_signal(signal.SIGUSR2)
    said = first.stderr.read()
    assert first.wait() == 75, said
    again = started("single.sh", tmp_path, *tiny())
    out, said = again.communicate()
    assert again.returncode == 0, said
    runs = list((tmp_path / "runs").iterdir())
    assert [out.splitlines()[-1]] == [str(run) for run in runs]
    assert "-job4711-" in runs[0].name


def test_the_requeueing_script_asks_for_it_once_it_is_stopped(tmp_path: Path) -> None:
    """With stand-ins for both programs: one that ends as a preempted job does, one that notes."""
    asked = tmp_path / "asked"
    scontrol = tool(tmp_path / "scontrol", f'echo "$@" >> {asked}')
    stubborn = tool(
        tmp_path / "selfsup",
        "trap 'sleep 0.3; exit 75' USR2; echo ready >&2; while :; do sleep 0.05; done",
    )
    tools = {"SELFSUP": str(stubborn), "SCONTROL": str(scontrol)}
    job = started("requeue.sh", tmp_path, **tools)
    assert job.stderr is not None
    assert job.stderr.readline() == "ready\n"
    job.send_signal(signal.SIGUSR2)
    assert job.wait() == 75
    assert asked.read_text() == "requeue 4711\n"
    asked.unlink()
    tool(tmp_path / "selfsup", "exit 4")
    assert started("requeue.sh", tmp_path, **tools).wait() == 4
    assert not asked.exists()


def test_tasks_of_an_array_have_seeds_of_their_own(tmp_path: Path) -> None:
    noted = tool(tmp_path / "selfsup", 'echo "$@"')
    task = {"SELFSUP": str(noted), "SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "3"}
    job = started("array.sh", tmp_path, "--dry-run", **task)
    out, _ = job.communicate()
    assert out.split() == ["pretrain", "temporal", "--data", "motion", "--seed", "3", "--dry-run"]
