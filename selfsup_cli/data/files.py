"""Video files as a source of clips."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.config.registry import DATASETS
from selfsup_cli.data import index, layouts
from selfsup_cli.data.fingerprint import fingerprint_of
from selfsup_cli.data.folders import folder
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.listing import (
    SUFFIXES,
    VIDEOS,
    Listing,
    all_broken,
    check_unique,
    nothing_left,
    quarantined,
    raise_missing,
)
from selfsup_cli.data.manifest import manifest
from selfsup_cli.data.roots import (
    check_kind,
    no_data,
    not_there,
    own_path,
    registered_root,
)
from selfsup_cli.data.source import LeftOut, Progress, Split
from selfsup_cli.errors import BadMediaError, InputError

if TYPE_CHECKING:
    import torch

_LOG = logging.getLogger("selfsup")


class FileSource:
    """Videos in files, indexed; a `ClipSource`.

    `notes` are phrases that a report should carry, such as how many annotated clips are not there.
    `other_files` counts files that are no videos by their name.
    """

    def __init__(
        self,
        listing: Listing,
        split: str,
        num_frames: np.ndarray,
        digests: np.ndarray,
        left_out: tuple[LeftOut, ...],
    ) -> None:
        self.name = listing.name
        self.ids: Sequence[str] = listing.ids
        self.num_frames = num_frames
        self.labels = listing.labels
        self.classes = listing.classes
        self.split = split
        self.split_rule = listing.split_rule
        self.left_out: Sequence[LeftOut] = left_out
        self.notes = listing.notes
        self.other_files = listing.other_files
        self.fingerprint = fingerprint_of(digests, listing.labels, listing.classes)
        self._root = listing.root
        self._digests = digests
        self._index = index.IndexReader(listing.root)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, i: int, frames: np.ndarray, size: tuple[int, int] | None) -> torch.Tensor:
        """Frames of video `i`, uint8 `[3,T,H,W]` (see `ClipSource.read`)."""
        from selfsup_cli.data import video

        name = self.ids[i]
        path = self._root / name
        try:
            known = self._index.look_up(name)
            if known is None:
                info = video.probe(path)
            else:
                info, length, mtime_ns = known
                stat = path.stat()
                if (stat.st_size, stat.st_mtime_ns) != (length, mtime_ns):
                    raise BadMediaError(name, "the file has changed since it was indexed")
            if info.frames != self.num_frames[i]:
                raise BadMediaError(name, "the file has changed since it was indexed")
            return video.decode(path, info, frames, size)
        except BadMediaError as error:
            raise BadMediaError(name, error.reason) from error
        except FileNotFoundError as error:
            raise BadMediaError(name, "the file does not exist any more") from error
        except OSError as error:
            raise BadMediaError(name, error.strerror or str(error)) from error

    def subset(self, indices: np.ndarray) -> FileSource:
        """The videos `indices` (int64, in that order) as a source of its own."""
        indices = np.asarray(indices, np.int64)
        subset = object.__new__(FileSource)
        subset.__dict__.update(self.__dict__)
        subset.ids = PackedIds(self.ids[i] for i in indices)
        subset.num_frames = self.num_frames[indices]
        subset.labels = None if self.labels is None else self.labels[indices]
        subset._digests = self._digests[indices]
        subset.fingerprint = fingerprint_of(subset._digests, subset.labels, subset.classes)
        subset._index = index.IndexReader(self._root)
        return subset


def open_files(
    data: VideoData,
    split: Split,
    *,
    labels: bool,
    workers: int,
    progress: Progress | None = None,
) -> FileSource:
    """Open the folder, CSV file or registered dataset that `data` names (see `open_source`)."""
    listing = listing_of(data, split, labels)
    return open_listing(listing, data, split, workers=workers, progress=progress)


def open_listing(
    listing: Listing,
    data: VideoData,
    split: Split,
    *,
    workers: int,
    progress: Progress | None = None,
) -> FileSource:
    """Index the listed files, and leave out what is in quarantine or cannot be read."""
    check_unique(listing)
    out = quarantined(listing.ids, listing.root, data)
    left_out = [*listing.left_out, *out.values()]
    listing = listing.take(np.setdiff1d(np.arange(len(listing.ids)), list(out)))
    if not len(listing.ids):
        raise nothing_left(data, split, VIDEOS, out=bool(left_out))
    found = index.build(listing.root, listing.ids, workers=workers, progress=progress)
    if found.missing:
        raise_missing(listing, found.missing)
    bad = [LeftOut(listing.ids[place], reason) for place, reason in sorted(found.errors.items())]
    good = np.flatnonzero(found.num_frames > 0)
    if not len(good):
        raise all_broken(data, bad, VIDEOS)
    for note in listing.notes:
        _LOG.warning("%s: %s", listing.name, note)
    return FileSource(
        listing.take(good),
        split,
        found.num_frames[good],
        found.digests[good],
        (*left_out, *bad),
    )


def listing_of(data: VideoData, split: Split, labels: bool) -> Listing:
    """Find out what the user means by `data.source`, and list its files."""
    name = data.source
    if name is None:
        raise no_data("video")
    if name in DATASETS:
        check_kind(name, "video")
        layout = layouts.LAYOUTS[name]
        return replace(layout(registered_root(name, data), data, split, labels), name=name)
    path = own_path(name, data)
    if path.is_dir():
        known = layouts.recognise(path)
        listing = layouts.LAYOUTS[known] if known else folder
        return replace(listing(path, data, split, labels), name=path.name)
    if path.is_file():
        if path.suffix.lower() == ".csv":
            return manifest(path, data, split, labels)
        what = "is a single video" if path.suffix.lower() in SUFFIXES else "is no CSV file"
        raise InputError(
            f"{path} {what}: give a folder of videos or a CSV file with a column path",
            kind="not-a-folder",
        )
    raise not_there(name, path, "video", (".csv",))
