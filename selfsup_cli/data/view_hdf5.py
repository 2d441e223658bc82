"""Recordings in one HDF5 file.

    /SUBJECT/SEQUENCE              group; attribute rate (frames per second), action (text)
    /SUBJECT/SEQUENCE/joints       [T,17,3] in the world, in mm (optional)
    /SUBJECT/SEQUENCE/CAMERA       group
        images                     uint8 [T,H,W,3], RGB
        intrinsics [3,3], rotation [3,3], translation [3], distortion [5]   (optional)
        pixels [T,17,2], boxes [T,4]                                        (optional)

Nothing in it may be a link to another file or need a filter but gzip, LZF and shuffle.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from selfsup_cli.config.joints import JOINTS
from selfsup_cli.data import hdf5
from selfsup_cli.data.geometry import project_camera, to_camera
from selfsup_cli.data.multiview import Camera
from selfsup_cli.data.multiview_raw import Annotation, RawRecording, RawView
from selfsup_cli.data.pictures import ArrayPictures
from selfsup_cli.data.view_joints import check_joints
from selfsup_cli.errors import InputError

_LENS = {"intrinsics": (3, 3), "rotation": (3, 3), "translation": (3,), "distortion": (5,)}
_SEEN = {"pixels": (len(JOINTS), 2), "boxes": (4,)}


def read_hdf5(path: Path) -> list[RawRecording]:
    """All recordings of a file. Raises `InputError` for one that is not laid out like this."""
    status = path.stat()
    stamp = f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}"
    try:
        with hdf5.reading(path) as file:
            found = list(_recordings(file, path, status.st_size, stamp))
    except InputError:
        raise
    except Exception as error:  # h5py raises many types on damaged files
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} is no HDF5 file of recordings: {said}; docs/multiview-data.md says how one is "
            "laid out",
            kind="layout",
        ) from error
    if not found:
        raise InputError(
            f"{path} holds no recordings; docs/multiview-data.md says how one is laid out",
            kind="layout",
        )
    return found


def group_of(parent: h5py.Group, name: str) -> h5py.Group:
    """The group `name`, as a hard link. Raises StructureError for anything else."""
    if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
        raise hdf5.StructureError(f"{parent.name.rstrip('/')}/{name} is missing or a link")
    group = parent[name]
    if not isinstance(group, h5py.Group):
        raise hdf5.StructureError(f"{group.name} is not a group")
    return group


def _recordings(file: h5py.File, path: Path, size: int, stamp: str) -> Iterator[RawRecording]:
    for subject in file:
        inside = group_of(file, subject)
        for sequence in inside:
            group = group_of(inside, sequence)
            rate = float(group.attrs.get("rate", 0.0))
            if not (math.isfinite(rate) and 0 < rate <= 10_000):
                raise hdf5.StructureError(f"{group.name} has no attribute rate")
            joints = None
            if "joints" in group:
                joints = _array(group, "joints", size, (len(JOINTS), 3), frames=True)
                check_joints(joints, f"{path}:{group.name}/joints")
            views = []
            for name in group:
                if name != "joints":
                    view = _view(group_of(group, name), path, size, stamp, joints)
                    views.append(replace(view, rate=rate))
            if not views:
                raise hdf5.StructureError(f"{group.name} has no camera")
            action = group.attrs.get("action", sequence)
            yield RawRecording(subject, sequence, str(action), rate, tuple(views))


def _view(
    group: h5py.Group, path: Path, size: int, stamp: str, joints: NDArray[np.float64] | None
) -> RawView:
    images = hdf5.plain(group, "images", size)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise hdf5.StructureError(
            f"{images.name} is {images.dtype}{list(images.shape)} instead of uint8 [T,H,W,3]"
        )
    unknown = set(group) - {"images", *_LENS, *_SEEN}
    if unknown:
        raise hdf5.StructureError(f"{group.name} has an unknown entry {sorted(unknown)[0]}")
    lens = {
        name: _array(group, name, size, shape) if name in group else None
        for name, shape in _LENS.items()
    }
    distortion = lens["distortion"]
    name = group.name.rpartition("/")[2]
    frames, height, width, _ = images.shape
    camera = Camera(
        name,
        width,
        height,
        lens["intrinsics"],
        lens["rotation"],
        lens["translation"],
        None if distortion is None else tuple(distortion.tolist()),
    )
    seen: dict[str, NDArray[np.float32] | None] = {
        key: _array(group, key, size, shape, frames=True).astype(np.float32)
        if key in group
        else None
        for key, shape in _SEEN.items()
    }
    inside: NDArray[np.float32] | None = None
    if joints is not None and camera.calibrated:
        exact = to_camera(joints, camera)
        if seen["pixels"] is None:
            seen["pixels"] = project_camera(exact, camera).astype(np.float32)
        inside = exact.astype(np.float32)
    for part in (inside, *seen.values()):
        if part is not None and len(part) != frames:
            raise hdf5.StructureError(f"{group.name} has {frames} images and {len(part)} of joints")
    digest = hashlib.sha256(f"{stamp}\0{group.name}".encode()).hexdigest()
    pictures = ArrayPictures(path, images.name.lstrip("/"), images.shape, digest)
    return RawView(camera, pictures, annotation=Annotation(inside, seen["pixels"], seen["boxes"]))


def _array(
    group: h5py.Group, name: str, size: int, shape: tuple[int, ...], *, frames: bool = False
) -> NDArray[np.float64]:
    dataset = hdf5.plain(group, name, size)
    found = dataset.shape[1:] if frames else dataset.shape
    if dataset.dtype.kind not in "fiu" or found != shape:
        wanted = ["T", *shape] if frames else list(shape)
        raise hdf5.StructureError(
            f"{dataset.name} is {dataset.dtype}{list(dataset.shape)} instead of numbers {wanted}"
        )
    values: NDArray[Any] = dataset[()]
    return values.astype(np.float64)
