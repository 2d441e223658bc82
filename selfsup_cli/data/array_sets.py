"""CIFAR-10, CIFAR-100 and STL-10 in the files in which they are handed out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.config.images import ImageData
from selfsup_cli.data import pickled
from selfsup_cli.data.array_images import Block, Contents, contents, images_of, indexed
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.image_layouts import first_folder
from selfsup_cli.data.image_store import Images
from selfsup_cli.data.listing import Listing, only_split
from selfsup_cli.data.pixels import FlatPixels, LoadedPixels, Pixels
from selfsup_cli.data.roots import misplaced
from selfsup_cli.data.source import Progress, Split
from selfsup_cli.data.tables import lines_of
from selfsup_cli.errors import BadMediaError, InputError

# -- CIFAR


@dataclass(frozen=True)
class Cifar:
    """One of the two sets: its folders and files as bytes and as pickles, and where labels are.

    In the binary version each image follows its labels, of which the last one is the class.
    """

    name: str
    binary: tuple[str, dict[str, tuple[str, ...]], str]
    pickles: tuple[str, dict[str, tuple[str, ...]], str]
    labels: int
    key: bytes
    names: bytes


CIFAR10 = Cifar(
    "cifar10",
    (
        "cifar-10-batches-bin",
        {
            "train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        "batches.meta.txt",
    ),
    (
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)},
        "batches.meta",
    ),
    labels=1,
    key=b"labels",
    names=b"label_names",
)
CIFAR100 = Cifar(
    "cifar100",
    (
        "cifar-100-binary",
        {"train": ("train.bin",), "test": ("test.bin",)},
        "fine_label_names.txt",
    ),
    ("cifar-100-python", {"train": ("train",), "test": ("test",)}, "meta"),
    labels=2,
    key=b"fine_labels",
    names=b"fine_label_names",
)
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


def cifar_base(root: Path, kind: Cifar) -> tuple[Path, bool] | None:
    """The folder of the batches of a set, and whether they are the binary ones."""
    for (folder, files, _), binary in ((kind.binary, True), (kind.pickles, False)):
        for base in (root / folder, root):
            if all((base / name).is_file() for part in files.values() for name in part):
                return base, binary
    return None


def open_cifar(
    kind: Cifar,
    root: Path,
    data: ImageData,
    split: Split,
    *,
    labels: bool,
    progress: Progress | None = None,
) -> Images:
    """CIFAR, from its binary version or from its pickles, which are read without unpickling."""
    only_split(root, data)
    found = cifar_base(root, kind)
    if found is None:
        raise misplaced(
            kind.name, root, "neither the binary batches nor the pickled ones are there"
        )
    base, binary = found
    files = (kind.binary if binary else kind.pickles)[1]
    read = partial(_read_binary, kind) if binary else partial(_read_pickle, kind)
    blocks = []
    for part in ("train", "test") if split == "all" else (split,):
        for number, name in enumerate(files[part]):
            path = base / name
            known = indexed(path, partial(_probe, read), f"-{kind.name}", progress)
            try:
                pixels, codes = read(path)
            except BadMediaError as error:
                raise InputError(f"{path} cannot be used: {error.reason}", kind="arrays") from None
            prefix = f"{part}/{number}-" if len(files[part]) > 1 else f"{part}/"
            blocks.append(Block(prefix, pixels, "CHW", known, codes if labels else None))
    classes = _cifar_names(kind, base, binary) if labels else None
    top = max((int(b.labels.max()) for b in blocks if b.labels is not None), default=0)
    if classes is not None and top >= len(classes):
        raise InputError(
            f"{base}: the batches have class {top}, but {len(classes)} classes are named",
            kind="class-names",
        )
    listing = Listing(root.name, base, PackedIds(), "official train and test", classes=classes)
    return images_of(listing, blocks, data, split)


def _probe(read: Any, path: Path) -> Contents:
    return contents([read(path)[0]])


def _read_binary(kind: Cifar, path: Path) -> tuple[Pixels, np.ndarray]:
    record = kind.labels + _PIXELS
    values = np.fromfile(path, np.uint8)
    if not len(values) or len(values) % record:
        raise BadMediaError(str(path), f"its length is no multiple of {record}: it is truncated")
    table = values.reshape(-1, record)
    pixels = FlatPixels(path, kind.labels, len(table), (3, _SIDE, _SIDE), record)
    return pixels, table[:, kind.labels - 1].astype(np.int64)


def _read_pickle(kind: Cifar, path: Path) -> tuple[Pixels, np.ndarray]:
    found = _pickle(path)
    pixels, codes = found.get(b"data"), found.get(kind.key)
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape[1:] != (_PIXELS,)
        or not isinstance(codes, list)
        or not len(codes) == len(pixels) > 0
        or not all(isinstance(code, int) and 0 <= code < 1000 for code in codes)
    ):
        raise BadMediaError(
            str(path), f"it does not hold data and {kind.key.decode()} of {kind.name}"
        )
    return LoadedPixels(pixels.reshape(-1, 3, _SIDE, _SIDE)), np.array(codes, np.int64)


def _pickle(path: Path) -> dict[bytes, Any]:
    try:
        found = pickled.read(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadMediaError(str(path), f"it is no pickle of CIFAR: {error}") from None
    return {key.encode() if isinstance(key, str) else key: value for key, value in found.items()}


def _cifar_names(kind: Cifar, base: Path, binary: bool) -> tuple[str, ...]:
    path = base / (kind.binary if binary else kind.pickles)[2]
    if not path.is_file():
        raise misplaced(kind.name, base, f"there is no {path.name} with the names of the classes")
    if binary:
        return tuple(line for _, line in lines_of(path))
    try:
        names = _pickle(path).get(kind.names)
    except BadMediaError as error:
        raise InputError(f"{path} cannot be used: {error.reason}", kind="arrays") from None
    if not isinstance(names, list):
        raise InputError(f"{path} does not name the classes", kind="arrays")
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)


# -- STL-10

_STL_SIDE = 96
_STL_IMAGE = 3 * _STL_SIDE * _STL_SIDE
_FOLDS = 10


def stl_base(root: Path) -> Path | None:
    """The folder of the files of STL-10."""
    base = first_folder(root, "stl10_binary") or root
    return base if (base / "train_X.bin").is_file() else None


def open_stl10(
    root: Path, data: ImageData, split: Split, *, labels: bool, progress: Progress | None = None
) -> Images:
    """STL-10: 5,000 labelled images in ten folds of 1,000 each, 100,000 without, 8,000 for testing.

    What is trained on is the unlabelled part where no labels are asked for, unless `data.part`
    says otherwise; with labels, all 5,000 or the fold `data.split` (1 to 10).
    """
    base = stl_base(root)
    if base is None:
        raise misplaced("stl10", root, "there is no train_X.bin")
    part = data.part
    if part == "clean":
        raise InputError("--part clean: stl10 has no such part", kind="unknown-split")
    if part == "auto":
        part = "train" if labels or data.split is not None else "unlabeled"
    if "unlabeled" in part and labels:
        raise InputError(
            f"--part {part}: the unlabelled part of stl10 has no labels; --part train has",
            kind="unlabelled",
        )
    if data.split is not None and (part != "train" or data.split > _FOLDS):
        raise InputError(
            f"fold {data.split} does not exist: stl10 has the folds 1 to {_FOLDS} of its labelled "
            "part",
            kind="unknown-split",
        )
    parts = {"train": part.split("+"), "test": ["test"], "all": [*part.split("+"), "test"]}[split]
    blocks = [_stl_block(base, name, labels, progress) for name in parts]
    rule = "official train and test"
    fold = None
    if data.split is not None and split == "train":
        rule = f"official fold {data.split}"
        fold = partial(_fold, base, data.split)
    elif split != "test" and "unlabeled" in part:
        rule = f"official {part} and test"
    classes = _stl_names(base) if labels else None
    listing = Listing(root.name, base, PackedIds(), rule, classes=classes)
    return images_of(listing, blocks, data, split, fold)


def _stl_block(base: Path, part: str, labels: bool, progress: Progress | None) -> Block:
    path = base / f"{part}_X.bin"
    if not path.is_file():
        raise misplaced("stl10", base, f"there is no {path.name}")
    known = indexed(path, _probe_stl, "-stl10", progress)
    pixels = _stl_pixels(path)
    codes = None
    if labels:
        marks = base / f"{part}_y.bin"
        if not marks.is_file():
            raise misplaced("stl10", base, f"there is no {marks.name}")
        codes = np.fromfile(marks, np.uint8).astype(np.int64) - 1  # they count from 1
        if len(codes) != pixels.count or not 0 <= codes.min() <= codes.max() < 10:
            raise InputError(f"{marks} does not fit {path.name}", kind="arrays")
    return Block(f"{part}/", pixels, "CWH", known, codes)


def _stl_pixels(path: Path) -> FlatPixels:
    count, rest = divmod(path.stat().st_size, _STL_IMAGE)
    if rest or not count:
        raise BadMediaError(
            str(path), f"its length is no multiple of {_STL_IMAGE}: it is truncated"
        )
    return FlatPixels(path, 0, count, (3, _STL_SIDE, _STL_SIDE))


def _probe_stl(path: Path) -> Contents:
    return contents([_stl_pixels(path)])


def _stl_names(base: Path) -> tuple[str, ...]:
    path = base / "class_names.txt"
    if not path.is_file():
        return tuple(map(str, range(10)))
    return tuple(line for _, line in lines_of(path))


def _fold(base: Path, number: int, listing: Listing) -> np.ndarray:
    path = base / "fold_indices.txt"
    if not path.is_file():
        raise misplaced("stl10", base, "there is no fold_indices.txt")
    lines = list(_numbers(path))
    if len(lines) < number or not lines[number - 1]:
        raise InputError(f"{path} has no fold {number}", kind="unknown-split")
    places = np.array(lines[number - 1], np.int64)
    if places.min() < 0 or places.max() >= len(listing.ids) or len(set(places)) != len(places):
        raise InputError(f"{path}:{number}: it names images that are not there", kind="split-list")
    return places


def _numbers(path: Path) -> Iterator[list[int]]:
    for where, line in lines_of(path):
        cells = line.split()
        if not all(cell.isdecimal() and len(cell) < 7 for cell in cells):
            raise InputError(f"{where}: it is not a list of numbers", kind="split-list")
        yield list(map(int, cells))
