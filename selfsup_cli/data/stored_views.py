"""The views in a prepared store, read at any frame."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from selfsup_cli.data import hdf5
from selfsup_cli.data.crops import cut
from selfsup_cli.data.geometry import Box
from selfsup_cli.data.multiview import Camera, Frames, Recording, frame_numbers
from selfsup_cli.data.multiview_plan import Plan
from selfsup_cli.data.multiview_shard import Coding, Shard
from selfsup_cli.errors import InputError

log = logging.getLogger("selfsup")

_OPEN = 256


def view_name(recording: int, camera: int) -> str:
    """What the files of a camera of a recording begin with."""
    return f"{recording:04d}-{camera:02d}"


class StoredViews:
    """`Views` in a prepared store. It travels to processes, and holds no open file until asked."""

    def __init__(self, folder: Path, plan: Plan, index: Mapping[str, Any]) -> None:
        self.folder = folder
        self.name = plan.name
        self._coding = Coding(plan.side, plan.quality)
        self.left_out: list[tuple[str, str]] = []
        recordings: list[Recording] = []
        self._views: list[tuple[Mapping[str, Any], ...]] = []
        for number, recording in enumerate(plan.recordings):
            cameras: list[Camera] = []
            views: list[Mapping[str, Any]] = []
            for place, camera in enumerate(recording.cameras):
                view = index["views"][view_name(number, place)]
                if "bad" in view:
                    self.left_out.append((f"{recording.id}/{camera.name}", view["bad"]))
                else:
                    cameras.append(camera)
                    views.append(view)
            if cameras:
                recordings.append(replace(recording, cameras=tuple(cameras)))
                self._views.append(tuple(views))
        for name, reason in self.left_out:
            log.warning("%s is left out: %s", name, reason)
        if not recordings:
            name, reason = self.left_out[0]
            raise InputError(
                f"no camera of {plan.name} can be read, as {name}: {reason}", kind="bad-media"
            )
        self.recordings = tuple(recordings)
        self.side = plan.side
        bad = json.dumps(self.left_out)
        self.fingerprint = hashlib.sha256(f"{plan.key}\0{bad}".encode()).hexdigest()
        self._shards: OrderedDict[str, Shard] = OrderedDict()
        self._motion: dict[int, NDArray[np.float32]] = {}
        self._scenes: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": OrderedDict(), "_scenes": OrderedDict()}

    def subset(
        self, recordings: Sequence[int], cameras: Sequence[str] | None = None
    ) -> StoredViews:
        """Only some recordings, in that order, and of them only the cameras of these names."""
        chosen = object.__new__(StoredViews)
        chosen.__dict__.update(self.__getstate__())
        chosen._motion = {}
        kept, views = [], []
        for number in recordings:
            recording = self.recordings[number]
            places = [
                place
                for place, camera in enumerate(recording.cameras)
                if cameras is None or camera.name in cameras
            ]
            kept.append(replace(recording, cameras=tuple(recording.cameras[p] for p in places)))
            views.append(tuple(self._views[number][place] for place in places))
        chosen.recordings, chosen._views = tuple(kept), views
        told = json.dumps([[r.id, *(c.name for c in r.cameras)] for r in kept])
        chosen.fingerprint = hashlib.sha256(f"{self.fingerprint}\0{told}".encode()).hexdigest()
        return chosen

    def crops(self, recording: int, camera: int, frames: Frames) -> NDArray[np.uint8]:
        """See `Views`; raises InputError for a file that was damaged since it was written."""
        found = self._gathered(recording, camera, frames, Shard.crops)
        return np.zeros((0, 3, self.side, self.side), np.uint8) if found is None else found

    def masks(self, recording: int, camera: int, frames: Frames) -> NDArray[np.bool_] | None:
        """See `Views`."""
        return self._gathered(recording, camera, frames, Shard.masks)

    def backgrounds(self, recording: int, camera: int, frames: Frames) -> NDArray[np.uint8] | None:
        """See `Views`."""
        scene = self.scene(recording, camera)
        if scene is None:
            return self._gathered(recording, camera, frames, Shard.backgrounds)
        boxes = self.boxes(recording, camera, frames)
        if boxes is None:
            return None
        cuts = [cut(scene, Box(*box), self.side) for box in boxes.tolist()]
        return np.stack(cuts) if cuts else np.zeros((0, 3, self.side, self.side), np.uint8)

    def poses(self, recording: int, camera: int, frames: Frames) -> NDArray[np.float32] | None:
        """See `Views`."""
        return self._gathered(recording, camera, frames, partial(_rows, "poses"))

    def pixels(self, recording: int, camera: int, frames: Frames) -> NDArray[np.float32] | None:
        """See `Views`."""
        return self._gathered(recording, camera, frames, partial(_rows, "pixels"))

    def boxes(self, recording: int, camera: int, frames: Frames) -> NDArray[np.float32] | None:
        """Left, top and side `[N,3]` of each crop in pixels of its picture, where it has one."""
        return self._gathered(recording, camera, frames, partial(_rows, "boxes"))

    def motion(self, recording: int) -> NDArray[np.float32]:
        """See `Views`."""
        if recording not in self._motion:
            cameras = range(len(self.recordings[recording].cameras))
            self._motion[recording] = np.mean(
                [self.camera_motion(recording, camera) for camera in cameras], 0, dtype=np.float32
            )
        return self._motion[recording]

    def camera_motion(self, recording: int, camera: int) -> NDArray[np.float32]:
        """The same of one camera, `[T]`."""
        view = self._views[recording][camera]
        starts = range(len(view["shards"]))
        return np.concatenate([self._shard(view, n).motion for n in starts])

    def scene(self, recording: int, camera: int) -> NDArray[np.uint8] | None:
        """The empty scene as a whole picture, uint8 `[3,H,W]`; None where it is not known."""
        entry = self._views[recording][camera]["scene"]
        if entry is None:
            return None
        place = (recording, camera)
        if place not in self._scenes:
            path = self.folder / Path(entry["file"]).name
            try:
                data = path.read_bytes()
            except OSError as error:
                self._damaged(path, error)
            if hashlib.sha256(data).hexdigest() != entry["sha256"]:
                self._damaged(path, ValueError("it does not match its checksum"))
            self._scenes[place] = np.frombuffer(data, np.uint8).reshape(entry["shape"])
            while len(self._scenes) > _OPEN // 8:
                self._scenes.popitem(last=False)
        self._scenes.move_to_end(place)
        return self._scenes[place]

    def close(self) -> None:
        """Let go of the files."""
        self._shards.clear()
        self._scenes.clear()

    def _gathered(
        self,
        recording: int,
        camera: int,
        frames: Frames,
        part: Callable[[Shard, NDArray[np.int64]], NDArray[Any] | None],
    ) -> NDArray[Any] | None:
        """A part of each of `frames`, in their order, from whichever files hold them."""
        numbers = frame_numbers(frames, self.recordings[recording].frames)
        view = self._views[recording][camera]
        ends = np.array([0, *(one["stop"] for one in view["shards"])])
        holders = np.searchsorted(ends, numbers, side="right") - 1
        found: NDArray[Any] | None = None
        for holder in np.unique(holders).tolist():
            here = np.flatnonzero(holders == holder)
            shard = self._shard(view, holder)
            try:
                values = part(shard, numbers[here] - ends[holder])
            except (hdf5.StructureError, OSError) as error:
                self._damaged(shard.path, error)
            if values is None:
                return None
            if found is None:
                found = np.empty((len(numbers), *values.shape[1:]), values.dtype)
            found[here] = values
        return found

    def _shard(self, view: Mapping[str, Any], number: int) -> Shard:
        entry = view["shards"][number]
        path = self.folder / Path(entry["file"]).name
        shard = self._shards.get(path.name)
        if shard is None:
            start = view["shards"][number - 1]["stop"] if number else 0
            try:
                shard = Shard(path, entry["stop"] - start, self._coding, entry["tables"])
            except Exception as error:  # h5py raises many types on damaged files
                self._damaged(path, error)
            self._shards[path.name] = shard
            while len(self._shards) > _OPEN:
                self._shards.popitem(last=False)
        self._shards.move_to_end(path.name)
        return shard

    def _damaged(self, path: Path, error: Exception) -> NoReturn:
        """Whoever opens the store next finds the file gone, and makes it anew."""
        path.unlink(missing_ok=True)
        raise InputError(
            f"{path} of the prepared views is damaged ({error}): run the same command again and it "
            "is made anew",
            kind="cache",
        ) from error


def _rows(name: str, shard: Shard, frames: NDArray[np.int64]) -> NDArray[Any] | None:
    table: NDArray[Any] | None = getattr(shard, name)
    return None if table is None else table[frames]
