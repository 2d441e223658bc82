"""Tar shards in the manner of WebDataset, read by index and not as a stream.

A shard is an uncompressed tar file; the members of one sample share their name up to its first
dot: `000123.jpg` is an image, `000123.cls` the number of its class. Where each image lies is
written down once for every shard, so that their number is exact and any of them can be read at any
time.
"""

from __future__ import annotations

import os
import re
import tarfile
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfsup_cli.config.images import ImageData
from selfsup_cli.data import image
from selfsup_cli.data.folders import HELD_OUT_FOLDERS, by_class_folder
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.image_store import Images, held_out_images, opened_whole
from selfsup_cli.data.listing import (
    IMAGE_SUFFIXES,
    IMAGES,
    Listing,
    check_classes,
    only_split,
    unlabelled,
)
from selfsup_cli.data.records import Indexed, Record, Records, indexed, known_of, noted
from selfsup_cli.data.source import Progress, Split
from selfsup_cli.data.tables import lines_of
from selfsup_cli.errors import BadMediaError, InputError

if TYPE_CHECKING:
    import torch

    from selfsup_cli.data.framing import Sizing

SUFFIX = ".tar"
_RANGE = re.compile(r"^(.*)\{(\d+)\.\.(\d+)\}(.*)$")
_PART = re.compile(r"(train|test|validation|valid|val)(?![a-z])", re.IGNORECASE)
_MOST_SHARDS = 1_000_000
_OPEN = 64


def probe(path: Path) -> Records:
    """Find all images of a shard; raises `BadMediaError` if it is no tar file, or cut short."""
    return noted(_members(path))


def _members(path: Path) -> Iterator[Record]:
    """The images of a shard with the labels that go with them."""
    size = path.stat().st_size
    labels: dict[str, str] = {}
    found: list[tuple[str, str, int, int]] = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = _text(member.name.removeprefix("./"))
                key = _key(name)
                if member.offset_data + member.size > size:
                    raise BadMediaError(str(path), f"it is cut short within {name}")
                if not member.isreg() or member.issparse():
                    continue
                if name.lower().endswith(".cls"):
                    labels[key] = _class(path, archive, member)
                elif name.lower().endswith(IMAGE_SUFFIXES):
                    found.append((name, key, member.offset_data, member.size))
            end = archive.offset
    except (tarfile.TarError, OSError, ValueError) as error:
        raise BadMediaError(str(path), f"it is no uncompressed tar file ({error})") from None
    _check_end(path, end)
    with path.open("rb") as file:
        for name, key, offset, length in found:
            file.seek(offset)
            yield Record(name, offset, file.read(length), labels.get(key, ""))


def _check_end(path: Path, end: int) -> None:
    """Raise `BadMediaError` unless an empty block at `end` ends the archive, as writers leave it.

    Whatever else stands there, or nothing, Python takes for the end too.
    """
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise BadMediaError(str(path), "it is cut short or damaged: its end is missing")


def _text(name: str) -> str:
    """A name of a member, with what is not UTF-8 spelled out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _key(name: str) -> str:
    """What the members of one sample have in common."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _class(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member) if member.size < 32 else None
    text = b"" if file is None else file.read().strip()
    if not text.isdigit() or len(text) > 6:
        raise BadMediaError(str(path), f"{member.name} is not the number of a class")
    return str(int(text))


class TarStore:
    """Images in shards, found by number of shard, offset and length (int64 `[N]`); a `Store`."""

    def __init__(
        self, shards: list[Indexed], numbers: np.ndarray, offsets: np.ndarray, lengths: np.ndarray
    ) -> None:
        self._shards = [(shard.path, shard.size, shard.mtime_ns) for shard in shards]
        self._numbers = numbers
        self._offsets = offsets
        self._lengths = lengths
        self._open = lru_cache(_OPEN)(_Opened)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = lru_cache(_OPEN)(_Opened)

    def read(self, row: int, name: str, size: Sizing) -> torch.Tensor:
        """See `ImageSource.read`."""
        return image.decode(self.stored(row, name), size, name)

    def stored(self, row: int, name: str) -> bytes:
        """The bytes of the image at place `row`, as they lie in its shard."""
        length = int(self._lengths[row])
        try:
            file = self._open(*self._shards[self._numbers[row]])
            data = os.pread(file.descriptor, length, int(self._offsets[row]))
        except OSError as error:
            raise BadMediaError(name, error.strerror or str(error)) from error
        if not file.unchanged or len(data) < length:
            raise BadMediaError(name, "its shard has changed since it was indexed")
        return data


class _Opened:
    """A shard that is open for as long as someone holds this."""

    def __init__(self, path: Path, size: int, mtime_ns: int) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)
        status = os.fstat(self.descriptor)
        self.unchanged = (status.st_size, status.st_mtime_ns) == (size, mtime_ns)


def shards_of(source: str, path: Path) -> list[Path] | None:
    """The shards that the user means: one, all of a folder, or `NAME-{000000..000099}.tar`."""
    if path.is_dir():
        # Not deeper: the folder may be one of a million images.
        places = (path, *(path / name for name in ("train", *HELD_OUT_FOLDERS)))
        found = (one for place in places if place.is_dir() for one in place.iterdir())
        return sorted(one for one in found if one.suffix.lower() == SUFFIX) or None
    if path.suffix.lower() != SUFFIX:
        return None
    match = _RANGE.match(str(path))
    if match is None:
        return [path] if path.is_file() else None
    before, first, last, after = match.groups()
    if not 0 <= int(last) - int(first) < _MOST_SHARDS:
        raise InputError(f"{source}: {first}..{last} is no range of shards", kind="shards")
    numbers = range(int(first), int(last) + 1)
    return [Path(f"{before}{number:0{len(first)}d}{after}") for number in numbers]


def open_shards(
    paths: list[Path],
    data: ImageData,
    split: Split,
    *,
    labels: bool,
    workers: int,
    progress: Progress | None = None,
) -> Images:
    """The images of tar shards. Raises `InputError` for a shard that is damaged or missing.

    Shards whose names (or folders) begin with `train` and with `test` or `val` divide them.
    """
    root = paths[0].parent if len(paths) == 1 else Path(os.path.commonpath(paths))
    only_split(root, data)
    names = PackedIds(path.relative_to(root).as_posix() for path in paths)
    shards = indexed(root, names, probe, "shard", workers=workers, progress=progress)
    return _opened(root, shards, names, data, split, labels)


def _opened(
    root: Path,
    shards: list[Indexed],
    names: PackedIds,
    data: ImageData,
    split: Split,
    labels: bool,
) -> Images:
    tables = [shard.records for shard in shards]
    counts = [len(table.names) for table in tables]
    ids = PackedIds(
        f"{shard}/{name}"
        for shard, table in zip(names, tables, strict=True)
        for name in table.names
    )
    if not len(ids):
        raise InputError(
            f"the shards in {root} hold no images ({', '.join(IMAGE_SUFFIXES)})",
            kind="empty-folder",
        )
    numbers = np.repeat(np.arange(len(tables)), counts)
    parts = _parts(names)
    listing = Listing(root.name, root, ids, "all shards")
    if labels:
        listing = _labelled(listing, tables, parts[numbers])
    known = known_of(ids, tables)
    if parts.min() < 0:
        listing, known = held_out_images(listing, known, split, data)
    elif split != "all":
        places = np.flatnonzero(parts[numbers] == (0 if split == "train" else 1))
        listing = replace(listing.take(places), split_rule="the names of the shards")
        known = known.take(places)
    store = TarStore(
        shards,
        numbers,
        np.concatenate([table.offsets for table in tables]),
        np.concatenate([table.lengths for table in tables]),
    )
    return opened_whole(listing, data, split, store, known)


def _parts(names: PackedIds) -> np.ndarray:
    """The part of each shard by its name: 0 trains, 1 tests, 2 is neither; or -1 of all of them."""
    found = [match[1].lower() if (match := _PART.match(name)) else "" for name in names]
    test = next((name for name in HELD_OUT_FOLDERS if name in found), None)
    if "train" not in found or test is None or "" in found:
        return np.full(len(found), -1)
    return np.array([{"train": 0, test: 1}.get(name, 2) for name in found])


def _labelled(listing: Listing, tables: list[Records], parts: np.ndarray) -> Listing:
    """The listing with the classes of the `.cls` members, or else of the folders in the shards."""
    marks = [label for table in tables for label in table.labels]
    if not any(marks):
        inside = PackedIds(name for table in tables for name in table.names)
        by_folder = by_class_folder(replace(listing, ids=inside), 0, IMAGES)
        listing = replace(listing, labels=by_folder.labels, classes=by_folder.classes)
    else:
        if "" in marks:
            lacking = listing.ids[marks.index("")]
            raise unlabelled(listing.root, f"'{lacking}' has no .cls beside it", IMAGES)
        codes = np.array(marks, np.int64)
        listing = replace(listing, labels=codes, classes=_names(listing.root, int(codes.max())))
    labels, classes = listing.labels, listing.classes
    assert labels is not None  # noqa: S101 (set above)
    assert classes is not None  # noqa: S101 (set above)
    if len(np.unique(labels)) < 2:
        raise unlabelled(listing.root, "all its images have one label", IMAGES)
    train, test = ({classes[code] for code in np.unique(labels[parts == part])} for part in (0, 1))
    check_classes(listing.root, train, test)
    return listing


def _names(root: Path, highest: int) -> tuple[str, ...]:
    """The names of the classes: the lines of `classes.txt` beside the shards, or their numbers."""
    path = root / "classes.txt"
    if not path.is_file():
        return tuple(map(str, range(highest + 1)))
    names = tuple(line for _, line in lines_of(path))
    if len(names) <= highest:
        raise InputError(
            f"{path} names {len(names)} classes, but the shards have class {highest}",
            kind="class-names",
        )
    return names
