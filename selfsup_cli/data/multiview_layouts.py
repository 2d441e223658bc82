"""What the user means by synchronised views: a folder, an HDF5 file, Human3.6M, MPI-INF-3DHP."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfsup_cli.data import index, view_human36m
from selfsup_cli.data.frame_table import VideoInfo
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.listing import SUFFIXES
from selfsup_cli.data.multiview import Camera
from selfsup_cli.data.multiview_raw import Annotation, RawRecording, RawView, RecordingMaker
from selfsup_cli.data.multiview_store import Plan, StoredViews, prepare
from selfsup_cli.data.pictures import ImagePictures, Pictures, VideoPictures
from selfsup_cli.data.view_annotations import ByName, by_image_name, from_fetch, with_lens
from selfsup_cli.data.view_cameras import calibration_near, fitted, read_calibration
from selfsup_cli.data.view_folders import Found, inventory
from selfsup_cli.data.view_hdf5 import read_hdf5
from selfsup_cli.data.view_joints import FILES, read_joints, swapped_sides
from selfsup_cli.errors import BadMediaError, InputError

if TYPE_CHECKING:
    from selfsup_cli.config.multiview import MultiviewData

log = logging.getLogger("selfsup")

REGISTERED = {
    "human36m": "S1/… to S11/… as h36m-fetch, mmpose or its authors' archives leave them",
    "mpi_inf_3dhp": "S1/Seq1/imageSequence/video_0.avi … with annot.mat and camera.calibration",
}
_ASSUMED_RATE = 25.0
_SAME_RATE = 0.005
_LEAST_SHARE = 0.5
_MANY = 3000  # frames from which processes are worth their start

Told = Callable[[int, int], None]


@dataclass
class Recordings:
    """What was found on disk: recordings whose cameras may yet differ in length or rate.

    `notes` are sentences about what is unusual, `left_out` names and reasons of cameras that
    cannot be read.
    """

    name: str
    root: Path
    recordings: list[RawRecording]
    notes: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


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
    _check_share(found, data.max_bad)
    chosen = [one for one in found.recordings if subjects is None or one.subject in subjects]
    if not chosen:
        known = ", ".join(dict.fromkeys(one.subject for one in found.recordings))
        raise InputError(
            f"{found.name} has none of the subjects {', '.join(subjects or ())}; it has {known}",
            kind="unknown-subject",
        )
    chosen = [_with_cameras(one, data.cameras) for one in chosen]
    chosen = require_cameras(found, chosen, least_cameras)
    aligned = tuple(in_step(one) for one in chosen)
    for recording in aligned:
        for view in recording.views:
            check_projection(recording, view)
    return _prepared(found.name, aligned, data.side, cache, workers, told)


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


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return cores if cores > 1 else 0


def _check_share(found: Recordings, most: float) -> None:
    total = sum(len(one.views) for one in found.recordings) + len(found.left_out)
    if found.left_out and len(found.left_out) > max(1.0, most * total):
        name, reason = found.left_out[0]
        raise InputError(
            f"{len(found.left_out)} of {total} cameras of {found.name} cannot be read, as {name}: "
            f"{reason}; mend them, or allow more with --max-bad",
            kind="bad-media",
        )


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
    return _in_folder(name, path)


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


def _in_folder(name: str, root: Path) -> Recordings:
    found = inventory(root)
    result = Recordings(name, root, [], notes=list(found.notes))
    if not found.cameras:
        raise InputError(
            f"{root} has no videos or images: synchronised views are SUBJECT/SEQUENCE/CAMERA.mp4, "
            "or folders of images, SUBJECT/SEQUENCE/CAMERA/000001.jpg",
            kind="empty-folder",
        )
    pictures = _pictures(root, found.cameras, result)
    named = by_image_name(found.arrays)
    groups: dict[tuple[str, str], list[Found]] = defaultdict(list)
    for one in found.cameras:
        if id(one) in pictures:
            groups[one.subject, one.sequence].append(one)
    for (subject, sequence), cameras in groups.items():
        names = [one.camera for one in cameras]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(
                f"{root}: {subject}/{sequence} has two cameras {twice}; give each its own name",
                kind="layout",
            )
        result.recordings.append(
            _recording(root, subject, sequence, cameras, pictures, named, result)
        )
    if not result.recordings:
        camera, reason = result.left_out[0]
        raise InputError(f"no camera of {root} can be read, as {camera}: {reason}", kind="media")
    result.notes += view_human36m.gaps(result.recordings)
    return result


def _pictures(root: Path, cameras: list[Found], result: Recordings) -> dict[int, Pictures]:
    """The pictures of those cameras that can be read, by their identity."""
    found: dict[int, Pictures] = {}
    videos = [one for one in cameras if one.video]
    ids = PackedIds(str((one.folder / one.video).relative_to(root)) for one in videos)
    known = index.build(root, ids, workers=0, progress=None)
    reader = index.IndexReader(root)
    for place, one in enumerate(videos):
        label = f"{one.id}/{one.camera}"
        entry = reader.look_up(ids[place])
        if place in known.errors or entry is None:
            result.left_out.append((label, known.errors.get(place, "it cannot be read")))
            continue
        info: VideoInfo = entry[0]
        digest = known.digests[place].tobytes().hex()
        found[id(one)] = VideoPictures(one.folder / one.video, info, digest)
    for one in cameras:
        if one.images:
            try:
                found[id(one)] = ImagePictures.of(one.folder, one.images)
            except BadMediaError as error:
                result.left_out.append((f"{one.id}/{one.camera}", error.reason))
    return found


def _recording(
    root: Path,
    subject: str,
    sequence: str,
    cameras: list[Found],
    pictures: dict[int, Pictures],
    named: ByName | None,
    result: Recordings,
) -> RawRecording:
    """One recording with whatever is known of its cameras and joints."""
    label = f"{subject}/{sequence}"
    folder = _above(cameras)
    about = _about(folder)
    known: dict[str, Camera] = {}
    if path := calibration_near(folder, root) or calibration_near(root.parent, root.parent):
        known = read_calibration(path)
    views = []
    for one in cameras:
        camera = known.get(one.camera) or view_human36m.camera_of(one.camera, subject)
        own = pictures[id(one)]
        if camera is None:
            if known:
                result.notes.append(f"{path} has no camera {one.camera} ({', '.join(known)})")
            camera = Camera(one.camera, own.width, own.height)
        rate = own.info.fps if isinstance(own, VideoPictures) else 0.0
        views.append(RawView(fitted(camera, one.camera, own.width, own.height), own, rate))
    views = _shared_numbers(label, cameras, views, result)
    numbers = {
        one.camera: tuple(one.numbers[n] for n in _kept(one, view))
        for one, view in zip(cameras, views, strict=True)
        if one.numbers
    }
    rate = _rate_of(label, about, views, numbers, result)
    views = _annotated(folder, views, numbers, named, result)
    action = str(about.get("action") or re.sub(r"[ _-]*\d+$", "", sequence.rpartition("/")[2]))
    return RawRecording(subject, sequence, action or sequence, rate, tuple(views))


def _above(cameras: list[Found]) -> Path:
    """The folder of a sequence: what is above all its cameras, and above `videos`."""
    places = [one.folder if one.video else one.folder.parent for one in cameras]
    folder = Path(os.path.commonpath(places))
    return folder.parent if folder.name.lower() in ("videos", "imagesequence") else folder


def _about(folder: Path) -> dict[str, Any]:
    """What `recording.json` says: rate, action."""
    path = folder / "recording.json"
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_bytes())
        rate = about.get("rate")
        if rate is not None and not (isinstance(rate, int | float) and 0 < rate <= 10_000):
            raise ValueError(f"rate {rate!r} is no number of frames per second")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} cannot be used: {error}", kind="layout") from error
    return dict(about)


def _shared_numbers(
    label: str, cameras: list[Found], views: list[RawView], result: Recordings
) -> list[RawView]:
    """Where all cameras are folders of numbered images, only what all of them have."""
    if len(cameras) < 2 or not all(one.numbers for one in cameras):
        return views
    shared = set.intersection(*(set(one.numbers) for one in cameras))
    most = max(len(one.numbers) for one in cameras)
    if len(shared) == most or not shared:
        return views
    result.notes.append(
        f"{label}: {most - len(shared)} of {most} images are not there from every camera and are "
        "left out"
    )
    kept = []
    for one, view in zip(cameras, views, strict=True):
        pairs = zip(one.images, one.numbers, strict=True)
        images = tuple(name for name, number in pairs if number in shared)
        kept.append(replace(view, pictures=ImagePictures.of(one.folder, images)))
    return kept


def _kept(one: Found, view: RawView) -> list[int]:
    """Places of the images of a camera that are in its view."""
    if not isinstance(view.pictures, ImagePictures):
        return []
    kept = set(view.pictures.names)
    return [place for place, name in enumerate(one.images) if name in kept]


def _rate_of(
    label: str,
    about: dict[str, Any],
    views: list[RawView],
    numbers: dict[str, tuple[int, ...]],
    result: Recordings,
) -> float:
    if about.get("rate"):
        return float(about["rate"])
    rates = [view.rate for view in views if view.rate > 0]
    if rates:
        return float(np.median(rates))
    if any(view.camera.name in view_human36m.CAMERAS for view in views):
        steps = [np.diff(of) for of in numbers.values() if len(of) > 1]
        step = float(np.median(np.concatenate(steps))) if steps else 1.0
        return view_human36m.RATE / max(step, 1.0)
    result.notes.append(
        f"{label}: images have no frame rate, {_ASSUMED_RATE:g} a second are assumed "
        '(recording.json beside the cameras may say {"rate": …})'
    )
    return _ASSUMED_RATE


def _annotated(
    folder: Path,
    views: list[RawView],
    numbers: dict[str, tuple[int, ...]],
    named: ByName | None,
    result: Recordings,
) -> list[RawView]:
    """Views with the joints that lie beside them."""
    known: dict[str, Annotation] = {}
    lenses: dict[str, Any] = {}
    own = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if own is not None:
        frames = max(view.pictures.frames for view in views)
        known = read_joints(own, {view.camera.name: view.camera for view in views}, frames)
    elif (folder / "annot.h5").is_file():
        known, lenses, notes = from_fetch(folder / "annot.h5", numbers)
        result.notes += notes
    elif (folder / "annot.mat").is_file():
        from selfsup_cli.data.view_mpi_inf_3dhp import read_annotations

        known = read_annotations(
            folder / "annot.mat", {v.camera.name: v.pictures.frames for v in views}
        )
    elif named is not None:
        for view in views:
            if isinstance(view.pictures, ImagePictures):
                seen = named.of(view.pictures.names)
                if seen is not None:
                    known[view.camera.name] = seen
    finished = []
    for view in views:
        seen = known.get(view.camera.name)
        if seen is None:
            finished.append(view)
            continue
        seen = seen.take(np.arange(min(view.pictures.frames, _length(seen))))
        camera = view.camera
        if camera.intrinsics is None and camera.name in lenses:
            camera = replace(camera, intrinsics=lenses[camera.name])
        finished.append(replace(view, camera=with_lens(camera, seen), annotation=seen))
    for view in finished:
        joints = view.annotation.joints
        if joints is not None and swapped_sides(joints):
            result.notes.append(
                f"{folder}: knees bend backwards in most frames of {view.camera.name}: left and "
                "right joints may have changed places"
            )
            break
    return finished


def _length(seen: Annotation) -> int:
    parts = (seen.joints, seen.pixels, seen.boxes)
    return max(len(part) for part in parts if part is not None)


# -- fitness


def _with_cameras(recording: RawRecording, names: Sequence[str]) -> RawRecording:
    if not names:
        return recording
    views = tuple(view for view in recording.views if view.camera.name in names)
    return replace(recording, views=views)


def require_cameras(
    found: Recordings, recordings: list[RawRecording], least: int
) -> list[RawRecording]:
    """The recordings with at least `least` cameras. Raises `InputError` if there is none."""
    enough = [one for one in recordings if len(one.views) >= least]
    for one in recordings:
        if len(one.views) < least:
            log.warning("%s is left out: it has %d camera(s)", one.id, len(one.views))
    if enough:
        return enough
    one = recordings[0]
    cameras = ", ".join(view.camera.name for view in one.views) or "none of those that are named"
    raise InputError(
        f"every sequence of {found.name} has one camera only (as {one.id}: {cameras}), and views "
        f"are compared between at least {least} cameras of the same moment: lay them out as "
        "SUBJECT/SEQUENCE/CAMERA.mp4",
        kind="one-camera",
    )


def in_step(recording: RawRecording) -> RawRecording:
    """`recording`, whose cameras must have one rate and about one length.

    What only some cameras have at the end is not used. Raises `InputError` for cameras of different
    rates, and for one that has less than half of what the others have.
    """
    rates = {view.camera.name: view.rate for view in recording.views if view.rate > 0}
    if rates and max(rates.values()) > (1 + _SAME_RATE) * min(rates.values()):
        said = ", ".join(f"{name} {rate:.5g}" for name, rate in rates.items())
        raise InputError(
            f"the cameras of {recording.id} record at different rates ({said} frames a second): "
            "bring them to one rate first",
            kind="rates",
        )
    lengths = {view.camera.name: view.pictures.frames for view in recording.views}
    short = min(lengths, key=lambda name: lengths[name])
    usual = float(np.median(list(lengths.values())))
    if lengths[short] < _LEAST_SHARE * usual:
        raise InputError(
            f"{recording.id}: camera {short} has {lengths[short]} frames where others have "
            f"{usual:.0f}: it is cut short; leave it out with --cameras, or replace it (selfsup "
            "data check shows what each camera has)",
            kind="lengths",
        )
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in lengths.items())
        log.warning(
            "%s: cameras have different numbers of frames (%s): the first %d are used",
            recording.id,
            said,
            recording.frames,
        )
    return recording


def check_projection(recording: RawRecording, view: RawView) -> None:
    """Raise `InputError` where almost no joint of a calibrated camera lies in its pictures."""
    pixels, joints = view.annotation.pixels, view.annotation.joints
    if joints is None or not np.isfinite(joints).any():
        return
    behind = bool((joints[..., 2][np.isfinite(joints[..., 2])] <= 0).mean() > 0.5)
    inside = 0.0
    if pixels is not None and np.isfinite(pixels).all(-1).any():
        known = pixels[np.isfinite(pixels).all(-1)]
        size = np.array([view.pictures.width, view.pictures.height])
        inside = float(((known >= 0) & (known < size)).all(1).mean())
    if behind or (pixels is not None and inside < 0.1):
        raise InputError(
            f"{recording.id}: by its calibration, camera {view.camera.name} does not see the "
            f"subject ({inside:.0%} of the joints fall into its pictures"
            f"{', and most lie behind it' if behind else ''}): check its rotation and translation "
            "(x_camera = R·x_world + t, in mm), and which camera is which",
            kind="calibration",
        )
