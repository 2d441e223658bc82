"""16 frames of a video, scaled to 128×171 bytes, on one thread: CPU time against torchcodec."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
import peers
import torch
import videos

from selfsup_cli.data import video

SIZE, LENGTH, STARTS, ROUNDS = (128, 171), 16, 4, 5
STRIDES = (1, 2, 4, 8)
CELL, MEAN = "≥ 1.15", "≥ 1.4"
_FRAMES = (
    "every frame between the key frame and the last wanted one has to be decoded by either; PyAV "
    "makes a Python object of each (about 25 µs), torchcodec stays in C++"
)
LIMITS = {
    **{f"16 frames of mpeg4, stride {stride}, 1 thread": _FRAMES for stride in STRIDES},
    "the same, geometric mean": _FRAMES,
}


def rows() -> list[measure.Row]:
    """torchcodec's CPU time over ours: every codec and stride, and their geometric mean."""
    torchcodec = peers.find("torchcodec.decoders")
    torch.set_num_threads(1)
    found: list[measure.Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("h264", "mpeg4"):
            path = videos.make(Path(folder, kind), kind, 1)[0]
            for stride in STRIDES:
                name = f"16 frames of {kind}, stride {stride}, 1 thread"
                ratio = _cell(path, stride, torchcodec) if torchcodec else measure.ABSENT
                found.append((name, "torchcodec + Resize", ratio, CELL))
    mean = math.exp(sum(math.log(row[2]) for row in found) / len(found))
    return [*found, ("the same, geometric mean", "torchcodec + Resize", mean, MEAN)]


def _cell(path: Path, stride: int, torchcodec: Any) -> float:
    from torchcodec.transforms import Resize

    info = video.probe(path)
    room = info.frames - (LENGTH - 1) * stride - 1
    clips = [
        np.arange(LENGTH) * stride + start for start in np.linspace(3, room, STARTS, dtype=int)
    ]

    def theirs(frames: np.ndarray) -> torch.Tensor:
        decoder = torchcodec.VideoDecoder(
            path, seek_mode="approximate", num_ffmpeg_threads=1, transforms=[Resize(SIZE)]
        )
        images: torch.Tensor = decoder.get_frames_at(frames.tolist()).data
        return images

    def ours(frames: np.ndarray) -> torch.Tensor:
        return video.decode(path, info, frames, SIZE)

    medians = measure.interleaved(
        {
            "theirs": _each(theirs, clips),
            "ours": _each(ours, clips),
        },
        ROUNDS,
    )
    return medians["theirs"] / medians["ours"]


def _each(read: Callable[[np.ndarray], torch.Tensor], clips: list[np.ndarray]) -> Callable[[], int]:
    def run() -> int:
        count = 0
        for frames in clips:
            count += read(frames).numel()
        assert count == len(clips) * LENGTH * 3 * math.prod(SIZE)
        return count

    return run


if __name__ == "__main__":
    peers.lend_ffmpeg()
    measure.main(rows, LIMITS)
