"""Which source of images the user means, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from selfsup_cli.config.images import ImageData
from selfsup_cli.config.registry import DATASETS
from selfsup_cli.data import array_sets, arrays, clothing, image_layouts, lsun, shards
from selfsup_cli.data.folders import folder
from selfsup_cli.data.image_files import open_image_files
from selfsup_cli.data.image_pack import is_pack_file, open_image_pack
from selfsup_cli.data.image_store import Images
from selfsup_cli.data.listing import IMAGE_SUFFIXES, IMAGES
from selfsup_cli.data.manifest import manifest
from selfsup_cli.data.pack import SUFFIX as PACK
from selfsup_cli.data.roots import check_kind, no_data, not_there, own_path, registered_root
from selfsup_cli.data.source import Progress, Split
from selfsup_cli.errors import InputError

_SUFFIXES = (".csv", shards.SUFFIX, *arrays.SUFFIXES)


@dataclass(frozen=True)
class Asked:
    """How a source is to be opened (see `images.open_images`)."""

    data: ImageData
    split: Split
    labels: bool
    workers: int
    progress: Progress | None


Opener = Callable[[Path, Asked], Images]


@dataclass(frozen=True)
class ImageSet:
    """A dataset that others have laid out: how its folder is told from other ones, and opened.

    If it consists of files, `layout` lists them.
    """

    recognise: Callable[[Path], bool]
    open: Opener
    layout: image_layouts.Layout | None = None


def _files(layout: image_layouts.Layout, path: Path, asked: Asked) -> Images:
    """The image files that `layout` lists."""
    listing = layout(path, asked.data, asked.split, asked.labels)
    return open_image_files(
        listing, asked.data, asked.split, workers=asked.workers, progress=asked.progress
    )


def _laid_out(recognise: Callable[[Path], bool], layout: image_layouts.Layout) -> ImageSet:
    return ImageSet(recognise, partial(_files, layout), layout)


def _folder(path: Path, asked: Asked) -> Images:
    return _files(partial(folder, medium=IMAGES), path, asked)


def _cifar(kind: array_sets.Cifar) -> ImageSet:
    def open_(root: Path, asked: Asked) -> Images:
        if array_sets.cifar_base(root, kind) is None and (root / "train").is_dir():
            return _folder(root, asked)
        return array_sets.open_cifar(
            kind, root, asked.data, asked.split, labels=asked.labels, progress=asked.progress
        )

    return ImageSet(lambda root: array_sets.cifar_base(root, kind) is not None, open_)


def _stl10(root: Path, asked: Asked) -> Images:
    return array_sets.open_stl10(
        root, asked.data, asked.split, labels=asked.labels, progress=asked.progress
    )


def _lsun(root: Path, asked: Asked) -> Images:
    return lsun.open_lsun(
        root,
        asked.data,
        asked.split,
        labels=asked.labels,
        workers=asked.workers,
        progress=asked.progress,
    )


def _official(name: str) -> Callable[[Path], bool]:
    return lambda root: (root / "VOCdevkit" / f"VOC{name[3:]}").is_dir()


SETS: dict[str, ImageSet] = {
    "cifar10": _cifar(array_sets.CIFAR10),
    "cifar100": _cifar(array_sets.CIFAR100),
    "stl10": ImageSet(lambda root: array_sets.stl_base(root) is not None, _stl10),
    "imagenet": _laid_out(image_layouts.is_imagenet, image_layouts.imagenet),
    "places": _laid_out(image_layouts.is_places, image_layouts.places),
    "celeba": _laid_out(image_layouts.is_celeba, image_layouts.celeba),
    "clothing1m": _laid_out(clothing.is_clothing, clothing.clothing),
    "voc2007": _laid_out(_official("voc2007"), image_layouts.voc2007),
    "voc2012": _laid_out(_official("voc2012"), image_layouts.voc2012),
    "lsun": ImageSet(lsun.is_lsun, _lsun),
}
_OWN = (*SETS.values(), _laid_out(image_layouts.is_voc, image_layouts.own_voc))


def layout_of(path: Path) -> image_layouts.Layout:
    """What lists the image files of a folder of one's own, as a job reads it."""
    layouts = (one.layout for one in _OWN if one.layout is not None and one.recognise(path))
    return next(layouts, partial(folder, medium=IMAGES))


def opened(
    data: ImageData, split: Split, *, labels: bool, workers: int, progress: Progress | None
) -> Images:
    """See `images.open_images`."""
    asked = Asked(data, split, labels, workers, progress)
    name = data.source
    if name is None:
        raise no_data("image")
    if name not in DATASETS:
        return _own(name, own_path(name, data), asked)
    check_kind(name, "image")
    if not DATASETS[name].layout:
        from selfsup_cli.data.rendered import open_rendered

        return open_rendered(name, data, split, labels=labels)
    source = SETS[name].open(registered_root(name, data), asked)
    source.name = name
    return source


def _own(name: str, path: Path, asked: Asked) -> Images:
    """Data of the user's own: a file, shards, or a folder."""
    kind = path.suffix.lower()
    if path.is_file() and kind == PACK and is_pack_file(path):
        return open_image_pack(path, asked.data, asked.split, labels=asked.labels)
    if path.is_file() and kind in arrays.SUFFIXES:
        return arrays.open_arrays(
            path, asked.data, asked.split, labels=asked.labels, progress=asked.progress
        )
    if path.is_file() and kind == ".csv":
        return _files(partial(manifest, medium=IMAGES), path, asked)
    if found := shards.shards_of(name, path):
        return shards.open_shards(
            found,
            asked.data,
            asked.split,
            labels=asked.labels,
            workers=asked.workers,
            progress=asked.progress,
        )
    if path.is_dir():
        known = next((one for one in _OWN if one.recognise(path)), None)
        return known.open(path, asked) if known else _folder(path, asked)
    if path.is_file():
        what = "is a single image" if kind in IMAGE_SUFFIXES else "is nothing of that kind"
        raise InputError(
            f"{path} {what}: give a folder of images or tar shards, a CSV file with a column path, "
            f"or a file {', '.join(_SUFFIXES[1:])}",
            kind="not-a-folder",
        )
    raise not_there(name, path, "image", _SUFFIXES)
