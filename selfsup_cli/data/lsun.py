"""LSUN: one LMDB of encoded images for each category and part, read through the package lmdb."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfsup_cli.config.images import ImageData
from selfsup_cli.data import image
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.image_store import Images, held_out_images, opened_whole
from selfsup_cli.data.listing import (
    IMAGES,
    Listing,
    check_classes,
    only_split,
    unlabelled,
)
from selfsup_cli.data.records import Record, Records, indexed, known_of, noted
from selfsup_cli.data.roots import misplaced
from selfsup_cli.data.source import Progress, Split
from selfsup_cli.errors import BadMediaError, MachineError

if TYPE_CHECKING:
    import torch

    from selfsup_cli.data.framing import Sizing

FILE = "data.mdb"
_FOLDER = re.compile(r"(.+)_(train|val)_lmdb")


def _lmdb() -> Any:
    try:
        import lmdb
    except ImportError as error:
        raise MachineError(
            "reading LMDB files takes the package lmdb, which is not installed",
            kind="missing-package",
            hint="pip install 'selfsup[lsun]'",
        ) from error
    return lmdb


# A process must not open an environment twice, nor use one that it was born with. They are mapped
# files: reading behind the end of one that has become shorter would end the process.
_OPEN: dict[tuple[int, str], tuple[Any, tuple[int, int, int]]] = {}


def _environment(folder: Path) -> Any:
    """The LMDB in a folder, opened to be read by this process; BadMediaError if it is cut short."""
    status = (folder / FILE).stat()
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
    key = (os.getpid(), str(folder))
    environment, known = _OPEN.get(key, (None, None))
    if stamp == known:
        return environment
    if environment is not None:
        environment.close()
        del _OPEN[key]
    environment = _lmdb().open(
        str(folder), readonly=True, lock=False, readahead=False, max_readers=1, create=False
    )
    if (environment.info()["last_pgno"] + 1) * environment.stat()["psize"] > status.st_size:
        environment.close()
        raise BadMediaError(str(folder / FILE), "it is cut short")
    _OPEN[key] = (environment, stamp)
    return environment


def probe(path: Path) -> Records:
    """Find all images of a `data.mdb`; raises `BadMediaError` if it is damaged."""
    lmdb = _lmdb()
    try:
        with _environment(path.parent).begin() as reading:
            return noted(
                Record(key.decode(), 0, value) for key, value in reading.cursor().iternext()
            )
    except (lmdb.Error, UnicodeDecodeError) as error:
        raise BadMediaError(str(path), f"it is no LMDB of images ({error})") from None


class LmdbStore:
    """Images in LMDBs, found by number of LMDB (int64 `[N]`) and key; a `Store`."""

    def __init__(self, folders: list[Path], numbers: np.ndarray, keys: PackedIds) -> None:
        self._folders = folders
        self._numbers = numbers
        self._keys = keys

    def read(self, row: int, name: str, size: Sizing) -> torch.Tensor:
        """See `ImageSource.read`."""
        return image.decode(self.stored(row, name), size, name)

    def stored(self, row: int, name: str) -> bytes:
        """The bytes of the image at place `row`."""
        try:
            with _environment(self._folders[self._numbers[row]]).begin() as reading:
                data = reading.get(self._keys[row].encode())
        except BadMediaError as error:
            raise BadMediaError(name, error.reason) from error
        except (_lmdb().Error, OSError) as error:
            raise BadMediaError(name, f"it cannot be read ({error})") from error
        if data is None:
            raise BadMediaError(name, "it is not there any more")
        return bytes(data)


def is_lsun(root: Path) -> bool:
    """Whether a folder is an LMDB or has those of LSUN."""
    return (root / FILE).is_file() or bool(_folders(root))


def _folders(root: Path) -> dict[Path, tuple[str, str]]:
    """The LMDBs in a folder with their category and part."""
    found = {}
    for path in sorted(root.iterdir()):
        match = _FOLDER.fullmatch(path.name)
        if match and (path / FILE).is_file():
            found[path] = (match[1], "train" if match[2] == "train" else "test")
    return found


def open_lsun(
    root: Path,
    data: ImageData,
    split: Split,
    *,
    labels: bool,
    workers: int,
    progress: Progress | None = None,
) -> Images:
    """The LMDBs `CATEGORY_train_lmdb` and `CATEGORY_val_lmdb` of a folder, or a single LMDB.

    The category is the label. A single LMDB, or a folder without those for validation, is divided
    by the seeded hash.
    """
    only_split(root, data)
    single = (root / FILE).is_file()
    found = {root: (root.name, "train")} if single else _folders(root)
    if not found:
        raise misplaced("lsun", root, "there is no CATEGORY_train_lmdb")
    classes = tuple(sorted({category for category, _ in found.values()}))
    divided = {part for _, part in found.values()} == {"train", "test"}
    chosen = [
        folder for folder, (_, part) in found.items() if not divided or split in (part, "all")
    ]
    base = root.parent if single else root
    listing = Listing(
        root.name, base, PackedIds(), "official train and validation" if divided else "all images"
    )
    names = PackedIds(f"{folder.relative_to(base).as_posix()}/{FILE}" for folder in chosen)
    entries = indexed(base, names, probe, "LMDB", workers=workers, progress=progress)
    tables = [entry.records for entry in entries]
    ids = PackedIds(
        f"{folder.name}/{key}"
        for folder, table in zip(chosen, tables, strict=True)
        for key in table.names
    )
    numbers = np.repeat(np.arange(len(tables)), [len(table.names) for table in tables])
    listing = replace(listing, ids=ids)
    if labels:
        if len(classes) < 2:
            raise unlabelled(root, f"all its images are of one category, '{classes[0]}'", IMAGES)
        used = [{c for c, p in found.values() if p == part} for part in ("train", "test")]
        check_classes(root, *used)
        codes = np.array([classes.index(found[folder][0]) for folder in chosen], np.int64)
        listing = replace(listing, labels=codes[numbers], classes=classes)
    known = known_of(ids, tables)
    if not divided:
        listing, known = held_out_images(listing, known, split, data)
    keys = PackedIds(key for table in tables for key in table.names)
    return opened_whole(listing, data, split, LmdbStore(chosen, numbers, keys), known)
