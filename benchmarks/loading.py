"""Clips a second that reach the trainer through two loader processes, from video files."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import measure
import numpy as np
import peers
import torch
import videos
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.data.clips import open_source
from selfsup_cli.data.loader import ClipDataset, ClipPlan, EpochLoader
from selfsup_cli.data.source import ClipSource

SIZE, LENGTH, STRIDES = (128, 171), 16, (1, 2, 4, 8)
CLIPS, BATCH, WORKERS, ROUNDS = 32, 8, 2, 5
GOALS = {"h264": "≥ 3.5", "mpeg4": "≥ 7"}
TORCHCODEC = "≥ 1.25"
_BUSY = (
    "decoding itself, which both loaders do: at the bitrate of these files turning all frames into "
    "arrays, which only the naive one does, takes no larger share; and on busy cores the naive "
    "loader, whose conversion starts more threads, gets a larger part of the machine"
)
_FIXED = "decoding itself, by the same FFmpeg; see decoding.py"
LIMITS = {
    f"clips/s to the trainer, {kind}, {WORKERS} workers, {peer}": limit
    for kind in GOALS
    for peer, limit in (("naive PyAV loader", _BUSY), ("torchcodec loader", _FIXED))
}

Read = Callable[[Path, np.ndarray], torch.Tensor]


class Clips(Dataset[dict[str, Any]]):
    """The clips that `ClipDataset` would give, read by somebody else's way of reading."""

    def __init__(self, dataset: ClipDataset, folder: Path, read: Read) -> None:
        self.dataset = dataset
        self.folder = folder
        self.read = read

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, place = key
        source = self.dataset.source
        drawn = plan(int(source.num_frames[place]), self.dataset.randomness(epoch, place))
        clip = self.read(self.folder / source.ids[place], drawn.frames[0])
        return {"clip": clip[None], "index": torch.tensor(place), "bad": []}


def rows() -> list[measure.Row]:
    """Our clips a second over those of each peer, with the same clips in the same order."""
    torchcodec = peers.find("torchcodec.decoders")
    found: list[measure.Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SELFSUP_CACHE"] = scratch
        for kind, goal in GOALS.items():
            folder = Path(scratch, kind)
            videos.make(folder, kind, CLIPS)
            dataset = ClipDataset(open_folder(folder), plan, SIZE, seed=0)
            contenders = {"ours": dataset, "PyAV": Clips(dataset, folder, naive)}
            if torchcodec:
                contenders["torchcodec"] = Clips(dataset, folder, by_torchcodec)
            spent = seconds(contenders)
            name = f"clips/s to the trainer, {kind}, {WORKERS} workers"
            found.append((name, "naive PyAV loader", spent["PyAV"] / spent["ours"], goal))
            ratio = spent.get("torchcodec", measure.ABSENT) / spent["ours"]
            found.append((name, "torchcodec loader", ratio, TORCHCODEC))
    return found


def open_folder(folder: Path) -> ClipSource:
    """All videos of a folder, indexed."""
    return open_source(VideoData(source=str(folder)), "all", labels=False, workers=0)


def plan(count: int, g: torch.Generator) -> ClipPlan:
    """One clip at one of the strides, anywhere in the video."""
    stride = STRIDES[int(torch.randint(len(STRIDES), (), generator=g))]
    start = int(torch.randint(count - (LENGTH - 1) * stride, (), generator=g))
    return ClipPlan((start + np.arange(LENGTH) * stride)[None])


def seconds(contenders: dict[str, Any]) -> dict[str, float]:
    """Median seconds of an epoch of `CLIPS` clips; the workers are started beforehand."""
    loaders = {
        name: EpochLoader(dataset, CLIPS, batch_size=BATCH, seed=0, workers=WORKERS)
        for name, dataset in contenders.items()
    }

    def epoch(loader: EpochLoader) -> Callable[[], None]:
        def run() -> None:
            for batch in loader.epoch(0):
                assert batch["clip"].shape == (BATCH, 3, LENGTH, *SIZE)

        return run

    runs = {name: epoch(loader) for name, loader in loaders.items()}
    return measure.interleaved(runs, ROUNDS, time.perf_counter)


def naive(path: Path, frames: np.ndarray) -> torch.Tensor:
    """Decode the file, turn every frame into an array, take those that are wanted."""
    with av.open(str(path)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    clip = torch.from_numpy(np.stack([images[frame] for frame in frames])).permute(0, 3, 1, 2)
    return interpolate(clip, SIZE, mode="bilinear", antialias=True).permute(1, 0, 2, 3)


def by_torchcodec(path: Path, frames: np.ndarray) -> torch.Tensor:
    """The same frames by torchcodec, which scales them too."""
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    decoder = VideoDecoder(
        path, seek_mode="approximate", num_ffmpeg_threads=1, transforms=[Resize(SIZE)]
    )
    clip: torch.Tensor = decoder.get_frames_at(frames.tolist()).data
    return clip.permute(1, 0, 2, 3)


if __name__ == "__main__":
    peers.lend_ffmpeg()
    measure.main(rows, LIMITS)
