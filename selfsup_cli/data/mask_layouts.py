"""How images and their masks lie on disk: in PASCAL VOC's form, or in two folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from selfsup_cli.config.blocks import Data
from selfsup_cli.data.folders import HELD_OUT_FOLDERS, Rows
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.image_layouts import first_folder
from selfsup_cli.data.listing import (
    IMAGE_SUFFIXES,
    IMAGES,
    Listing,
    find_files,
    held_out,
    none_found,
    only_split,
)
from selfsup_cli.data.mask_classes import Named, camvid_named, read_classes, voc_named
from selfsup_cli.data.masks import SUFFIXES
from selfsup_cli.data.source import Split
from selfsup_cli.data.tables import lines_of
from selfsup_cli.errors import InputError

IMAGE_FOLDERS = ("images", "image", "img", "imgs", "JPEGImages")
MASK_FOLDERS = ("masks", "mask", "labels", "annotations", "SegmentationClass")
FORMS = (
    "JPEGImages/ and SegmentationClass/ (PASCAL VOC), images/ and masks/ (or labels/), train/, "
    "trainannot/, val/ and valannot/, or the former two in train/ and val/"
)

_TRAIN = ("train", "training")
_ENDINGS = ("", "_mask", "_label", "_L")
_CAMVID = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_")
_OWN_SETS = (("train", "val"), ("trainval", "test"), ("train", "test"))
_VOC_SETS = {"voc2007": ("trainval", "test"), "voc2012": ("train", "val")}


@dataclass(frozen=True)
class Masked:
    """The images of both parts of a dataset, the file of the mask of each, and who is in training.

    `masks` are relative to the root, `training` is bool `[N]`, or None where nobody divided them.
    `named` says what their labels are, if the data does.
    """

    listing: Listing
    masks: tuple[str, ...]
    training: np.ndarray | None
    named: Named | None

    def take(self, places: np.ndarray) -> Masked:
        """The images at `places` (int64)."""
        return replace(
            self,
            listing=self.listing.take(places),
            masks=tuple(self.masks[i] for i in places),
            training=None if self.training is None else self.training[places],
        )

    def places(self, split: Split, data: Data) -> tuple[np.ndarray, str]:
        """Places (int64) of the images of `split`, and who divided them."""
        everything = np.arange(len(self.masks))
        if self.training is not None:
            chosen = {"train": self.training, "test": ~self.training}.get(split)
            rule = self.listing.split_rule
            return everything if chosen is None else np.flatnonzero(chosen), rule
        part = held_out(self.listing, split, data)
        kept = set(part.ids)
        own = [i for i, name in enumerate(self.listing.ids) if name in kept]
        return np.array(own, np.int64), part.split_rule


@dataclass(frozen=True)
class _Pair:
    """A folder of images and that of their masks, relative to the root; of one part, or of all."""

    images: str
    masks: str
    training: bool | None = None


def masked(name: str, root: Path, data: Data) -> Masked:
    """The images and masks below `root`, in whichever form it is. `name` may be a registered one.

    Raises `InputError` for a folder of no known form, for an image without a mask and a mask
    without an image, which are named.
    """
    only_split(root, data)
    base = _voc_base(root, name)
    if base is not None:
        return _voc(name, base)
    pairs = _pairs(root)
    if not pairs:
        raise InputError(
            f"{root} has no masks: expected in it are {FORMS}",
            kind="no-masks",
            hint="see docs/segment.md for the layouts",
        )
    return _paired(root, pairs)


# -- PASCAL VOC


def _voc_base(root: Path, name: str) -> Path | None:
    year = f"VOC{name[3:]}" if name in _VOC_SETS else ""
    places = [root, *(root / sub for sub in (f"VOCdevkit/{year}", year) if year)]
    if not year and (devkit := first_folder(root, "VOCdevkit")) is not None:
        places += sorted(path for path in devkit.iterdir() if path.is_dir())
    for place in places:
        if (place / "JPEGImages").is_dir() and (place / "SegmentationClass").is_dir():
            return place
    return None


def _voc(name: str, base: Path) -> Masked:
    images = _by_stem(base, "JPEGImages", IMAGE_SUFFIXES)
    masks = _by_stem(base, "SegmentationClass", SUFFIXES)
    _check_used(base, masks, {mask for stem, mask in masks.items() if stem in images})
    named = read_classes(base) or voc_named()
    wanted = [_VOC_SETS[name]] if name in _VOC_SETS else list(_OWN_SETS)
    for parts in wanted:
        if all(_list(base, part).is_file() for part in parts):
            return _listed(base, parts, images, masks, named)
    if name in _VOC_SETS:
        raise InputError(
            f"{base} lacks the list of the images that have masks, {_list(base, wanted[0][0])}",
            kind="layout",
        )
    stems = sorted(masks)
    ids = PackedIds(images[stem] for stem in stems)
    listing = Listing(base.name, base, ids, "all images with a mask")
    return Masked(listing, tuple(masks[stem] for stem in stems), None, named)


def _list(base: Path, part: str) -> Path:
    return base / "ImageSets" / "Segmentation" / f"{part}.txt"


def _listed(
    base: Path,
    parts: tuple[str, str],
    images: dict[str, str],
    masks: dict[str, str],
    named: Named,
) -> Masked:
    rows, files, training = Rows(), list[str](), list[bool]()
    for part in parts:
        for where, line in lines_of(_list(base, part)):
            stem = line.split()[0]
            if stem not in images:
                raise InputError(f"{where}: there is no image JPEGImages/{stem}.jpg", kind="list")
            if stem not in masks:
                raise InputError(
                    f"{where}: the image '{stem}' has no mask SegmentationClass/{stem}.png",
                    kind="no-mask",
                )
            rows.add(images[stem], "", where)
            files.append(masks[stem])
            training.append(part == parts[0])
    listing = rows.listing(base.name, base, f"lists {' and '.join(parts)}", None)
    return Masked(listing, tuple(files), np.array(training, bool), named)


# -- two folders


def _pairs(root: Path) -> list[_Pair]:
    """Where images and masks lie: of both parts, or of all."""
    held = tuple(dict.fromkeys((*HELD_OUT_FOLDERS, "validation")))
    for train in _TRAIN:
        for test in held:
            both = [(train, True), (test, False)]
            if all(_is_dirs(root, part, f"{part}annot") for part, _ in both):
                return [_Pair(part, f"{part}annot", own) for part, own in both]
            for images in IMAGE_FOLDERS:
                for masks in MASK_FOLDERS:
                    for form in ("{part}/{kind}", "{kind}/{part}"):
                        found = [
                            _Pair(
                                form.format(part=part, kind=images),
                                form.format(part=part, kind=masks),
                                own,
                            )
                            for part, own in both
                        ]
                        if all(_is_dirs(root, one.images, one.masks) for one in found):
                            return found
    for images in IMAGE_FOLDERS:
        for masks in MASK_FOLDERS:
            if _is_dirs(root, images, masks):
                return [_Pair(images, masks)]
    return []


def _is_dirs(root: Path, *names: str) -> bool:
    return all((root / name).is_dir() for name in names)


def _paired(root: Path, pairs: Sequence[_Pair]) -> Masked:
    ids, files, training = list[str](), list[str](), list[bool]()
    for pair in pairs:
        images = _by_stem(root, pair.images, IMAGE_SUFFIXES)
        masks = _by_stem(root, pair.masks, SUFFIXES)
        own = {stem: _own_mask(stem, masks) for stem in images}
        lacking = [stem for stem, mask in own.items() if mask is None]
        if lacking:
            more = f" (nor have {len(lacking) - 1} others)" if len(lacking) > 1 else ""
            raise InputError(
                f"{root / images[lacking[0]]} has no mask: there is no "
                f"{pair.masks}/{lacking[0]}.png{more}",
                kind="no-mask",
            )
        theirs = [mask for mask in own.values() if mask is not None]
        _check_used(root, masks, set(theirs))
        ids += images.values()
        files += theirs
        training += [bool(pair.training)] * len(images)
    rule = "all images"
    if pairs[0].training is not None:
        rule = f"the folders {pairs[0].images} and {pairs[1].images}"
    listing = Listing(root.name, root, PackedIds(ids), rule)
    named = read_classes(root)
    if named is None and pairs[0].masks.endswith("annot") and _is_camvid(ids):
        named = camvid_named()
        note = "the labels are taken for those of CamVid, by the names of its images"
        listing = replace(listing, notes=(note,))
    divided = None if pairs[0].training is None else np.array(training, bool)
    return Masked(listing, tuple(files), divided, named)


def _is_camvid(ids: Sequence[str]) -> bool:
    return all(_CAMVID.match(name.rpartition("/")[2]) for name in ids)


def _own_mask(stem: str, masks: dict[str, str]) -> str | None:
    return next((masks[stem + end] for end in _ENDINGS if stem + end in masks), None)


def _by_stem(root: Path, folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """The files in a folder by their names in it without their endings."""
    found = find_files(root / folder, suffixes)
    if not len(found.ids):
        raise none_found(root / folder, found, replace(IMAGES, suffixes=suffixes))
    files: dict[str, str] = {}
    for name in found.ids:
        stem = name.rpartition(".")[0]
        if stem in files:
            raise InputError(
                f"{root / folder}: '{name}' and '{files[stem].rpartition('/')[2]}' have one name; "
                "an image and its mask are paired by it",
                kind="listed-twice",
            )
        files[stem] = f"{folder}/{name}"
    return files


def _check_used(root: Path, masks: dict[str, str], used: set[str]) -> None:
    """Raise `InputError` for a mask that no image has."""
    strange = [mask for mask in masks.values() if mask not in used]
    if strange:
        more = f" (nor do {len(strange) - 1} others)" if len(strange) > 1 else ""
        raise InputError(
            f"the mask {root / strange[0]} belongs to no image{more}; an image and its mask have "
            "one name but for the ending",
            kind="no-image",
        )
