"""Synchronised views without files: a bar that turns, seen by cameras at several angles."""

from __future__ import annotations

import hashlib

import numpy as np

from selfsup_cli.data.multiview import Camera, Frames, Recording, frame_numbers

SUBJECTS = ("S1", "S5", "S9")


class TinyViews:
    """A bright bar before stripes that each camera sees in its own colour.

    Subjects have bars of different width and colour; `still` frames at the beginning of every
    recording do not move. Without `masked` neither masks nor backgrounds are known.
    """

    def __init__(
        self,
        *,
        subjects: tuple[str, ...] = SUBJECTS,
        frames: int = 300,
        cameras: int = 3,
        side: int = 32,
        rate: float = 50.0,
        still: int = 0,
        masked: bool = True,
    ) -> None:
        self.side = side
        self.masked = masked
        self.still = still
        seen_by = tuple(Camera(f"cam{k}", side, side) for k in range(cameras))
        self.recordings = tuple(
            Recording(name, "turning", "turning", seen_by, frames, rate) for name in subjects
        )
        told = repr((subjects, frames, cameras, side, rate, still, masked))
        self.fingerprint = hashlib.sha256(told.encode()).hexdigest()
        self.reads: list[tuple[int, int, tuple[int, ...]]] = []

    def angle(self, recording: int, frame: int) -> float:
        return 0.06 * (max(frame, self.still) - self.still) * (1 + 0.3 * recording)

    def crops(self, recording: int, camera: int, frames: Frames) -> np.ndarray:
        numbers = frame_numbers(frames, self.recordings[recording].frames)
        self.reads.append((recording, camera, tuple(numbers.tolist())))
        scene = self._scene(camera)
        colour = np.array([250 - 40 * recording, 200, 60 + 50 * recording], np.uint8)
        bars = self._bars(recording, camera, numbers)
        return np.where(bars[:, None], colour[:, None, None], scene)

    def masks(self, recording: int, camera: int, frames: Frames) -> np.ndarray | None:
        numbers = frame_numbers(frames, self.recordings[recording].frames)
        return self._bars(recording, camera, numbers) if self.masked else None

    def backgrounds(self, recording: int, camera: int, frames: Frames) -> np.ndarray | None:
        if not self.masked:
            return None
        return np.repeat(self._scene(camera)[None], len(frames), 0)

    def poses(self, recording: int, camera: int, frames: Frames) -> None:
        return None

    def pixels(self, recording: int, camera: int, frames: Frames) -> None:
        return None

    def motion(self, recording: int) -> np.ndarray:
        moved = np.full(self.recordings[recording].frames, 2.0, np.float32)
        moved[: self.still + 1] = 0
        return moved

    def close(self) -> None:
        return None

    def _scene(self, camera: int) -> np.ndarray:
        stripes = (np.arange(self.side) // 4 % 2 * 60).astype(np.uint8)
        scene = np.zeros((3, self.side, self.side), np.uint8)
        scene[camera % 3] = stripes + np.arange(self.side, dtype=np.uint8)
        return scene

    def _bars(self, recording: int, camera: int, numbers: np.ndarray) -> np.ndarray:
        y, x = np.mgrid[: self.side, : self.side] / (self.side / 2) - 1
        turned = np.array([self.angle(recording, int(frame)) for frame in numbers])
        turned = turned[:, None, None] + 0.7 * camera
        along = x * np.cos(turned) + y * np.sin(turned)
        across = np.abs(y * np.cos(turned) - x * np.sin(turned))
        bars: np.ndarray = (across < 0.15 + 0.05 * recording) & (along > -0.2) & (along < 0.9)
        return bars
