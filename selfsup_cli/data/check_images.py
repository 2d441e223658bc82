"""Looks at every image of a source, wherever it lies, once and completely."""

from __future__ import annotations

import errno
import hashlib
from collections import defaultdict
from functools import partial
from pathlib import Path

from selfsup_cli.config.images import ImageData
from selfsup_cli.config.registry import DATASETS
from selfsup_cli.data import image_check, listing, processes
from selfsup_cli.data.arrays import is_arrays
from selfsup_cli.data.check import PARTS, Checked, Verdict, compare
from selfsup_cli.data.image_pack import holds_images
from selfsup_cli.data.image_sets import SETS, opened
from selfsup_cli.data.image_store import EncodedStore, Images
from selfsup_cli.data.rendered import RenderedStore
from selfsup_cli.data.shards import SUFFIX, shards_of
from selfsup_cli.data.source import QUARANTINED, Progress
from selfsup_cli.data.tables import table_rows
from selfsup_cli.errors import BadMediaError, InputError, MachineError


def is_images(source: str | None) -> bool:
    """Whether `--data SOURCE` means images.

    A folder, or a CSV file, does if it has images and no video; what cannot be told apart does not.
    Raises `InputError` for a folder that may not be read.
    """
    if source is None or is_stored(source):
        return source is not None
    path = _path(source)
    if source in DATASETS or path is None:
        return False
    if path.is_dir():
        ids = listing.find_files(path, listing.SUFFIXES + listing.IMAGE_SUFFIXES).ids
        return bool(ids) and not any(name.lower().endswith(listing.SUFFIXES) for name in ids)
    if path.suffix.lower() == ".csv":
        return _lists_images(path)
    return path.suffix.lower() in listing.IMAGE_SUFFIXES


def is_stored(source: str) -> bool:
    """Whether `--data SOURCE` means images that are no files in a folder of one's own."""
    if source in DATASETS:
        return DATASETS[source].kind == "image"
    path = _path(source)
    if path is None:
        return False
    if path.is_dir():
        return bool(shards_of(source, path)) or any(
            SETS[name].recognise(path) for name in ("cifar10", "cifar100", "stl10", "lsun")
        )
    return path.suffix.lower() == SUFFIX or is_arrays(path) or holds_images(path)


def _path(source: str) -> Path | None:
    """The path that a name may be; None for what can be none."""
    try:
        path = Path(source).expanduser()
        path.stat()
    except (RuntimeError, ValueError):
        return None
    except OSError as error:
        return path if error.errno == errno.ENOENT else None
    return path


def _lists_images(path: Path) -> bool:
    """Whether the first file that a CSV file lists is an image."""
    try:
        _, row = next(table_rows(path, ("path",), False))
    except (InputError, StopIteration):
        return False
    return row["path"].lower().endswith(listing.IMAGE_SUFFIXES)


def check_images(data: ImageData, *, workers: int, progress: Progress | None = None) -> Checked:
    """Decode all images of a registered dataset, of arrays or of shards.

    `workers` processes do it (0: this one). `progress(done, total)` counts images. Raises
    `InputError` for anything that is not data at all.
    """
    # Of stl10, all there is.
    whole = data.model_copy(update={"split": None, "part": "train+unlabeled"})
    source = opened(whole, "all", labels=False, workers=workers, progress=None)
    if isinstance(source.store, RenderedStore):
        raise InputError(f"{source.name} is rendered: there is nothing to check", kind="check")
    rule, parts, undivided = _divided(whole if data.split is None else data, workers)
    verdicts = [
        Verdict(out.id, "image", bad=out.reason)
        for out in source.left_out
        if not out.reason.startswith(QUARANTINED)
    ]
    total = len(source)
    if progress is not None:
        progress(0, total)
    if not isinstance(source.store, EncodedStore):
        workers = 0  # there is nothing to decode, and much to hand over
    same: dict[str, list[str]] = defaultdict(list)
    work, died = partial(_look_at, source), partial(_died, source)
    looked_at = processes.each(work, died, iter(range(total)), total, workers)
    for done, verdict in enumerate(looked_at, 1):
        verdicts.append(verdict)
        if verdict.bad is None:
            same[verdict.sha256].append(verdict.id)
        if progress is not None:
            progress(done, total)
    checked = Checked(source.name, source.root, sorted(verdicts, key=lambda one: one.id))
    checked.notes = [*source.notes, *undivided]
    compare(checked, same.values(), parts, rule)
    return checked


def _divided(data: ImageData, workers: int) -> tuple[str, dict[str, set[str]], list[str]]:
    """By which rule images are divided, the ids of both parts, and a note if they cannot be.

    Raises `InputError` for a split that there is not.
    """
    parts: dict[str, set[str]] = {}
    rule = ""
    try:
        for part in PARTS:
            one = opened(data, part, labels=False, workers=workers, progress=None)
            parts[part], rule = set(one.ids), one.split_rule
    except InputError as error:
        if error.kind == "unknown-split":
            raise
        return "", {}, [f"it cannot be divided into train and test: {error}"]
    return rule, parts, []


def _look_at(source: Images, place: int) -> Verdict:
    """Decode one image completely. The same pixels have the same digest."""
    name = source.ids[place]
    height, width = source.sizes[place].tolist()
    try:
        if isinstance(source.store, EncodedStore):
            data = source.store.stored(int(source.rows[place]), name)
            picture = image_check.described(data, name)
            return Verdict(
                name,
                "image",
                unusual=picture.unusual,
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                width=picture.width,
                height=picture.height,
                codec=picture.format,
            )
        pixels = source.read(place).contiguous().numpy().tobytes()
        digest = hashlib.sha256(pixels).hexdigest()
        return Verdict(name, "image", bytes=len(pixels), sha256=digest, width=width, height=height)
    except BadMediaError as error:
        return Verdict(name, "image", bad=error.reason)
    except MemoryError as error:
        raise MachineError(f"not enough memory to look at {name}") from error


def _died(source: Images, place: int) -> Verdict:
    return Verdict(source.ids[place], "image", bad=processes.CRASHED)
