"""Recordings as they lie on disk, before crops are made of them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfsup_cli.data.background import foreground
from selfsup_cli.data.crops import cut, inside, whole
from selfsup_cli.data.geometry import Box, crop_around, crop_box, into_crop, virtual_pose
from selfsup_cli.data.multiview import Camera, Recording
from selfsup_cli.data.multiview_shard import Piece
from selfsup_cli.data.pictures import Pictures
from selfsup_cli.data.survey import survey

log = logging.getLogger("selfsup")

EXTENT = 2300.0
"""What a crop around known joints shows of the world at their depth, in mm: arms reach out of a
little more than a body is tall."""

MARGIN = 1.2
"""How much larger than the subject a crop is where its size in the world is not known."""

LEAST_FRAMES = 25
"""Pictures below which their median is not taken for an empty scene."""

_STEADY_SIZE, _STEADY_PLACE = 1.0, 0.2  # seconds over which found places are evened out


@dataclass(frozen=True)
class Annotation:
    """What is known of the subject in the pictures of a camera; NaN where it is not.

    `joints` float32 `[T,17,3]` as the camera has them, in mm; `pixels` float32 `[T,17,2]`;
    `boxes` float32 `[T,4]`, left, top, width and height in pixels.
    """

    joints: NDArray[np.float32] | None = None
    pixels: NDArray[np.float32] | None = None
    boxes: NDArray[np.float32] | None = None

    def take(self, frames: NDArray[np.int64]) -> Annotation:
        """Of some frames."""
        return Annotation(
            None if self.joints is None else self.joints[frames],
            None if self.pixels is None else self.pixels[frames],
            None if self.boxes is None else self.boxes[frames],
        )


@dataclass(frozen=True)
class RawView:
    """One camera of a recording; `rate` is that of its pictures, 0 where it is not known."""

    camera: Camera
    pictures: Pictures
    rate: float = 0.0
    annotation: Annotation = field(default_factory=Annotation)


@dataclass(frozen=True)
class RawRecording:
    """One subject in one sequence, seen by some cameras."""

    subject: str
    sequence: str
    action: str
    rate: float
    views: tuple[RawView, ...]

    @property
    def id(self) -> str:
        return f"{self.subject}/{self.sequence}"

    @property
    def frames(self) -> int:
        """What all cameras have."""
        return min(view.pictures.frames for view in self.views)

    def recording(self) -> Recording:
        """The same without its pictures."""
        return Recording(
            self.subject,
            self.sequence,
            self.action,
            tuple(view.camera for view in self.views),
            self.frames,
            self.rate,
        )

    def digest(self) -> str:
        """What tells its pictures and annotations from others (hex)."""
        total = hashlib.sha256()
        for view in self.views:
            total.update(view.pictures.digest.encode())
            for part in (
                view.annotation.joints,
                view.annotation.pixels,
                view.annotation.boxes,
            ):
                total.update(b"-" if part is None else np.ascontiguousarray(part).tobytes())
        return total.hexdigest()


@dataclass(frozen=True)
class RecordingMaker:
    """Makes crops of recordings; a `Maker` of a store. `cache` is where surveys are kept."""

    recordings: tuple[RawRecording, ...]
    side: int
    cache: Path | None = None
    VERSION = 1  # part of what decides the content of a store

    def scene(self, recording: int, camera: int) -> NDArray[np.uint8] | None:
        """The median of the camera's pictures, where there are enough of them."""
        view = self.recordings[recording].views[camera]
        if view.pictures.frames < LEAST_FRAMES:
            return None
        return survey(view.pictures, cache=self.cache).scene.picture

    def pieces(self, recording: int, camera: int, start: int) -> Iterator[Piece]:
        """Cut the subject out of every picture."""
        raw = self.recordings[recording]
        view, total = raw.views[camera], raw.frames
        known = survey(view.pictures, cache=self.cache)
        boxes = boxes_of(view, known.places, raw.rate)[:total]
        scene = known.scene.picture if view.pictures.frames >= LEAST_FRAMES else None
        height, width = view.pictures.height, view.pictures.width
        place = start
        for pictures in view.pictures.stream(start):
            frames = np.arange(place, min(place + len(pictures), total))
            if not len(frames):
                return
            here = [boxes[n] for n in frames]
            crops = np.stack(
                [cut(one, box, self.side) for one, box in zip(pictures, here, strict=False)]
            )
            masks = None
            if scene is not None:
                behind = np.stack([cut(scene, box, self.side) for box in here])
                within = np.stack([inside(height, width, box, self.side) for box in here])
                masks = foreground(crops, behind) & within
            seen = view.annotation.take(frames)
            yield Piece(
                crops,
                known.motion[frames],
                masks=masks,
                boxes=np.array([(b.left, b.top, b.side) for b in here], np.float32),
                poses=None if seen.joints is None else _poses(seen.joints),
                pixels=None if seen.pixels is None else _in_crops(seen.pixels, here, self.side),
            )
            place += len(pictures)


def boxes_of(view: RawView, places: NDArray[np.float32], rate: float) -> list[Box]:
    """The crop of every picture of a camera, corners on the borders of pixels.

    Around the root joint, `EXTENT` wide at its depth, where joints and the camera's intrinsics are
    known; around the root and all joints times `MARGIN` where only their pixels are; around given
    boxes; around `places`, which stand out from the scene (float32 `[T,4]`), evened out over time;
    or else the largest square in the middle. Gaps are bridged in a straight line.
    """
    total = view.pictures.frames
    found = np.full((total, 3), np.nan)  # centre and side
    seen = view.annotation
    if seen.joints is not None and view.camera.intrinsics is not None:
        for n in np.flatnonzero(np.isfinite(seen.joints[:, 0]).all(1)).tolist():
            if seen.joints[n, 0, 2] > 0:
                found[n] = _centred(crop_around(seen.joints[n, 0], view.camera, EXTENT))
    elif seen.pixels is not None:
        for n in np.flatnonzero(np.isfinite(seen.pixels[:, 0]).all(1)).tolist():
            found[n] = _centred(crop_box(seen.pixels[n], MARGIN, centre=seen.pixels[n, 0]))
    if not np.isfinite(found).any() and seen.boxes is not None:
        corner, size = seen.boxes[:, :2], seen.boxes[:, 2:]
        found = np.column_stack([corner + size / 2, size.max(1)])
    if not np.isfinite(found).any():
        middle, size = (places[:, :2] + places[:, 2:]) / 2, places[:, 2:] - places[:, :2]
        found = np.column_stack([middle, MARGIN * size.max(1)])
        found = _bridged(found)
        found[:, :2] = _evened(found[:, :2], round(_STEADY_PLACE * rate))
        found[:, 2:] = _evened(found[:, 2:], round(_STEADY_SIZE * rate))
    found = _bridged(found)
    if not np.isfinite(found).all():
        height, width = view.pictures.height, view.pictures.width
        found[:] = (width / 2, height / 2, min(height, width))
    # No crop is larger than twice what the camera sees: a wrong joint must not fill the memory.
    most = 2 * max(view.pictures.height, view.pictures.width)
    sides = np.minimum(found[:, 2], most)
    return [
        whole(Box(x - side / 2, y - side / 2, side))
        for (x, y), side in zip(found[:, :2].tolist(), sides.tolist(), strict=True)
    ]


def _centred(box: Box) -> tuple[float, float, float]:
    return box.left + box.side / 2, box.top + box.side / 2, box.side


def _bridged(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows that are NaN, in a straight line between their neighbours; all NaN stays so."""
    known = np.isfinite(found).all(1)
    if known.all() or not known.any():
        return found
    at = np.flatnonzero(known)
    columns = [np.interp(np.arange(len(found)), at, column) for column in found[known].T]
    return np.column_stack(columns)


def _evened(values: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """The running median of values `[T,k]` over about `frames`, then their running mean."""
    half = frames // 2
    if half < 1 or not len(values):
        return values
    for take in (np.median, np.mean):
        padded = np.pad(values, ((half, half), (0, 0)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=0)
        values = np.asarray(take(windows, axis=-1))
    return values


def _poses(joints: NDArray[np.float32]) -> NDArray[np.float32]:
    """Joints `[N,17,3]` relative to the root, as the virtual camera of the crop sees them."""
    poses = np.full(joints.shape, np.nan, np.float32)
    usable = np.isfinite(joints[:, 0]).all(1) & (joints[:, 0, 2] > 0)
    if usable.any():
        poses[usable] = virtual_pose(joints[usable])
    return poses


def _in_crops(pixels: NDArray[np.float32], boxes: Sequence[Box], side: int) -> NDArray[np.float32]:
    parts = [into_crop(one, box, side) for one, box in zip(pixels, boxes, strict=True)]
    return np.stack(parts).astype(np.float32)
