"""Packs as a source of images: files that lie in one file, with checksums."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfsup_cli.config.images import ImageData
from selfsup_cli.data import hdf5, image, pack_layout
from selfsup_cli.data.image_store import Images, Known
from selfsup_cli.data.listing import IMAGES, Listing, unlabelled
from selfsup_cli.data.pack import Frames, chosen, digests_of, storage
from selfsup_cli.data.pack_about import ImageCoding
from selfsup_cli.data.source import Split
from selfsup_cli.errors import InputError

if TYPE_CHECKING:
    import torch

    from selfsup_cli.data.framing import Sizing


@dataclass(frozen=True)
class PackStore:
    """Images in a pack; an `EncodedStore`."""

    frames: Frames

    def read(self, row: int, name: str, size: Sizing) -> torch.Tensor:
        """See `ImageSource.read`."""
        return image.decode(self.stored(row, name), size, name)

    def stored(self, row: int, name: str) -> bytes:
        """The file of the image at place `row`, if it matches its checksum."""
        return self.frames.file(name, row)


def is_pack_file(path: Path) -> bool:
    """Whether an HDF5 file is a pack, of images or videos, and not arrays of one's own."""
    try:
        with hdf5.reading(path) as file:
            return "about" in file
    except Exception:  # h5py raises many types on files that are not as they should be
        return False


def holds_images(path: Path) -> bool:
    """Whether a file is a pack of images."""
    try:
        return is_pack_file(path) and pack_layout.read(path)[0].sizes is not None
    except InputError:
        return False


def open_image_pack(path: Path, data: ImageData, split: Split, *, labels: bool) -> Images:
    """The images of a pack, with the names, labels and parts of what was packed into it."""
    tables, places = pack_layout.read(path)
    about = tables.about
    if not isinstance(about.coding, ImageCoding) or tables.sizes is None:
        raise InputError(
            f"{path} is a pack of videos, and this command reads images", kind="wrong-dataset"
        )
    if labels and about.classes is None and about.attributes is None:
        raise unlabelled(path, "what was packed into it had none", IMAGES)
    good, rule, left_out = chosen(path, tables, data, split)
    marks = None
    if labels:
        marks = tables.labels
        if about.attributes is not None:
            marks = marks.reshape(-1, len(about.attributes)).astype(np.uint8)
        marks = marks[good]
    listing = Listing(
        about.name,
        path,
        tables.ids.take(good),
        rule,
        labels=marks,
        classes=about.classes if labels else None,
        attributes=about.attributes if labels else None,
        notes=(storage(tables),),
    )
    known = Known(good, tables.sizes[good], digests_of(tables, good))
    store = PackStore(Frames(path, tables, places))
    return Images(listing, split, store, known, left_out)
