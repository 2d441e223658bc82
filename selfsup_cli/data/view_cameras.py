"""Calibration files: where cameras stand and how they see.

`calibration.json` is ours:

    {"unit": "mm", "cameras": {"cam1": {"width": 1000, "height": 1000,
        "intrinsics": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]],
        "rotation": [[…], […], […]], "translation": [x, y, z], "distortion": [k1, k2, p1, p2, k3]}}}

with x_camera = rotation · x_world + translation, and everything but the intrinsics optional. Of
others' we read Qualisys' `*.qca.txt` and `camera.calibration` of MPI-INF-3DHP.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from selfsup_cli.data.multiview import Camera
from selfsup_cli.errors import InputError
from selfsup_cli.runs.seal import parsed

NAMES = ("calibration.json", "*.qca.txt", "camera.calibration")
_MOST_BYTES = 1 << 24
_UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
_BORDER = 0.02  # share of a side
_FAR = 100.0  # in metres no camera stands farther away, in millimetres none stands nearer


def calibration_near(folder: Path, root: Path) -> Path | None:
    """The calibration file for recordings in `folder`: in it or above, up to `root`.

    Each of these folders may keep it in a folder `calibration`.
    """
    for place in (folder, *folder.parents):
        if not place.is_relative_to(root):
            break
        for where in (place, place / "calibration"):
            for name in NAMES:
                if found := sorted(where.glob(name)):
                    return found[0]
    return None


def read_calibration(path: Path) -> dict[str, Camera]:
    """The cameras of a calibration file, by name. Raises `InputError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"the calibration {path} cannot be read: {error.strerror}", kind="calibration"
        ) from error
    reader: Callable[[bytes], dict[str, Camera]] = _ours
    if path.name.endswith(".qca.txt"):
        reader = _qualisys
    elif path.name == "camera.calibration":
        reader = _mpi_inf_3dhp
    try:
        if len(data) > _MOST_BYTES:
            raise ValueError("it is too large")
        cameras = reader(data)
    except (ValueError, KeyError, TypeError, AttributeError, ElementTree.ParseError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"the calibration {path} cannot be used: {said}; docs/multiview-data.md says how one "
            "looks",
            kind="calibration",
        ) from error
    if not cameras:
        raise InputError(f"the calibration {path} has no camera", kind="calibration")
    return cameras


def fitted(camera: Camera, name: str, width: int, height: int) -> Camera:
    """`camera` for pictures of `width`×`height`, to which those it was calibrated for were scaled.

    Where the two differ by a few pixels only, a border was cut off, and nothing was scaled.
    """
    across, down = width / (camera.width or width), height / (camera.height or height)
    matrix = camera.intrinsics
    if matrix is not None and max(abs(across - 1), abs(down - 1)) > _BORDER:
        matrix = np.diag([across, down, 1.0]) @ matrix
    return Camera(
        name, width, height, matrix, camera.rotation, camera.translation, camera.distortion
    )


def _ours(data: bytes) -> dict[str, Camera]:
    document = parsed(data)
    listed = document["cameras"]
    unit = document.get("unit")
    if unit is not None and unit not in _UNITS:
        raise ValueError(f"unit {unit!r} is none of {', '.join(_UNITS)}")
    cameras = {}
    for name, one in listed.items():
        unknown = set(one) - {
            *("width", "height", "intrinsics", "rotation", "translation", "distortion"),
        }
        if unknown:
            raise ValueError(f"camera {name} has an unknown entry {sorted(unknown)[0]!r}")
        translation = _numbers(one, "translation", (3,), name)
        if translation is not None:
            if unit is None and 0 < np.linalg.norm(translation) < _FAR:
                raise ValueError(
                    f"camera {name} stands {np.linalg.norm(translation):.3g} from the origin, "
                    'which is metres and not millimetres: add "unit": "m"'
                )
            translation = translation * _UNITS[unit or "mm"]
        distortion = _numbers(one, "distortion", (5,), name)
        cameras[name] = Camera(
            name,
            int(one.get("width", 0)),
            int(one.get("height", 0)),
            _numbers(one, "intrinsics", (3, 3), name),
            _rotation(_numbers(one, "rotation", (3, 3), name), name),
            translation,
            None if distortion is None else _five(distortion),
        )
    return cameras


def _numbers(
    one: dict[str, Any], key: str, shape: tuple[int, ...], name: str
) -> NDArray[np.float64] | None:
    if one.get(key) is None:
        return None
    found = np.asarray(one[key], np.float64)
    if found.shape != shape or not np.isfinite(found).all():
        wanted = "×".join(map(str, shape))
        raise ValueError(f"{key} of camera {name} is not {wanted} finite numbers")
    return found


def _rotation(matrix: NDArray[np.float64] | None, name: str) -> NDArray[np.float64] | None:
    if matrix is None:
        return None
    if not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-3) or np.linalg.det(matrix) < 0:
        raise ValueError(f"rotation of camera {name} is no rotation")
    return matrix


def _five(values: NDArray[np.float64]) -> tuple[float, float, float, float, float]:
    k1, k2, p1, p2, k3 = values.tolist()
    return k1, k2, p1, p2, k3


def _qualisys(data: bytes) -> dict[str, Camera]:
    """Qualisys' export: sensor positions in 64ths of a pixel, places in millimetres.

    Its axes of a camera are x to the right, y up and z backwards, in the rows of a matrix that
    turns the camera's into the world's when transposed.
    """
    if b"<!ENTITY" in data or b"<!DOCTYPE" in data:
        raise ValueError("it declares entities, which no export does")
    cameras = {}
    for one in ElementTree.fromstring(data).iter("camera"):  # noqa: S314 (no entities, see above)
        lens, place, view = one.find("intrinsic"), one.find("transform"), one.find("fov_video")
        if lens is None or place is None or view is None or one.get("active") == "0":
            continue

        def number(part: ElementTree.Element, key: str) -> float:
            value = float(part.attrib[key])
            if not math.isfinite(value):
                raise ValueError(f"{key} is not a number")
            return value

        left, top = number(view, "left"), number(view, "top")
        matrix = np.array(
            [
                [number(lens, "focalLengthU"), number(lens, "skew"), number(lens, "centerPointU")],
                [0, number(lens, "focalLengthV"), number(lens, "centerPointV")],
                [0, 0, 64],
            ]
        )
        matrix /= 64
        matrix[:2, 2] -= left, top
        turn = np.array([[number(place, f"r{i}{j}") for j in "123"] for i in "123"])
        rotation = np.diag([1.0, -1.0, -1.0]) @ turn
        stands = np.array([number(place, axis) for axis in "xyz"])
        name = one.attrib["serial"]
        cameras[name] = Camera(
            name,
            round(number(view, "right") - left) + 1,
            round(number(view, "bottom") - top) + 1,
            matrix,
            _rotation(rotation, name),
            -rotation @ stands,
            (
                number(lens, "radialDistortion1"),
                number(lens, "radialDistortion2"),
                number(lens, "tangentalDistortion1"),
                number(lens, "tangentalDistortion2"),
                number(lens, "radialDistortion3"),
            ),
        )
    return cameras


def _mpi_inf_3dhp(data: bytes) -> dict[str, Camera]:
    """`name N`, `size W H`, `intrinsic` and `extrinsic` (4×4 each, row by row), in that order."""
    cameras: dict[str, Camera] = {}
    name, size, lens = "", (0, 0), np.eye(4)
    for line in data.decode("utf-8", "replace").splitlines():
        key, *values = line.split() or [""]
        if key == "name":
            name = f"video_{int(values[0])}"
        elif key == "size":
            size = int(values[0]), int(values[1])
        elif key == "intrinsic":
            lens = np.array(values, np.float64).reshape(4, 4)
        elif key == "extrinsic":
            place = np.array(values, np.float64).reshape(4, 4)
            rotation = _rotation(place[:3, :3], name)
            cameras[name] = Camera(name, *size, lens[:3, :3], rotation, place[:3, 3])
    return cameras
