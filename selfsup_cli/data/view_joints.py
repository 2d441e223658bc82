"""Where the joints of a subject are: files of them, and whether they can be what they say.

`joints.npz` or `joints.csv` beside the cameras of a sequence. The first has `joints` `[T,17,3]` in
the world (which needs a calibration), and besides or instead `pixels_CAMERA` `[T,17,2]` or
`boxes_CAMERA` `[T,4]` (left, top, width, height); the second the columns frame, joint, x, y, z.
NaN, or no line, where a joint is not known. `names` says in which order joints come, where it is
not that of Human3.6M, and `unit` (mm, cm, m) what they are measured in, where it is not
millimetres.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup_cli.config.joints import BONES, JOINTS, SIDES
from selfsup_cli.data import array_files
from selfsup_cli.data.geometry import project_camera, to_camera
from selfsup_cli.data.multiview import Camera
from selfsup_cli.data.multiview_raw import Annotation
from selfsup_cli.data.tables import table_rows
from selfsup_cli.errors import BadMediaError, InputError

FILES = ("joints.npz", "joints.csv")

_UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
_LEAST_REACH, _MOST_REACH = 250.0, 2500.0  # mm from the root to the farthest joint
_LOOSE = 0.25  # share by which a bone may change its length
_LEAST_FRAMES = 5


def read_joints(path: Path, cameras: dict[str, Camera], frames: int) -> dict[str, Annotation]:
    """What a file of joints says of each camera, drawn out or cut to `frames`.

    Raises `InputError` for a file that is damaged or cannot be meant for these cameras, and for
    joints in another unit or order.
    """
    found = _csv(path, frames) if path.suffix == ".csv" else _npz(path)
    joints = found.pop("joints", None)
    if joints is not None:
        joints = joints * _UNITS[_unit(path, found)]
        check_joints(joints, str(path))
        if not any(camera.rotation is not None for camera in cameras.values()):
            raise InputError(
                f"{path} has joints in the world, but there is no calibration that says where the "
                "cameras stand: add calibration.json, or give pixels_CAMERA instead",
                kind="calibration",
            )
    annotations = {}
    for name, camera in cameras.items():
        pixels, boxes = found.pop(f"pixels_{name}", None), found.pop(f"boxes_{name}", None)
        seen = None
        if joints is not None and camera.rotation is not None:
            seen = to_camera(joints, camera)
            if pixels is None and camera.intrinsics is not None:
                pixels = project_camera(seen, camera)
        annotations[name] = Annotation(
            _drawn_out(seen, frames), _drawn_out(pixels, frames), _drawn_out(boxes, frames)
        )
    found.pop("unit", None)
    if found:
        raise InputError(
            f"{path} has {sorted(found)[0]}, which belongs to no camera of this sequence "
            f"({', '.join(cameras)})",
            kind="joints",
        )
    return annotations


def check_joints(joints: NDArray[Any], where: str) -> None:
    """Raise `InputError` unless joints `[T,17,3]` are a body in millimetres, in the right order.

    Bodies reach between 0.25 and 2.5 m from their root, and their bones keep their length.
    """
    joints = np.asarray(joints, np.float64)
    with np.errstate(all="ignore"):
        reach = np.linalg.norm(joints - joints[:, :1], axis=-1)
    known = np.isfinite(reach[:, 1:]).any(1)
    if not known.any():
        raise InputError(f"{where}: no joint of any frame is known (all are NaN)", kind="joints")
    size = float(np.median(np.nanmax(reach[known], 1)))
    for unit, factor in (("metres", 1000.0), ("centimetres", 10.0)):
        if size < _LEAST_REACH and _LEAST_REACH <= size * factor <= _MOST_REACH:
            raise InputError(
                f"{where}: joints reach {size:.3g} from the root, which is {unit} and not "
                f"millimetres: multiply them by {factor:g}, or say so with unit",
                kind="joints-unit",
            )
    if not _LEAST_REACH <= size <= _MOST_REACH:
        raise InputError(
            f"{where}: joints reach {size:.3g} mm from the root, which no body does: check their "
            "unit and their order",
            kind="joints-unit",
        )
    worst, loose = _loosest(joints)
    if loose > _LOOSE:
        raise InputError(
            f"{where}: from {JOINTS[worst[0]]} to {JOINTS[worst[1]]} the distance changes by "
            f"{loose:.0%}, which no bone does: the joints are in another order than Human3.6M's "
            f"({', '.join(JOINTS)}); name theirs with names",
            kind="joints-order",
        )


def _loosest(joints: NDArray[np.float64]) -> tuple[tuple[int, int], float]:
    """The bone whose length changes most, and by how much: half of its 10th to 90th percentile.

    Of few frames, the one that differs most from its counterpart on the other side.
    """
    worst, loose = BONES[0], 0.0
    lengths = {
        bone: np.linalg.norm(joints[:, bone[1]] - joints[:, bone[0]], axis=-1) for bone in BONES
    }
    other = dict(SIDES) | {right: left for left, right in SIDES}
    for bone, length in lengths.items():
        length = length[np.isfinite(length)]
        if len(length) >= _LEAST_FRAMES:
            low, middle, high = np.percentile(length, (10, 50, 90))
            change = (high - low) / max(2 * middle, 1e-9)
        else:
            twin = lengths.get((other.get(bone[0], bone[0]), other.get(bone[1], bone[1])))
            if twin is None or not len(length) or not np.isfinite(twin).any():
                continue
            pair = float(np.median(length)), float(np.nanmedian(twin))
            # Left and right of a person may differ by a few per cent; of other joints, by anything.
            change = abs(pair[0] - pair[1]) / max(sum(pair), 1e-9)
        if change > loose:
            worst, loose = bone, float(change)
    return worst, loose


def swapped_sides(joints: NDArray[Any]) -> bool:
    """Whether left and right seem to have changed places in joints `[T,17,3]`: knees that bend
    backwards, in most frames."""
    joints = np.asarray(joints, np.float64)
    forward = np.cross(joints[:, 8] - joints[:, 0], joints[:, 1] - joints[:, 4])
    with np.errstate(all="ignore"):
        forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
    bends = [
        ((joints[:, knee] - (joints[:, knee - 1] + joints[:, knee + 1]) / 2) * forward).sum(-1)
        for knee in (2, 5)
    ]
    bent = np.concatenate(bends)
    bent = bent[np.isfinite(bent) & (np.abs(bent) > 10)]
    return len(bent) >= _LEAST_FRAMES and float((bent < 0).mean()) > 0.75


def in_order(joints: NDArray[Any], names: list[str], where: str) -> NDArray[np.float64]:
    """Joints `[T,J,k]` in the order of Human3.6M, found by their names. Raises `InputError`."""
    known = {name.strip().lower().replace("_", " "): place for place, name in enumerate(names)}
    if len(names) != joints.shape[1]:
        raise InputError(
            f"{where}: {len(names)} names for {joints.shape[1]} joints", kind="joints-order"
        )
    if lacking := [name for name in JOINTS if name not in known]:
        raise InputError(
            f"{where}: there is no joint named {lacking[0]!r}; the joints are {', '.join(JOINTS)}",
            kind="joints-order",
        )
    return np.asarray(joints, np.float64)[:, [known[name] for name in JOINTS]]


def _unit(path: Path, found: dict[str, Any]) -> str:
    unit = str(found.pop("unit", "mm"))
    if unit not in _UNITS:
        raise InputError(
            f"{path}: unit {unit!r} is none of {', '.join(_UNITS)}", kind="joints-unit"
        )
    return unit


def _npz(path: Path) -> dict[str, Any]:
    try:
        with array_files.opened(path) as file:
            found: dict[str, Any] = {key: file.values(key) for key in file.keys}
    except BadMediaError as error:
        raise InputError(f"{path} cannot be read: {error.reason}", kind="joints") from error
    names = [str(name) for name in found.pop("names", [])]
    for key in [key for key in found if key != "unit"]:
        wanted = {"joints": 3, "pixels": 2, "boxes": 4}.get(key.partition("_")[0], 0)
        values = found[key]
        flat = key.startswith("boxes")
        if values.dtype.kind not in "fiu" or values.ndim != (2 if flat else 3):
            wanted = 0
        if not wanted or values.shape[-1] != wanted:
            raise InputError(
                f"{path}: {key} is {values.dtype}{list(values.shape)}; a file of joints has joints "
                "[T,17,3], pixels_CAMERA [T,17,2] and boxes_CAMERA [T,4]",
                kind="joints",
            )
        if names and not flat:
            found[key] = in_order(values, names, str(path))
        elif not flat and values.shape[1] != len(JOINTS):
            raise InputError(
                f"{path}: {key} has {values.shape[1]} joints instead of {len(JOINTS)}: say which "
                "ones with names",
                kind="joints-order",
            )
    if "unit" in found:
        found["unit"] = str(np.asarray(found["unit"]).reshape(-1)[0])
    return found


def _csv(path: Path, frames: int) -> dict[str, Any]:
    places = {name: number for number, name in enumerate(JOINTS)}
    places |= {name.replace(" ", "_"): number for name, number in places.items()}
    places |= {str(number): number for number in range(len(JOINTS))}
    joints = np.full((frames, len(JOINTS), 3), np.nan)
    for where, row in table_rows(path, ("frame", "joint", "x", "y", "z"), labels=False):
        if row["joint"].lower() not in places:
            raise InputError(
                f"{where}: there is no joint {row['joint']!r}; the joints are {', '.join(JOINTS)}",
                kind="joints-order",
            )
        try:
            frame = int(row["frame"])
            values = [float(row[axis]) for axis in "xyz"]
        except ValueError as error:
            raise InputError(f"{where}: {error}", kind="joints") from error
        if 0 <= frame < frames:
            joints[frame, places[row["joint"].lower()]] = values
    return {"joints": joints}


def _drawn_out(values: NDArray[Any] | None, frames: int) -> NDArray[np.float32] | None:
    """`values` of exactly `frames` frames: cut, or with NaN behind the last."""
    if values is None:
        return None
    found = np.full((frames, *values.shape[1:]), np.nan, np.float32)
    count = min(frames, len(values))
    found[:count] = values[:count]
    return found
