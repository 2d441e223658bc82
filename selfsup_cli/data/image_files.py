"""Image files, one for each image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfsup_cli.config.images import ImageData
from selfsup_cli.data import image, index
from selfsup_cli.data.image_store import Images, Known, opened_store, without_quarantined
from selfsup_cli.data.listing import Listing, raise_missing
from selfsup_cli.data.source import Progress, Split
from selfsup_cli.errors import BadMediaError

if TYPE_CHECKING:
    import torch

    from selfsup_cli.data.framing import Sizing

_HEAD = 1 << 16
# Their headers say all there is to know without the rest of the file.
_HEADED = (b"\xff\xd8\xff", b"BM")


@dataclass(frozen=True)
class Upright:
    """Height and width of an image as it is to be shown."""

    height: int
    width: int

    def row(self) -> tuple[Any, ...]:
        return self.height, self.width

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Upright:
        """Undo `row`."""
        return cls(*row)


def probe(path: Path) -> Upright:
    """Look at the header of an image file; raises `BadMediaError` if it has none."""
    head = image.read_bytes(path, _HEAD)
    if head.startswith(_HEADED):
        try:
            return Upright(*image.measure(head).upright)
        except BadMediaError:
            pass  # all of it may say more
    return Upright(*image.measure(image.read_bytes(path), str(path)).upright)


SIZES = index.Kind(
    title="image index",
    suffix="-images",
    version=1,
    columns=("height INTEGER", "width INTEGER"),
    numbers=2,
    probe=probe,
    load=Upright.from_row,
)


@dataclass(frozen=True)
class FileStore:
    """Files below `root`, found by the ids of the images."""

    root: Path

    def read(self, row: int, name: str, size: Sizing) -> torch.Tensor:
        """See `ImageSource.read`."""
        return image.decode(self.stored(row, name), size, name)

    def stored(self, row: int, name: str) -> bytes:
        """All of the file."""
        try:
            return image.read_bytes(self.root / name)
        except BadMediaError as error:
            raise BadMediaError(name, error.reason) from error


def open_image_files(
    listing: Listing,
    data: ImageData,
    split: Split,
    *,
    workers: int,
    progress: Progress | None = None,
) -> Images:
    """Index the listed files, and leave out what is in quarantine or has no readable header."""
    stay, left_out = without_quarantined(listing, data, split)
    listing = listing.take(stay)
    found = index.build(listing.root, listing.ids, workers=workers, progress=progress, kind=SIZES)
    if found.missing:
        raise_missing(listing, found.missing)
    rows = np.arange(len(listing.ids))
    known = Known(rows, found.numbers, found.digests, found.errors)
    return opened_store(listing, data, split, FileStore(listing.root), known, left_out)
