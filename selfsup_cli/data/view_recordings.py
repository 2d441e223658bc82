"""The recordings in a folder: pictures of each camera with whatever is known of them."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.data import index, view_human36m
from selfsup_cli.data.frame_table import VideoInfo
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.multiview import Camera
from selfsup_cli.data.multiview_raw import Annotation, RawRecording, RawView
from selfsup_cli.data.pictures import ImagePictures, Pictures, VideoPictures
from selfsup_cli.data.view_annotations import ByName, by_image_name, from_fetch, with_lens
from selfsup_cli.data.view_cameras import calibration_near, fitted, read_calibration
from selfsup_cli.data.view_folders import Found, inventory
from selfsup_cli.data.view_joints import FILES, read_joints, swapped_sides
from selfsup_cli.errors import BadMediaError, InputError

_ASSUMED_RATE = 25.0


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


def in_folder(name: str, root: Path) -> Recordings:
    """All recordings under `root`. Raises `InputError` where there is none, or two are one."""
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
