"""Which clips stand for a video in an evaluation, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from selfsup_cli.data.source import ClipSource
from selfsup_cli.errors import BadMediaError
from selfsup_cli.evaluation.reading import Unreadable, in_batches, read_items
from selfsup_cli.randomness import generator
from selfsup_cli.transforms.time import evenly_spaced_clips

__all__ = [
    "ClipProtocol",
    "Control",
    "Decoded",
    "FramePlan",
    "ProtocolPlan",
    "in_batches",
    "read_videos",
]

Control = Literal["still", "shuffled", "reversed"]


@dataclass(frozen=True)
class ClipProtocol:
    """Which clips stand for a video, and what is done to their order of time.

    `count` evenly spaced clips of `frames` frames, every min(n // frames, max_skip)-th frame of a
    video of n; `count=None` takes the starts of the author's test (32 to 63). Controls: `still`
    repeats the clip's middle frame, `shuffled` puts its frames into a random order (a function of
    `seed`, the video and the clip), `reversed` turns them round.
    """

    frames: int
    max_skip: int
    count: int | None
    control: Control | None = None
    seed: int = 0

    def __call__(self, n: int, identifier: str) -> np.ndarray:
        """Frame indices int64 [clips, frames] for a video of `n` frames."""
        clips = evenly_spaced_clips(n, self.frames, self.max_skip, self.count)
        if self.control == "still":
            return np.repeat(clips[:, clips.shape[1] // 2, None], clips.shape[1], axis=1)
        if self.control == "reversed":
            return np.ascontiguousarray(clips[:, ::-1])
        if self.control == "shuffled":
            for k, clip in enumerate(clips):
                g = generator(self.seed, identifier, k, "shuffled")
                clips[k] = clip[torch.randperm(len(clip), generator=g).numpy()]
        return clips

    def count_each(self, num_frames: np.ndarray) -> np.ndarray:
        """The number of clips int64 [N] of videos of `num_frames` int64 [N] frames."""
        lengths, position = np.unique(num_frames, return_inverse=True)
        counts = [
            len(evenly_spaced_clips(int(n), self.frames, self.max_skip, self.count))
            for n in lengths
        ]
        return np.array(counts, dtype=np.int64)[position]

    def describe(self) -> dict[str, str | int]:
        """Plain values for a report and for the key of the cache."""
        out: dict[str, str | int] = {
            "frames": self.frames,
            "max_skip": self.max_skip,
            "clips": self.count if self.count is not None else "all starts (32 to 63)",
        }
        if self.control is not None:
            out["control"] = self.control
        if self.control == "shuffled":
            out["control_seed"] = self.seed
        return out


class ProtocolPlan:
    """`ClipProtocol` for the videos of one source; passed to loader processes."""

    def __init__(self, source: ClipSource, clips: ClipProtocol) -> None:
        self.source = source
        self.clips = clips

    def __call__(self, video: int) -> np.ndarray:
        return self.clips(int(self.source.num_frames[video]), self.source.ids[video])


@dataclass(frozen=True)
class Decoded:
    """A video's frames uint8 [3, U, H, W], each once, and int64 [K, T] which of them are a clip."""

    video: int
    frames: Tensor
    clips: Tensor

    @property
    def position(self) -> int:
        """The video's position in the source."""
        return self.video

    def inputs(self, device: torch.device) -> Iterator[Tensor]:
        """The clips, uint8 [3, T, H, W] each."""
        frames = self.frames.to(device, non_blocking=True)
        return (frames[:, clip.to(device)] for clip in self.clips)


FramePlan = Callable[[int], np.ndarray]
"""Frame indices int64 [K, T] of the clips of a video, by its position in the source."""


class _Videos(Dataset[Decoded | Unreadable]):
    def __init__(self, source: ClipSource, plan: FramePlan, size: tuple[int, int]) -> None:
        self.source = source
        self.plan = plan
        self.size = size

    def __getitem__(self, video: int) -> Decoded | Unreadable:
        clips = self.plan(video)
        # Clips overlap: each frame is decoded, and crosses to the main process, only once.
        frames, position = np.unique(clips, return_inverse=True)
        try:
            pixels = self.source.read(video, frames, self.size)
        except BadMediaError as error:
            return Unreadable(video, error.reason)
        return Decoded(video, pixels, torch.from_numpy(position.reshape(clips.shape)))


def read_videos(
    source: ClipSource,
    videos: Sequence[int],
    plan: FramePlan,
    size: tuple[int, int],
    workers: int,
    bad: Callable[[str, str], None] | None = None,
) -> Iterator[Decoded]:
    """Decode the planned clips of `videos`, in that order, in `workers` processes.

    A file that cannot be read raises InputError, or is told to `bad` (see `reading.read_items`).
    """
    return read_items(_Videos(source, plan, size), source, videos, workers, bad)
