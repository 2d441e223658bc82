"""Images that lie in arrays, as a source; and what tells them apart, taken once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.config.images import ImageData
from selfsup_cli.data import index
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.image_store import Images, Known, digests_of, opened_whole
from selfsup_cli.data.listing import Listing
from selfsup_cli.data.pixels import Axes, Pixels, PixelStore, size_of
from selfsup_cli.data.source import Progress, Split
from selfsup_cli.errors import InputError


@dataclass(frozen=True)
class Contents:
    """Digests of the pixels of the images in a file, uint8 `[N,16]`, in their order there."""

    digests: np.ndarray

    def row(self) -> tuple[Any, ...]:
        return len(self.digests), self.digests.tobytes()

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Contents:
        """Undo `row`."""
        return cls(np.frombuffer(row[1], np.uint8).reshape(row[0], 16))


def contents(arrays: Iterable[Pixels]) -> Contents:
    """Take the digests of all images of `arrays`, one array after the other."""
    digests = (
        hashlib.blake2b(array.get(place).tobytes(), digest_size=16).digest()
        for array in arrays
        for place in range(array.count)
    )
    return Contents(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16))


def indexed(
    path: Path, probe: Callable[[Path], Contents], suffix: str, progress: Progress | None = None
) -> np.ndarray:
    """The digests (uint8 `[N,16]`) of the images of a file.

    `probe` takes them if the file is not indexed yet, `suffix` stands for how it reads it. Raises
    `InputError` if the file is not there or, as a `BadMediaError` of `probe` says, damaged.
    """
    kind = index.Kind(
        title="array index",
        suffix=suffix,
        version=1,
        columns=("images INTEGER", "digests BLOB"),
        numbers=1,
        probe=probe,
        load=Contents.from_row,
    )
    ids = PackedIds([path.name])
    found = index.build(path.parent, ids, workers=0, progress=progress, kind=kind)
    if found.missing:
        raise InputError(f"{path} does not exist", kind="missing-data")
    if found.errors:
        raise InputError(f"{path} cannot be used: {found.errors[0]}", kind="arrays")
    entry = index.IndexReader(path.parent, kind).look_up(path.name)
    known: Contents = probe(path) if entry is None else entry[0]
    return known.digests


@dataclass(frozen=True)
class Block:
    """Images of one array; the ids of its images are `prefix` and a number.

    `contents` are what `indexed` says of them, `labels` int64 `[N]` or uint8 `[N,A]`.
    """

    prefix: str
    pixels: Pixels
    axes: Axes
    contents: np.ndarray
    labels: np.ndarray | None = None


def images_of(
    listing: Listing,
    blocks: Sequence[Block],
    data: ImageData,
    split: Split,
    choose: Callable[[Listing], np.ndarray] | None = None,
) -> Images:
    """The images of `blocks` as a source; `listing` says all of it but ids and labels.

    With `choose`, only those at the places (int64) that it picks.
    """
    ids = PackedIds(
        f"{block.prefix}{number:06d}" for block in blocks for number in range(block.pixels.count)
    )
    sizes = np.concatenate(
        [np.tile(size_of(one.pixels.shape, one.axes), (one.pixels.count, 1)) for one in blocks]
    )
    labels = [block.labels for block in blocks if block.labels is not None]
    listing = replace(listing, ids=ids, labels=np.concatenate(labels) if labels else None)
    digests = digests_of(ids, sizes, np.concatenate([block.contents for block in blocks]))
    known = Known(np.arange(len(ids)), sizes.astype(np.int64), digests)
    if choose is not None:
        places = choose(listing)
        listing, known = listing.take(places), known.take(places)
    store = PixelStore([one.pixels for one in blocks], [one.axes for one in blocks])
    return opened_whole(listing, data, split, store, known)
