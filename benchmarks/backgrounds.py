"""The empty scene of a camera: one pass in bounded memory against the median of all that is
loaded; and crops from a prepared store against cutting them out of video."""

from __future__ import annotations

import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import measure
import numpy as np
import torch
from videos import FRAMES, HEIGHT, WIDTH, make

from selfsup_cli.data import video
from selfsup_cli.data.background import SEEDS, RunningMedian, Scene
from selfsup_cli.data.crops import cut
from selfsup_cli.data.frame_table import VideoInfo
from selfsup_cli.data.geometry import Box
from selfsup_cli.data.multiview import Camera
from selfsup_cli.data.multiview_layouts import open_each_camera
from selfsup_cli.data.multiview_raw import RawRecording, RawView
from selfsup_cli.data.pictures import VideoPictures
from selfsup_cli.data.stored_views import StoredViews
from selfsup_cli.data.view_recordings import Recordings

PICTURES, SIDE, READ, ROUNDS = 451, 128, 32, 3
SIZE = (3, 240, 320)
SPEED, MEMORY, STORE = "≥ 1", "≥ 5", "≥ 3"
LIMITS: dict[str, str] = {}


def rows() -> list[measure.Row]:
    """CPU time on one thread, and the most memory that was held at once."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return [*_median(), _crops(Path(folder))]


def _film() -> np.ndarray:
    """A noisy scene through which something passes."""
    source = np.random.default_rng(0)
    scene = source.integers(30, 220, SIZE)
    noise = source.integers(-4, 5, (16, *SIZE))
    film = np.empty((PICTURES, *SIZE), np.uint8)
    for n in range(PICTURES):
        film[n] = scene + noise[n % 16]
        left = n * SIZE[2] // PICTURES
        film[n, :, 60:200, left : left + 40] = 250
    return film


def _median() -> list[measure.Row]:
    film = _film()

    def streaming() -> Scene:
        median = RunningMedian(film[:: PICTURES // SEEDS][:SEEDS])
        for start in range(0, PICTURES, 16):
            median.add(film[start : start + 16])
        return median.result()

    def loading() -> np.ndarray:
        # What a program holds that reads all pictures first.
        loaded = film.copy()
        return np.asarray(np.median(loaded, axis=0, overwrite_input=True))

    scene = streaming()
    wrong = float((scene.picture != loading()).mean())
    assert wrong <= scene.clipped + 1e-9, "what is not clipped is exact"
    spent = measure.interleaved({"streaming": streaming, "loading": loading}, ROUNDS)
    held = {one.__name__: _peak(one) for one in (streaming, loading)}
    what = f"median of {PICTURES} pictures of {SIZE[2]}×{SIZE[1]}"
    thousand = 1000 * spent["streaming"] / PICTURES
    return [
        (what, "np.median of all of them", spent["loading"] / spent["streaming"], SPEED),
        (
            f"{what}: memory",
            "np.median of all of them",
            held["loading"] / held["streaming"],
            MEMORY,
        ),
        (f"{what}: seconds per thousand", "–", thousand, ""),
    ]


def _peak(run: Callable[[], object]) -> int:
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def _crops(folder: Path) -> measure.Row:
    path = make(folder, "h264", 1)[0]
    info = video.probe(path)
    pictures = VideoPictures(path, info, "benchmark")
    view = RawView(Camera("cam", WIDTH, HEIGHT), pictures, info.fps)
    recording = RawRecording("one", "1", "1", info.fps, (view,))
    found = Recordings("benchmark", folder, [recording])
    began = time.perf_counter()
    views = open_each_camera(found, [recording], SIDE, folder / "cache")
    print(f"{FRAMES} frames prepared in {time.perf_counter() - began:.1f} s", file=sys.stderr)
    frames = np.random.default_rng(0).integers(0, info.frames, READ)
    contenders = {
        "store": partial(_from_store, views, frames),
        "video": partial(_from_video, path, info, frames),
    }
    spent = measure.interleaved(contenders, ROUNDS)
    what = f"{READ} crops of {SIDE} pixels with masks, at random times"
    return what, f"{WIDTH}×{HEIGHT} H.264, cut out", spent["video"] / spent["store"], STORE


def _from_store(views: StoredViews, frames: np.ndarray) -> None:
    views.crops(0, 0, frames)
    views.masks(0, 0, frames)


def _from_video(path: Path, info: VideoInfo, frames: np.ndarray) -> None:
    for frame in frames:
        picture = video.decode(path, info, np.array([frame]))[:, 0].numpy()
        cut(picture, Box(0, 0, HEIGHT), SIDE)


if __name__ == "__main__":
    measure.main(rows, LIMITS)
