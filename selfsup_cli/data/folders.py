"""Folders of one's own (nested, in class folders, divided into `train` and `test`), and lists."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from selfsup_cli.config.blocks import Data
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.listing import (
    VIDEOS,
    Listing,
    Medium,
    check_classes,
    find_files,
    held_out,
    none_found,
    only_split,
    unlabelled,
)
from selfsup_cli.data.source import Split
from selfsup_cli.errors import InputError

HELD_OUT_FOLDERS = ("test", "val", "validation", "valid")


def folder(root: Path, data: Data, split: Split, labels: bool, medium: Medium = VIDEOS) -> Listing:
    """Any folder of files of a kind: nested, in class folders, or divided into parts."""
    found = find_files(root, medium.suffixes)
    if not len(found.ids):
        raise none_found(root, found, medium)
    only_split(root, data)
    listing = found.listing(root, f"all {medium.many}")
    tops = {name.partition("/")[0] for name in found.ids}
    test = next((name for name in HELD_OUT_FOLDERS if name in tops), None)
    divided = "train" in tops and test is not None and tops <= {"train", *HELD_OUT_FOLDERS}
    if labels:
        listing = by_class_folder(listing, 1 if divided else 0, medium)
    if not divided:
        return held_out(listing, split, data)
    parts = {"train": "train", "test": str(test)}
    if labels:
        classes = {
            part: {name.split("/")[1] for name in found.ids if name.startswith(f"{part}/")}
            for part in parts.values()
        }
        check_classes(root, classes["train"], classes[str(test)])
    if split == "all":
        return listing
    places = [i for i, name in enumerate(found.ids) if name.startswith(f"{parts[split]}/")]
    rule = f"the folders train and {test}"
    return replace(listing.take(np.array(places, np.int64)), split_rule=rule)


def by_class_folder(listing: Listing, depth: int, medium: Medium) -> Listing:
    """Label each file with the folder that it lies in, `depth` levels below the root."""
    names: list[str] = []
    for name in listing.ids:
        parts = name.split("/")
        if len(parts) < depth + 2:
            raise unlabelled(listing.root, f"'{name}' does not lie in a class folder", medium)
        names.append(parts[depth])
    classes = tuple(sorted(set(names)))
    if len(classes) < 2:
        raise unlabelled(
            listing.root, f"all its {medium.many} lie in one folder, '{classes[0]}'", medium
        )
    return labelled(listing, names, classes)


def labelled(listing: Listing, names: list[str], classes: tuple[str, ...]) -> Listing:
    """The listing with the label that each of `names` is among `classes`."""
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[name] for name in names], np.int64)
    return replace(listing, labels=labels, classes=classes)


@dataclass
class Rows:
    """The entries of a split list: file, class, and the line that says so."""

    ids: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    stated: list[str] = field(default_factory=list)

    def add(self, name: str, label: str, where: str) -> None:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{where}: '{name}' leads out of the dataset", kind="split-list")
        self.ids.append(str(path))
        self.names.append(label)
        self.stated.append(where)

    def listing(self, name: str, root: Path, rule: str, classes: tuple[str, ...] | None) -> Listing:
        listing = Listing(name, root, PackedIds(self.ids), rule, stated=PackedIds(self.stated))
        return listing if classes is None else labelled(listing, self.names, classes)
