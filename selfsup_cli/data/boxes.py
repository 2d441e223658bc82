"""Images with the boxes of the objects in them, as detection is trained and tested on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selfsup_cli.data.image_store import Images
from selfsup_cli.data.source import UNKNOWN


@dataclass(frozen=True)
class Boxes:
    """Objects of an image: `boxes` float [N, 4], `labels` int [N]; `difficult` bool [N], those that
    need not be found and are no mistake if they are (default: none).

    A box is its left, top, right and bottom edge in pixels, right and bottom beyond the last one.
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray | None = None

    @property
    def easy(self) -> np.ndarray:
        """Which objects are not difficult, bool [N]."""
        if self.difficult is None:
            return np.ones(len(self.boxes), bool)
        return ~self.difficult.astype(bool)


class BoxedImages(Images):
    """Images whose objects are known: `boxes` has those of each. An `ImageSource`.

    `attributes` are the classes of objects, `labels` which of them an image has (`UNKNOWN` where
    all of a class are difficult). `origin` is the fingerprint of the part that was opened, whatever
    subset of it this is.
    """

    def __init__(self, images: Images, names: tuple[str, ...], boxes: Sequence[Boxes]) -> None:
        self.__dict__.update(images.__dict__)
        self.boxes = list(boxes)
        self.attributes = names
        self.labels = _presence(self.boxes, len(names))
        self.fingerprint = self.origin = self._fingerprint()

    def subset(self, indices: np.ndarray) -> BoxedImages:
        """The images `indices` (int64, in that order) as a source of its own."""
        chosen = np.asarray(indices, np.int64)
        assert self.attributes is not None  # noqa: S101 (set above)
        part = BoxedImages(
            super().subset(chosen), self.attributes, [self.boxes[i] for i in chosen.tolist()]
        )
        part.origin = self.origin
        return part

    def digest(self, i: int) -> bytes:
        """16 bytes that stand for name, size and content of image `i`."""
        return bytes(self._digests[i])

    def _fingerprint(self) -> str:
        hasher = hashlib.sha256(super()._fingerprint().encode())
        for one in getattr(self, "boxes", ()):
            hasher.update(np.int64(len(one.boxes)).tobytes())
            for part in (one.boxes.astype("<f8"), one.labels.astype("<i8"), ~one.easy):
                hasher.update(part.tobytes())
        return hasher.hexdigest()


def _presence(boxes: Sequence[Boxes], classes: int) -> np.ndarray:
    """Which classes are in each image, uint8 [N, C]; `UNKNOWN` where all of one are difficult."""
    has = np.zeros((len(boxes), classes), np.uint8)
    for row, one in zip(has, boxes, strict=True):
        row[one.labels] = UNKNOWN
        row[one.labels[one.easy]] = 1
    return has
