"""Makes packs: every frame decoded, scaled and stored once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.config.registry import DATASETS
from selfsup_cli.data import files, layouts, pack_layout, processes
from selfsup_cli.data.files import FileSource
from selfsup_cli.data.listing import Listing, held_out_rule, raise_missing
from selfsup_cli.data.pack import is_pack
from selfsup_cli.data.pack_about import About, Coding, Loss, Parts
from selfsup_cli.data.pack_layout import Tables
from selfsup_cli.data.pack_part import NOTHING, Compared, Part, Written, measured
from selfsup_cli.data.roots import registered_root
from selfsup_cli.data.source import Progress
from selfsup_cli.errors import BadMediaError, InputError, MachineError

_PIECE_BYTES = 32 << 20
_LEAST_FRAMES = 16


@dataclass(frozen=True)
class Plan:
    """What goes into a pack: all videos of `listing`, and which of them can be read.

    `source` reads those that can, `rows` (int64) are their places in the listing; `reasons` says of
    the others why not. `splits` are the divisions that the data brings along, by number: the
    phrase that names it, and the places of the training and the test videos.
    """

    listing: Listing
    source: FileSource
    rows: np.ndarray
    reasons: dict[int, str]
    splits: dict[int, tuple[str, np.ndarray, np.ndarray]]
    coding: Coding

    def facts(self) -> dict[str, Any]:
        """What tells this plan from another one."""
        splits = json.dumps(
            {n: (rule, a.tolist(), b.tolist()) for n, (rule, a, b) in self.splits.items()}
        )
        return {
            "data": self.source.fingerprint,
            "videos": len(self.rows),
            "listed": hashlib.sha256(self.listing.ids.text).hexdigest(),
            "splits": hashlib.sha256(splits.encode()).hexdigest(),
            "size": list(self.coding.size),
            "encoding": self.coding.encoding,
            "quality": self.coding.quality,
        }


@dataclass(frozen=True)
class Packed:
    """A finished pack. `resumed` of its videos had been packed before, by an earlier process."""

    path: Path
    tables: Tables
    bytes: int
    source_bytes: int
    resumed: int


def plan(data: VideoData, coding: Coding, *, workers: int, progress: Progress | None) -> Plan:
    """Find out what is to be packed; raises `InputError` as opening the data would."""
    if data.source == "motion":
        raise InputError("motion is rendered, not decoded: there is nothing to pack", kind="pack")
    if is_pack(data.source):
        raise InputError(f"{data.source} is a pack already", kind="pack")
    try:
        listing = files.listing_of(data, "all", labels=True)
    except InputError as error:
        if error.kind != "unlabelled":
            raise
        listing = files.listing_of(data, "all", labels=False)
    source = files.open_listing(listing, data, "all", workers=workers, progress=progress)
    place = {name: row for row, name in enumerate(listing.ids)}
    reasons = {place[out.id]: out.reason for out in source.left_out if out.id in place}
    return Plan(
        listing=listing,
        source=source,
        rows=np.array([place[name] for name in source.ids], np.int64),
        reasons=reasons,
        splits=dict(_splits(data, place)),
        coding=coding,
    )


def _splits(
    data: VideoData, place: dict[str, int]
) -> Iterator[tuple[int, tuple[str, np.ndarray, np.ndarray]]]:
    """The divisions that data brings along; none if it is divided by the seeded hash."""
    for number in _split_numbers(data):
        of_number = data.model_copy(update={"split": number})
        parts = []
        for part in ("train", "test"):
            listing = files.listing_of(of_number, part, labels=False)
            if listing.split_rule == held_out_rule(data):
                return
            missing = [at for at, name in enumerate(listing.ids) if name not in place]
            if missing:
                raise_missing(listing, missing)
            parts.append(np.array([place[name] for name in listing.ids], np.int64))
        yield number, (listing.split_rule, parts[0], parts[1])


def _split_numbers(data: VideoData) -> list[int]:
    assert data.source is not None  # noqa: S101 (a listing was made of it)
    root = registered_root(data.source, data) if data.source in DATASETS else None
    return layouts.split_numbers(root or Path(data.source).expanduser())


def pack(plan: Plan, target: Path, *, workers: int, progress: Progress | None = None) -> Packed:
    """Write the pack `target`, going on where an earlier process was stopped.

    `workers` processes decode (0: this one does). `progress(done, total)` counts videos, and may
    raise to stop: what is done is kept. The result does not depend on either, nor on how often it
    was stopped. A finished pack of the same plan is left as it is. Raises `InputError` if `target`
    is anything else, `MachineError` if it cannot be written.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 (keeps links as they are)
    if target.exists():
        return _finished(plan, target)
    if not target.parent.is_dir():
        raise InputError(f"there is no folder {target.parent}", kind="path")
    told = None if progress is None else partial(_counted, progress, len(plan.source))
    with Part(target, plan.facts()) as part:
        part.go_on(told)
        resumed = len(part.videos)
        _require_room(plan, part)
        _fill(plan, part, workers, progress)
        tables, frames = _tables(plan, part.videos)
        sizes, checksums = frames["bytes"].astype(np.int64), frames["crc32"]
        part.publish(target, *pack_layout.around(tables, sizes, checksums))
    return Packed(target, tables, target.stat().st_size, _source_bytes(plan), resumed)


def _counted(progress: Progress, total: int, done: int) -> None:
    progress(done, total)


def _finished(plan: Plan, target: Path) -> Packed:
    tables, _ = pack_layout.read(target)
    about = tables.about
    if (about.source, about.coding) != (_source_of(plan), plan.coding):
        raise InputError(
            f"{target} exists, and is another pack ({about.name}, {about.coding}, or the videos "
            "have changed since): name another file, or remove it",
            kind="exists",
        )
    target.with_name(f"{target.name}.journal").unlink(missing_ok=True)
    videos = int((tables.frames > 0).sum())
    return Packed(target, tables, target.stat().st_size, _source_bytes(plan), videos)


def _source_of(plan: Plan) -> str:
    facts = json.dumps(plan.facts(), sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()


def _source_bytes(plan: Plan) -> int:
    root, ids = plan.listing.root, plan.source.ids
    return sum(os.stat(f"{root}/{name}").st_size for name in ids)  # noqa: PTH116 (there are many)


def _require_room(plan: Plan, part: Part) -> None:
    """Raise `MachineError` if raw frames will not fit on the disk; JPEGs cannot be told."""
    if plan.coding.quality is not None:
        return
    height, width = plan.coding.size
    left = plan.source.num_frames[len(part.videos) :].sum(dtype=np.int64)
    needed, free = int(left) * 3 * height * width, shutil.disk_usage(part.path.parent).free
    if needed > free:
        raise MachineError(
            f"the frames take {needed / 2**30:,.1f} GiB, but {part.path.parent} has "
            f"{free / 2**30:,.1f} GiB free",
            kind="disk",
            hint="store them as JPEG (without --raw), in a smaller --size, or elsewhere",
        )


# -- decoding, in processes


@dataclass(frozen=True)
class Piece:
    """Frames [start, stop) of a video of the source; the `last` of it or not."""

    video: int
    start: int
    stop: int
    last: bool


@dataclass(frozen=True)
class Stored:
    """A piece as it goes into the pack, or why it cannot."""

    piece: Piece
    data: bytes = b""
    frames: np.ndarray | None = None
    compared: Compared = NOTHING
    bad: str | None = None


def _pieces(plan: Plan, first: int) -> Iterator[Piece]:
    """All frames from video `first` on, in pieces that a process can hold."""
    height, width = plan.coding.size
    length = max(_LEAST_FRAMES, _PIECE_BYTES // (3 * height * width))
    for video in range(first, len(plan.source)):
        frames = int(plan.source.num_frames[video])
        for start in range(0, frames, length):
            stop = min(start + length, frames)
            yield Piece(video, start, stop, stop == frames)


def store(source: FileSource, coding: Coding, piece: Piece) -> Stored:
    """Decode and encode a piece.

    The middle frame of a video is compared with what is kept of it.
    """
    from selfsup_cli.data import frame_codec

    try:
        frames = source.read(piece.video, np.arange(piece.start, piece.stop), coding.size)
    except BadMediaError as error:
        return Stored(piece, bad=error.reason)
    except MemoryError as error:
        raise MachineError(f"not enough memory for {source.ids[piece.video]}") from error
    frames = frames.permute(1, 0, 2, 3)
    stored = frame_codec.encode(coding, frames)
    middle = int(source.num_frames[piece.video]) // 2 - piece.start
    compared = NOTHING
    if coding.quality is not None and 0 <= middle < len(stored):
        kept = frame_codec.decode(coding, stored[middle : middle + 1])[:, 0].int()
        off = (kept - frames[middle].int()).abs()
        compared = Compared(1, off.numel(), int(off.sum()), int(off.max()))
    return Stored(piece, b"".join(stored), measured(stored), compared)


def _died(piece: Piece) -> Stored:
    return Stored(piece, bad=processes.CRASHED)


def _fill(plan: Plan, part: Part, workers: int, progress: Progress | None) -> None:
    """Bring `part` to the end of the plan."""
    first, total = len(part.videos), len(plan.source)
    if progress is not None:
        progress(first, total)
    work = partial(store, plan.source, plan.coding)
    pieces = _pieces(plan, first)
    compared = NOTHING
    for stored in processes.each(work, _died, pieces, total - first, workers, batch=1):
        if stored.piece.video != len(part.videos):
            continue  # of a video that has been left out for an earlier piece
        if stored.bad is not None or stored.frames is None:
            part.leave_out(stored.bad or "it cannot be read")
            compared = NOTHING
        else:
            part.add(stored.data, stored.frames)
            compared += stored.compared
            if not stored.piece.last:
                continue
            part.close_video(compared)
            compared = NOTHING
        if progress is not None:
            progress(len(part.videos), total)


# -- tables


def _tables(plan: Plan, videos: list[Written]) -> tuple[Tables, np.ndarray]:
    """The tables of a pack of all listed videos, and size and CRC-32 of all frames."""
    count = len(plan.listing.ids)
    frames = np.zeros(count, np.int64)
    digests = np.tile(np.frombuffer(hashlib.sha256().digest(), np.uint8), (count, 1))
    reasons = dict(plan.reasons)
    for row, video in zip(plan.rows.tolist(), videos, strict=True):
        frames[row] = len(video.frames)
        digests[row] = np.frombuffer(video.digest, np.uint8)
        if video.bad is not None:
            reasons[row] = video.bad
    if not frames.any():
        raise InputError(
            "none of the videos can be read: there is nothing to pack", kind="all-broken"
        )
    order = [places for _, train, test in plan.splits.values() for places in (train, test)]
    ends = np.cumsum([0, *map(len, order)]).tolist()
    splits = {
        str(number): Parts(
            rule=rule,
            train=(ends[2 * at], ends[2 * at + 1]),
            test=(ends[2 * at + 1], ends[2 * at + 2]),
        )
        for at, (number, (rule, _, _)) in enumerate(plan.splits.items())
    }
    compared = sum((video.compared for video in videos), NOTHING)
    loss = None
    if plan.coding.quality is not None and compared.values:
        mean = round(compared.total / compared.values, 4)
        loss = Loss(mean=mean, largest=compared.largest, frames=compared.frames)
    listing = plan.listing
    about = About(
        name=listing.name,
        source=_source_of(plan),
        coding=plan.coding,
        classes=listing.classes,
        rule=listing.split_rule,
        splits=splits,
        reasons={str(row): reasons[row] for row in sorted(reasons)},
        unnamable=tuple((out.id, out.reason) for out in listing.left_out),
        loss=loss,
    )
    labels = np.empty(0, np.int64) if listing.labels is None else listing.labels
    tables = Tables(
        about=about,
        ids=listing.ids,
        frames=frames,
        digests=digests,
        labels=labels,
        order=np.concatenate([np.empty(0, np.int64), *order]),
    )
    return tables, np.concatenate([video.frames for video in videos])
