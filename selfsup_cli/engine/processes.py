"""Several processes: PyTorch's elastic launcher starts them, DistributedDataParallel joins them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from selfsup_cli import errors
from selfsup_cli.errors import SelfsupError

T = TypeVar("T")

_ERRORS = "_SELFSUP_RANK_ERRORS"


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


def launch(count: int, target: Callable[..., None], *arguments: Any) -> None:
    """Run `target(*arguments)` in `count` processes; raises what the first failing rank raised."""
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
    )
    with tempfile.TemporaryDirectory(prefix="selfsup-") as folder:
        os.environ[_ERRORS] = folder
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        try:
            elastic_launch(config, _child)(target, arguments)
        except ChildFailedError as failure:
            found = sorted(Path(folder).glob("rank-*.json"))
            if found:
                raise _rebuild(json.loads(found[0].read_text())) from None
            number, first = failure.get_first_failure()
            raise errors.MachineError(
                f"process {number} of {count} ended unexpectedly (exit status {first.exitcode})",
                kind="process",
                hint="look at the run's log.txt; a killed process most likely ran out of memory",
            ) from failure
        finally:
            os.environ.pop(_ERRORS, None)


def _child(target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    try:
        target(*arguments)
    except SelfsupError as error:
        folder = os.environ.get(_ERRORS)
        if folder:
            path = Path(folder) / f"rank-{rank():04d}.json"
            path.write_text(json.dumps(_describe(error)))
        raise SystemExit(error.exit_status) from None


def _describe(error: SelfsupError) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "message": str(error),
        "kind": error.kind,
        "hint": error.hint,
        "exit_status": error.exit_status,
    }


def _rebuild(found: dict[str, Any]) -> SelfsupError:
    kind = getattr(errors, found["type"], SelfsupError)
    if kind is errors.Stopped or not issubclass(kind, SelfsupError):
        return errors.Stopped(found["message"], found["exit_status"])
    error: SelfsupError = kind(found["message"], kind=found["kind"], hint=found["hint"])
    error.exit_status = found["exit_status"]
    return error
