"""Small images, made for tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """A smooth, colourful image of (height, width), uint8 `[H,W,3]`."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
    return np.array(image)


def encoded(
    kind: str = "JPEG", seed: int = 0, size: tuple[int, int] = (24, 32), **how: Any
) -> bytes:
    """Such an image as a file of `kind`."""
    buffer = io.BytesIO()
    Image.fromarray(picture(seed, size)).save(buffer, kind, **how)
    return buffer.getvalue()


def put(root: Path, *names: str, size: tuple[int, int] = (24, 32)) -> Path:
    """Images under the given names in a folder, all of them different."""
    kinds = {".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(kinds.get(path.suffix.lower(), "JPEG"), seed, size))
    return root
