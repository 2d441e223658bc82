"""Runs commands that are struck by faults, and compares what is left.

`FAULT_KILLS` says how often each place is struck (default 3). `FAULT_SEED` seeds where; the seed is
part of every failure's message. By hand, for an hour:

    FAULT_KILLS=100 FAULT_SEED=1 python -m pytest tests/faults -n 2 --timeout 7200
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILLS = int(os.environ.get("FAULT_KILLS", "3"))
SEED = int(os.environ.get("FAULT_SEED", "0"))

Fault = dict[str, Any]

STEP = "selfsup_cli.methods.temporal:Temporal.step"
SAVE = "selfsup_cli.engine.checkpoints:Checkpoints.save"
EXTRACT = "selfsup_cli.evaluation.cache:FeatureCache.write"
CONCLUDE = "selfsup_cli.jobs.pretrain:_conclude"
BEGIN = "selfsup_cli.runs.folder:Run._begin"
# What reaches the disk: each of these calls is a place where a process may die.
NAMES = ["os:fsync", "os:replace", "os:rename", "os:unlink", "os:mkdir", "os:ftruncate"]
DISK = ["os:write", "os:pwrite", *NAMES]
# What a step consists of: reading videos, the passes of the network, the update, the metrics.
INSIDE = [
    "selfsup_cli.data.motion:MotionSource.read",
    "torch.nn.functional:conv3d",
    "torch.nn.functional:batch_norm",
    "torch.nn.functional:linear",
    "torch:Tensor.backward",
    "torch.optim:AdamW.step",
    "selfsup_cli.runs.metrics:JsonLines.append",
]

# Where a pretraining is killed: which events, and inside of what.
PLACES: dict[str, tuple[list[str], str | None]] = {
    "training": ([STEP, *INSIDE], None),
    "beginning": (DISK, BEGIN),
    "the content of a checkpoint": (["os:write"], SAVE),
    "the names of a checkpoint": (NAMES, SAVE),
    "reporting": (DISK, CONCLUDE),
    "any write": (["os:write", "os:pwrite"], None),
    "any opening": (["os:open"], None),
}

SETTINGS = (
    "data.motion.videos=12",
    "data.motion.test_videos=8",
    "data.motion.side=16",
    "network.width=0.125",
    "augment.resize=[16, 16]",
    "augment.crop=16",
    "train.seed=0",
    "train.epochs=2",
    "train.max_steps=6",
    "train.batch_size=3",
    "train.checkpoint_steps=1",
    "monitor.every_epochs=0",
    "monitor.videos=4",
    "monitor.draws=1",
    "monitor.knn_videos=0",
)
STEPS = 6
PROBE = (
    "data.motion.videos=12",
    "data.motion.test_videos=8",
    "data.motion.side=16",
    "clips.train=1",
    "clips.test=1",
    "probe.layers=[conv3, conv5]",
    "probe.epochs=1",
    "probe.batch_size=4",
)


@dataclass
class Ended:
    """How a command ended: its exit status (or minus the signal), what it said, its counts."""

    status: int
    said: str
    counts: list[int]

    def errors(self) -> list[str]:
        """The lines that say what went wrong."""
        return [line for line in self.said.splitlines() if line.startswith("selfsup: error:")]


class Server:
    """The process from which commands are forked."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the forking process has died"
        return line

    def __call__(
        self,
        arguments: Sequence[str],
        runs: Path,
        *faults: Fault,
        broken: Sequence[str] = (),
        largest_file: int | None = None,
        plain: bool = True,
    ) -> Ended:
        """Run a command on the runs and the cache in `runs`; with `plain` no curve is drawn."""
        streams = self.scratch / "streams.txt"
        counts = self.scratch / "streams.txt.counts"
        counts.unlink(missing_ok=True)
        environment = {
            "SELFSUP_RUNS": str(runs),
            "SELFSUP_CACHE": str(runs / ".cache"),
            "XDG_STATE_HOME": str(runs / ".state"),
        }
        request = {
            "arguments": list(arguments),
            "environment": environment,
            "streams": str(streams),
            "faults": list(faults),
            "broken": list(broken),
            "largest_file": largest_file,
            "plain": plain,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        status = int(self._answer())
        said = streams.read_text(errors="replace")
        found = json.loads(counts.read_text()) if counts.exists() else []
        return Ended(status, said, found)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def pretrain(name: str, *more: str, workers: int = 0) -> list[str]:
    """The command line of the small pretraining."""
    return [
        "pretrain", "temporal", "--preset", "temporal/c3d", "--data", "motion", "--run", name,
        "--workers", str(workers), *_sets((*SETTINGS, *more)),
    ]  # fmt: skip


def probe(name: str, start: str, *more: str) -> list[str]:
    """The command line of the small probing of run `start`."""
    return [
        "probe", "--preset", "temporal-motion", "--data", "motion", "--from", start,
        "--run", name, "--workers", "0", *_sets((*PROBE, *more)),
    ]  # fmt: skip


def pack(clips: Path, out: Path, seed: int = 0) -> list[str]:
    """The command line that packs small clips; each `seed` in another quality."""
    size = ["--size", "16x16", "--quality", str(90 - seed)]
    return ["data", "pack", str(clips), str(out), *size, "--workers", "0"]


def _sets(settings: Sequence[str]) -> list[str]:
    last = {setting.partition("=")[0]: setting for setting in settings}
    return [part for setting in last.values() for part in ("--set", setting)]


def counting(events: Sequence[str], within: str | None = None) -> Fault:
    """Counts, and does nothing."""
    return {"events": list(events), "do": "count", "within": within}


def striking(events: Sequence[str], nth: int, do: str, within: str | None = None) -> Fault:
    """Does something at the `nth` of these events."""
    return {"events": list(events), "do": do, "nth": nth, "within": within}


@dataclass(frozen=True)
class Kill:
    """Die at the `nth` event of the job of that `seed` (0, 1, …).

    Before the event, or in the middle of it if it writes; with `do` kill-after, after it.
    """

    seed: int
    nth: int
    do: str

    def __str__(self) -> str:
        return f"{self.do} at event {self.nth} of the job with seed {self.seed}"


def kills(total: int, what: str, most: int = KILLS) -> Iterator[Kill]:
    """`KILLS` different ones at `total` events: of one job, and where that has fewer, of others."""
    assert total > 0, f"{what}: nothing there to strike"
    wanted = min(KILLS, most)
    draw = random.Random(f"{SEED} {what}")
    chosen = [Kill(0, total, "kill"), Kill(0, 1, "kill")]
    seed = 0
    while len(chosen) < wanted:
        more = [Kill(seed, n, do) for n in range(1, total + 1) for do in ("kill", "kill-after")]
        draw.shuffle(more)
        chosen += [kill for kill in more if kill not in chosen]
        seed += 1
    yield from sorted(chosen[:wanted], key=lambda kill: (kill.seed, kill.nth, kill.do))


def places(total: int, what: str, most: int | None = None) -> Iterator[int]:
    """Which of `total` events are struck: the first, the last, and others drawn by the seed."""
    assert total > 0, f"{what}: nothing there to strike"
    wanted = min(KILLS if most is None else most, total)
    drawn = random.Random(f"{SEED} {what}").sample(range(1, total + 1), total)
    chosen = [*dict.fromkeys([total, 1, *drawn])][:wanted]
    yield from sorted(chosen)


CONTENT = ("metrics.jsonl", "backbone.safetensors", "pictures/curves.png", "pictures/pretext.png")
_CHANGING = {"created", "cost", "run", "command"}


def content(run: Path) -> dict[str, Any]:
    """What must be the same in two runs that are the same: results, not times and process ids."""
    out: dict[str, Any] = {
        name: (run / name).read_bytes() for name in CONTENT if (run / name).exists()
    }
    if (run / "report.json").exists():
        report = json.loads((run / "report.json").read_text())
        out["report"] = {key: value for key, value in report.items() if key not in _CHANGING}
    return out


def shards(runs: Path) -> dict[str, bytes]:
    """All feature shards under the cache of `runs`."""
    folder = runs / ".cache" / "features"
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("shard-*.h5"))}


def temporaries(folder: Path) -> list[Path]:
    """Half written files and folders."""
    return [p for p in folder.rglob(".*") if p.name.endswith(".tmp") or p.name.startswith(".tmp-")]


def flip(path: Path, where: float) -> None:
    """Flip one bit at a share 0 … 1 of the file."""
    data = bytearray(path.read_bytes())
    bit = min(int(where * 8 * len(data)), 8 * len(data) - 1)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
