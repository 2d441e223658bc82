"""Which files make up a source, before any of them has been opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from selfsup_cli.config.blocks import Data
from selfsup_cli.data import quarantine
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.source import QUARANTINED, LeftOut, Split
from selfsup_cli.errors import InputError
from selfsup_cli.randomness import derive

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True)
class Medium:
    """What the files of a kind are called, by which suffixes they are told, where labels are."""

    one: str
    many: str
    suffixes: tuple[str, ...]
    labels_from: str


VIDEOS = Medium(
    "video",
    "videos",
    SUFFIXES,
    "class folders (CLASS/video.mp4), from a CSV file with the columns path,label, or from the "
    "lists of ucf101, hmdb51 or kinetics",
)
IMAGES = Medium(
    "image",
    "images",
    IMAGE_SUFFIXES,
    "class folders (CLASS/image.jpg), from a CSV file with the columns path,label, from y_train "
    "and y_test of an array file, from the .cls members of tar shards, or with a registered "
    "dataset",
)


@dataclass(frozen=True)
class Listing:
    """The files `root/id` of one split, with labels (int64 `[N]` into `classes`) if asked for.

    Files of several labels each have uint8 `[N,A]`, one column for each of `attributes`, instead.
    `stated` says for each of them which line of which list names it, where a list does (then a file
    that does not exist is the list's mistake). `left_out` are files that cannot even be named,
    `notes` what a report should mention. `other_files` counts files of other kinds beside them.
    """

    name: str
    root: Path
    ids: PackedIds
    split_rule: str
    labels: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    attributes: tuple[str, ...] | None = None
    stated: PackedIds | None = None
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    other_files: int = 0

    def take(self, places: np.ndarray) -> Listing:
        """The files at `places` (int64)."""
        if np.array_equal(places, np.arange(len(self.ids))):
            return self
        return replace(
            self,
            ids=self.ids.take(places),
            labels=None if self.labels is None else self.labels[places],
            stated=None if self.stated is None else self.stated.take(places),
        )


@dataclass
class Found:
    """The files under a folder, and how many files of other kinds (by suffix) lie there."""

    ids: PackedIds
    others: Counter[str] = field(default_factory=Counter)
    unnamable: list[LeftOut] = field(default_factory=list)

    def listing(self, root: Path, split_rule: str) -> Listing:
        """All of them, without labels."""
        return Listing(
            root.name,
            root,
            self.ids,
            split_rule,
            left_out=tuple(self.unnamable),
            other_files=sum(self.others.values()),
        )


def find_files(root: Path, suffixes: tuple[str, ...]) -> Found:
    """All files below `root` with one of `suffixes` (small letters), in the order of their names.

    Links to folders are followed; hidden files and folders are not looked at. Raises `InputError`
    for a folder that may not be read.
    """
    found = Found(PackedIds())
    found.ids = PackedIds(_walk(root, "", frozenset(), suffixes, found))
    return found


def _walk(
    folder: Path,
    prefix: str,
    above: frozenset[tuple[int, int]],
    suffixes: tuple[str, ...],
    found: Found,
) -> Iterator[str]:
    try:
        stat = folder.stat()
        here = (stat.st_dev, stat.st_ino)
        if here in above:
            return
        with os.scandir(folder) as scan:
            entries = sorted((entry.name, entry.is_dir(), entry.is_file()) for entry in scan)
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be read: {error.strerror}", kind="unreadable-folder"
        ) from error
    for name, is_folder, is_file in entries:
        if name.startswith("."):
            continue
        if is_folder:
            inside = above | {here}
            yield from _walk(folder / name, f"{prefix}{name}/", inside, suffixes, found)
        elif not is_file or not name.lower().endswith(suffixes):
            found.others[Path(name).suffix.lower() or "(no suffix)"] += 1
        elif not _is_utf8(prefix + name):
            shown = os.fsencode(prefix + name).decode("utf-8", "backslashreplace")
            found.unnamable.append(LeftOut(shown, "its name is not UTF-8"))
        else:
            yield prefix + name


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def none_found(root: Path, found: Found, medium: Medium = VIDEOS) -> InputError:
    """The error for a folder in which nothing was found."""
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in found.others.most_common(4))
    seen = f"found instead: {kinds}" if kinds else "it is empty"
    return InputError(
        f"the folder {root} has no {medium.one} files ({', '.join(medium.suffixes)}); {seen}",
        kind="empty-folder",
    )


def hold_out(ids: PackedIds, split: Split, data: Data) -> np.ndarray:
    """Places (int64) of the ids that belong to `split` when data has no split of its own.

    The share `data.test_share` with the smallest seeded hashes is held out; labels play no part.
    """
    places = np.arange(len(ids))
    if split == "all":
        return places
    hashes = np.array([derive(data.split_seed, "held out", name) for name in ids], np.int64)
    count = min(max(round(data.test_share * len(ids)), 1), len(ids) - 1)
    order = np.argsort(hashes, kind="stable")
    return np.sort(order[:count] if split == "test" else order[count:])


def held_out_rule(data: Data) -> str:
    """The phrase that names this division."""
    return f"seeded {100 * data.test_share:g} % held out (seed {data.split_seed})"


def held_out(listing: Listing, split: Split, data: Data) -> Listing:
    """The files of `listing`, which has no split of its own, that belong to `split`."""
    if split == "all":
        return listing
    part = listing.take(hold_out(listing.ids, split, data))
    return replace(part, split_rule=held_out_rule(data))


def unlabelled(where: Path, why: str, medium: Medium = VIDEOS) -> InputError:
    """The error for a labelled command on data without labels."""
    return InputError(
        f"{where} has no labels: {why}; labels come from {medium.labels_from}", kind="unlabelled"
    )


def only_split(root: Path, data: Data) -> None:
    """Raise `InputError` if a numbered split is asked of data that has none."""
    if data.split not in (None, 1):
        raise InputError(
            f"split {data.split} does not exist: {root} has no numbered splits",
            kind="unknown-split",
        )


def check_classes(where: Path, train: set[str], test: set[str]) -> None:
    """Raise `InputError` if the test part has classes that the training part has not."""
    if alien := sorted(test - train):
        lacking = sorted(train - test)
        also = f", training alone has {_few(lacking)}" if lacking else ""
        raise InputError(
            f"the class names of {where} differ between train and test: testing alone has "
            f"{_few(alien)}{also}",
            kind="class-names",
        )


def _few(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def check_unique(listing: Listing) -> None:
    """Raise `InputError` if a file is listed twice."""
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


def quarantined(ids: PackedIds, root: Path, data: Data) -> dict[int, LeftOut]:
    """The places of the files that the quarantine file of `data` names, and why each is out."""
    if data.quarantine is None:
        return {}
    reasons = quarantine.read(Path(data.quarantine).expanduser())
    out = {}
    for place, name in enumerate(ids):
        reason = reasons.get(name) or reasons.get(str(root / name))
        if reason is not None:
            out[place] = LeftOut(name, f"{QUARANTINED}: {reason}")
    return out


def nothing_left(data: Data, split: Split, medium: Medium, *, out: bool) -> InputError:
    """The error for a split without files, because (`out`) all of them are in quarantine or not."""
    what = "are in quarantine" if out else f"belong to the split {split}"
    # A single file cannot be divided, whatever the share held out; of two, each part gets one.
    way = "" if out else f"; add {medium.many}: training and testing need one each at least"
    return InputError(
        f"{'all' if out else 'no'} {medium.many} of {data.source} {what}: nothing is left to read"
        f"{way}",
        kind="empty-split",
    )


def all_broken(data: Data, bad: list[LeftOut], medium: Medium) -> InputError:
    """The error for data of which no file can be read."""
    shown = "; ".join(f"{out.id}: {out.reason}" for out in bad[:5])
    more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    return InputError(
        f"none of the {len(bad)} {medium.many} of {data.source} can be read: {shown}{more}",
        kind="all-broken",
    )
