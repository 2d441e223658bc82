"""Images in an `.npz` or HDF5 file, under the keys that everybody uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from selfsup_cli.config.images import ImageData
from selfsup_cli.data.array_files import ArrayFile, opened
from selfsup_cli.data.array_images import Block, Contents, contents, images_of, indexed
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.image_store import Images
from selfsup_cli.data.listing import (
    IMAGES,
    Listing,
    check_classes,
    held_out_rule,
    hold_out,
    only_split,
    unlabelled,
)
from selfsup_cli.data.pixels import axes_of
from selfsup_cli.data.source import UNKNOWN, Progress, Split
from selfsup_cli.errors import BadMediaError, InputError

SUFFIXES = (".npz", ".h5", ".hdf5")

# Images and labels of the two parts, or of all that there is, in the order of preference.
_KEYS: dict[str, tuple[tuple[str, str], ...]] = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels")),
    "test": (
        ("x_test", "y_test"),
        ("test_images", "test_labels"),
        ("x_val", "y_val"),
        ("val_images", "val_labels"),
    ),
    "all": (("x", "y"), ("images", "labels")),
}
_NAMES = ("class_names", "classes", "attribute_names")
_MAX_CLASSES = 1_000_000


def open_arrays(
    path: Path,
    data: ImageData,
    split: Split,
    *,
    labels: bool,
    progress: Progress | None = None,
) -> Images:
    """The images of a file that has `x_train, y_train, x_test, y_test` or `x, y`.

    Images are uint8 `[N,H,W,3]`, `[N,H,W]`, `[N,H,W,1]` or `[N,3,H,W]`. Labels are whole numbers
    or words `[N]`, or 0 and 1 `[N,A]`: a class where every row has a single 1, else attributes.
    `class_names` may name them. Nothing is unpickled, and links to other files are not followed.
    Raises `InputError` for any other file.
    """
    only_split(path, data)
    known = indexed(path, probe, "-arrays", progress)
    try:
        with opened(path) as file:
            return _opened(path, file, data, split, labels, known)
    except BadMediaError as error:
        raise InputError(f"{path} cannot be used: {error.reason}", kind="arrays") from None


def is_arrays(path: Path) -> bool:
    """Whether a file is an `.npz`, or HDF5 with one of the keys of images."""
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        return False
    if path.suffix.lower() == ".npz":
        return True
    try:
        with opened(path) as file:
            return any(images in file.keys for pairs in _KEYS.values() for images, _ in pairs)
    except BadMediaError:
        return False


def probe(path: Path) -> Contents:
    """Read all of a file once; raises `BadMediaError` if it is damaged or holds no images."""
    with opened(path) as file:
        keys = [images for images, _ in _parts(file).values()]
        for key in keys:
            file.verify(key)
        return contents(file.pixels(key) for key in keys)


def _parts(file: ArrayFile) -> dict[str, tuple[str, str]]:
    """The keys of the images and labels of each part that a file has; `all` of undivided ones."""
    found = {
        part: next(pair for pair in pairs if pair[0] in file.keys)
        for part, pairs in _KEYS.items()
        if any(pair[0] in file.keys for pair in pairs)
    }
    if "train" not in found and "all" not in found:
        raise BadMediaError(
            "", f"it has no x_train or x (nor train_images or images), but {', '.join(file.keys)}"
        )
    wanted = ("train", "test") if "train" in found else ("all",)
    parts = {part: pair for part, pair in found.items() if part in wanted}
    for images, _ in parts.values():
        shape, dtype = file.form(images)
        if dtype != np.uint8:
            raise BadMediaError("", f"{images} is {dtype}, and images must be uint8, 0 to 255")
        if axes_of(shape[1:]) is None or 0 in shape:
            raise BadMediaError(
                "", f"{images} is {list(shape)}, and images must be [N,H,W,3], [N,H,W] or [N,3,H,W]"
            )
    return parts


def _opened(
    path: Path, file: ArrayFile, data: ImageData, split: Split, labels: bool, known: np.ndarray
) -> Images:
    parts = _parts(file)
    counts = [file.form(images)[0][0] for images, _ in parts.values()]
    if len(known) != sum(counts):
        raise BadMediaError("", "it changes while it is read")
    digests = dict(zip(parts, np.split(known, np.cumsum(counts)[:-1]), strict=True))
    marked, names = _labels(path, file, parts) if labels else ({}, None)
    several = any(values.ndim == 2 for values in marked.values())
    chosen = [part for part in parts if split == "all" or part in (split, "all")]
    if not chosen:
        raise InputError(f"{path} has no images of the part {split}", kind="empty-split")
    blocks = []
    for part in chosen:
        images, _ = parts[part]
        axes = axes_of(file.form(images)[0][1:])
        assert axes is not None  # noqa: S101 (such parts are refused)
        prefix = "" if part == "all" else f"{part}/"
        blocks.append(Block(prefix, file.pixels(images), axes, digests[part], marked.get(part)))
    undivided = "all" in parts and split != "all"
    listing = Listing(
        path.stem,
        path,
        PackedIds(),
        held_out_rule(data)
        if undivided
        else f"arrays {' and '.join(k for k, _ in parts.values())}",
        classes=None if several else names,
        attributes=names if several else None,
    )
    return images_of(
        listing,
        blocks,
        data,
        split,
        (lambda listing: hold_out(listing.ids, split, data)) if undivided else None,
    )


# -- labels


def _labels(
    path: Path, file: ArrayFile, parts: dict[str, tuple[str, str]]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The labels of each part, int64 `[N]` or uint8 `[N,A]`, and the names of what they stand for.

    All parts together say whether the labels are classes or attributes.
    """
    found: dict[str, np.ndarray] = {}
    for part, (images, key) in parts.items():
        if key not in file.keys:
            raise unlabelled(path, f"there is no {key} beside {images}", IMAGES)
        values = file.values(key)
        if len(values) != file.form(images)[0][0] or values.ndim > 2:
            raise BadMediaError(
                "", f"{key} is {list(values.shape)} for {file.form(images)[0][0]} images"
            )
        found[part] = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    kinds = {(values.dtype.kind in "US", values.shape[1:]) for values in found.values()}
    if len(kinds) > 1:
        raise BadMediaError("", "the labels of its parts are of different kinds")
    ((words, columns),) = kinds
    named = next((file.values(key) for key in _NAMES if key in file.keys), None)
    names = () if named is None else tuple(map(_text, named.reshape(-1).tolist()))
    if words and not columns:
        return _words(path, found)
    if any(values.dtype.kind not in "iub" for values in found.values()):
        raise BadMediaError("", "its labels are neither whole numbers nor words")
    if columns:
        return _columns(path, found, names)
    return _numbers(path, found, names)


def _text(name: object) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _words(
    path: Path, found: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    words = {part: [_text(word) for word in values.tolist()] for part, values in found.items()}
    names = tuple(sorted(set().union(*words.values())))
    number = {name: i for i, name in enumerate(names)}
    codes = {part: np.array([number[w] for w in all_], np.int64) for part, all_ in words.items()}
    return _classes(path, codes, names), names


def _numbers(
    path: Path, found: dict[str, np.ndarray], names: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    low = min(int(values.min()) for values in found.values())
    high = max(int(values.max()) for values in found.values())
    if low < 0 or high >= (len(names) or _MAX_CLASSES):
        known = f"{len(names)} classes are named" if names else "classes count from 0"
        raise BadMediaError("", f"its labels go from {low} to {high}, but {known}")
    names = names or tuple(map(str, range(high + 1)))
    codes = {part: values.astype(np.int64) for part, values in found.items()}
    return _classes(path, codes, names), names


def _columns(
    path: Path, found: dict[str, np.ndarray], names: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Attributes, or classes if every row has a single 1."""
    width = next(iter(found.values())).shape[1]
    if any(not np.isin(values, (0, 1, -1, UNKNOWN)).all() for values in found.values()):
        raise BadMediaError("", "its labels are neither one number an image nor 0 and 1")
    if len(names) not in (0, width):
        raise BadMediaError("", f"its labels have {width} columns, but {len(names)} are named")
    names = names or tuple(map(str, range(width)))
    if all((np.sort(values, axis=1)[:, -1] == 1).all() for values in found.values()) and all(
        (np.abs(values).sum(axis=1) == 1).all() for values in found.values()
    ):
        return _classes(path, {p: v.argmax(axis=1) for p, v in found.items()}, names), names
    has = {
        part: np.where(values.astype(np.int64) == -1, 0, values).astype(np.uint8)
        for part, values in found.items()
    }
    return has, names


def _classes(
    path: Path, codes: dict[str, np.ndarray], names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """`codes`, if they are of more than one class and testing has no class of its own."""
    used = {part: {names[code] for code in np.unique(values)} for part, values in codes.items()}
    if len(set().union(*used.values())) < 2:
        raise unlabelled(path, "all its images have one label", IMAGES)
    if "test" in used and "train" in used:
        check_classes(path, used["train"], used["test"])
    return codes
