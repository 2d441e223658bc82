"""Clothing1M: a million images with wrong labels, and fewer with right ones (section 8.4.3)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from selfsup_cli.config.images import ImageData
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.listing import Listing, only_split
from selfsup_cli.data.roots import misplaced
from selfsup_cli.data.source import Split
from selfsup_cli.data.tables import lines_of
from selfsup_cli.errors import InputError

_NAMES = "category_names_eng.txt"


def is_clothing(root: Path) -> bool:
    """Whether a folder has the lists of Clothing1M."""
    return (root / "noisy_label_kv.txt").is_file() and (root / "clean_label_kv.txt").is_file()


def clothing(root: Path, data: ImageData, split: Split, labels: bool) -> Listing:
    """Its noisy training part, or with `data.part` "clean" the one of right labels; the test part
    always has right ones. Raises InputError for lists that are not there or wrong."""
    only_split(root, data)
    if data.part not in ("auto", "clean"):
        raise InputError(
            f"--part {data.part}: clothing1m has the training parts auto (wrong labels) and clean",
            kind="unknown-split",
        )
    kind = "clean" if data.part == "clean" else "noisy"
    parts = [(kind, "train"), ("clean", "test")]
    wanted = {"train": parts[:1], "test": parts[1:], "all": parts}[split]
    rule = f"official {kind} training part and test part"
    ids: list[str] = []
    codes: list[int] = []
    classes = _classes(root) if labels else None
    for which, part in wanted:
        names = _keys(root, f"{which}_{part}_key_list.txt")
        ids += names
        if classes is not None:
            codes += _codes(root, f"{which}_label_kv.txt", names, len(classes))
    listing = Listing(root.name, root, PackedIds(ids), rule)
    if classes is None:
        return listing
    return replace(listing, labels=np.array(codes, np.int64), classes=classes)


def _list(root: Path, name: str) -> Path:
    path = root / name
    if not path.is_file():
        raise misplaced("clothing1m", root, f"there is no {name}")
    return path


def _classes(root: Path) -> tuple[str, ...]:
    return tuple(line for _, line in lines_of(_list(root, _NAMES)))


def _keys(root: Path, name: str) -> list[str]:
    found = []
    for where, line in lines_of(_list(root, name)):
        if ".." in line.split("/") or line.startswith("/"):
            raise InputError(f"{where}: '{line}' is no image below {root}", kind="split-list")
        found.append(line)
    return found


def _codes(root: Path, name: str, ids: list[str], classes: int) -> list[int]:
    """The class of each image, from a list of lines `NAME CLASS`."""
    given: dict[str, int] = {}
    for where, line in lines_of(_list(root, name)):
        key, _, code = line.rpartition(" ")
        if not code.isdecimal() or len(code) > 4 or int(code) >= classes:
            raise InputError(
                f"{where}: '{line}' is not NAME CLASS with a class from 0 to {classes - 1}",
                kind="split-list",
            )
        given[key] = int(code)
    for one in ids:
        if one not in given:
            raise InputError(f"{root / name} gives no label to {one}", kind="split-list")
    return [given[one] for one in ids]
