"""A prepared store of views: crops, masks, poses and motion, made once and read at any frame.

A store lies in `$SELFSUP_CACHE/views/NAME-KEY/`, where the key is the SHA-256 of everything that
decides its content. Each camera of each recording is a series of immutable files of some hundred
frames (see `multiview_shard`), each written whole and noted, with its checksum, in a list of that
camera (`R-C.json`); `index.json`, written last, says that all are there. So whoever is killed while
a store is made goes on behind the last whole file.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from selfsup_cli.data import processes
from selfsup_cli.data.index import cache_root
from selfsup_cli.data.multiview_plan import SCHEMA, Plan
from selfsup_cli.data.multiview_shard import Coding, Piece, built, tables_check
from selfsup_cli.data.stored_views import StoredViews, view_name
from selfsup_cli.errors import BadMediaError, MachineError
from selfsup_cli.runs import atomic
from selfsup_cli.runs.seal import opened, parsed, sealed

log = logging.getLogger("selfsup")

_SHARD_BYTES = 16 << 20

Progress = Callable[[int, int], None]


class Maker(Protocol):
    """What fills a store. It travels to processes, each of which makes whole cameras."""

    def scene(self, recording: int, camera: int) -> NDArray[np.uint8] | None:
        """The empty scene as a whole picture, uint8 `[3,H,W]`; None where it is not known."""
        ...

    def pieces(self, recording: int, camera: int, start: int) -> Iterator[Piece]:
        """All frames from `start` on, in order, a few hundred at a time at most.

        Raises `BadMediaError` if they cannot be read.
        """
        ...


def prepare(
    plan: Plan,
    maker: Maker,
    *,
    cache: Path | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> StoredViews:
    """Open the store of `plan` under `cache` (by default the cache folder), made by `maker` first
    where it, or a part of it, is missing or damaged.

    `workers` processes make it (0: this one). `progress(done, total)` counts cameras. A camera that
    cannot be read is left out, and so is a recording without any. Raises InputError if nothing is
    left, MachineError for a folder that cannot be written.
    """
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in plan.name)[:40]
    folder = (cache_root() if cache is None else cache) / "views" / f"{name}-{plan.key[:24]}"
    found = _index(folder, plan)
    if found is None:
        with _locked(folder):
            found = _index(folder, plan) or _made(folder, plan, maker, workers, progress)
    return StoredViews(folder, plan, found)


# -- making


def _made(
    folder: Path, plan: Plan, maker: Maker, workers: int, progress: Progress | None
) -> dict[str, Any]:
    """Make what is missing, and publish the whole."""
    atomic.sweep(folder)
    tasks = [
        (number, camera)
        for number, recording in enumerate(plan.recordings)
        for camera in range(len(recording.cameras))
    ]
    if progress is not None:
        progress(0, len(tasks))
    views: dict[str, Any] = {}
    work = partial(_make_view, folder, plan, maker)
    done = processes.each(work, _died, iter(tasks), len(tasks), workers, batch=1)
    for count, (task, view) in enumerate(zip(tasks, done, strict=True), 1):
        views[view_name(*task)] = view
        if progress is not None:
            progress(count, len(tasks))
    index = {"schema": SCHEMA, "key": plan.key, "views": views}
    atomic.write_json(folder / "index.json", sealed(index))
    return index


def _died(task: tuple[int, int]) -> dict[str, Any]:
    return {"bad": processes.CRASHED}


def _make_view(folder: Path, plan: Plan, maker: Maker, task: tuple[int, int]) -> dict[str, Any]:
    """Make what is missing of one camera of a recording; gives its entry of the index."""
    recording, camera = task
    name = view_name(*task)
    length = plan.recordings[recording].frames
    view = _sound_part(folder, plan, name)
    if view is not None and _reached(view) == length:
        return view
    try:
        if view is None:
            view = {"key": plan.key, "scene": _write_scene(folder, name, maker, task), "shards": []}
        for pieces in _batches(maker.pieces(recording, camera, _reached(view)), plan):
            start = _reached(view)
            stop = start + sum(len(piece.crops) for piece in pieces)
            file = f"{name}-{start:07d}.h5"
            data = built(pieces, Coding(plan.side, plan.quality))
            digest = atomic.write_bytes(folder / file, data)
            view["shards"].append(
                {
                    "file": file,
                    "stop": stop,
                    "bytes": len(data),
                    "sha256": digest,
                    "tables": tables_check(folder / file),
                }
            )
            atomic.write_json(folder / f"{name}.json", sealed(view))
    except BadMediaError as error:
        return {"bad": error.reason}
    if _reached(view) != length:
        return {"bad": f"it has {_reached(view)} frames instead of {length}"}
    return view


def _reached(view: Mapping[str, Any]) -> int:
    """How many frames of a camera have been made."""
    return int(view["shards"][-1]["stop"]) if view["shards"] else 0


def _write_scene(
    folder: Path, name: str, maker: Maker, task: tuple[int, int]
) -> dict[str, Any] | None:
    scene = maker.scene(*task)
    if scene is None:
        return None
    file = f"{name}-scene.rgb"
    buffer = scene.astype(np.uint8).tobytes()
    digest = atomic.write_bytes(folder / file, buffer)
    return {"file": file, "shape": list(scene.shape), "bytes": len(buffer), "sha256": digest}


def _batches(pieces: Iterator[Piece], plan: Plan) -> Iterator[list[Piece]]:
    """Pieces in bundles of about as many frames as a file is to hold."""
    # A JPEG of a crop takes about a tenth of its pixels.
    each = 3 * plan.side * plan.side // (1 if plan.quality is None else 10)
    most = max(16, _SHARD_BYTES // each)
    bundle: list[Piece] = []
    for piece in pieces:
        bundle.append(piece)
        if sum(len(one.crops) for one in bundle) >= most:
            yield bundle
            bundle = []
    if bundle:
        yield bundle


def _sound_part(folder: Path, plan: Plan, name: str) -> dict[str, Any] | None:
    """What a killed job has left of a camera, as far as it is as it was written."""
    try:
        view = opened(parsed((folder / f"{name}.json").read_bytes()))
        if view["key"] != plan.key or (view["scene"] and not _as_written(folder, view["scene"])):
            return None
        shards = view["shards"]
        sound = next((n for n, one in enumerate(shards) if not _as_written(folder, one)), None)
        return {**view, "shards": shards if sound is None else shards[:sound]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _as_written(folder: Path, entry: Mapping[str, Any]) -> bool:
    path = folder / Path(entry["file"]).name
    return (
        path.is_file()
        and path.stat().st_size == entry["bytes"]
        and atomic.file_sha256(path) == entry["sha256"]
    )


def _index(folder: Path, plan: Plan) -> dict[str, Any] | None:
    """The index of a whole store, if there is one."""
    path = folder / "index.json"
    try:
        index = opened(parsed(path.read_bytes()))
        if (index["schema"], index["key"]) != (SCHEMA, plan.key):
            return None
        for view in index["views"].values():
            for entry in (*view.get("shards", ()), *filter(None, [view.get("scene")])):
                if (folder / Path(entry["file"]).name).stat().st_size != entry["bytes"]:
                    return None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("the prepared views %s have no readable index (%s); made again", folder, error)
        return None
    return index


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the store against other jobs that would make it too."""
    name = folder / "lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise MachineError(
            f"cannot write the prepared views {folder}: {error.strerror}",
            kind="cache",
            hint="set SELFSUP_CACHE to a folder on a local disk with free space",
        ) from error
    try:
        said = False
        while True:
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                # Where the file system has no locks, two jobs only do double work.
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    break
            if not said:
                log.info("another job prepares the same views; waiting for it")
                said = True
            time.sleep(0.5)
        yield
    finally:
        os.close(fd)
