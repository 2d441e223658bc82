"""How long the command takes to begin, as ratios of CPU time.

Each command runs in a process of its own, all of them in turn, so that a machine that gets slower
makes all of them slower. CPU time is that of the child alone. `import torch`, which takes seconds,
joins in every third round.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import measure

ROUNDS = 21
PYTHON = [sys.executable, "-c"]
SCRIPT = Path(sys.executable).with_name("selfsup")
SELFSUP = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "selfsup_cli"]
PEERS = {
    "python -c pass": [*PYTHON, "pass"],
    "import torch": [*PYTHON, "import torch"],
}
# Command, peer, and the largest ratio that is good enough.
GOALS = (
    ("--version", "python -c pass", 2.5),
    ("__complete layers conv", "python -c pass", 2.5),
    ("__complete presets temporal/", "python -c pass", 2.5),
    ("__complete runs r", "python -c pass", 2.5),
    ("--help", "python -c pass", 7.0),
    ("pretrain temporal --help", "import torch", 0.15),
    ("pretrain temporal --set optim.lrr=1", "import torch", 0.2),
)


LIMITS: dict[str, str] = {}


def rows() -> list[tuple[str, str, float, str]]:
    """What was measured, against what, the ratio of their medians, and the goal."""
    commands = {f"selfsup {line}": [*SELFSUP, *line.split()] for line, _, _ in GOALS} | PEERS
    spent: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(-1, ROUNDS):
        for name, command in commands.items():
            if name == "import torch" and number % 3:
                continue
            seconds = _cpu_seconds(command)
            if number >= 0:  # the first round warms the disk cache
                spent[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in spent.items()}
    return [
        (f"selfsup {line}", peer, medians[f"selfsup {line}"] / medians[peer], f"≤ {goal:g}")
        for line, peer, goal in GOALS
    ]


def _cpu_seconds(command: list[str]) -> float:
    nowhere = subprocess.DEVNULL
    child = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode in (0, 2), command
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    measure.main(rows, LIMITS)
