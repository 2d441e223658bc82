"""How datasets of image files lie on disk: ImageNet, Places, CelebA, PASCAL VOC."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from selfsup_cli.config.images import ImageData
from selfsup_cli.data.annotations import read_xml
from selfsup_cli.data.folders import Rows, by_class_folder
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.listing import (
    IMAGE_SUFFIXES,
    IMAGES,
    Listing,
    check_classes,
    find_files,
    held_out,
    none_found,
    only_split,
    unlabelled,
)
from selfsup_cli.data.roots import misplaced
from selfsup_cli.data.source import UNKNOWN, Split
from selfsup_cli.data.tables import header_of, lines_of, table_rows
from selfsup_cli.errors import InputError

Layout = Callable[[Path, ImageData, Split, bool], Listing]

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_WNID = re.compile(r"n\d{8}")
_OWN_SETS = (("trainval", "test"), ("train", "test"), ("train", "val"))
_VOC_SETS = {"voc2007": ("trainval", "test"), "voc2012": ("train", "val")}


def first_folder(root: Path, *names: str) -> Path | None:
    """The first of `root/names` that is a folder."""
    return next((path for name in names if (path := root / name).is_dir()), None)


def first_file(root: Path, *names: str) -> Path | None:
    """The first of `root/names` that is a file."""
    return next((path for name in names if (path := root / name).is_file()), None)


def _two_folders(
    base: Path, parts: tuple[str, str], rule: str, split: Split, labels: bool
) -> Listing:
    """A dataset whose two parts are folders of class folders."""
    found = {part: find_files(base / part, IMAGE_SUFFIXES) for part in parts}
    for part, files in found.items():
        if not len(files.ids):
            raise none_found(base / part, files, IMAGES)
    ids = PackedIds(f"{part}/{name}" for part, files in found.items() for name in files.ids)
    listing = Listing(base.name, base, ids, rule)
    if labels:
        listing = by_class_folder(listing, 1, IMAGES)
        classes = [{name.partition("/")[0] for name in files.ids} for files in found.values()]
        check_classes(base, *classes)
    if split == "all":
        return listing
    edge = len(found[parts[0]].ids)
    return listing.take(np.arange(edge) if split == "train" else np.arange(edge, len(ids)))


def is_imagenet(root: Path) -> bool:
    """Whether a folder has the class folders of ImageNet in `train`."""
    train = root / "train"
    return train.is_dir() and any(_WNID.fullmatch(path.name) for path in train.iterdir())


def imagenet(root: Path, data: ImageData, split: Split, labels: bool) -> Listing:
    """ImageNet: `train/WNID/*.JPEG` and `val/WNID/*.JPEG`."""
    only_split(root, data)
    base = first_folder(root, "ILSVRC/Data/CLS-LOC") or root
    for part in ("train", "val"):
        if not (base / part).is_dir():
            raise misplaced("imagenet", root, f"there is no folder {part}")
    if labels and not any(path.is_dir() for path in (base / "val").iterdir()):
        raise misplaced("imagenet", root, "the images of val do not lie in folders of their class")
    return _two_folders(base, ("train", "val"), "official train and validation", split, labels)


# -- Places


def is_places(root: Path) -> bool:
    """Whether a folder has the lists of Places205 or Places365."""
    return _places_list(root, "train") is not None


def _places_list(root: Path, part: str) -> Path | None:
    standard = f"places365_{part}{'_standard' if part == 'train' else ''}.txt"
    older = f"{part}_places205.csv"
    return first_file(root, standard, older, f"trainvalsplit_places205/{older}")


def places(root: Path, data: ImageData, split: Split, labels: bool) -> Listing:
    """Places365 or Places205 with their lists, or class folders in `train` and `val`."""
    only_split(root, data)
    rule = "official train and validation"
    if not is_places(root):
        if not ((root / "train").is_dir() and (root / "val").is_dir()):
            raise misplaced("places", root, "there is neither a list nor train and val")
        return _two_folders(root, ("train", "val"), rule, split, labels)
    wanted = {"train": ("train",), "test": ("val",), "all": ("train", "val")}[split]
    ids: list[str] = []
    codes: list[int] = []
    for part in wanted:
        for name, code in _places_rows(root, part):
            ids.append(name)
            codes.append(code)
    listing = Listing(root.name, root, PackedIds(ids), rule)
    if not labels:
        return listing
    classes = _places_classes(root)
    if codes and not 0 <= min(codes) <= max(codes) < len(classes):
        raise InputError(
            f"the lists of {root} name class {max(codes)}, but there are {len(classes)} classes",
            kind="class-names",
        )
    return replace(listing, labels=np.array(codes, np.int64), classes=classes)


def _places_rows(root: Path, part: str) -> Iterator[tuple[str, int]]:
    """File and class of each line of a list, `NAME CLASS`."""
    path = _places_list(root, part)
    if path is None:
        raise misplaced("places", root, f"there is no list of its part {part}")
    standard = part == "train"
    folders = ["data_256_standard", "data_large_standard", "data_256", "data_large"]
    if not standard:
        folders = ["val_256", "val_large"]
    older = ["images256", "data/vision/torralba/deeplearning/images256"]
    base = first_folder(root, *(older if path.suffix == ".csv" else folders))
    if base is None:
        raise misplaced("places", root, f"there is no folder of the images of its part {part}")
    prefix = base.relative_to(root).as_posix()
    for where, line in lines_of(path):
        name, _, code = line.partition(" ")
        if not code.isdecimal() or len(code) > 4 or ".." in name:
            raise InputError(f"{where}: '{line}' is not NAME CLASS", kind="split-list")
        yield f"{prefix}/{name.lstrip('/')}", int(code)


def _places_classes(root: Path) -> tuple[str, ...]:
    """The names of the classes in the order of their numbers."""
    path = first_file(root, "categories_places365.txt")
    rows: Iterator[tuple[str, str]]
    if path is not None:
        pairs = ((where, *line.rpartition(" ")[::2]) for where, line in lines_of(path))
        rows = ((name, number) for _, name, number in pairs)
    else:
        # Of Places205, the folder of an image is its class.
        rows = ((_folder(name), str(code)) for name, code in _places_rows(root, "train"))
    names: dict[int, str] = {}
    for name, number in rows:
        if not number.isdecimal() or len(number) > 4:
            raise InputError(f"{path}: '{number}' is no class", kind="split-list")
        names.setdefault(int(number), name.strip("/").partition("/")[2] or name)
    return tuple(names.get(number, f"class {number}") for number in range(max(names) + 1))


def _folder(name: str) -> str:
    return "/".join(name.rpartition("images256/")[2].split("/")[:-1])


# -- CelebA

_FLAGS = {"1": 1, "-1": 0, "0": 0}
_PLACES, _KINDS = ("", "Anno/", "Eval/", "celeba/"), ("txt", "csv")
_FACES = ("img_align_celeba/img_align_celeba", "img_align_celeba", "img", "Img/img_align_celeba")


def is_celeba(root: Path) -> bool:
    """Whether a folder has the attributes of CelebA."""
    return _celeba_table(root, "list_attr_celeba") is not None


def _celeba_table(root: Path, name: str) -> Path | None:
    return first_file(root, *(f"{place}{name}.{kind}" for place in _PLACES for kind in _KINDS))


def celeba(root: Path, data: ImageData, split: Split, labels: bool) -> Listing:
    """CelebA: aligned faces, 40 attributes, and the official partition if its list is there."""
    only_split(root, data)
    folder = first_folder(root, *_FACES, "celeba/img_align_celeba")
    table = _celeba_table(root, "list_attr_celeba")
    if folder is None or table is None:
        lacking = "folder img_align_celeba" if folder is None else "list_attr_celeba.txt"
        raise misplaced("celeba", root, f"there is no {lacking}")
    prefix = folder.relative_to(root).as_posix()
    names, rows = _celeba_rows(table, _FLAGS, headed=True)
    files = [name for name, _ in rows]
    listing = Listing(root.name, root, PackedIds(f"{prefix}/{name}" for name in files), "all faces")
    if labels:
        has = np.array([[_FLAGS[value] for value in values] for _, values in rows], np.uint8)
        listing = replace(listing, labels=has, attributes=names)
    partition = _celeba_table(root, "list_eval_partition")
    if partition is None:
        return held_out(listing, split, data)
    if split == "all":
        return listing
    part_of = {name: values[0] for name, values in _celeba_rows(partition, "012", headed=False)[1]}
    part = "0" if split == "train" else "2"
    places = [i for i, name in enumerate(files) if part_of.get(name) == part]
    return replace(listing.take(np.array(places, np.int64)), split_rule="official partition")


def _celeba_rows(
    path: Path, allowed: Collection[str], *, headed: bool
) -> tuple[tuple[str, ...], list[tuple[str, list[str]]]]:
    """The names of the columns and the rows (file, values) of one of CelebA's lists.

    `headed` lists begin with the number of images and those names.
    """
    names: tuple[str, ...]
    if path.suffix == ".csv":
        first, *names_there = header_of(path) or [""]
        names = tuple(names_there)
        table = table_rows(path, (first, *names), False)
        rows = [(where, row[first], [row[name] for name in names]) for where, row in table]
    else:
        lines = list(lines_of(path))
        if headed and (len(lines) < 2 or lines[0][1] != str(len(lines) - 2)):
            raise InputError(
                f"{path}: the number of images in its first line is not that of the lines that "
                f"follow, {max(len(lines) - 2, 0)}",
                kind="split-list",
            )
        names = tuple(lines[1][1].split()) if headed else ("partition",)
        cells = [(where, line.split()) for where, line in lines[2 if headed else 0 :]]
        rows = [(where, name, values) for where, (name, *values) in cells]
    for where, name, values in rows:
        if len(values) != len(names) or not set(values) <= set(allowed) or "/" in name:
            raise InputError(
                f"{where}: {len(names)} values are expected behind the name of an image, each "
                f"one of {', '.join(allowed)}",
                kind="split-list",
            )
    return names, [(name, values) for _, name, values in rows]


# -- PASCAL VOC


def is_voc(root: Path) -> bool:
    """Whether a folder is laid out as PASCAL VOC's."""
    return (root / "JPEGImages").is_dir() and (root / "Annotations").is_dir()


def voc2007(root: Path, data: ImageData, split: Split, labels: bool) -> Listing:
    """VOC 2007: trained on `trainval`, tested on `test`."""
    return _official_voc("voc2007", root, data, split, labels)


def voc2012(root: Path, data: ImageData, split: Split, labels: bool) -> Listing:
    """VOC 2012: trained on `train`, tested on `val`."""
    return _official_voc("voc2012", root, data, split, labels)


def _official_voc(name: str, root: Path, data: ImageData, split: Split, labels: bool) -> Listing:
    only_split(root, data)
    year = f"VOC{name[3:]}"
    base = first_folder(root, f"VOCdevkit/{year}", year) or root
    if not is_voc(base):
        raise misplaced(name, root, "there is no JPEGImages or Annotations")
    parts = _VOC_SETS[name]
    if lacking := [part for part in parts if not _voc_list(base, part).is_file()]:
        raise misplaced(name, root, f"there is no ImageSets/Main/{lacking[0]}.txt")
    listing = _listed_voc(base, parts, split, lambda stem: f"{stem}.jpg")
    return _annotated(listing, VOC_CLASSES) if labels else listing


def own_voc(root: Path, data: ImageData, split: Split, labels: bool) -> Listing:
    """A folder of one's own in the form of PASCAL VOC, with or without lists, of any classes."""
    only_split(root, data)
    found = find_files(root / "JPEGImages", IMAGE_SUFFIXES)
    if not len(found.ids):
        raise none_found(root / "JPEGImages", found, IMAGES)
    pairs = [pair for pair in _OWN_SETS if all(_voc_list(root, part).is_file() for part in pair)]
    if not pairs:
        ids = PackedIds(f"JPEGImages/{name}" for name in found.ids)
        listing = Listing(root.name, root, ids, "all images")
        return held_out(_annotated(listing, None) if labels else listing, split, data)
    file = {name.rpartition(".")[0]: name for name in found.ids}
    listing = _listed_voc(root, pairs[0], split, lambda stem: file.get(stem, f"{stem}.jpg"))
    if not labels:
        return listing
    both = _listed_voc(root, pairs[0], "all", lambda stem: file.get(stem, f"{stem}.jpg"))
    return _annotated(listing, _annotated(both, None).attributes)


def _voc_list(base: Path, part: str) -> Path:
    return base / "ImageSets" / "Main" / f"{part}.txt"


def _listed_voc(
    base: Path, parts: tuple[str, str], split: Split, file: Callable[[str], str]
) -> Listing:
    """The images of the lists of two parts."""
    chosen = {"train": parts[:1], "test": parts[1:], "all": parts}[split]
    rows = Rows()
    for part in chosen:
        for where, line in lines_of(_voc_list(base, part)):
            rows.add(f"JPEGImages/{file(line.split()[0])}", "", where)
    return rows.listing(base.name, base, f"lists {' and '.join(parts)}", None)


def _annotated(listing: Listing, names: tuple[str, ...] | None) -> Listing:
    """The listing with the classes of the objects that each image's annotation names.

    Without `names`, it is those of all of them. Where all objects of a class are marked as
    difficult, the image counts neither for it nor against it.
    """
    boxes = [_objects(_annotation(listing.root, name)) for name in listing.ids]
    if names is None:
        names = tuple(sorted({name for objects in boxes for name, _ in objects}))
        if not names:
            raise unlabelled(listing.root, "its annotations name no objects", IMAGES)
    column = {name: i for i, name in enumerate(names)}
    has = np.zeros((len(boxes), len(names)), np.uint8)
    for row, objects in zip(has, boxes, strict=True):
        for name, difficult in objects:
            if name not in column:
                raise InputError(
                    f"{listing.root / 'Annotations'}: '{name}' is not one of the {len(names)} "
                    "classes",
                    kind="class-names",
                )
            if not difficult:
                row[column[name]] = 1
            elif row[column[name]] == 0:
                row[column[name]] = UNKNOWN
    return replace(listing, labels=has, attributes=names)


def _annotation(root: Path, name: str) -> Path:
    return (root / "Annotations" / name.partition("/")[2]).with_suffix(".xml")


def _objects(path: Path) -> list[tuple[str, bool]]:
    """Class of each object in an annotation, and whether it is marked as difficult."""
    return [
        ((one.findtext("name") or "").strip(), (one.findtext("difficult") or "0").strip() == "1")
        for one in read_xml(path).iter("object")
    ]
