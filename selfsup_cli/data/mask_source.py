"""Images with masks as a source, and how the one that a preset names is opened."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from selfsup_cli.config.registry import DATASETS
from selfsup_cli.config.segment import MaskData
from selfsup_cli.data import index
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.image_files import SIZES
from selfsup_cli.data.image_store import without_quarantined
from selfsup_cli.data.listing import IMAGES, all_broken, nothing_left
from selfsup_cli.data.mask_classes import Named, numbered
from selfsup_cli.data.mask_layouts import Masked, masked
from selfsup_cli.data.masked_images import Looked, MaskedImages
from selfsup_cli.data.masks import (
    VOID,
    Coding,
    LookAt,
    MaskFacts,
    told,
)
from selfsup_cli.data.roots import check_kind, own_path, registered_root
from selfsup_cli.data.scene_objects import masked_scenes
from selfsup_cli.data.source import LeftOut, Progress, Split
from selfsup_cli.errors import InputError

_LOG = logging.getLogger("selfsup")

_REGISTERED = ("voc2007", "voc2012")
# Looking through so many takes less time than starting another process.
_FEW = 64


def open_masked(
    data: MaskData,
    split: Split,
    *,
    workers: int,
    progress: Progress | None = None,
    labels: bool = True,
) -> MaskedImages:
    """Open a part of the images and masks that `data` names, indexing what is not indexed yet.

    Masks belong to it whether or not `labels` are asked for, as `open_images` has it.
    All masks are looked through, those of the other part as well, so that both have the same
    classes. An image whose own file or mask cannot be read is left out. Raises `InputError` for
    anything the user has to mend: a mask of another size than its image, a label that no class has.
    """
    if data.source == "scenes":
        return masked_scenes(data, data.scenes, split)
    root, name = _root(data)
    found = masked(name, root, data)
    stay, out = without_quarantined(found.listing, data, split)
    found = found.take(stay)
    void = tuple(sorted({*data.void} - {VOID}))
    named = found.named and found.named.without(void)
    coding = named.coding if named else Coding(void)
    looked = _look(found, coding, workers, progress)
    _check(found, looked, coding)
    named = _checked(found, looked, named, coding)
    places, rule = found.places(split, data)
    found = replace(found, listing=replace(found.listing, name=name, split_rule=rule))
    bad = [LeftOut(found.listing.ids[i], looked.errors[i]) for i in places if i in looked.errors]
    good = np.array([i for i in places if i not in looked.errors], np.int64)
    if not len(good):
        raise all_broken(data, bad, IMAGES) if bad else nothing_left(data, split, IMAGES, out=False)
    for note in found.listing.notes:
        _LOG.info("%s: %s", name, note)
    source = MaskedImages(found, looked, named, good, split, (*out, *bad))
    if not source.present.any():
        raise InputError(
            f"{name}: no pixel of the {len(good)} masks of the split {split} counts ({rule}): all "
            f"are {VOID}, or of classes that are left out; give masks with labels",
            kind="no-labels",
        )
    return source


def _root(data: MaskData) -> tuple[Path, str]:
    name = data.source
    if name is None:
        raise InputError(
            "no data is named; give --data voc2012, voc2007 or a folder of images and masks",
            kind="no-data",
        )
    if name not in DATASETS:
        path = own_path(name, data)
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise InputError(
                f"the folder {path} {what}: give a folder of images and masks, or voc2012 or "
                "voc2007",
                kind="missing-folder",
            )
        return path, path.name
    check_kind(name, "image")
    if name not in _REGISTERED:
        raise InputError(
            f"{name} has no masks; those that have are {', '.join(_REGISTERED)}, and folders of "
            "images and masks",
            kind="wrong-dataset",
        )
    return registered_root(name, data), name


def _look(found: Masked, coding: Coding, workers: int, progress: Progress | None) -> Looked:
    root, listing = found.listing.root, found.listing
    if len(found.masks) <= _FEW:
        workers = 0
    images = index.build(root, listing.ids, workers=workers, progress=progress, kind=SIZES)
    if images.missing:
        raise InputError(
            f"'{listing.ids[images.missing[0]]}' is not in {root}", kind="missing-images"
        )
    tag = hashlib.sha256(repr(coding).encode()).hexdigest()[:8]
    kind = index.Kind(
        title="mask index",
        suffix=f"-masks-{tag}",
        version=1,
        columns=(
            *("height INTEGER", "width INTEGER", "strange INTEGER"),
            *(f"labels{word} INTEGER" for word in range(4)),
        ),
        numbers=7,
        probe=LookAt(coding),
        load=MaskFacts.from_row,
    )
    masks = index.build(root, PackedIds(found.masks), workers=workers, progress=progress, kind=kind)
    facts = [MaskFacts.from_row(tuple(int(n) for n in row)) for row in masks.numbers]
    errors = {i: f"its mask {found.masks[i]}: {why}" for i, why in masks.errors.items()}
    digests = np.array(
        [
            np.frombuffer(hashlib.blake2b(both.tobytes(), digest_size=16).digest(), np.uint8)
            for both in np.hstack([images.digests, masks.digests])
        ]
    )
    return Looked(images.numbers, digests, facts, {**errors, **images.errors})


def _check(found: Masked, looked: Looked, coding: Coding) -> None:
    """Raise `InputError` for a mask that is not one of its image, or not of labels."""
    root = found.listing.root
    for i, (facts, size) in enumerate(zip(looked.facts, looked.sizes, strict=True)):
        if i in looked.errors:
            continue
        if (facts.height, facts.width) != tuple(size):
            raise InputError(
                f"the mask {root / found.masks[i]} has {facts.width}×{facts.height} pixels and its "
                f"image {found.listing.ids[i]} {size[1]}×{size[0]}; both have to be of one size",
                kind="mask-size",
            )
        if not facts.strange:
            continue
        what = told(facts.strange)
        if not facts.strange >> 32:
            raise InputError(
                f"the mask {root / found.masks[i]} has {what}; labels are 0 to 254, and {VOID} for "
                "what does not count",
                kind="unknown-label",
            )
        way = (
            f"{what} stands for no class of classes.txt"
            if coding.colors
            else "it has colours, and no classes.txt says which class each stands for (lines of "
            "NAME R G B)"
        )
        raise InputError(f"the mask {root / found.masks[i]}: {way}", kind="unknown-label")


def _checked(found: Masked, looked: Looked, named: Named | None, coding: Coding) -> Named:
    """What the labels are called; raises `InputError` for one that no class has."""
    present = np.array([facts.present for facts in looked.facts])
    present[:, VOID] = False
    there = np.flatnonzero(present.any(0))
    if named is None:
        if len(there) < 2:
            raise InputError(
                f"the masks of {found.listing.root} have no two labels ({VOID} does not count); "
                "for masks in black and white give a classes.txt with the lines "
                "'background 0 0 0' and 'NAME 255 255 255'",
                kind="one-label",
            )
        return numbered(int(there[-1]) + 1, coding)
    total = len(named.names)
    if len(strange := there[there >= total]):
        first = int(np.flatnonzero(present[:, strange[0]])[0])
        raise InputError(
            f"the mask {found.listing.root / found.masks[first]} has the label {strange[0]}, and "
            f"its {total} classes have the labels 0 to {total - 1}; name it in classes.txt, or "
            f"leave it out with --void {strange[0]}",
            kind="unknown-label",
        )
    return named
