"""Videos to measure with: a camera that moves over textured noise, with patches that move too."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch.nn.functional import interpolate

FRAMES, HEIGHT, WIDTH, FPS = 175, 240, 320, 25
MPEG4_BITS = 620_000  # per second, as the files of UCF101 have; h264 comes to half of that

# File ending, codec, options, frames between key frames, B-frames.
KINDS: dict[str, tuple[str, str, dict[str, str], int, int]] = {
    "h264": ("mp4", "libx264", {"preset": "medium", "crf": "23"}, 250, 3),
    "h264, short groups": ("mp4", "libx264", {"preset": "medium", "crf": "23"}, 12, 3),
    "mpeg4": ("avi", "mpeg4", {}, 12, 0),
    "mpeg4 with B-frames": ("avi", "mpeg4", {}, 250, 2),
}


def make(folder: Path, kind: str, count: int, distinct: int = 4) -> list[Path]:
    """`count` files of `kind` in `folder`, of `distinct` contents."""
    folder.mkdir(parents=True, exist_ok=True)
    ending = KINDS[kind][0]
    paths = [folder / f"video{number:03d}.{ending}" for number in range(count)]
    for number, path in enumerate(paths):
        if number < distinct:
            _encode(path, kind, seed=number)
        else:
            shutil.copyfile(paths[number % distinct], path)
    return paths


def decode_all(path: Path) -> np.ndarray:
    """Every frame of a file, uint8 `[N,H,W,3]`, the way a beginner writes it."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def _encode(path: Path, kind: str, seed: int) -> None:
    _, codec, options, group, between = KINDS[kind]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if codec == "mpeg4":
            stream.bit_rate = MPEG4_BITS
        stream.codec_context.gop_size = group
        stream.codec_context.max_b_frames = between
        stream.codec_context.time_base = Fraction(1, FPS)
        for number, image in enumerate(_frames(seed)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _frames(seed: int) -> list[np.ndarray]:
    g = torch.Generator().manual_seed(seed)
    ground = _texture(HEIGHT * 2, WIDTH * 2, g)
    patches = [_texture(48, 64, g) for _ in range(4)]
    phase = torch.rand(8, generator=g) * 6
    images = []
    for number in range(FRAMES):
        t = number / FPS
        y = int((np.sin(0.5 * t + phase[0]) + 1) / 2 * HEIGHT)
        x = int((np.sin(0.4 * t + phase[1]) + 1) / 2 * WIDTH)
        image = ground[:, y : y + HEIGHT, x : x + WIDTH].clone()
        for place, patch in enumerate(patches):
            top = int((np.sin(t + phase[place]) + 1) / 2 * (HEIGHT - 48))
            left = int((np.cos(0.8 * t + phase[place + 4]) + 1) / 2 * (WIDTH - 64))
            image[:, top : top + 48, left : left + 64] = patch
        image += 2 * torch.randn(image.shape, generator=g)
        images.append(image.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy())
    return images


def _texture(height: int, width: int, g: torch.Generator) -> torch.Tensor:
    """Noise of all sizes, the larger the stronger, as photographs have it."""
    image = torch.full((1, 3, height, width), 128.0)
    for scale in (2, 4, 8, 16, 32, 64):
        coarse = torch.randn(1, 3, height // scale + 2, width // scale + 2, generator=g)
        image += scale**0.5 * 7 * interpolate(coarse, (height, width), mode="bicubic")
    return image[0]
