"""Joints as common tools leave them beside the images of Human3.6M and MPI-INF-3DHP.

* h36m-fetch: `annot.h5` in the folder of a sequence, with the 32 joints of the recordings, of which
  17 are used, in millimetres as each camera has them.
* mmpose: `.npz` files with `imgname`, and for each image 17 joints as its camera has them (`S`, in
  metres) and in its pixels (`part`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from selfsup_cli.config.joints import JOINTS
from selfsup_cli.data import array_files, hdf5
from selfsup_cli.data.multiview import Camera
from selfsup_cli.data.multiview_raw import Annotation
from selfsup_cli.data.view_hdf5 import group_of
from selfsup_cli.data.view_joints import check_joints
from selfsup_cli.errors import BadMediaError, InputError

log = logging.getLogger("selfsup")

# Which of the 32 joints of Human3.6M's recordings are the 17 that are used.
_OF_32 = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
# mmpose has MPI-INF-3DHP's from the top of the head down.
_OF_MPI = (14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4)
_METRES = 20.0
_LEAST_POINTS = 8


@dataclass(frozen=True)
class ByName:
    """Annotations of images by their file names: joints in mm, as the camera has them."""

    rows: dict[str, int]
    joints: NDArray[np.float32]
    pixels: NDArray[np.float32]

    def of(self, names: Sequence[str]) -> Annotation | None:
        """Those of images, NaN where there are none; None if there is none at all."""
        places = [self.rows.get(name, -1) for name in names]
        if max(places, default=-1) < 0:
            return None
        lacking = np.array(places) < 0
        joints, pixels = self.joints[places], self.pixels[places]
        joints[lacking] = pixels[lacking] = np.nan
        return Annotation(joints, pixels)


def by_image_name(files: Sequence[Path]) -> ByName | None:
    """What `.npz` files say of images, together; None if they say nothing of any."""
    rows: dict[str, int] = {}
    joints: list[NDArray[np.float32]] = []
    pixels: list[NDArray[np.float32]] = []
    for path in files:
        try:
            with array_files.opened(path) as file:
                if not {"imgname", "S", "part"} <= set(file.keys):
                    continue
                names = [PurePosixPath(str(name)).name for name in file.values("imgname")]
                space, seen = file.values("S"), file.values("part")
        except BadMediaError as error:
            raise InputError(f"{path} cannot be read: {error.reason}", kind="joints") from error
        if space.shape[1:] != (len(JOINTS), 4) or seen.shape[1:] != (len(JOINTS), 3):
            log.info("%s: not of %d joints, not read", path, len(JOINTS))
            continue
        if not len(names) == len(space) == len(seen):
            raise InputError(f"{path}: its arrays are of different lengths", kind="joints")
        space = np.where(space[..., 3:] > 0, space[..., :3], np.nan).astype(np.float64)
        seen = np.where(seen[..., 2:] > 0, seen[..., :2], np.nan)
        if names and (names[0].startswith("TS") or "_Cam" in names[0]):
            space, seen = space[:, _OF_MPI], seen[:, _OF_MPI]
        if np.nanmedian(np.abs(space - space[:, :1])) < _METRES:
            space = space * 1000.0
        check_joints(space, str(path))
        start = sum(map(len, joints))
        rows |= {name: start + n for n, name in enumerate(names)}
        joints.append(space.astype(np.float32))
        pixels.append(seen.astype(np.float32))
    if not rows:
        return None
    return ByName(rows, np.concatenate(joints), np.concatenate(pixels))


def from_fetch(
    path: Path, cameras: dict[str, tuple[int, ...]]
) -> tuple[dict[str, Annotation], dict[str, NDArray[np.float64]], list[str]]:
    """What `annot.h5` of a sequence says of images, by camera and the numbers of their frames.

    Gives the annotations, the intrinsics `[3,3]` that are in it, and notes.
    """
    try:
        with hdf5.reading(path) as file:
            size = path.stat().st_size
            pose = group_of(file, "pose")
            key = "3d" if "3d" in pose else "3d-univ"
            columns = {name: hdf5.plain(file, name, size)[()] for name in ("frame", "camera")}
            space = hdf5.plain(pose, key, size)[()]
            seen = hdf5.plain(pose, "2d", size)[()]
            lenses = {}
            if "intrinsics" in file:
                inside = group_of(file, "intrinsics")
                lenses = {name: hdf5.plain(inside, name, size)[()] for name in inside}
    except Exception as error:  # h5py raises many types on damaged files
        said = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read: {said}", kind="joints") from error
    joints = space.shape[1] if space.ndim == 3 else 0
    if joints not in (32, 17) or space.shape[2] != 3 or seen.shape != (*space.shape[:2], 2):
        raise InputError(
            f"{path}: poses are {list(space.shape)} and {list(seen.shape)} instead of [N,32,3] and "
            "[N,32,2]",
            kind="joints",
        )
    chosen = _OF_32 if joints == 32 else tuple(range(17))
    space, seen = space[:, chosen].astype(np.float32), seen[:, chosen].astype(np.float32)
    check_joints(space, str(path))
    notes = []
    if key != "3d":
        notes.append(f"{path} has poses of the universal skeleton only: errors in mm are of it")
    annotations = {}
    for name, numbers in cameras.items():
        own = np.flatnonzero(columns["camera"].astype(str) == name)
        rows = {int(columns["frame"][place]): int(place) for place in own}
        places = np.array([rows.get(number, -1) for number in numbers], np.int64)
        found = Annotation(space[places], seen[places])
        for part in (found.joints, found.pixels):
            if part is not None:
                part[places < 0] = np.nan
        annotations[name] = found
    matrices = {}
    for name, values in lenses.items():
        if values.shape == (4,):
            fx, cx, fy, cy = values.astype(float).tolist()
            matrices[name] = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    return annotations, matrices, notes


def with_lens(camera: Camera, seen: Annotation) -> Camera:
    """`camera` with the intrinsics that take its joints to their pixels best, if it has none.

    A pinhole: each axis is a straight line over x/z or y/z, fitted by least squares.
    """
    if camera.intrinsics is not None or seen.joints is None or seen.pixels is None:
        return camera
    joints = seen.joints.reshape(-1, 3).astype(np.float64)
    pixels = seen.pixels.reshape(-1, 2).astype(np.float64)
    known = np.isfinite(joints).all(1) & np.isfinite(pixels).all(1) & (joints[:, 2] > 0)
    if known.sum() < _LEAST_POINTS:
        return camera
    matrix = np.eye(3)
    for axis in range(2):
        slope = joints[known, axis] / joints[known, 2]
        lines = np.column_stack([slope, np.ones(len(slope))])
        (focal, centre), *_ = np.linalg.lstsq(lines, pixels[known, axis], rcond=None)
        matrix[axis, axis], matrix[axis, 2] = focal, centre
    return replace(camera, intrinsics=matrix)
