"""The joints of MPI-INF-3DHP's training sequences, as its authors leave them in `annot.mat`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.data.multiview_raw import Annotation
from selfsup_cli.data.view_joints import check_joints
from selfsup_cli.errors import InputError, MachineError

# Which of its 28 joints are the 17 of Human3.6M.
_OF_28 = (4, 23, 24, 25, 18, 19, 20, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16)
_MOST_BYTES = 1 << 30


def read_annotations(path: Path, frames: dict[str, int]) -> dict[str, Annotation]:
    """The joints of each camera `video_N` of a sequence, by name; `frames` says how many it has.

    Raises `InputError` for a file that is none, MachineError without SciPy, which reads MATLAB's
    files.
    """
    try:
        from scipy import io
    except ImportError as error:
        raise MachineError(
            f"{path} is a MATLAB file, and reading it needs SciPy: pip install scipy",
            kind="missing-extra",
        ) from error
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too large")
        found: dict[str, Any] = io.loadmat(path, variable_names=("annot2", "annot3"))
        space, seen = found["annot3"], found["annot2"]
    # SciPy raises many types on damaged files.
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read: {said}", kind="joints") from error
    annotations = {}
    for name, count in frames.items():
        number = name.removeprefix("video_")
        if not number.isdecimal() or int(number) >= len(space):
            continue
        joints = _of(space, int(number), 3, path)
        check_joints(joints, f"{path}, camera {name}")
        pixels = _of(seen, int(number), 2, path)
        kept = min(count, len(joints))
        annotations[name] = Annotation(
            _cut(joints, kept, count).astype(np.float32),
            _cut(pixels, kept, count).astype(np.float32),
        )
    return annotations


def _of(cells: Any, number: int, size: int, path: Path) -> np.ndarray:
    values = np.asarray(cells[number, 0], np.float64)
    if values.ndim != 2 or values.shape[1] != 28 * size:
        raise InputError(
            f"{path}: camera {number} has {list(values.shape)} values instead of [T,{28 * size}]",
            kind="joints",
        )
    return values.reshape(len(values), 28, size)[:, _OF_28]


def _cut(values: np.ndarray, kept: int, count: int) -> np.ndarray:
    found = np.full((count, *values.shape[1:]), np.nan)
    found[:kept] = values[:kept]
    return found
