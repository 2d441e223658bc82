"""Images as a source, whatever keeps them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import numpy as np

from selfsup_cli.config.blocks import Data
from selfsup_cli.config.images import ImageData
from selfsup_cli.data.fingerprint import fingerprint_of
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.listing import (
    IMAGES,
    Listing,
    all_broken,
    check_unique,
    held_out_rule,
    hold_out,
    nothing_left,
    quarantined,
)
from selfsup_cli.data.source import LeftOut, Split

if TYPE_CHECKING:
    import torch

    from selfsup_cli.data.framing import Sizing

_LOG = logging.getLogger("selfsup")


class Store(Protocol):
    """Where images lie. It travels to loader processes, and holds no open file until asked."""

    def read(self, row: int, name: str, size: Sizing) -> torch.Tensor:
        """The image at place `row`, whose id is `name` (see `ImageSource.read`)."""
        ...


@runtime_checkable
class EncodedStore(Store, Protocol):
    """A store of images as JPEG, PNG, WebP or BMP."""

    def stored(self, row: int, name: str) -> bytes:
        """The image at place `row` as it is kept. Raises `BadMediaError`, about `name`."""
        ...


@dataclass(frozen=True)
class Known:
    """What is known of the images of a listing, in its order.

    `rows` (int64 `[N]`) are their places in their store, `sizes` int64 `[N,2]` upright heights and
    widths, `digests` uint8 `[N,16]`. `errors` says of those that cannot be read, by their place,
    why.
    """

    rows: np.ndarray
    sizes: np.ndarray
    digests: np.ndarray
    errors: dict[int, str] = field(default_factory=dict)

    def take(self, places: np.ndarray) -> Known:
        """What is known of the images at `places` (int64, ascending)."""
        errors = {
            new: self.errors[old] for new, old in enumerate(places.tolist()) if old in self.errors
        }
        return Known(self.rows[places], self.sizes[places], self.digests[places], errors)


class Images:
    """Images in a store; an `ImageSource`. `store` and `rows` say where each of them lies."""

    def __init__(
        self,
        listing: Listing,
        split: str,
        store: Store,
        known: Known,
        left_out: Sequence[LeftOut] = (),
    ) -> None:
        """What `listing` lists; `known` has no errors."""
        self.name = listing.name
        self.ids: Sequence[str] = listing.ids
        self.sizes = known.sizes
        self.labels = listing.labels
        self.classes = listing.classes
        self.attributes = listing.attributes
        self.split = split
        self.split_rule = listing.split_rule
        self.left_out = left_out
        self.notes = listing.notes
        self.other_files = listing.other_files
        self.root = listing.root
        self.store = store
        self.rows = known.rows
        self._digests = known.digests
        self.fingerprint = self._fingerprint()

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, i: int, size: Sizing = None) -> torch.Tensor:
        """Image `i`, uint8 `[3,H,W]` (see `ImageSource.read`)."""
        return self.store.read(int(self.rows[i]), self.ids[i], size)

    def subset(self, indices: np.ndarray) -> Self:
        """The images `indices` (int64, in that order) as a source of its own."""
        indices = np.asarray(indices, np.int64)
        subset = object.__new__(type(self))
        subset.__dict__.update(self.__dict__)
        subset.ids = PackedIds(self.ids[i] for i in indices)
        subset.sizes = self.sizes[indices]
        subset.labels = None if self.labels is None else self.labels[indices]
        subset.rows = self.rows[indices]
        subset._digests = self._digests[indices]
        subset.fingerprint = subset._fingerprint()
        return subset

    def _fingerprint(self) -> str:
        names = self.classes if self.attributes is None else self.attributes
        return fingerprint_of(self._digests, self.labels, names, "images")


def without_quarantined(
    listing: Listing, data: Data, split: Split
) -> tuple[np.ndarray, list[LeftOut]]:
    """The places of the images that `data` does not have in quarantine, and the others.

    Raises `InputError` if an image is listed twice or nothing is left.
    """
    check_unique(listing)
    out = quarantined(listing.ids, listing.root, data)
    left_out = [*listing.left_out, *out.values()]
    stay = np.setdiff1d(np.arange(len(listing.ids)), list(out))
    if not len(stay):
        raise nothing_left(data, split, IMAGES, out=bool(left_out))
    return stay, left_out


def opened_store(
    listing: Listing,
    data: ImageData,
    split: Split,
    store: Store,
    known: Known,
    left_out: Sequence[LeftOut],
) -> Images:
    """The images of `listing` that can be read, as a source. Raises `InputError` if none can."""
    bad = [LeftOut(listing.ids[place], reason) for place, reason in sorted(known.errors.items())]
    good = np.setdiff1d(np.arange(len(listing.ids)), list(known.errors))
    if not len(good):
        raise all_broken(data, bad, IMAGES)
    for note in listing.notes:
        _LOG.warning("%s: %s", listing.name, note)
    return Images(listing.take(good), split, store, known.take(good), (*left_out, *bad))


def held_out_images(
    listing: Listing, known: Known, split: Split, data: ImageData
) -> tuple[Listing, Known]:
    """What belongs to `split` of images that have no split of their own."""
    if split == "all":
        return listing, known
    places = hold_out(listing.ids, split, data)
    return replace(listing.take(places), split_rule=held_out_rule(data)), known.take(places)


def opened_whole(
    listing: Listing, data: ImageData, split: Split, store: Store, known: Known
) -> Images:
    """The same, without what `data` has in quarantine."""
    stay, left_out = without_quarantined(listing, data, split)
    return opened_store(listing.take(stay), data, split, store, known.take(stay), left_out)


def digests_of(ids: PackedIds, sizes: np.ndarray, contents: np.ndarray) -> np.ndarray:
    """Digests (uint8 `[N,16]`) of images: of names, sizes `[N,2]` and digests of their content."""
    found = np.empty((len(ids), 16), np.uint8)
    for place, (name, (height, width)) in enumerate(zip(ids, sizes.tolist(), strict=True)):
        text = f"{name}\0{height}x{width}\0".encode() + contents[place].tobytes()
        found[place] = np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), np.uint8)
    return found
