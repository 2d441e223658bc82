"""Checkpoints: tensors and plain values, written atomically, checked by SHA-256 when read."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import torch

from selfsup_cli.errors import InputError
from selfsup_cli.runs import atomic
from selfsup_cli.runs.seal import opened, parsed, sealed

log = logging.getLogger("selfsup")

STATE = "state.pt"
MANIFEST = "manifest.json"
SCHEMA = "selfsup.checkpoint/1"


def read_tensors(path: Path) -> Any:
    """Read what `torch.save` wrote, refusing anything but tensors and plain values.

    Raises InputError for a file that is damaged, foreign or holds pickled code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=False)  # noqa: TID251
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint", kind="checkpoint") from None
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path}: not a checkpoint of tensors and plain values ({first[:160]})",
            kind="checkpoint",
        ) from error


def save_tensors(path: Path, value: Any) -> str:
    """Write tensors and plain values atomically; returns the SHA-256 of the file."""
    with atomic.writing(path) as file:
        torch.save(value, cast(IO[bytes], file))
    return file.sha256


def snapshot(value: Any) -> Any:
    """A copy of tensors and plain values, on the CPU, that later updates leave as it is."""
    threads = torch.get_num_threads()
    # One thread copies at the speed of the memory; several wait for each other at every tensor
    # while loader processes keep the cores busy, which was measured to take up to twenty times.
    torch.set_num_threads(1)
    try:
        return _copy(value)
    finally:
        torch.set_num_threads(threads)


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_copy, value))
    return value


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run: `folder/step-00000120/{state.pt, manifest.json}`."""

    folder: Path
    keep: int = 2

    def path(self, step: int) -> Path:
        """Where the checkpoint of `step` lies."""
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps of complete checkpoints, oldest first."""
        found = []
        for path in self.folder.glob("step-*"):
            number = path.name.removeprefix("step-")
            if number.isdigit() and (path / MANIFEST).is_file():
                found.append(int(number))
        return sorted(found)

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write `state`; the checkpoint exists once its manifest does. Older ones are pruned.

        Raises MachineError when the disk is full; earlier checkpoints are then untouched.
        """
        target = self.path(step)
        half = self.folder / f".tmp-{target.name}"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        try:
            digest = save_tensors(half / STATE, state)
            size = (half / STATE).stat().st_size
            files = {STATE: {"bytes": size, "sha256": digest}}
            record = {"schema": SCHEMA, "step": step, "files": files}
            atomic.write_json(half / MANIFEST, sealed(record))
            shutil.rmtree(target, ignore_errors=True)
            half.rename(target)
            atomic.sync_folder(self.folder)
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            raise
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.path(old), ignore_errors=True)
        return target

    def sweep(self) -> None:
        """Remove what a killed attempt left half written."""
        for path in self.folder.glob(".tmp-*"):
            shutil.rmtree(path, ignore_errors=True)

    def latest(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole; damaged ones are named and passed over.

        Raises InputError when there are checkpoints but none is whole.
        """
        steps = self.steps()
        for step in reversed(steps):
            problem = self.problem(step)
            if problem is None:
                state: dict[str, Any] = read_tensors(self.path(step) / STATE)
                return state
            log.warning(
                "checkpoint %s is damaged (%s); going back to the one before", step, problem
            )
        if steps:
            raise InputError(
                f"{self.folder}: all {len(steps)} checkpoints are damaged; start a new run",
                kind="checkpoint",
            )
        return None

    def discard_after(self, step: int) -> None:
        """Remove the checkpoints after `step`, which were passed over.

        Left in place they would count among those that are kept, and a good one go instead.
        """
        for later in self.steps():
            if later > step:
                shutil.rmtree(self.path(later), ignore_errors=True)

    def problem(self, step: int) -> str | None:
        """What is wrong with the checkpoint of `step`, or None."""
        try:
            record = opened(parsed((self.path(step) / MANIFEST).read_bytes()))
            if (record["schema"], record["step"]) != (SCHEMA, step):
                return "its manifest is that of something else"
            for name, entry in record["files"].items():
                file = self.path(step) / os.path.basename(name)  # noqa: PTH119
                if file.stat().st_size != entry["bytes"]:
                    return f"{name} has another size than its manifest says"
                if atomic.file_sha256(file) != entry["sha256"]:
                    return f"{name} does not match its checksum"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"its manifest cannot be read: {error or type(error).__name__}"
        return None


@dataclass
class Saver:
    """Writes checkpoints behind the back of the training, at most one at a time.

    Use as a context manager: leaving it waits for the one that is under way.
    """

    checkpoints: Checkpoints
    _thread: threading.Thread | None = None
    _error: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.wait()
            return
        try:
            self.wait()
        except Exception as second:  # what ended the training is what the user has to know
            log.warning("the last checkpoint could not be written: %s", second)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Take a snapshot of `state` and start writing it, unless `step` is there already.

        Raises what the writing of the checkpoint before raised.
        """
        self.wait()
        if step in self.checkpoints.steps():
            return
        copy = snapshot(state)
        self._thread = threading.Thread(target=self._write, args=(step, copy), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait for the checkpoint under way; raises what `Checkpoints.save` raised there."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error:
            raise self._error.pop()

    def _write(self, step: int, state: dict[str, Any]) -> None:
        try:
            self.checkpoints.save(step, state)
        except BaseException as error:
            self._error.append(error)
