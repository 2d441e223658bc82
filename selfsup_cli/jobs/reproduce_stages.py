"""Running the stages of an experiment, and knowing which are done.

Each stage is a process of the ordinary command line, the very line that `--print-commands` shows.
So what one of them does to itself, running out of memory or crashing, the others never notice;
what is printed is what is run; and this process stays small and never imports torch. It costs each
stage the seconds in which that is imported.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import IO

from selfsup_cli.engine import signals
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.reproduce_plan import Stage
from selfsup_cli.runs.lock import held_by
from selfsup_cli.runs.report import Report
from selfsup_cli.runs.run import Run, runs_dir

Say = Callable[[str], None]

GENERATES = "pretrain/dfgan"
FACTS = "samples.json"
_POLL_S = 0.05
_ERROR = "selfsup: error: "
_KEPT = 20
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Failure:
    """Why a stage has no result: `reason` is one sentence, `status` the exit status it stands for.

    `because` is the stage that failed before it, if it was never begun.
    """

    reason: str
    status: int
    because: str | None = None


@dataclass(frozen=True)
class State:
    """How far a stage is: done, or not, or (with a `problem`) in the way of what is wanted."""

    done: bool
    begun: bool = False
    report: Report | None = None
    problem: str | None = None


def state(stage: Stage, stages: Mapping[str, Stage]) -> State:
    """How far a stage is. Reads its run, and of the runs it starts from their reports."""
    if stage.is_picture:
        return State(stage.path.is_file())
    if stage.is_sample:
        return State(_drawn(stage), begun=stage.path.exists())
    if not (stage.path / "run.json").is_file():
        return State(False, begun=stage.path.exists())
    try:
        run = Run.open(stage.path)
        if not run.complete:
            return State(False, begun=True)
        run.require_identity(stage.identity)
        report = run.report()
    except InputError as error:
        return State(False, begun=True, problem=_to_remove(" ".join(str(error).split()), stage))
    # Of some runs a part is taken (an autoencoder), whose hash is another one.
    whole = [one for one in run.info.parents if "part" not in one]
    used = {str(one.get("run")): one.get("sha256") for one in whole}
    for need in stage.needs:
        now = _weights(stages[need]) if need in stages else set()
        if now and used.get(need) not in {None, *now}:
            said = f"run {stage.run} started from other weights than run {need} has now"
            return State(False, begun=True, problem=_to_remove(said, stage))
    return State(report is not None, begun=True, report=report)


def looks_done(stage: Stage) -> bool:
    """Whether a stage says that it is done, whatever it was made with: a quick look."""
    try:
        if stage.is_sample:
            return _drawn(stage)
        return stage.path.is_file() if stage.is_picture else Run.open(stage.path).complete
    except InputError:
        return False


def run_stages(
    wanted: Iterable[Stage], stages: Mapping[str, Stage], *, jobs: int, say: Say, relay: Say
) -> dict[str, Failure]:
    """Run what is not done yet of `wanted`, `jobs` at a time; gives what failed, by run.

    A stage whose parents failed is not begun. One that somebody else is working on is waited for.
    `say` is told what happens, `relay` what the stages say. Raises Stopped after a signal, when all
    of them have saved.
    """
    with signals.catching() as stop:
        crew = _Crew([*wanted], stages, jobs, say, relay)
        while crew.go_on():
            if stop:
                crew.dismiss(stop.signum)
                raise stop.stopped("all stages that were running")
            time.sleep(_POLL_S)
    return crew.failed


class _Crew:
    """The stages that wait, run, and are through."""

    def __init__(
        self, wanted: list[Stage], stages: Mapping[str, Stage], jobs: int, say: Say, relay: Say
    ) -> None:
        self.waiting = wanted
        self.total = len(wanted)
        self.stages = stages
        self.jobs = jobs
        self.say = say
        self.relay = relay
        self.running: list[_Process] = []
        self.failed: dict[str, Failure] = {}
        self.met: set[str] = set()

    def go_on(self) -> bool:
        """Look after what runs and begin what can; False when there is nothing left."""
        for process in [one for one in self.running if one.ended]:
            self.running.remove(process)
            self._conclude(process)
        for stage in [*self.waiting]:
            if len(self.running) < self.jobs:
                self._consider(stage)
        return bool(self.waiting or self.running)

    def dismiss(self, signum: int) -> None:
        """Ask all that run to save and leave, and wait until they have."""
        for process in self.running:
            process.signal(signum)
        for process in self.running:
            process.wait()

    def _consider(self, stage: Stage) -> None:
        pending = {one.run for one in self.waiting} | {one.stage.run for one in self.running}
        if pending.intersection(stage.needs):
            return
        broken = next((need for need in stage.needs if need in self.failed), None)
        if broken is not None:
            reason = f"not begun, because {broken} failed"
            self._through(stage, Failure(reason, self.failed[broken].status, broken))
            return
        if owner := held_by(stage.path / "run.lock"):
            if stage.run not in self.met:
                self.met.add(stage.run)
                self.say(f"{stage.run}: {owner} is working on it; waiting for that")
            return
        found = state(stage, self.stages)
        if found.problem is not None:
            self._through(stage, Failure(found.problem, InputError.exit_status))
        elif found.done:
            self._through(stage, None)
        else:
            self.say(f"[{self._place(stage)}] {stage.command()}")
            self.waiting.remove(stage)
            self.running.append(_Process(stage, self.jobs, self.relay))

    def _through(self, stage: Stage, failure: Failure | None) -> None:
        self.waiting.remove(stage)
        if failure is not None:
            self.failed[stage.run] = failure
            self.say(f"{stage.run}: {failure.reason}")

    def _conclude(self, process: _Process) -> None:
        stage, took = process.stage, process.seconds
        failure = process.failure()
        if failure is None and not (found := state(stage, self.stages)).done:
            failure = Failure(found.problem or "its command ended well, but left no result", 1)
        if failure is not None:
            self.failed[stage.run] = failure
        said = "done" if failure is None else f"failed: {failure.reason}"
        self.say(f"{stage.run}: {said} ({took:.0f} s)")

    def _place(self, stage: Stage) -> str:
        return f"{self.total - len(self.waiting) - len(self.running) + 1}/{self.total}"


class _Process:
    """One stage at work. Its messages are passed on, and the last of them kept."""

    def __init__(self, stage: Stage, jobs: int, relay: Say) -> None:
        self.stage = stage
        self._began = time.monotonic()
        self._last: deque[str] = deque(maxlen=_KEPT)
        self._relay = relay
        runs_dir().mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(  # noqa: S603 (our own command line)
            [sys.executable, "-m", "selfsup_cli", *stage.arguments()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(jobs),
            # Ctrl-C reaches it through us, once; twice would have it leave without saving.
            start_new_session=True,
            preexec_fn=_follow(os.getpid()),  # noqa: PLW1509 (it takes no lock)
        )
        assert self._process.stderr is not None  # noqa: S101 (a pipe, as asked)
        prefix = f"{stage.row}: " if jobs > 1 else ""
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr, prefix))
        self._reader.start()

    @property
    def ended(self) -> bool:
        """Whether it is through."""
        return self._process.poll() is not None

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self._began

    def signal(self, signum: int) -> None:
        """Send it a signal."""
        self._process.send_signal(signum)

    def wait(self) -> None:
        """Wait until it has ended and all it said is read."""
        self._process.wait()
        self._reader.join()

    def failure(self) -> Failure | None:
        """Why it failed; None if it did not."""
        self.wait()
        status = self._process.returncode
        if status == 0:
            return None
        if status < 0:
            name = signal.Signals(-status).name
            guess = " (out of memory?)" if name == "SIGKILL" else ""
            return Failure(f"killed by {name}{guess}", 1)
        told = [line.removeprefix(_ERROR) for line in self._last if line.startswith(_ERROR)]
        said = "; ".join(told) or (self._last[-1] if self._last else f"exit status {status}")
        return Failure(said, status)

    def _read(self, stream: IO[bytes], prefix: str) -> None:
        for raw in stream:
            line = raw.decode(errors="replace").rstrip()
            if line:
                self._last.append(line)
                self._relay(prefix + line)


def _environment(jobs: int) -> dict[str, str]:
    """That of a stage: where several run at once they share the cores."""
    found = dict(os.environ)
    if jobs > 1:
        share = max(1, (os.cpu_count() or 1) // jobs)
        found.setdefault("OMP_NUM_THREADS", str(share))
        found.setdefault("SELFSUP_WORKERS", str(min(8, share - 1)))
    return found


def _follow(parent: int) -> Callable[[], None] | None:
    """What a stage does before anything else: see to it that it is asked to stop if we are killed.

    Only Linux knows such a wish; elsewhere a stage ends its work, and is waited for by the next
    who wants it.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def follow() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:
            os._exit(1)

    return follow


def _weights(stage: Stage) -> set[str]:
    """Hashes of what a run has learned: of the backbone, as its sidecar says, and what its report
    names where there is none or where it is something else, a generator."""
    found: set[str] = set()
    try:
        sidecar = (stage.path / "backbone.safetensors.json").read_bytes()
        found.add(str(json.loads(sidecar)["weights"]["sha256"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if found and stage.job != GENERATES:
        return found
    try:
        report = Run.open(stage.path).report()
    except InputError:
        return found
    return found if report is None or report.weights is None else {*found, report.weights}


def _drawn(stage: Stage) -> bool:
    """Whether a folder of samples holds all that was asked for."""
    try:
        facts = json.loads((stage.path / FACTS).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and bool(facts.get("complete"))


def _to_remove(said: str, stage: Stage) -> str:
    return f"{said}; remove {stage.path} to make it again"
