"""Several processes: PyTorch's elastic launcher starts them, DistributedDataParallel joins them."""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from selfsup_cli import errors
from selfsup_cli.engine import signals
from selfsup_cli.errors import MachineError, SelfsupError

T = TypeVar("T")

_ERRORS = "_SELFSUP_RANK_ERRORS"
_PEER = "peer"
# What gloo and NCCL say when the process at the other end is gone.
_LOST = ("connection closed", "connection reset", "broken pipe", "gloo", "nccl", "timed out")
_PATIENCE_S = 2.0


def launched() -> bool:
    """Whether a launcher (torchrun, or `launch` below) started this process as one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """This process' rank; 0 when it is alone."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes share the work."""
    return int(os.environ.get("WORLD_SIZE", "1")) if launched() else 1


@contextmanager
def group(device: str) -> Iterator[None]:
    """Join the process group for the length of a job; does nothing for a single process."""
    if not launched() or dist.is_initialized():
        yield
        return
    cuda = device != "cpu" and torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=30))
    try:
        yield
    finally:
        dist.destroy_process_group()


def member() -> int:
    """This process' number in the group it has joined; 0 outside of any."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def members() -> int:
    """How many processes are in the group; 1 outside of any."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def wait_for_all() -> None:
    """Return once every process of the group is here."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def first_rank_decides(decide: Callable[[], T]) -> T:
    """Rank 0 runs `decide`, every rank gets its (picklable) result.

    An error of rank 0 is raised on all of them, so that none waits for ever.
    """
    if not dist.is_initialized():
        return decide()
    box: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            box[0] = decide()
        except SelfsupError as error:
            box[1] = _describe(error)
    dist.broadcast_object_list(box)
    if box[1] is not None:
        raise _rebuild(box[1])
    return box[0]  # type: ignore[no-any-return]


def lost_peer(error: BaseException) -> SelfsupError | None:
    """What to tell the user if `error` is PyTorch's news of a dead process of this group.

    That is what the dead process itself had to say, where it could still say it.
    """
    if not (launched() and isinstance(error, RuntimeError)):
        return None
    if not any(word in str(error).lower() for word in _LOST):
        return None
    until = time.monotonic() + _PATIENCE_S
    while folder := os.environ.get(_ERRORS):
        found = _told(Path(folder))
        if found or time.monotonic() > until:
            break
        time.sleep(0.05)
    else:
        found = []
    if found:
        return _rebuild(found[0])
    return MachineError(
        "another process of this job has ended, and this one cannot go on alone",
        kind=_PEER,
        hint="what the other one said stands above; a killed process most likely ran out of memory",
    )


@contextmanager
def mourning() -> Iterator[None]:
    """Raise `lost_peer` instead of PyTorch's error where another process has ended."""
    try:
        yield
    except RuntimeError as error:
        if (cause := lost_peer(error)) is None:
            raise
        raise cause from error


def launch(count: int, target: Callable[..., None], *arguments: Any) -> None:
    """Run `target(*arguments)` in `count` processes; raises what the first failing rank raised.

    Signals that stop a job are passed on to the processes, which save and end; then Stopped is
    raised here.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        signals_to_handle="SIGQUIT",  # the others are ours
    )
    # What goes wrong is told below in one sentence.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    with tempfile.TemporaryDirectory(prefix="selfsup-") as name, _passing_on(Path(name)) as asked:
        os.environ[_ERRORS] = name
        try:
            elastic_launch(config, _child)(target, arguments)
        except ChildFailedError as failure:
            if found := _told(Path(name)):
                raise _rebuild(found[0]) from None
            if asked:
                raise signals.StopFlag(asked[0]).stopped("nothing, as it had not begun") from None
            number, first = failure.get_first_failure()
            raise MachineError(
                f"process {number} of {count} was killed or crashed (exit status {first.exitcode})",
                kind="process",
                hint="look at the run's log.txt; a killed process most likely ran out of memory",
            ) from failure
        finally:
            os.environ.pop(_ERRORS, None)


@contextmanager
def _passing_on(folder: Path) -> Iterator[list[int]]:
    """Pass signals on to the processes that have said in `folder` who they are.

    Gives the list of those that came. A process that is still starting finds the last one there.
    """
    asked: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        asked.append(signum)
        (folder / "signal").write_text(str(signum))
        for file in folder.glob("pid-*"):
            with suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signum)

    former = {number: signal.signal(number, handle) for number in signals.STATUS}
    former[signal.SIGQUIT] = signal.getsignal(signal.SIGQUIT)  # PyTorch's launcher takes it
    try:
        yield asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _child(target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """What each process does: it writes down how it failed, for the one that started it."""
    folder = Path(os.environ[_ERRORS])
    # A terminal's Ctrl-C goes to a whole process group; it is for the launcher to pass it on.
    os.setpgid(0, 0)
    with signals.catching() as stop:
        (folder / f"pid-{rank()}").write_text(str(os.getpid()))
        with suppress(OSError, ValueError):
            stop.signum = int((folder / "signal").read_text())
        try:
            target(*arguments)
        except SelfsupError as error:
            _tell(folder, _describe(error))
            raise SystemExit(error.exit_status) from None
        except Exception as error:
            _tell(folder, {"type": "bug", "message": traceback.format_exc()})
            raise SystemExit(1) from error


def _tell(folder: Path, what: dict[str, Any]) -> None:
    part = folder / f".rank-{rank()}"
    part.write_text(json.dumps({**what, "at": time.time()}))
    part.replace(folder / f"rank-{rank():04d}.json")


def _told(folder: Path) -> list[dict[str, Any]]:
    """How processes failed, the first first; those that only lost another one come last."""
    found = [json.loads(path.read_text()) for path in folder.glob("rank-*.json")]
    if all(one.get("kind") == _PEER for one in found):
        return []
    return sorted(found, key=lambda one: (one.get("kind") == _PEER, one["at"]))


def _describe(error: SelfsupError) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "message": str(error),
        "kind": error.kind,
        "hint": error.hint,
        "exit_status": error.exit_status,
    }


def _rebuild(found: dict[str, Any]) -> SelfsupError:
    if found["type"] == "bug":
        raise RuntimeError(f"a process of this job failed:\n{found['message']}")
    if found["type"] == errors.Stopped.__name__:
        return errors.Stopped(found["message"], found["exit_status"])
    kind = _kinds(SelfsupError).get(found["type"], SelfsupError)
    error = kind.__new__(kind)  # some have an __init__ of their own
    SelfsupError.__init__(error, found["message"], kind=found["kind"], hint=found["hint"])
    error.exit_status = found["exit_status"]
    return error


def _kinds(of: type[SelfsupError]) -> dict[str, type[SelfsupError]]:
    """All kinds of errors by name, also those that other modules have derived."""
    out = {of.__name__: of}
    for kind in of.__subclasses__():
        out |= _kinds(kind)
    return out
