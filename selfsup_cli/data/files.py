"""Video files as a source of clips."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.config.registry import DATASETS, unknown
from selfsup_cli.data import index, layouts, quarantine
from selfsup_cli.data.fingerprint import fingerprint_of
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.listing import SUFFIXES, Listing
from selfsup_cli.data.manifest import manifest
from selfsup_cli.data.source import QUARANTINED, LeftOut, Progress, Split
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
    _check_unique(listing)
    left_out = list(listing.left_out)
    if data.quarantine is not None:
        listing, quarantined = _quarantined(listing, Path(data.quarantine).expanduser())
        left_out += quarantined
    if not len(listing.ids):
        what = "are in quarantine" if left_out else f"belong to the split {split}"
        count = "all" if left_out else "no"
        raise InputError(
            f"{count} videos of {data.source} {what}: nothing is left to read", kind="empty-split"
        )
    found = index.build(listing.root, listing.ids, workers=workers, progress=progress)
    if found.missing:
        raise_missing(listing, found.missing)
    bad = [LeftOut(listing.ids[place], reason) for place, reason in sorted(found.errors.items())]
    good = np.flatnonzero(found.num_frames > 0)
    if not len(good):
        shown = "; ".join(f"{out.id}: {out.reason}" for out in bad[:5])
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise InputError(
            f"none of the {len(bad)} videos of {data.source} can be read: {shown}{more}",
            kind="all-broken",
        )
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
        raise InputError(
            "no data is named; give --data a registered dataset "
            f"({', '.join(n for n, d in DATASETS.items() if d.kind == 'video')}), a folder of "
            "videos or a CSV file",
            kind="no-data",
        )
    if name in DATASETS:
        root = registered_root(name, data)
        layout = layouts.LAYOUTS.get(name)
        if layout is None:
            raise InputError(f"'{name}' is no dataset of videos", kind="wrong-dataset")
        return replace(layout(root, data, split, labels), name=name)
    if data.root is not None:
        raise InputError(
            f"--data-root is for registered datasets, and '{name}' is none: name the folder itself",
            kind="data-root",
        )
    path = Path(os.path.abspath(Path(name).expanduser()))  # noqa: PTH100 (keeps links as they are)
    if path.is_dir():
        known = layouts.recognise(path)
        listing = layouts.LAYOUTS[known] if known else layouts.folder
        return replace(listing(path, data, split, labels), name=path.name)
    if path.is_file():
        if path.suffix.lower() == ".csv":
            return manifest(path, data, split, labels)
        what = "is a single video" if path.suffix.lower() in SUFFIXES else "is no CSV file"
        raise InputError(
            f"{path} {what}: give a folder of videos or a CSV file with a column path",
            kind="not-a-folder",
        )
    if os.sep in name or name.startswith("~") or name.endswith(".csv"):
        raise InputError(f"there is no folder or CSV file {path}", kind="missing-folder")
    raise unknown("dataset", name, list(DATASETS))


def registered_root(name: str, data: VideoData) -> Path:
    """Where a registered dataset lies; `InputError` says where it belongs and how it must look."""
    base = os.environ.get("SELFSUP_DATA")
    if data.root is not None:
        root = Path(data.root)
    elif base:
        root = Path(base) / name
    else:
        root = Path(name)  # the user's own folder of that name, if there is one
    root = Path(os.path.abspath(root.expanduser()))  # noqa: PTH100 (keeps links as they are)
    if root.is_dir():
        return root
    layout = f"expected in it: {DATASETS[name].layout}"
    if data.root is not None or base:
        raise InputError(
            f"the dataset {name} is looked for in {root}, which is no folder; {layout}",
            kind="missing-data",
        )
    raise InputError(
        f"the dataset {name} belongs into the folder {name} of $SELFSUP_DATA, which is not set: "
        f"set it to the folder that holds your datasets, or name the folder with --data-root; "
        f"{layout}",
        kind="missing-data",
    )


def _check_unique(listing: Listing) -> None:
    hashes = np.fromiter((hash(name) for name in listing.ids), np.int64, len(listing.ids))
    order = np.argsort(hashes, kind="stable")
    for at in np.flatnonzero(np.diff(hashes[order]) == 0):
        first, second = int(order[at]), int(order[at + 1])
        if listing.ids[first] == listing.ids[second]:
            said = "" if listing.stated is None else f"{listing.stated[second]}: "
            raise InputError(f"{said}'{listing.ids[second]}' is listed twice", kind="listed-twice")


def raise_missing(listing: Listing, missing: list[int]) -> None:
    """Raise the `InputError` for the files at the places `missing`, which do not exist."""
    first = missing[0]
    said = "" if listing.stated is None else f"{listing.stated[first]}: "
    more = f" (nor are {len(missing) - 1} others)" if len(missing) > 1 else ""
    raise InputError(
        f"{said}'{listing.ids[first]}' is not in {listing.root}{more}", kind="missing-clips"
    )


def _quarantined(listing: Listing, path: Path) -> tuple[Listing, list[LeftOut]]:
    """The listing without the files that a quarantine file (JSON lines) names, and those."""
    reasons = quarantine.read(path)
    keep, out = [], []
    for place, name in enumerate(listing.ids):
        reason = reasons.get(name) or reasons.get(str(listing.root / name))
        if reason is None:
            keep.append(place)
        else:
            out.append(LeftOut(name, f"{QUARANTINED}: {reason}"))
    return listing.take(np.array(keep, np.int64)), out
