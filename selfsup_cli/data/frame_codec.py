"""How the frames of a pack are turned into bytes and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import simplejpeg
import torch

from selfsup_cli.data.pack_about import Coding

# Half the resolution for colour, as videos have it themselves.
_SUBSAMPLING = "420"


def encode(coding: Coding, frames: torch.Tensor) -> list[bytes]:
    """Each of `frames` (uint8 `[T,3,H,W]`, RGB) as bytes: a JPEG, or its three planes."""
    if coding.quality is None:
        return [frame.tobytes() for frame in frames.contiguous().numpy()]
    images = frames.permute(0, 2, 3, 1).contiguous().numpy()
    return [
        simplejpeg.encode_jpeg(image, coding.quality, "RGB", _SUBSAMPLING, fastdct=False)
        for image in images
    ]


def decode(coding: Coding, stored: Sequence[bytes | memoryview]) -> torch.Tensor:
    """Undo `encode`: uint8 `[3,T,H,W]`, in the order in which it was stored.

    Raises ValueError for bytes that are something else.
    """
    height, width = coding.size
    if coding.quality is None:
        planes = np.empty((len(stored), 3, height, width), np.uint8)
        for plane, data in zip(planes, stored, strict=True):
            if len(data) != plane.nbytes:
                raise ValueError(f"{len(data)} bytes instead of {plane.nbytes}")
            plane.reshape(-1)[:] = np.frombuffer(data, np.uint8)
        return torch.from_numpy(planes).permute(1, 0, 2, 3)
    images = np.empty((len(stored), height, width, 3), np.uint8)
    for image, data in zip(images, stored, strict=True):
        # The quicker DCT would add to what is lost; the quicker upsampling hardly does.
        found = simplejpeg.decode_jpeg(data, "RGB", buffer=image, fastdct=False, fastupsample=True)
        if found.shape != image.shape:
            raise ValueError(f"{found.shape[0]}×{found.shape[1]} instead of {height}×{width}")
    return torch.from_numpy(images).permute(3, 0, 1, 2)
