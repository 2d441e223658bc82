"""The real command in a process of its own: its streams and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfsup_cli.config.registry import METHODS
from selfsup_cli.version import __version__

ROOT = Path(__file__).resolve().parents[2]
Process = Callable[..., "subprocess.CompletedProcess[str]"]

# Runs command lines one after the other and tells how each ended and what was imported by then.
DRIVER = """
import contextlib, io, json, sys
from selfsup_cli.__main__ import main
heavy = ("torch", "torchvision", "timm", "av", "h5py", "numpy", "matplotlib")
told = []
for line in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(line.split())
    found = [name for name in heavy if name in sys.modules]
    told.append([line, status, out.getvalue(), err.getvalue(), found])
print(json.dumps(told))
"""


def test_version_and_usage_errors(process: Process) -> None:
    told = process("--version")
    assert (told.returncode, told.stdout, told.stderr) == (0, f"selfsup {__version__}\n", "")
    told = process("pretrain", "temporl")
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == (
        "selfsup: error: unknown method 'temporl' (did you mean 'temporal'?); known are: "
        f"{', '.join(METHODS)}\n"
    )


def test_nothing_that_answers_at_once_imports_torch() -> None:
    lines = [
        "", "--version", "--help", "pretrain --help", "pretrain temporal --help", "probe --help",
        "retrieve --help", "visualize pretext --help", "runs list", "runs show nothing",
        "runs resume nothing", "presets list", "presets show temporal/c3d --origin",
        "presets validate nowhere.yaml", "presets schema", "pretrain temporl",
        "pretrain temporal --arhc x", "pretrain temporal --arch c3dd --lr x",
        "pretrain temporal --preset temporal/nothing", "probe --layer conv44 --json",
        "doctor --help", "completion zsh", "completion bush",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(lines),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for line, status, out, err, found in json.loads(done.stdout):
        assert found == [], line
        assert status in (0, 2), (line, err)
        assert "Traceback" not in out + err
        assert "bug in selfsup" not in err


@pytest.mark.parametrize("line", ["--help", "presets schema"])
def test_a_full_disk_behind_stdout(process: Process, line: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        told = process(*line.split(), stdout=full)
    assert told.returncode == 3
    assert told.stderr == "selfsup: error: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("line", ["--help", "presets schema"])
def test_a_reader_that_went_away(process: Process, line: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    told = process(*line.split(), stdout=writer)
    os.close(writer)
    assert (told.returncode, told.stderr) == (141, "")


def test_streams_that_the_caller_closed(process: Process, tmp_path: Path) -> None:
    def close() -> None:
        os.close(0)
        os.close(1)

    told = process("presets", "copy", "temporal/base", "mine.yaml", stdout=None, preexec_fn=close)
    assert (told.returncode, told.stderr) == (0, "")
    # The copy must not have received what was meant for stdout.
    assert "mine.yaml" not in (tmp_path / "mine.yaml").read_text()

    told = process("nothing", stderr=None, preexec_fn=lambda: os.close(2))
    assert (told.returncode, told.stdout) == (2, "")


def test_a_locale_without_unicode(process: Process) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    told = process("pretrain", "temporal", "--preset", b"\xff\n.yaml", env=ascii_only)
    assert told.returncode == 2
    assert len(told.stderr.splitlines()) == 1
    assert told.stderr.isascii()
    told = process("--help", env=ascii_only)
    assert (told.returncode, told.stderr) == (0, "")


def test_json_and_words_go_to_their_own_streams(process: Process, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("version: 1\nmethod: temporal\ntrain:\n  epochs: many\n")
    told = process("presets", "validate", "mine.yaml", "--json")
    assert told.returncode == 2
    assert told.stdout.count("\n") == 1
    error = json.loads(told.stdout)["error"]
    assert error["code"] == 2
    assert error["problems"][0]["line"] == 4
    assert told.stderr.startswith("selfsup: error: mine.yaml:4: train.epochs: ")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_ctrl_c_before_the_job_began(tmp_path: Path) -> None:
    hang = (
        "import signal, sys, types, time\n"
        # Whoever starts in the background may have been told to ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "module = types.ModuleType('selfsup_cli.jobs.probe')\n"
        "def probe(*a, **k):\n"
        "    print('ready', file=sys.stderr, flush=True)\n"
        "    time.sleep(60)\n"
        "module.probe = probe\n"
        "sys.modules['selfsup_cli.jobs.probe'] = module\n"
        "from selfsup_cli.__main__ import main\n"
        "sys.exit(main(['probe', '--data', 'motion', '-q']))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", hang],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert child.stderr is not None
    assert child.stderr.readline() == "ready\n"
    time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (130, "", "selfsup: error: interrupted\n")


def test_colours_on_a_terminal_and_none_in_a_pipe(process: Process) -> None:
    told: Any = process("runs", "list", env={"TERM": "xterm", "CI": "true"})
    assert "\x1b" not in told.stdout + told.stderr
