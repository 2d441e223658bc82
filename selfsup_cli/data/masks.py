"""Mask files ↔ labels of pixels. The only module that knows how masks are stored.

A mask is an image of the size of the photo that it belongs to, whose pixels are labels: the numbers
of a greyscale or palette file, or colours that stand for them. 255 is a label that does not count.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from selfsup_cli.data import image
from selfsup_cli.data.framing import Region
from selfsup_cli.errors import BadMediaError

VOID = 255
"""The label of pixels that do not count."""

SUFFIXES = (".png", ".bmp")
Color = tuple[int, int, int]


def voc_palette() -> tuple[Color, ...]:
    """The 256 colours of PASCAL VOC's masks: bit b of a label's third, second and first bit triples
    goes into red, green and blue, the lowest into the highest."""
    colors = []
    for label in range(256):
        channels = [0, 0, 0]
        for place in range(8):
            for channel in range(3):
                channels[channel] |= ((label >> (3 * place + channel)) & 1) << (7 - place)
        colors.append((channels[0], channels[1], channels[2]))
    return tuple(colors)


@dataclass(frozen=True)
class Coding:
    """How labels are read: as numbers, of which those in `void` do not count, or as `colors`.

    `colors` belong to the labels 0, 1, …; they are used in files that have colours, and in grey
    ones where all of them are grey.
    """

    void: tuple[int, ...] = ()
    colors: tuple[Color, ...] | None = None

    def labels(self, pixels: np.ndarray) -> tuple[np.ndarray, Color | int | None]:
        """Labels uint8 `[H,W]` of numbers `[H,W]` or colours uint8 `[H,W,3]`.

        With the first number or colour that is no label, which then is `VOID` in them.
        """
        if pixels.ndim == 2 and (self.colors is None or not self._grey()):
            return self._numbered(pixels)
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        return self._colored(pixels)

    def _grey(self) -> bool:
        return all(red == green == blue for red, green, blue in self.colors or ())

    def _numbered(self, pixels: np.ndarray) -> tuple[np.ndarray, int | None]:
        strange = pixels[(pixels < 0) | (pixels > VOID)]
        labels = np.where((pixels < 0) | (pixels > VOID), VOID, pixels).astype(np.uint8)
        for value in self.void:
            labels[labels == value] = VOID
        return labels, int(strange[0]) if len(strange) else None

    def _colored(self, pixels: np.ndarray) -> tuple[np.ndarray, Color | None]:
        packed = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        labels = np.full(packed.shape, VOID, np.uint8)
        known = np.zeros(packed.shape, bool)
        for label, (red, green, blue) in enumerate(self.colors or ()):
            here = packed == (red << 16 | green << 8 | blue)
            labels[here] = VOID if label in self.void else label
            known |= here
        if known.all():
            return labels, None
        code = int(packed[~known][0])
        return labels, (code >> 16, code >> 8 & 255, code & 255)


def read_mask(path: Path, name: str, coding: Coding) -> np.ndarray:
    """The labels of a mask file, uint8 `[H,W]`; raises `BadMediaError`, about `name`.

    What is no label of `coding` is `VOID` in it: whether there is any was seen by `look_at`.
    """
    try:
        return coding.labels(_pixels(path))[0]
    except BadMediaError as error:
        raise BadMediaError(name, error.reason) from error


@dataclass(frozen=True)
class MaskFacts:
    """What is known of a mask: its size, which labels it has, and whether something is no label.

    `strange` is 0, or a number that is no label + 1, or such a colour + 2^32 (red first).
    """

    height: int
    width: int
    words: tuple[int, ...]
    strange: int

    def row(self) -> tuple[Any, ...]:
        return self.height, self.width, self.strange, *self.words

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> MaskFacts:
        """Undo `row`."""
        return cls(row[0], row[1], tuple(row[3:]), row[2])

    @property
    def present(self) -> np.ndarray:
        """bool `[256]`: the labels that some pixels have."""
        words = np.array(self.words, np.int64).view(np.uint8)
        return np.unpackbits(words, bitorder="little").astype(bool)


@dataclass(frozen=True)
class LookAt:
    """Looks through a mask file for the index; travels to other processes."""

    coding: Coding

    def __call__(self, path: Path) -> MaskFacts:
        """Raises `BadMediaError` for what cannot be read."""
        labels, strange = self.coding.labels(_pixels(path))
        present = np.bincount(labels.ravel(), minlength=256) > 0
        words = np.packbits(present, bitorder="little").view(np.int64)
        code = 0
        if isinstance(strange, tuple):
            code = (1 << 32) + (strange[0] << 16 | strange[1] << 8 | strange[2])
        elif strange is not None:
            code = max(strange, 0) + 1
        height, width = labels.shape
        return MaskFacts(height, width, tuple(int(word) for word in words), code)


def told(strange: int) -> str:
    """`MaskFacts.strange` in words."""
    if strange >> 32:
        code = strange & 0xFFFFFF
        return f"the colour {code >> 16} {code >> 8 & 255} {code & 255}"
    return f"the label {strange - 1}"


def cut(labels: np.ndarray, region: Region) -> torch.Tensor:
    """Cut `region` out of labels uint8 `[H,W]` and scale it, each pixel as its nearest one."""
    rows = slice(region.top, region.top + region.height)
    columns = slice(region.left, region.left + region.width)
    part = torch.from_numpy(np.ascontiguousarray(labels[rows, columns]))
    if tuple(part.shape) == region.size:
        return part
    return interpolate(part[None, None], region.size, mode="nearest-exact")[0, 0]


def encode_mask(labels: np.ndarray, palette: tuple[Color, ...]) -> bytes:
    """Labels uint8 `[H,W]` as a PNG with a palette, in which they stand as they are."""
    picture = Image.fromarray(labels)
    picture.putpalette([channel for color in palette for channel in color])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def decode_mask(data: bytes) -> np.ndarray:
    """Undo `encode_mask`."""
    return image.decode_values(data)


def _pixels(path: Path) -> np.ndarray:
    return image.decode_values(image.read_bytes(path))
