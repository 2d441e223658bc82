"""Every benchmark, one table: `python benchmarks/run.py [--write] [NAME …]`.

Each runs in a process of its own, so that what one does to allocator and threads is nothing to the
next. `--write` puts the table into `RESULTS.md`.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import measure

HERE = Path(__file__).parent
NAMES = (
    "decoding", "exact_frames", "loading", "packs", "search", "steps", "saving", "resuming",
    "startup", "transferring", "images", "warping", "image_steps", "activations", "artifact_steps",
    "gan_steps", "segmenting", "generating", "detecting", "posing", "view_pairs",
    "backgrounds", "bilevel_steps",
)  # fmt: skip
HEAD = ("what", "against", "figure", "goal", "met")


def main() -> int:
    """Run what was asked for; the exit status is 1 if a benchmark itself failed."""
    asked = [argument for argument in sys.argv[1:] if not argument.startswith("-")] or NAMES
    rows: list[measure.Row] = []
    limits: dict[str, str] = {}
    failed = []
    began = time.monotonic()
    for name in asked:
        print(f"{name} …", file=sys.stderr, flush=True)
        command = [sys.executable, str(HERE / f"{name}.py"), "--json"]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            failed.append(name)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        rows += [tuple(row) for row in found["rows"]]
        limits |= found["limits"]
    minutes = (time.monotonic() - began) / 60
    cells = [(n, a, measure.shown(f), g, measure.verdict(f, g)) for n, a, f, g in rows]
    widths = [max(map(len, column)) for column in zip(HEAD, *cells, strict=True)]
    for line in (HEAD, *cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    reasons = {
        f"{name}, {against}": reason
        for name, against, figure, goal in rows
        if measure.met(figure, goal) is False and (reason := measure.limit(limits, name, against))
    }
    for name, reason in reasons.items():
        print(f"{name}: {reason}")
    print(f"{minutes:.1f} min")
    if "--write" in sys.argv:
        (HERE / "RESULTS.md").write_text(_document(cells, reasons, minutes, failed))
    for name in failed:
        print(f"benchmarks/{name}.py failed", file=sys.stderr)
    return 1 if failed else 0


def _document(
    cells: list[tuple[str, ...]], reasons: dict[str, str], minutes: float, failed: list[str]
) -> str:
    lines = [
        "# What the benchmarks gave",
        "",
        "Ratios of medians of rounds taken in turn; a ratio of speeds where the goal is ≥, of "
        "times where it is ≤. `–`: the peer is not installed, or there is no goal.",
        "",
        f"{datetime.date.today()}, {len(os.sched_getaffinity(0))} cores {platform.machine()}, "
        f"no GPU, Python {platform.python_version()}, torch {version('torch')}, PyAV "
        f"{version('av')}; `python benchmarks/run.py --write`, {minutes:.0f} min at a load of "
        f"{os.getloadavg()[2]:.1f}.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *("| " + " | ".join(line) + " |" for line in cells),
    ]
    if reasons:
        lines += ["", "What limits the goals that are missed:", ""]
        lines += [f"- {name}: {reason}" for name, reason in reasons.items()]
    lines += [f"\n{name}.py failed." for name in failed]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
