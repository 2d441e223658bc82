"""The process from which the fault tests fork: it has imported everything and run nothing.

Reads one JSON request per line and answers each with one. A request runs the command line
`arguments` in a fork, with the `environment` and the `faults` given, until it ends. Faults are
armed in the fork, and strike at the n-th call of something, never at a time.
"""

from __future__ import annotations

import errno
import functools
import importlib
import io
import json
import multiprocessing
import os
import resource
import signal
import stat
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What a job imports on its way; a fork that had to would take seconds.
MODULES = (
    "torch._dynamo",
    "torch.utils.tensorboard",
    "PIL.JpegImagePlugin",
    "selfsup_cli.cli.app",
    "selfsup_cli.cli.document",
    "selfsup_cli.cli.evaluate",
    "selfsup_cli.cli.messages",
    "selfsup_cli.cli.pretrain",
    "selfsup_cli.cli.report",
    "selfsup_cli.cli.work",
    "selfsup_cli.data.motion",
    "selfsup_cli.models.c3d",
    "selfsup_cli.jobs.data",
    "selfsup_cli.jobs.pretrain",
    "selfsup_cli.jobs.probe",
    "selfsup_cli.jobs.retrieve",
    "selfsup_cli.methods.temporal",
    "matplotlib.backends.backend_agg",
    "torch.distributed.elastic.multiprocessing.errors",
)


class Fault:
    """Counts the calls of `events` and does something at the `nth` (0: nothing, only count).

    `within` names a function outside of which nothing is counted. Calls of `os.*` on standard
    streams, pipes and the like are not counted, nor are those of other processes.
    """

    def __init__(self, events: list[str], do: str, nth: int = 0, within: str | None = None) -> None:
        self.do, _, self.argument = do.partition(":")
        self.nth = nth
        self.count = 0
        self.everywhere = within is None
        self.here = threading.local()  # checkpoints are written by a thread of their own
        self.owner = os.getpid()
        if within:
            self._wrap(within, self._gate)
        for event in events:
            self._wrap(event, functools.partial(self._counted, event))

    def _wrap(self, place: str, make: Callable[..., Any]) -> None:
        module, _, path = place.partition(":")
        *owners, name = path.split(".")
        owner: Any = importlib.import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, name, make(getattr(owner, name)))

    def _gate(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def gate(*arguments: Any, **settings: Any) -> Any:
            before = getattr(self.here, "inside", False)
            self.here.inside = True
            try:
                return original(*arguments, **settings)
            finally:
                self.here.inside = before

        return gate

    def _counted(self, event: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def counted(*arguments: Any, **settings: Any) -> Any:
            inside = self.everywhere or getattr(self.here, "inside", False)
            if not inside or os.getpid() != self.owner or _is_stream(event, arguments):
                return original(*arguments, **settings)
            self.count += 1
            if self.nth and (self.count == self.nth or self._lasts()):
                return self._strike(event, original, arguments, settings)
            return original(*arguments, **settings)

        return counted

    def _lasts(self) -> bool:
        return self.do == "errno" and self.count > self.nth

    def _strike(
        self, event: str, original: Callable[..., Any], arguments: Any, settings: Any
    ) -> Any:
        if self.do == "errno":  # from now on, as a full disk stays full
            number = getattr(errno, self.argument)
            raise OSError(number, os.strerror(number))
        if self.do == "kill":
            if event in ("os:write", "os:pwrite"):  # torn: half of it reaches the file
                descriptor, data, *place = arguments
                original(descriptor, bytes(data)[: len(data) // 2], *place)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.do == "signal":
            os.kill(os.getpid(), signal.Signals[self.argument])
        if self.do == "kill-worker":
            worker = multiprocessing.active_children()[0]
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
        if self.do == "kill-after":
            try:
                original(*arguments, **settings)
            finally:  # it may well raise, as unlink does where there is nothing
                os.kill(os.getpid(), signal.SIGKILL)
        out = original(*arguments, **settings)
        if self.do == "nan":
            out["loss"] = out["loss"] * float("nan")
        return out


def _is_stream(event: str, arguments: Any) -> bool:
    if event == "os:open":  # only what is opened to be written counts
        return not arguments[1] & (os.O_WRONLY | os.O_RDWR)
    if not event.startswith("os:") or not arguments or not isinstance(arguments[0], int):
        return False
    return arguments[0] <= 2 or not stat.S_ISREG(os.fstat(arguments[0]).st_mode)


def work(request: dict[str, Any]) -> int:
    """In the fork: arm the faults, run the command, say how often each event was counted."""
    from selfsup_cli.__main__ import main

    os.environ.update(request["environment"])
    streams = os.open(request["streams"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(streams, 1)
    os.dup2(streams, 2)
    if (size := request.get("largest_file")) is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    faults = [Fault(**fault) for fault in request["faults"]]
    if request["plain"]:
        _draw_nothing()
    for place in request.get("broken", ()):
        for defect in DEFECTS[place]:
            defect()
    status = main(request["arguments"])
    Path(request["streams"] + ".counts").write_text(json.dumps([f.count for f in faults]))
    return status


def _draw_nothing() -> None:
    """Curves as they are instead of a picture of them, which takes longer than all the rest."""
    from selfsup_cli.runs import atomic
    from selfsup_cli.visualization import curves

    def draw(path: Path, own: list[Any], **settings: Any) -> None:
        atomic.write_bytes(path, repr(own).encode())

    curves.draw = draw  # type: ignore[assignment]


def _forget_the_position() -> None:
    """A resumption that does not go back to its place in the epoch."""
    from selfsup_cli.engine.fit import Fit

    restore = Fit._restore

    def broken(self: Fit, state: dict[str, Any]) -> None:
        restore(self, state)
        self.at.epoch = self.at.batch = 0

    Fit._restore = broken  # type: ignore[method-assign]


def _forget_the_optimizer() -> None:
    """A resumption without the optimiser's moments."""
    from selfsup_cli.engine.fit import Fit

    restore = Fit._restore

    def broken(self: Fit, state: dict[str, Any]) -> None:
        for name, optimizer in self.update.optimizers.items():
            state["optimizers"][name] = optimizer.state_dict()
        restore(self, state)

    Fit._restore = broken  # type: ignore[method-assign]


def _write_in_place() -> None:
    """Checkpoints that are written where they stay, and believed."""
    from selfsup_cli.runs import atomic

    atomic.temporary = lambda path: path
    atomic._remove_if_idle = lambda part: False


def _pack_in_place() -> None:
    """Packs that have their name before they are whole."""
    from selfsup_cli.data import pack_part

    begin = pack_part.Part.__init__

    def broken(self: pack_part.Part, target: Path, plan: dict[str, Any]) -> None:
        begin(self, target, plan)
        self.path = self.path.rename(target)

    pack_part.Part.__init__ = broken  # type: ignore[method-assign]


def _believe_everything() -> None:
    """Checksums that nobody looks at."""
    from selfsup_cli.engine.checkpoints import Checkpoints
    from selfsup_cli.evaluation.cache import FeatureCache

    Checkpoints.problem = lambda self, step: None  # type: ignore[method-assign]
    whole = FeatureCache._problem

    def broken(self: FeatureCache, shard: int) -> str | None:
        found = whole(self, shard)
        return None if found == "does not match its checksum" else found

    FeatureCache._problem = broken  # type: ignore[method-assign]


DEFECTS: dict[str, tuple[Callable[[], None], ...]] = {
    "position": (_forget_the_position,),
    "optimizer": (_forget_the_optimizer,),
    "in place": (_write_in_place,),
    "pack in place": (_pack_in_place,),
    "believing": (_believe_everything,),
}


def _read_fonts() -> None:
    """Matplotlib reads its fonts when it first draws; each fork would do it again."""
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().set_title("x")
    figure.savefig(io.BytesIO(), format="png")


def main() -> None:
    for module in MODULES:
        importlib.import_module(module)
    _read_fonts()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print("ready", file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 70
            try:
                status = work(request)
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(ended), file=answers)


if __name__ == "__main__":
    main()
