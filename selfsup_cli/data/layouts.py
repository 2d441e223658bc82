"""How datasets of videos lie on disk: UCF101, HMDB51, Kinetics."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.data.folders import Rows, labelled
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.listing import (
    SUFFIXES,
    Listing,
    check_classes,
    find_files,
    none_found,
    only_split,
)
from selfsup_cli.data.roots import misplaced
from selfsup_cli.data.source import Split
from selfsup_cli.data.tables import lines_of, table_rows
from selfsup_cli.errors import InputError

Layout = Callable[[Path, VideoData, Split, bool], Listing]
_UCF_TRAIN = re.compile(r"trainlist(\d+)\.txt")
_HMDB_LIST = re.compile(r"(.+)_test_split(\d+)\.txt")


def recognise(root: Path) -> str | None:
    """The registered dataset whose layout a folder has, if it has one."""
    if _ucf_lists(root):
        return "ucf101"
    if _hmdb_lists(root):
        return "hmdb51"
    annotations = root / "train.csv"
    if annotations.is_file() and (root / "train").is_dir():
        with annotations.open(encoding="utf-8", errors="replace") as file:
            if "youtube_id" in file.readline():
                return "kinetics"
    return None


def split_numbers(root: Path) -> list[int]:
    """The numbers of the splits that a folder's lists make; 1 alone where there are no lists."""
    return sorted(_ucf_lists(root) or _hmdb_lists(root)) or [1]


def ucf101(root: Path, data: VideoData, split: Split, labels: bool) -> Listing:
    """UCF101: class folders, `classInd.txt`, `trainlist0N.txt` and `testlist0N.txt`."""
    lists = _ucf_lists(root)
    if not lists:
        raise misplaced("ucf101", root, "there is no trainlist01.txt")
    base = root / "UCF-101" if (root / "UCF-101").is_dir() else root
    train = _numbered(root, lists, data.split)
    test = train.with_name(train.name.replace("train", "test"))
    if not test.is_file():
        raise misplaced("ucf101", root, f"there is no {test.name} beside {train.name}")
    classes: dict[str, int] | None = None
    if labels:
        classes = _class_index(train.with_name("classInd.txt"))
        used = {path: set(_ucf_rows(path, classes).names) for path in (train, test)}
        check_classes(root, used[train], used[test])
    if split == "all":
        return _all_listed(base, None if classes is None else tuple(classes))
    rows = _ucf_rows(train if split == "train" else test, classes)
    names = None if classes is None else tuple(classes)
    return rows.listing(root.name, base, f"official split {data.split}", names)


def _ucf_lists(root: Path) -> dict[int, Path]:
    """The training lists of a folder by their number."""
    for place in (root, root / "ucfTrainTestlist"):
        if place.is_dir():
            matches = ((_UCF_TRAIN.fullmatch(path.name), path) for path in place.iterdir())
            if lists := {int(match[1]): path for match, path in matches if match}:
                return lists
    return {}


def _class_index(path: Path) -> dict[str, int]:
    """The classes of `classInd.txt` (`NUMBER NAME` a line) and their numbers, in that order."""
    if not path.is_file():
        raise misplaced("ucf101", path.parent, f"there is no {path.name}")
    classes: dict[int, str] = {}
    for where, line in lines_of(path):
        number, _, name = line.partition(" ")
        if not _is_number(number) or not name.strip() or int(number) in classes:
            raise InputError(f"{where}: '{line}' is not NUMBER NAME", kind="split-list")
        classes[int(number)] = name.strip()
    if len(set(classes.values())) != len(classes) or not classes:
        raise InputError(f"{path}: it lists no classes, or one twice", kind="split-list")
    return {classes[number]: number for number in sorted(classes)}


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < 10


def _ucf_rows(path: Path, classes: dict[str, int] | None) -> Rows:
    """One list, `CLASS/CLIP [NUMBER]` a line; the number is read only where labels are."""
    rows = Rows()
    for where, line in lines_of(path):
        name, _, number = line.rpartition(" ")
        if not name or not _is_number(number):
            name, number = line, ""
        label = name.partition("/")[0]
        if classes is not None:
            if label not in classes:
                raise InputError(
                    f"{where}: the class '{label}' is not in classInd.txt", kind="class-names"
                )
            if number and int(number) != classes[label]:
                raise InputError(
                    f"{where}: class {number} is stated, but classInd.txt gives '{label}' the "
                    f"number {classes[label]}",
                    kind="class-names",
                )
        rows.add(name.strip(), label, where)
    return rows


def hmdb51(root: Path, data: VideoData, split: Split, labels: bool) -> Listing:
    """HMDB51: class folders and `CLASS_test_splitN.txt` (1 trains, 2 tests, 0 is unused)."""
    lists = _hmdb_lists(root)
    if not lists:
        raise misplaced("hmdb51", root, "there is no CLASS_test_split1.txt")
    first = _numbered(root, {number: paths[0] for number, paths in lists.items()}, data.split)
    rows = {"1": Rows(), "2": Rows(), "0": Rows()}
    for path in lists[data.split]:
        match = _HMDB_LIST.fullmatch(path.name)
        assert match is not None  # noqa: S101 (listed by this pattern)
        for where, line in lines_of(path):
            name, _, part = line.rpartition(" ")
            if part not in rows or not name:
                raise InputError(f"{where}: '{line}' is not CLIP 0, 1 or 2", kind="split-list")
            rows[part].add(f"{match[1]}/{name.strip()}", match[1], where)
    classes: tuple[str, ...] | None = None
    if labels:
        classes = tuple(sorted({name for part in rows.values() for name in part.names}))
        check_classes(first.parent, set(rows["1"].names), set(rows["2"].names))
    if split == "all":
        return _all_listed(root, classes)
    chosen = rows["1" if split == "train" else "2"]
    return chosen.listing(root.name, root, f"official split {data.split}", classes)


def _hmdb_lists(root: Path) -> dict[int, list[Path]]:
    """The class lists of a folder by the number of their split."""
    lists: dict[int, list[Path]] = {}
    for place in (root, root / "testTrainMulti_7030_splits"):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if match := _HMDB_LIST.fullmatch(path.name):
                lists.setdefault(int(match[2]), []).append(path)
        if lists:
            break
    return lists


def _all_listed(root: Path, classes: tuple[str, ...] | None) -> Listing:
    """Every video below `root`, in a list or not."""
    found = find_files(root, SUFFIXES)
    if not len(found.ids):
        raise none_found(root, found)
    listing = found.listing(root, "all videos")
    if classes is None:
        return listing
    names = [name.partition("/")[0] for name in found.ids]
    if alien := sorted(set(names) - set(classes)):
        raise InputError(
            f"'{alien[0]}' in {root} is not one of its {len(classes)} classes", kind="class-names"
        )
    return labelled(listing, names, classes)


def kinetics(root: Path, data: VideoData, split: Split, labels: bool) -> Listing:
    """Kinetics: annotations `train.csv`, `val.csv`, clips `train/[LABEL/]ID_SSSSSS_EEEEEE.mp4`.

    Clips that are annotated but absent (videos vanish) are counted. The annotations' labels are
    read only if asked for; without them, a folder of clips needs no annotations.
    """
    only_split(root, data)
    wanted = ("train", "test") if split == "all" else (split,)
    needed = ("train", "test") if labels else wanted
    parts = {part: _kinetics_part(root, part, labels) for part in needed}
    classes: tuple[str, ...] | None = None
    if labels:
        check_classes(root, parts["train"].names, parts["test"].names)
        classes = tuple(sorted(parts["train"].names))
    chosen = [parts[part] for part in wanted]
    ids = [name for part in chosen for name in part.ids]
    annotated = sum(part.annotated for part in chosen)
    if not ids:
        places = " or ".join(str(part.folder) for part in chosen)
        raise misplaced("kinetics", root, f"none of its clips is in {places}")
    notes = (f"{annotated - len(ids)} of {annotated} annotated clips are not on this disk",)
    listing = Listing(
        root.name,
        root,
        PackedIds(ids),
        "official train and validation",
        notes=notes if annotated > len(ids) else (),
    )
    if classes is None:
        return listing
    return labelled(listing, [name for part in chosen for name in part.labels], classes)


@dataclass
class _KineticsPart:
    """One part: the clips there are, their classes, and all classes that are annotated."""

    folder: Path
    annotated: int = 0
    ids: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


def _kinetics_part(root: Path, part: str, labels: bool) -> _KineticsPart:
    names = ("train",) if part == "train" else ("val", "validate", "validation")
    table = next((p for name in names if (p := root / f"{name}.csv").is_file()), None)
    place = next((p for name in names if (p := root / name).is_dir()), root / names[0])
    result = _KineticsPart(place)
    found = find_files(place, SUFFIXES).ids if place.is_dir() else PackedIds()
    if table is None:
        if labels:
            raise misplaced("kinetics", root, f"there is no {names[0]}.csv")
        result.ids = [f"{place.name}/{name}" for name in found]
        result.annotated = len(result.ids)
        return result
    by_stem = {PurePosixPath(name).stem: i for i, name in enumerate(found)}
    for where, row in table_rows(table, ("youtube_id", "time_start", "time_end"), labels):
        try:
            start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
        except (ValueError, OverflowError):
            raise InputError(f"{where}: time_start or time_end is no number", kind="csv") from None
        if labels:
            result.names.add(row["label"])
        result.annotated += 1
        at = by_stem.pop(f"{row['youtube_id']}_{start:06d}_{end:06d}", None)
        if at is not None:
            result.ids.append(f"{place.name}/{found[at]}")
            result.labels.append(row["label"] if labels else "")
    return result


LAYOUTS: dict[str, Layout] = {"ucf101": ucf101, "hmdb51": hmdb51, "kinetics": kinetics}


def _numbered(root: Path, lists: dict[int, Path], number: int) -> Path:
    if number not in lists:
        there = ", ".join(map(str, sorted(lists)))
        raise InputError(
            f"split {number} does not exist in {root}; there is: {there}", kind="unknown-split"
        )
    return lists[number]
