"""Are the frames that are fetched those of a decode of the whole file, byte for byte?"""

from __future__ import annotations

import tempfile
from pathlib import Path

import measure
import numpy as np
import torch
import videos
from torch.nn.functional import interpolate

from selfsup_cli.data import video

SIZE, LENGTH, LISTS = (128, 171), 16, 40
LIMITS: dict[str, str] = {}


def rows() -> list[measure.Row]:
    """Index lists (regular, random, backwards, with repeats) whose frames differ, per codec."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in videos.KINDS:
            path = videos.make(Path(folder, kind), kind, 1)[0]
            wrong = _wrong(path)
            name = f"index lists of {LISTS} that differ, {kind}"
            found.append((name, "full decode", float(wrong), "= 0"))
    return found


def _wrong(path: Path) -> int:
    whole = torch.from_numpy(videos.decode_all(path)).permute(0, 3, 1, 2)
    scaled = interpolate(whole, SIZE, mode="bilinear", antialias=True).permute(1, 0, 2, 3)
    info = video.probe(path)
    if info.frames != len(whole):
        return LISTS
    rng = np.random.default_rng(0)
    return sum(
        not torch.equal(video.decode(path, info, frames, SIZE), scaled[:, torch.from_numpy(frames)])
        for frames in (_frames(n, info.frames, rng) for n in range(LISTS))
    )


def _frames(number: int, count: int, rng: np.random.Generator) -> np.ndarray:
    if number % 2:
        return rng.integers(0, count, LENGTH)
    stride = int(rng.choice([1, 2, 4, 8]))
    start = int(rng.integers(0, count - (LENGTH - 1) * stride))
    return (start + np.arange(LENGTH) * stride)[:: int(rng.choice([1, -1]))].copy()


if __name__ == "__main__":
    measure.main(rows, LIMITS)
