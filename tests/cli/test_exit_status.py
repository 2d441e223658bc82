"""One test in a process of its own for every exit status that the help promises."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "selfsup_cli" / "data" / "samples"

# A job that does nothing but what is asked of it, stopped by the real signal handlers.
JOB = """
import sys, time, types
from pathlib import Path
from selfsup_cli import errors
from selfsup_cli.engine import signals

def pretrain(resolved, **settings):
    with signals.catching() as flag:
        print("ready", file=sys.stderr, flush=True)
        while not flag:
            {body}
            time.sleep(0.01)
        raise flag.stopped("step 3")

module = types.ModuleType("selfsup_cli.jobs.pretrain")
module.pretrain = pretrain
sys.modules[module.__name__] = module
from selfsup_cli.__main__ import main
sys.argv[1:] = ["pretrain", "temporal", "--data", "motion", "-q", "--json"]
sys.exit(main())
"""


def child(tmp_path: Path, body: str = "pass") -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path / "state")}
    return subprocess.Popen(
        [sys.executable, "-c", JOB.format(body=body)],
        env=environment, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_0_done(process: Callable[..., Any]) -> None:
    told = process("runs", "list", "--json")
    assert (told.returncode, json.loads(told.stdout)["ok"]) == (0, True)


@pytest.mark.parametrize(
    ("body", "status", "kind", "said"),
    [
        ("1 / 0", 1, "bug", "this is a bug in selfsup (ZeroDivisionError: division by zero)"),
        ("raise errors.InputError('no such thing', kind='data')", 2, "data", "no such thing"),
        ("raise MemoryError('9 GB')", 3, "memory", "out of memory: 9 GB"),
        ("raise errors.MachineError('no disk', kind='disk')", 3, "disk", "no disk"),
        ("raise errors.TrainingError('diverged', kind='loss')", 4, "loss", "diverged"),
    ],
)
def test_1_2_3_4_from_a_job(tmp_path: Path, body: str, status: int, kind: str, said: str) -> None:
    job = child(tmp_path, body)
    out, err = job.communicate(timeout=30)
    assert job.returncode == status
    error = json.loads(out)["error"]
    assert (error["code"], error["kind"]) == (status, kind)
    assert f"selfsup: error: {said}" in err
    assert "Traceback" not in out + err
    assert (tmp_path / "state" / "selfsup" / "crash.txt").exists() is (status == 1)


def test_2_the_input_is_wrong(process: Callable[..., Any]) -> None:
    told = process("probe", "--layer", "conv44", "--json")
    assert told.returncode == json.loads(told.stdout)["error"]["code"] == 2
    assert told.stderr.startswith("selfsup: error: --layer: ")


def test_3_the_machine_is_short(process: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = process("presets", "copy", "temporal/c3d", "/proc/selfsup.yaml")
    assert (told.returncode, told.stdout) == (3, "")
    assert told.stderr.startswith("selfsup: error: cannot write /proc/selfsup.yaml")


def test_4_too_much_data_is_unreadable(process: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for number in range(9):
        shutil.copy(SAMPLES / "h264.mp4", tmp_path / "clips" / f"{number}.mp4")
        (tmp_path / "clips" / f"bad-{number}.mp4").write_bytes(b"no video")
    told = process("pretrain", "temporal", "--data", "clips", "--device", "cpu", "-q")
    assert (told.returncode, told.stdout) == (4, ""), told.stderr
    assert "videos of clips cannot be read, more than the allowed 1.00%" in told.stderr


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGUSR1, 75),
        (signal.SIGUSR2, 75),
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
    ],
)
def test_75_130_143_stopped_by_a_signal(tmp_path: Path, number: int, status: int) -> None:
    job = child(tmp_path)
    assert job.stderr is not None
    assert job.stderr.readline() == "ready\n"
    job.send_signal(number)
    out, err = job.communicate(timeout=30)
    assert job.returncode == status
    error = json.loads(out)["error"]
    assert (error["code"], error["kind"]) == (status, "stopped")
    assert f"stopped by {signal.Signals(number).name} after saving step 3" in err
    assert "the same command goes on" in err


def test_141_the_reader_went_away(process: Callable[..., Any]) -> None:
    for line in ("--version", "--help", "presets list", "completion bash"):
        reader, writer = os.pipe()
        os.close(reader)
        told = process(*line.split(), stdout=writer)
        os.close(writer)
        assert (told.returncode, told.stderr) == (141, ""), line
