"""What the user means by synchronised views: a folder, an HDF5 file, Human3.6M, MPI-INF-3DHP."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from selfsup_cli.config.registry import DATASETS, datasets
from selfsup_cli.data.listing import SUFFIXES
from selfsup_cli.data.multiview_plan import Plan
from selfsup_cli.data.multiview_raw import RawRecording, RecordingMaker
from selfsup_cli.data.multiview_store import prepare
from selfsup_cli.data.stored_views import StoredViews
from selfsup_cli.data.view_fitness import check_projection, in_step, require_cameras
from selfsup_cli.data.view_hdf5 import read_hdf5
from selfsup_cli.data.view_recordings import Recordings, in_folder
from selfsup_cli.data.view_selection import require_known
from selfsup_cli.errors import InputError

if TYPE_CHECKING:
    from selfsup_cli.config.multiview import MultiviewData

log = logging.getLogger("selfsup")

REGISTERED = {name: DATASETS[name].layout for name in datasets("view") if DATASETS[name].layout}
_MANY = 3000  # frames from which processes are worth their start

Told = Callable[[int, int], None]


def open_recordings(
    data: MultiviewData,
    cache: Path | None = None,
    *,
    subjects: Sequence[str] | None = None,
    told: Told | None = None,
    workers: int | None = None,
    least_cameras: int = 2,
) -> StoredViews:
    """The recordings that `data` names, as crops of `data.side` pixels in a prepared store.

    Only those of `subjects`, where given, and only the cameras `data.cameras`. `told(done, total)`
    counts cameras while the store is made, by `workers` processes (default: one for each core where
    there is much to do). Raises InputError for what the user has to mend: nothing to read, fewer
    than `least_cameras` cameras of everything, cameras of different rates or cut short, joints in
    another unit or order, a calibration that does not fit.
    """
    found = find_recordings(data.source or "", data.root)
    for note in found.notes:
        log.warning("%s: %s", found.name, note)
    for name, reason in found.left_out:
        log.warning("%s is left out: %s", name, reason)
    total = sum(len(one.views) for one in found.recordings) + len(found.left_out)
    _check_share(found.name, found.left_out, total, data.max_bad)
    chosen = [one for one in found.recordings if subjects is None or one.subject in subjects]
    if not chosen:
        known = ", ".join(dict.fromkeys(one.subject for one in found.recordings))
        raise InputError(
            f"{found.name} has none of the subjects {', '.join(subjects or ())}; it has {known}",
            kind="unknown-subject",
        )
    require_known([view.camera.name for one in chosen for view in one.views], data.cameras)
    chosen = [_with_cameras(one, data.cameras) for one in chosen]
    chosen = require_cameras(found, chosen, least_cameras)
    aligned = tuple(in_step(one) for one in chosen)
    for recording in aligned:
        for view in recording.views:
            check_projection(recording, view)
    views = _prepared(found.name, aligned, data.side, cache, workers, told)
    total = sum(len(one.views) for one in aligned)
    _check_share(found.name, views.left_out, total, data.max_bad)
    return _with_enough(views, least_cameras)


def open_each_camera(
    found: Recordings,
    recordings: Sequence[RawRecording],
    side: int,
    cache: Path | None = None,
    *,
    told: Told | None = None,
) -> StoredViews:
    """Each camera of `recordings` as a recording of its own, `SUBJECT/SEQUENCE/CAMERA`.

    For cameras that are not in step: they may differ in length and rate.
    """
    apart = tuple(
        replace(one, sequence=f"{one.sequence}/{view.camera.name}", views=(view,))
        for one in recordings
        for view in one.views
    )
    return _prepared(found.name, apart, side, cache, None, told)


def _prepared(
    name: str,
    recordings: tuple[RawRecording, ...],
    side: int,
    cache: Path | None,
    workers: int | None,
    told: Told | None,
) -> StoredViews:
    plan = Plan(
        name,
        {"recordings": [one.digest() for one in recordings], "made": RecordingMaker.VERSION},
        tuple(one.recording() for one in recordings),
        side,
    )
    total = sum(one.frames * len(one.views) for one in recordings)
    if workers is None:
        workers = _cores() if total >= _MANY else 0
    maker = RecordingMaker(recordings, side, cache)
    return prepare(plan, maker, cache=cache, workers=workers, progress=told)


def _with_cameras(recording: RawRecording, names: Sequence[str]) -> RawRecording:
    if not names:
        return recording
    views = tuple(view for view in recording.views if view.camera.name in names)
    return replace(recording, views=views)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return cores if cores > 1 else 0


def _check_share(name: str, left_out: Sequence[tuple[str, str]], total: int, most: float) -> None:
    """Raise `InputError` where more of `total` cameras cannot be read than one, or the share
    `most`."""
    if left_out and len(left_out) > max(1.0, most * total):
        camera, reason = left_out[0]
        raise InputError(
            f"{len(left_out)} of {total} cameras of {name} cannot be read, as {camera}: {reason}; "
            "mend them, or allow more with --max-bad",
            kind="bad-media",
        )


def _with_enough(views: StoredViews, least: int) -> StoredViews:
    """The recordings of which enough cameras could be read. Raises `InputError` without any."""
    enough = [n for n, one in enumerate(views.recordings) if len(one.cameras) >= least]
    if len(enough) == len(views.recordings):
        return views
    if not enough:
        camera, reason = views.left_out[0]
        raise InputError(
            f"no recording of {views.name} has {least} cameras that can be read, as {camera}: "
            f"{reason}",
            kind="one-camera",
        )
    for one in views.recordings:
        if len(one.cameras) < least:
            log.warning("%s is left out: only %s can be read", one.id, one.cameras[0].name)
    return views.subset(enough)


# -- finding


def find_recordings(source: str, root: str | None = None) -> Recordings:
    """Find out what `source` means, and everything that belongs to it.

    Raises `InputError` where there is nothing, or something cannot be meant.
    """
    if source in REGISTERED:
        path = _registered(source, root)
    else:
        path = Path(os.path.abspath(Path(source).expanduser()))  # noqa: PTH100 (keeps links)
    if path.is_file() and path.suffix.lower() in (".h5", ".hdf5"):
        return Recordings(path.stem, path, read_hdf5(path))
    if not path.is_dir():
        raise InputError(
            f"there is no folder or HDF5 file of recordings {path}; --data takes figures, "
            f"{', '.join(REGISTERED)}, or your own",
            kind="missing-folder",
        )
    name = source if source in REGISTERED else path.name
    return in_folder(name, path)


def is_multiview(source: str) -> bool:
    """Whether `source` is, by its names, a folder or file of recordings by several cameras.

    A registered dataset of them; an HDF5 file that is laid out so; a folder with a calibration, or
    in which some folder holds several cameras that are called so (cam1, camera_02, view3, or the
    numbers of Human3.6M).
    """
    if source in REGISTERED:
        return True
    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() in (".h5", ".hdf5"):
        try:
            return bool(read_hdf5(path))
        except InputError:
            return False
    if not path.is_dir():
        return False
    for _, folders, files in os.walk(path):
        named = [*folders, *(Path(name).stem for name in files if name.lower().endswith(SUFFIXES))]
        if sum(bool(_CAMERA.match(name)) for name in named) > 1:
            return True
        if any(_HUMAN36M.match(name) for name in named):
            return True
        if any(name in files for name in ("calibration.json", "camera.calibration")):
            return True
        if any(name.endswith(".qca.txt") for name in files):
            return True
    return False


_CAMERA = re.compile(r"^(cam(era)?|view)[ _-]?\d+$|^\d{8}$", re.IGNORECASE)
_HUMAN36M = re.compile(r"^.+\.(54138969|55011271|58860488|60457274)$")


def _registered(name: str, root: str | None) -> Path:
    base = os.environ.get("SELFSUP_DATA")
    place = root or (str(Path(base) / name) if base else name)
    path = Path(os.path.abspath(Path(place).expanduser()))  # noqa: PTH100 (keeps links)
    if not path.is_dir():
        said = "" if root or base else " ($SELFSUP_DATA, where datasets lie, is not set)"
        raise InputError(
            f"the dataset {name} is looked for in {path}, which is no folder{said}; expected in "
            f"it: {REGISTERED[name]}",
            kind="missing-data",
        )
    return path
