"""Images with their boxes, opened from whatever layout they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from selfsup_cli.config.detect import BoxedData
from selfsup_cli.data.annotations import Annotation
from selfsup_cli.data.boxed_layouts import OFFICIAL, as_images, laid_out
from selfsup_cli.data.boxes import BoxedImages, Boxes
from selfsup_cli.data.image_files import open_image_files
from selfsup_cli.data.scene_objects import boxed_scenes
from selfsup_cli.data.source import Progress, Split
from selfsup_cli.errors import InputError

# Annotations of images that were scaled to a whole number of pixels end this far beyond them.
_SLACK = 1.0


def open_boxed(
    data: BoxedData,
    split: Split,
    *,
    labels: bool,
    workers: int,
    progress: Progress | None = None,
) -> BoxedImages:
    """Open images with their boxes; see `images.open_images`.

    A box that reaches beyond its image is clipped, and counted in the source's `notes`. Raises
    InputError, in a sentence that names the file, for a box that has no area inside of its image,
    for an annotation of an image of another size or of one that is not there, for an image without
    annotation, and for a class that only the test part has.
    """
    if data.source == "scenes":
        return boxed_scenes(data, data.scenes, split)
    laid = laid_out(data, split)
    found = {name: laid.annotation(name) for name in laid.whole}
    names = laid.names
    if names is None:
        names = tuple(sorted({one.name for each in found.values() for one in each.objects}))
    if not names:
        raise InputError(f"{laid.part.root}: its annotations name no objects", kind="unlabelled")
    _check_names(found, names)
    if split == "test":
        _check_learned(found, laid.train, laid.part.ids)
    if not any(not one.difficult for name in laid.part.ids for one in found[name].objects):
        raise InputError(
            f"{laid.part.root}: its {len(laid.part.ids)} {split} images have no object that is to "
            "be found",
            kind="unlabelled",
        )
    images = open_image_files(laid.part, as_images(data), split, workers=workers, progress=progress)
    if data.source in OFFICIAL:
        images.name = str(data.source)
    number = {name: i for i, name in enumerate(names)}
    boxes, clipped = [], 0
    for identifier, size in zip(images.ids, images.sizes.tolist(), strict=True):
        one, over = _placed(found[identifier], (size[0], size[1]), number)
        boxes.append(one)
        clipped += over
    if clipped:
        what = "1 box reached beyond its image and was clipped"
        if clipped > 1:
            what = f"{clipped} boxes reached beyond their images and were clipped"
        images.notes = (*images.notes, what)
    return BoxedImages(images, names, boxes)


def _check_names(found: Mapping[str, Annotation], names: tuple[str, ...]) -> None:
    known = set(names)
    for each in found.values():
        for one in each.objects:
            if one.name not in known:
                raise InputError(
                    f"{each.where}: '{one.name}' is not one of the {len(names)} classes",
                    kind="class-names",
                )


def _check_learned(
    found: Mapping[str, Annotation], train: Sequence[str], test: Sequence[str]
) -> None:
    """Raise InputError if there is something to find of which training has nothing."""
    learned = {one.name for name in train for one in found[name].objects if not one.difficult}
    for name in test:
        for one in found[name].objects:
            if not one.difficult and one.name not in learned:
                raise InputError(
                    f"{found[name].where} has an object '{one.name}' to be found, a class that no "
                    "training image has; add such images, or divide the data otherwise",
                    kind="unseen-class",
                )


def _placed(
    annotation: Annotation, size: tuple[int, int], number: Mapping[str, int]
) -> tuple[Boxes, int]:
    """The objects of an image of `size` (height, width) inside of it, and how many were clipped."""
    height, width = size
    said = annotation.size
    if said is not None and said != size:
        raise InputError(
            f"{annotation.where} is of an image of {said[1]}×{said[0]} pixels, and the image has "
            f"{width}×{height}: its boxes are those of another one",
            kind="image-size",
        )
    count = len(annotation.objects)
    boxes = np.array([one.box for one in annotation.objects], np.float64).reshape(count, 4)
    edges = np.array([width, height, width, height], np.float64)
    inside = boxes.clip(0, edges)
    for one, box in zip(annotation.objects, inside, strict=True):
        if box[2] <= box[0] or box[3] <= box[1]:
            shown = ", ".join(f"{value:g}" for value in one.box)
            raise InputError(
                f"{annotation.where}: the box of '{one.name}' ({shown}) has no area inside of the "
                f"image, which is {width}×{height} pixels",
                kind="boxes",
            )
    over = int((np.abs(boxes - inside).max(1, initial=0) > _SLACK).sum())
    labels = np.array([number[one.name] for one in annotation.objects], np.int64)
    difficult = np.array([one.difficult for one in annotation.objects], bool)
    return Boxes(inside, labels, difficult), over
