"""What people write of the objects in images: XML files of PASCAL VOC, JSON files of COCO."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from selfsup_cli.errors import InputError
from selfsup_cli.runs.seal import parsed

MAX_XML = 1 << 20
Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Marked:
    """An object: its class, its box (left, top, right and bottom edge, in pixels of the image, as
    `boxes.Boxes` has them), and whether it is one that need not be found."""

    name: str
    box: Corners
    difficult: bool = False


@dataclass(frozen=True)
class Annotation:
    """The objects of an image. `where` names the place that says so; `size` is the height and width
    that it says the image has, if it says any."""

    where: str
    objects: tuple[Marked, ...]
    size: tuple[int, int] | None = None


# PASCAL VOC


def read_xml(path: Path) -> ElementTree.Element:
    """The content of an XML file. Raises InputError for one that is damaged or defines entities."""
    try:
        data = path.read_bytes()
        # UTF-16 would hide a declaration of entities from the look for it: no annotation has NULs.
        hidden = b"\0" in data or b"<!" in data.replace(b"<!--", b"")
        if len(data) > MAX_XML or hidden:
            raise InputError(f"{path} is no annotation of PASCAL VOC", kind="annotation")
        return ElementTree.fromstring(data)  # noqa: S314 (without entities, it is harmless)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", kind="annotation") from error
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is damaged: {error}", kind="annotation") from error


def named_image(path: Path) -> str | None:
    """The file that the annotation `path` names as its image, without folders."""
    name = (read_xml(path).findtext("filename") or "").strip().replace("\\", "/")
    return PurePosixPath(name).name or None


def read_voc(path: Path) -> Annotation:
    """An XML file of PASCAL VOC, whose boxes name first and last pixel and count from 1.

    Raises InputError, naming the file and the object, for what cannot be a box.
    """
    tree = read_xml(path)
    objects: list[Marked] = []
    for one in tree.iter("object"):
        name = (one.findtext("name") or "").strip()
        where = f"{path}: object {len(objects) + 1}{f' ({name})' if name else ''}"
        if not name:
            raise InputError(f"{where} has no name", kind="annotation")
        box = one.find("bndbox")
        if box is None:
            raise InputError(f"{where} has no bndbox", kind="annotation")
        left, top, right, bottom = (
            _number(box.findtext(key), where, key) for key in ("xmin", "ymin", "xmax", "ymax")
        )
        if right < left or bottom < top:
            raise InputError(
                f"{where}: its box ends before it begins ({left:g}, {top:g} to {right:g}, "
                f"{bottom:g})",
                kind="boxes",
            )
        difficult = (one.findtext("difficult") or "0").strip() == "1"
        objects.append(Marked(name, (left - 1, top - 1, right, bottom), difficult))
    return Annotation(str(path), tuple(objects), _stated_size(tree))


def _stated_size(tree: ElementTree.Element) -> tuple[int, int] | None:
    """Height and width of the image, or None where the file leaves them out or has zeros."""
    try:
        height, width = (int(tree.findtext(f"size/{key}") or 0) for key in ("height", "width"))
    except ValueError:
        return None
    return (height, width) if height > 0 and width > 0 else None


def _number(text: str | None, where: str, key: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {key} is no number ({(text or '').strip()!r})", kind="boxes")
    return value


# COCO


@dataclass(frozen=True)
class Coco:
    """A JSON file of COCO: the names of its categories in the order of their numbers, and the
    annotation of each image by its file name."""

    path: Path
    names: tuple[str, ...]
    images: dict[str, Annotation] = field(default_factory=dict)


def read_coco(path: Path) -> Coco:
    """A JSON file as COCO has it for objects: `images`, `annotations` and `categories`.

    Its boxes are left, top, width and height, counted from 0; crowds become difficult objects.
    Raises InputError, naming the file and the entry, for anything that is not so.
    """
    try:
        content = parsed(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", kind="annotation") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}", kind="annotation") from error
    categories: dict[int, str] = {}
    for where, one in _entries(path, content, "categories"):
        number, name = _whole(one, "id", where), _text(one, "name", where)
        if number in categories or name in categories.values():
            raise InputError(f"{where}: id or name is there twice", kind="annotation")
        categories[number] = name
    names = dict(sorted(categories.items()))
    files: dict[int, tuple[str, tuple[int, int] | None]] = {}
    taken: set[str] = set()
    for where, one in _entries(path, content, "images"):
        number, file = _whole(one, "id", where), _text(one, "file_name", where)
        plain = PurePosixPath(file)
        if plain.is_absolute() or ".." in plain.parts:
            raise InputError(f"{where}: '{file}' leads out of the dataset", kind="annotation")
        if number in files or str(plain) in taken:
            raise InputError(f"{where}: id or file_name is there twice", kind="annotation")
        size = None
        if one.get("height") and one.get("width"):
            size = _whole(one, "height", where), _whole(one, "width", where)
        files[number] = (str(plain), size)
        taken.add(str(plain))
    objects: dict[int, list[Marked]] = {number: [] for number in files}
    for where, one in _entries(path, content, "annotations"):
        image, category = _whole(one, "image_id", where), _whole(one, "category_id", where)
        for number, known, what in ((image, files, "image"), (category, names, "category")):
            if number not in known:
                raise InputError(f"{where} names {what} {number}, which is not there", kind="boxes")
        difficult = one.get("iscrowd", 0) in (1, True)
        objects[image].append(Marked(names[category], _corners(one, where), difficult))
    return Coco(
        path,
        tuple(names.values()),
        {
            file: Annotation(f"{path}: image '{file}'", tuple(objects[number]), size)
            for number, (file, size) in files.items()
        },
    )


def _entries(path: Path, content: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"{path} is no annotation of COCO: it has no list '{key}' of objects", kind="annotation"
        )
    for number, row in enumerate(rows):
        yield f"{path}: {key}[{number}]", row


def _whole(row: Mapping[str, Any], key: str, where: str) -> int:
    value = row.get(key)
    if type(value) is not int:
        raise InputError(f"{where}: {key} is no whole number", kind="annotation")
    return value


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError(f"{where}: {key} is no text", kind="annotation")
    return value


def _corners(row: Mapping[str, Any], where: str) -> Corners:
    box = row.get("bbox")
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(type(value) in (int, float) and math.isfinite(value) for value in box)
    ):
        raise InputError(f"{where}: bbox is no list of four numbers", kind="boxes")
    left, top, width, height = box
    if width < 0 or height < 0:
        raise InputError(f"{where}: its box has a width or height below 0", kind="boxes")
    return float(left), float(top), float(left + width), float(top + height)
