"""Clips a second from a JPEG pack: against the files it was made of, and against its decoder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import loading
import measure
import numpy as np
import simplejpeg
import torch
import videos

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.data import packing
from selfsup_cli.data.loader import ClipDataset
from selfsup_cli.data.pack_layout import Coding
from selfsup_cli.data.source import ClipSource

GOALS = {"h264": "≥ 9", "mpeg4": "≥ 2.8"}
BARE = "≥ 0.85"
LIMITS = {
    f"clips/s to the trainer from a JPEG pack, {loading.WORKERS} workers, h264 files": "the way "
    "from the worker processes to the trainer, and h264 files that decode faster than those of the "
    "prototype (280 KB instead of 310 KB)",
}


def rows() -> list[measure.Row]:
    """Clips a second from the pack over those of each peer."""
    found: list[measure.Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SELFSUP_CACHE"] = scratch
        for kind, goal in GOALS.items():
            folder = Path(scratch, kind)
            videos.make(folder, kind, loading.CLIPS)
            target = Path(scratch, f"{kind}.h5")
            data = VideoData(source=str(folder))
            made = packing.plan(data, CODING, workers=0, progress=None)
            packing.pack(made, target, workers=2)
            sources = {"files": loading.open_folder(folder), "pack": loading.open_folder(target)}
            spent = loading.seconds(
                {
                    name: ClipDataset(source, loading.plan, loading.SIZE, seed=0)
                    for name, source in sources.items()
                }
            )
            name = f"clips/s to the trainer from a JPEG pack, {loading.WORKERS} workers"
            found.append((name, f"{kind} files", spent["files"] / spent["pack"], goal))
        found.append(("clips from a JPEG pack, 1 thread", "simplejpeg", _bare(sources), BARE))
    return found


CODING = Coding(size=loading.SIZE, encoding="jpeg", quality=90)


def _bare(sources: dict[str, ClipSource]) -> float:
    """CPU time of simplejpeg over bytes in memory, over that of the pack for the same frames."""
    pack, files = sources["pack"], sources["files"]
    clips = [(i, np.arange(loading.LENGTH) * 4 + 7 * i) for i in range(8)]
    stored = []
    for i, frames in clips:
        images = files.read(i, frames, loading.SIZE).permute(1, 2, 3, 0).contiguous().numpy()
        stored.append([simplejpeg.encode_jpeg(image, 90, "RGB", "420") for image in images])

    def bare() -> None:
        for clip in stored:
            images = np.empty((loading.LENGTH, *loading.SIZE, 3), np.uint8)
            for image, data in zip(images, clip, strict=True):
                simplejpeg.decode_jpeg(data, "RGB", buffer=image, fastdct=False, fastupsample=False)

    def ours() -> None:
        for i, frames in clips:
            pack.read(i, frames, loading.SIZE)

    torch.set_num_threads(1)
    medians = measure.interleaved({"bare": bare, "ours": ours}, rounds=15)
    return medians["bare"] / medians["ours"]


if __name__ == "__main__":
    measure.main(rows, LIMITS)
