"""Small videos of every kind, written for the tests; and the plain decoder they are judged by."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def picture(number: int, height: int, width: int) -> np.ndarray:
    """A textured uint8 `[H,W,3]` frame that no other frame number shares."""
    rng = np.random.default_rng(number // 7)
    image = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    image = np.repeat(np.repeat(image, 8, 0), 8, 1)[:height, :width]
    image = np.roll(image, (number * 3 % height, number * 5 % width), (0, 1)).copy()
    image[: height // 4, : width // 4] = number * 37 % 256
    return image


def write_video(
    path: Path,
    frames: int = 40,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (64, 96),
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    rotate: int = 0,
    audio: bool = False,
    gop: int | None = None,
    max_b_frames: int | None = None,
) -> Path:
    """Encode `frames` frames of `size` (height, width) at 25 fps, or at `times` in 1/1000 s."""
    height, width = size
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = height, width, pixels
        stream.codec_context.thread_count = 1
        if gop is not None:
            stream.codec_context.gop_size = gop
        if max_b_frames is not None:
            stream.codec_context.max_b_frames = max_b_frames
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
            stream.time_base = Fraction(1, 1000)
        if rotate:
            stream.set_display_rotation(rotate)
        sound: Any = container.add_stream("aac", rate=16000) if audio else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, height, width), "rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            else:
                frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            wave = (8000 * np.sin(np.arange(16000) / 20)).astype(np.float32)[None] / 32768
            piece = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
            piece.sample_rate = 16000
            container.mux(sound.encode(piece))
            container.mux(sound.encode(None))
    return path


def full_decode(path: Path) -> list[np.ndarray]:
    """Every frame as the naive loop gives it, uint8 `[H,W,3]`, turned upright."""
    with av.open(str(path)) as container:
        return [
            np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            for frame in container.decode(video=0)
        ]
