"""How images with boxes lie on disk: PASCAL VOC, COCO, and XML files beside images."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from selfsup_cli.config.blocks import Data
from selfsup_cli.config.images import ImageData
from selfsup_cli.data.annotations import Annotation, Coco, named_image, read_coco, read_voc
from selfsup_cli.data.folders import Rows, folder
from selfsup_cli.data.image_layouts import (
    VOC_CLASSES,
    first_folder,
    is_voc,
    own_voc,
    voc2007,
    voc2012,
)
from selfsup_cli.data.listing import IMAGES, Listing, find_files, held_out
from selfsup_cli.data.roots import own_path, registered_root
from selfsup_cli.data.source import Split
from selfsup_cli.errors import InputError

FORMS = (
    "scenes, voc2007 or voc2012, a folder with JPEGImages and Annotations (PASCAL VOC), one with "
    "annotations/instances_*.json (COCO), a JSON file of COCO, or images with an XML file beside "
    "each"
)
OFFICIAL = {"voc2007": voc2007, "voc2012": voc2012}
_XML_FOLDERS = ("Annotations", "annotations", "xml", "xmls")
_JSON = re.compile(r"(?:instances_)?((train|val|valid|test)[a-z]*\d*)\.json")


@dataclass(frozen=True)
class Laid:
    """Images of one part and of both, and what says where their objects are.

    `names` are the classes where they are fixed; `train` the ids of the training part.
    """

    part: Listing
    whole: Sequence[str]
    train: Sequence[str]
    annotation: Callable[[str], Annotation]
    names: tuple[str, ...] | None


def laid_out(data: Data, split: Split) -> Laid:
    """Which form the data has, and what is listed in it."""
    name = data.source
    if name is None:
        raise InputError(f"no data is named; give --data {FORMS}", kind="no-data")
    given = as_images(data)
    if name in OFFICIAL:
        root = registered_root(name, data)
        base = first_folder(root, f"VOCdevkit/VOC{name[3:]}", f"VOC{name[3:]}") or root
        whole, train, part = (
            OFFICIAL[name](root, given, one, False) for one in ("all", "train", split)
        )
        return Laid(part, whole.ids, train.ids, _of_voc(base), VOC_CLASSES)
    path = own_path(name, data)
    if path.is_file() and path.suffix.lower() == ".json":
        return _single_coco(path, data, split)
    if not path.is_dir():
        raise InputError(
            f"there is no folder or JSON file {path}; give --data {FORMS}", kind="no-data"
        )
    if parts := _coco_parts(path):
        return _coco(path, parts, split)
    if is_voc(path):
        whole, train, part = (own_voc(path, given, one, False) for one in ("all", "train", split))
        if part.stated is None:
            _check_matched(path, "JPEGImages", path / "Annotations", whole.ids)
        return Laid(part, whole.ids, train.ids, _of_voc(path), None)
    return _beside(path, given, split)


# PASCAL VOC, and images with an XML file each


def _of_voc(base: Path) -> Callable[[str], Annotation]:
    def annotation(identifier: str) -> Annotation:
        path = (base / "Annotations" / identifier.partition("/")[2]).with_suffix(".xml")
        return _described(path, identifier)

    return annotation


def _described(path: Path, identifier: str) -> Annotation:
    if not path.is_file():
        raise InputError(
            f"the image {identifier} has no annotation {path}; an image without objects needs one "
            "that names none",
            kind="annotation",
        )
    return read_voc(path)


def _check_matched(root: Path, images: str, xml: Path, ids: Sequence[str]) -> None:
    """Raise InputError for an annotation of an image that is not there."""
    known = {identifier.rpartition(".")[0].removeprefix(f"{images}/") for identifier in ids}
    for name in find_files(xml, (".xml",)).ids:
        if name.rpartition(".")[0] not in known:
            wanted = named_image(xml / name) or f"{name.rpartition('.')[0]}.jpg"
            raise InputError(
                f"{xml / name} names the image {wanted}, which is not in {root / images}",
                kind="missing-image",
            )


def _beside(root: Path, data: ImageData, split: Split) -> Laid:
    """Images with an XML file beside each, or in a folder `annotations`."""
    apart = next((root / name for name in _XML_FOLDERS if (root / name).is_dir()), None)
    place = apart or root
    if not len(find_files(place, (".xml",)).ids):
        raise InputError(
            f"{root} has no boxes: there is no XML file in it; give --data {FORMS}",
            kind="unlabelled",
        )
    images = first_folder(root, "images", "JPEGImages") if apart else None
    prefix = f"{images.name}/" if images else ""
    whole, train, part = (folder(root, data, one, False, IMAGES) for one in ("all", "train", split))
    if not apart and part.split_rule.startswith("seeded"):
        _check_matched(root, "", root, whole.ids)
    elif apart:
        _check_matched(root, prefix.rstrip("/"), apart, whole.ids)

    def annotation(identifier: str) -> Annotation:
        stem = identifier.removeprefix(prefix).rpartition(".")[0]
        return _described(place / f"{stem}.xml", identifier)

    return Laid(part, whole.ids, train.ids, annotation, None)


# COCO


def _coco_parts(root: Path) -> tuple[Path, Path] | None:
    """The JSON files of the training and the test part of a folder in COCO's form."""
    base = root / "annotations"
    found: dict[str, Path] = {}
    for path in sorted(base.glob("*.json")) if base.is_dir() else []:
        if match := _JSON.fullmatch(path.name):
            found.setdefault("train" if match[2] == "train" else match[2], path)
    test = next((found[name] for name in ("val", "valid", "test") if name in found), None)
    if "train" in found and test is not None:
        return found["train"], test
    return None


def _coco(root: Path, parts: tuple[Path, Path], split: Split) -> Laid:
    both = [read_coco(path) for path in parts]
    train, test = both
    if train.names != test.names:
        raise InputError(
            f"{parts[0]} and {parts[1]} do not have the same categories", kind="class-names"
        )
    rows = {one.path: _coco_images(root, one) for one in both}
    if shared := set(rows[train.path]) & set(rows[test.path]):
        raise InputError(
            f"{parts[0]} and {parts[1]} both name {min(shared)}, so testing would be on what was "
            "learned from",
            kind="listed-twice",
        )
    known = {name: one for each in rows.values() for name, one in each.items()}
    wanted = {"train": both[:1], "test": both[1:], "all": both}[split]
    listing = _listed(root, {name: path for one in wanted for name, path in _stated(rows, one)})
    rule = f"annotations {parts[0].stem} and {parts[1].stem}"
    ids = {one.path: list(rows[one.path]) for one in both}
    return Laid(
        replace(listing, split_rule=rule),
        [*ids[train.path], *ids[test.path]],
        ids[train.path],
        known.__getitem__,
        train.names,
    )


def _single_coco(path: Path, data: Data, split: Split) -> Laid:
    """One JSON file, whose images lie beside it or in a folder beside it."""
    coco, root = read_coco(path), path.parent
    rows = _coco_images(root, coco)
    listing = replace(_listed(root, dict.fromkeys(rows, str(path))), name=path.stem)
    part, train = (held_out(listing, one, data) for one in (split, "train"))
    return Laid(part, listing.ids, train.ids, rows.__getitem__, coco.names)


def _stated(rows: Mapping[Path, Mapping[str, Annotation]], one: Coco) -> list[tuple[str, str]]:
    return [(name, str(one.path)) for name in rows[one.path]]


def _listed(root: Path, stated: Mapping[str, str]) -> Listing:
    rows = Rows()
    for name, where in stated.items():
        rows.add(name, "", where)
    return rows.listing(root.name, root, "all images", None)


def _coco_images(root: Path, coco: Coco) -> dict[str, Annotation]:
    """The annotations by the paths of their images below `root`."""
    if not coco.images:
        raise InputError(f"{coco.path} names no images", kind="empty-split")
    match = _JSON.fullmatch(coco.path.name)
    part = match[1] if match else coco.path.stem
    places = [part, f"images/{part}", "images", match[2] if match else part, "JPEGImages", "."]
    first = next(iter(coco.images))
    place = next((one for one in places if (root / one / first).is_file()), None)
    if place is None:
        raise InputError(
            f"{coco.path} names the image {first}, which is in none of the folders "
            f"{', '.join(dict.fromkeys(places[:-1]))} of {root}, nor in itself",
            kind="missing-image",
        )
    prefix = "" if place == "." else f"{place}/"
    return {f"{prefix}{name}": one for name, one in coco.images.items()}


def as_images(data: Data) -> ImageData:
    """The same for what lists image files."""
    return ImageData(**{name: getattr(data, name) for name in Data.model_fields})
