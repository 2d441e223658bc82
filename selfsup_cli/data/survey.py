"""What one pass over the pictures of a fixed camera tells: the empty scene, how much moves when,
and where the subject is.

A survey is kept under `$SELFSUP_CACHE/surveys/`, so that checking recordings, preparing crops of
any size and aligning cameras look through every file once.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from selfsup_cli.data import background, hdf5
from selfsup_cli.data.background import RunningMedian, Scene
from selfsup_cli.data.index import cache_root
from selfsup_cli.data.pictures import Pictures
from selfsup_cli.runs import atomic

log = logging.getLogger("selfsup")

ROWS = 48
"""Stripes of a picture whose motion is told apart."""

_VERSION = 2
_SMALL = 160  # longer side of the pictures that motion and places are told from
_MOST_KEPT = 2000
_MOST_COUNTED = 4000
_LEAST_AREA = 0.0005
_TAIL = 0.01

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Survey:
    """What is known of the pictures of a camera.

    `scene` is their median. `motion` float32 `[T]` is the mean |change| of the values of each
    picture (scaled down) since the one before, in grey levels, 0 for the first; `profile` float32
    `[T,ROWS]` is that of each of `ROWS` equal stripes from top to bottom. `places` float32
    `[T,4]` are left, top, right and bottom of what stands out from the scene, in pixels; NaN where
    nothing does.
    """

    scene: Scene
    profile: NDArray[np.float32]
    places: NDArray[np.float32]

    @property
    def motion(self) -> NDArray[np.float32]:
        return np.asarray(self.profile.mean(1), np.float32)


def survey(
    pictures: Pictures, *, cache: Path | None = None, progress: Progress | None = None
) -> Survey:
    """Look through `pictures` once, or find what was found before. Raises `BadMediaError`.

    `progress(done, total)` counts pictures.
    """
    folder = (cache_root() if cache is None else cache) / "surveys"
    key = hashlib.sha256(f"{_VERSION}\0{pictures.digest}".encode()).hexdigest()
    path = folder / f"{key[:32]}.h5"
    known = _kept(path, pictures)
    if known is None:
        known = _looked_through(pictures, progress)
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, _written(known))
    elif progress is not None:
        progress(pictures.frames, pictures.frames)
    return known


def _looked_through(pictures: Pictures, progress: Progress | None) -> Survey:
    total = pictures.frames
    count = min(background.SEEDS, total - (total + 1) % 2)
    median = RunningMedian(
        pictures.read((np.arange(count) + 0.5).astype(np.int64) * total // count)
    )
    scale = min(1.0, _SMALL / max(pictures.height, pictures.width))
    size = max(1, round(pictures.height * scale)), max(1, round(pictures.width * scale))
    apart, step = -(-total // _MOST_KEPT), -(-total // _MOST_COUNTED)
    kept: list[NDArray[np.uint8]] = []
    profile = np.zeros((total, ROWS), np.float32)
    stripes = _stripes(size[0])
    before: NDArray[np.uint8] | None = None
    place = 0
    for some in pictures.stream():
        numbers = np.arange(place, place + len(some))
        median.add(some[numbers % step == 0])
        small = scaled(some, size)
        joined = small if before is None else np.concatenate([before[None], small])
        change = np.abs(np.diff(joined.astype(np.int16), axis=0)).mean((1, 3))
        profile[place + len(some) - len(change) : place + len(some)] = change @ stripes
        kept.append(small[numbers % apart == 0])
        before = small[-1]
        place += len(some)
        if progress is not None:
            progress(place, total)
    scene = median.result()
    places = _places(np.concatenate(kept), scaled(scene.picture[None], size)[0]) / scale
    return Survey(scene, profile, _between(places, np.arange(0, total, apart), total))


def _stripes(rows: int) -> NDArray[np.float64]:
    """How much each of `rows` counts for each stripe, `[rows, ROWS]`; stripes may share rows."""
    edges = np.arange(rows + 1) / rows * ROWS
    starts = np.arange(ROWS)
    shared = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    weights = np.maximum(shared, 0)
    return np.asarray(weights / weights.sum(0))


def scaled(pictures: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Pictures (uint8 `[N,3,H,W]`) in another `size` (H, W), antialiased."""
    if pictures.shape[2:] == size:
        return pictures
    return interpolate(torch.from_numpy(pictures), size, mode="bilinear", antialias=True).numpy()


def _places(pictures: NDArray[np.uint8], scene: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Left, top, right and bottom `[N,4]` of the foreground, without the outermost hundredth."""
    found = np.full((len(pictures), 4), np.nan, np.float32)
    for start in range(0, len(pictures), 64):
        masks = background.foreground(pictures[start : start + 64], scene)
        for n, mask in enumerate(masks, start):
            if mask.mean() < _LEAST_AREA:
                continue
            rows, columns = np.nonzero(mask)
            low, high = _TAIL, 1 - _TAIL
            found[n] = (
                *(np.quantile(columns, low), np.quantile(rows, low)),
                *(np.quantile(columns, high) + 1, np.quantile(rows, high) + 1),
            )
    return found


def _between(places: NDArray[np.float32], at: NDArray[Any], total: int) -> NDArray[np.float32]:
    """Places of some frames, drawn out to all of them."""
    if len(places) == total:
        return places
    found = np.full((total, 4), np.nan, np.float32)
    known = np.isfinite(places).all(1)
    if known.any():
        for column in range(4):
            found[:, column] = np.interp(np.arange(total), at[known], places[known, column])
    return found


# -- on disk

_FORMS: dict[str, hdf5.Form] = {
    "scene": (np.dtype("u1"), (3, None, None)),
    "profile": (np.dtype("<f4"), (None, ROWS)),
    "places": (np.dtype("<f4"), (None, 4)),
    "counted": (np.dtype("<f8"), (2,)),
    "check": (np.dtype("u1"), (32,)),
}


def _written(known: Survey) -> bytes:
    columns: dict[str, NDArray[Any]] = {
        "scene": known.scene.picture,
        "profile": known.profile.astype("<f4"),
        "places": known.places.astype("<f4"),
        "counted": np.array([known.scene.frames, known.scene.clipped], "<f8"),
    }
    columns["check"] = _check(columns)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column, track_times=False)
    return buffer.getvalue()


def _check(columns: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
    digest = hashlib.sha256()
    for name in ("scene", "profile", "places", "counted"):
        digest.update(np.ascontiguousarray(columns[name]).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _kept(path: Path, pictures: Pictures) -> Survey | None:
    """What an earlier job has found, if it is as it was written."""
    if not path.is_file():
        return None
    try:
        with hdf5.reading(path) as file:
            hdf5.check_structure(file, _FORMS, path.stat().st_size, contiguous=True)
            columns = {name: file[name][()] for name in _FORMS}
        if not np.array_equal(_check(columns), columns["check"]):
            raise hdf5.StructureError("it does not match its checksum")
        shape, total = (3, pictures.height, pictures.width), pictures.frames
        if columns["scene"].shape != shape or len(columns["profile"]) != total:
            raise hdf5.StructureError("it is of other pictures")
    except Exception as error:  # h5py raises many types on damaged files
        log.warning("%s is not usable (%s); looking through %s again", path, error, pictures.where)
        return None
    frames, clipped = columns["counted"].tolist()
    scene = Scene(columns["scene"], int(frames), clipped)
    return Survey(scene, columns["profile"], columns["places"])
