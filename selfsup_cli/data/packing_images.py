"""Makes packs of images: every file read once, scaled down if asked for, and stored."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from selfsup_cli.config.images import ImageData
from selfsup_cli.data import image, pack_layout, processes
from selfsup_cli.data.framing import region_of
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.image_sets import opened
from selfsup_cli.data.image_store import EncodedStore, Images
from selfsup_cli.data.listing import held_out_rule
from selfsup_cli.data.pack_about import About, ImageCoding, Loss, Parts
from selfsup_cli.data.pack_layout import Tables
from selfsup_cli.data.pack_part import NOTHING, Compared, Part, Written, measured
from selfsup_cli.data.packing import Packed
from selfsup_cli.data.source import Progress
from selfsup_cli.errors import BadMediaError, InputError, MachineError


@dataclass(frozen=True)
class ImagePlan:
    """What goes into a pack: the images of `source`, which cannot be read for `reasons` by id.

    `train` and `test` are the ids of the parts that the data brings along, divided by `rule`;
    without a rule it is divided by the seeded hash.
    """

    source: Images
    reasons: dict[str, str]
    coding: ImageCoding
    rule: str
    train: tuple[str, ...]
    test: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """What tells this plan from another one."""
        parts = json.dumps([self.rule, self.train, self.test])
        return {
            "data": self.source.fingerprint,
            "images": len(self.source),
            "left out": sorted(self.reasons.items()),
            "parts": hashlib.sha256(parts.encode()).hexdigest(),
            "shorter": self.coding.shorter,
            "quality": self.coding.quality,
        }


def plan(
    data: ImageData, coding: ImageCoding, *, workers: int, progress: Progress | None
) -> ImagePlan:
    """Find out what is to be packed; raises `InputError` as opening the data would."""

    def open_(part: Any, labels: bool) -> Images:
        return opened(data, part, labels=labels, workers=workers, progress=progress)

    try:
        source = open_("all", True)
    except InputError as error:
        if error.kind != "unlabelled":
            raise
        source = open_("all", False)
    if not isinstance(source.store, EncodedStore):
        raise InputError(
            f"{source.name} lies in arrays, or is rendered: there is nothing to pack", kind="pack"
        )
    parts: dict[str, tuple[str, ...]] = {"train": (), "test": ()}
    rule = ""
    for part in parts:
        try:
            found = open_(part, False)
        except InputError as error:
            if error.kind != "empty-split":
                raise
            continue
        if found.split_rule != held_out_rule(data):
            rule, parts[part] = found.split_rule, tuple(found.ids)
    reasons = {out.id: out.reason for out in source.left_out}
    return ImagePlan(source, reasons, coding, rule, **parts)


def pack(
    plan: ImagePlan, target: Path, *, workers: int, progress: Progress | None = None
) -> Packed:
    """Write the pack `target`, going on where an earlier process was stopped (see `packing.pack`).

    `progress(done, total)` counts images.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 (keeps links as they are)
    if target.exists():
        return _finished(plan, target)
    if not target.parent.is_dir():
        raise InputError(f"there is no folder {target.parent}", kind="path")
    with Part(target, plan.facts()) as part:
        part.go_on(None)
        resumed = len(part.videos)
        _fill(plan, part, workers, progress)
        tables, files = _tables(plan, part.videos)
        sizes, checksums = files["bytes"].astype(np.int64), files["crc32"]
        part.publish(target, *pack_layout.around(tables, sizes, checksums))
    return Packed(target, tables, target.stat().st_size, _source_bytes(plan), resumed)


def _finished(plan: ImagePlan, target: Path) -> Packed:
    tables, _ = pack_layout.read(target)
    if (tables.about.source, tables.about.coding) != (_source_of(plan), plan.coding):
        raise InputError(
            f"{target} exists, and is another pack ({tables.about.name}, {tables.about.coding}, or "
            "the images have changed since): name another file, or remove it",
            kind="exists",
        )
    target.with_name(f"{target.name}.journal").unlink(missing_ok=True)
    done = int((tables.frames > 0).sum())
    return Packed(target, tables, target.stat().st_size, _source_bytes(plan), done)


def _source_of(plan: ImagePlan) -> str:
    return hashlib.sha256(json.dumps(plan.facts(), sort_keys=True).encode()).hexdigest()


def _source_bytes(plan: ImagePlan) -> int:
    """How large the files are that are packed, of a folder of them."""
    root = plan.source.root
    paths = (f"{root}/{name}" for name in plan.source.ids)
    return sum(os.stat(path).st_size for path in paths if os.path.exists(path))  # noqa: PTH110, PTH116


# -- one image


@dataclass(frozen=True)
class Stored:
    """An image as it goes into the pack, or why it cannot."""

    data: bytes = b""
    compared: Compared = NOTHING
    bad: str | None = None


def store(source: Images, coding: ImageCoding, place: int) -> Stored:
    """Read an image, decode it to see that it is sound, and scale it down if it is too large."""
    name, row = source.ids[place], int(source.rows[place])
    assert isinstance(source.store, EncodedStore)  # noqa: S101 (others are not planned)
    try:
        data = source.store.stored(row, name)
        shorter = _shorter(coding, *source.sizes[place].tolist())
        pixels = image.decode(data, shorter, name)
        if shorter is None or coding.quality is None:
            return Stored(data)
        rows = pixels.permute(1, 2, 0).contiguous().numpy()
        data = simplejpeg.encode_jpeg(rows, coding.quality, "RGB", "420", fastdct=False)
        off = (image.decode(data).int() - pixels.int()).abs()
    except BadMediaError as error:
        return Stored(bad=error.reason)
    except MemoryError as error:
        raise MachineError(f"not enough memory for {name}") from error
    return Stored(data, Compared(1, off.numel(), int(off.sum()), int(off.max())))


def _shorter(coding: ImageCoding, height: int, width: int) -> int | None:
    """The shorter side that an image is scaled down to, if it is."""
    if coding.shorter is None or min(height, width) <= coding.shorter:
        return None
    return coding.shorter


def _died(place: int) -> Stored:
    return Stored(bad=processes.CRASHED)


def _fill(plan: ImagePlan, part: Part, workers: int, progress: Progress | None) -> None:
    """Bring `part` to the end of the plan."""
    first, total = len(part.videos), len(plan.source)
    if progress is not None:
        progress(first, total)
    work = partial(store, plan.source, plan.coding)
    places = iter(range(first, total))
    stored: Iterator[Stored] = processes.each(work, _died, places, total - first, workers)
    for done, one in enumerate(stored, first + 1):
        if one.bad is not None:
            part.leave_out(one.bad)
        else:
            part.add(one.data, measured([one.data]))
            part.close_video(one.compared)
        if progress is not None:
            progress(done, total)


# -- tables


def _tables(plan: ImagePlan, images: list[Written]) -> tuple[Tables, np.ndarray]:
    """The tables of a pack, and size and CRC-32 of all its files.

    What was left out before comes last, so that the seeded hash divides all that the data lists.
    """
    source, coding = plan.source, plan.coding
    ids = PackedIds([*source.ids, *plan.reasons])
    count = len(ids)
    frames, sizes = np.zeros(count, np.int64), np.zeros((count, 2), np.int64)
    digests = np.tile(np.frombuffer(hashlib.sha256().digest(), np.uint8), (count, 1))
    reasons = {len(images) + i: reason for i, reason in enumerate(plan.reasons.values())}
    for row, one in enumerate(images):
        frames[row] = len(one.frames)
        digests[row] = np.frombuffer(one.digest, np.uint8)
        height, width = source.sizes[row].tolist()
        sizes[row] = region_of(_shorter(coding, height, width), height, width).size
        if one.bad is not None:
            reasons[row] = one.bad
    if not frames.any():
        raise InputError(
            "none of the images can be read: there is nothing to pack", kind="all-broken"
        )
    place = {name: row for row, name in enumerate(ids)}
    order = [
        np.array([place[name] for name in names], np.int64) for names in (plan.train, plan.test)
    ]
    edge, end = len(order[0]), len(order[0]) + len(order[1])
    splits = {"1": Parts(rule=plan.rule, train=(0, edge), test=(edge, end))} if plan.rule else {}
    compared = sum((one.compared for one in images), NOTHING)
    loss = None
    if compared.values:
        mean = round(compared.total / compared.values, 4)
        loss = Loss(mean=mean, largest=compared.largest, frames=compared.frames)
    labels = np.empty(0, np.int64)
    if source.labels is not None:
        unknown = np.zeros((len(plan.reasons), *source.labels.shape[1:]), np.int64)
        labels = np.concatenate([source.labels.astype(np.int64), unknown]).reshape(-1)
    about = About(
        name=source.name,
        source=_source_of(plan),
        coding=coding,
        classes=source.classes,
        attributes=source.attributes,
        rule=source.split_rule,
        splits=splits,
        reasons={str(row): reasons[row] for row in sorted(reasons)},
        unnamable=(),
        loss=loss,
    )
    tables = Tables(about, ids, frames, digests, labels, np.concatenate(order), sizes)
    return tables, np.concatenate([one.frames for one in images])
