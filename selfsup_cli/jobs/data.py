"""`selfsup data`: look at every file once; store frames once."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from selfsup_cli.config.blocks import Data, VideoData
from selfsup_cli.config.images import ImageData
from selfsup_cli.config.temporal import TimeTransformations
from selfsup_cli.data import packing, packing_images, quarantine
from selfsup_cli.data.check import Checked, Verdict, check_files, of_images
from selfsup_cli.data.check_images import check_images, is_stored
from selfsup_cli.data.pack import is_pack, storage
from selfsup_cli.data.pack_about import Coding, ImageCoding
from selfsup_cli.data.pack_check import check_pack
from selfsup_cli.data.packing import Packed
from selfsup_cli.engine import signals
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.transforms.time import max_speed

log = logging.getLogger("selfsup")


def check(
    data: VideoData, *, out: Path | None = None, workers: int | None = None, quiet: bool = False
) -> Outcome:
    """Decode everything that `data` names once, and tell what is sound, unusual and bad.

    Bad files go into the quarantine file `out` (default: `quarantine.jsonl` here), which is written
    only if there are any, and never instead of a file of another kind. `workers` processes decode
    (default: one for each core). All that was found is in the outcome's data. Raises InputError and
    MachineError.
    """
    path = Path("quarantine.jsonl") if out is None else out
    quarantine.check_replaceable(path)
    with Progress(quiet=quiet) as progress:
        counting = progress.counting("checking files")
        checked = _checked(data, workers=_workers(workers), progress=counting)
    bad = checked.bad()
    if bad:
        quarantine.write(path, bad)
    elif path.exists():
        log.warning("%s is from an earlier check and stays as it is: nothing is bad now", path)
    return Outcome(data=_found(checked, path if bad else None))


def _checked(data: VideoData, *, workers: int, progress: Callable[[int, int], None]) -> Checked:
    if data.source is not None and is_stored(data.source):
        return check_images(of_images(data), workers=workers, progress=progress)
    look = check_pack if is_pack(data.source) else check_files
    return look(data, workers=workers, progress=progress)


def _found(checked: Checked, written: Path | None) -> dict[str, Any]:
    sound = [one for one in checked.verdicts if one.bad is None]
    videos, images = ([one for one in sound if one.kind == kind] for kind in ("video", "image"))
    return {
        "name": checked.name,
        "root": str(checked.root),
        "storage": checked.storage or None,
        "counts": _counts(checked.verdicts),
        "other_files": dict(checked.others.most_common()),
        "frames": _range(one.frames for one in videos),
        "seconds": _range(round(one.seconds, 3) for one in videos if one.seconds),
        "frames_per_second": _range(round(one.fps, 3) for one in videos if one.fps),
        "sizes": _sizes(videos),
        "codecs": _codecs(videos),
        "clips": _clips(videos),
        "images": _images(images),
        "unusual": _by_reason(checked.verdicts),
        "duplicates": checked.duplicates,
        "split": {"rule": checked.rule, **checked.parts} if checked.rule else None,
        "in_train_and_test": [asdict(leak) for leak in checked.leaks],
        "left_out": [asdict(out) for out in checked.left_out],
        "notes": checked.notes,
        "quarantine": None if written is None else str(written),
        "files": [_file(one) for one in checked.verdicts],
    }


def _counts(verdicts: Iterable[Verdict]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for one in verdicts:
        row = counts.setdefault(one.kind, {"files": 0, "sound": 0, "unusual": 0, "bad": 0})
        row["files"] += 1
        row["bad" if one.bad is not None else "sound"] += 1
        row["unusual"] += bool(one.unusual)
    return dict(sorted(counts.items(), reverse=True))


def _file(one: Verdict) -> dict[str, Any]:
    """A verdict without what its kind of file does not have."""
    verdict = "bad" if one.bad is not None else "unusual" if one.unusual else "sound"
    facts = {name: value for name, value in asdict(one).items() if value or name == "bytes"}
    return {**facts, "verdict": verdict}


def _by_reason(verdicts: Iterable[Verdict]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in verdicts:
        for phrase in one.unusual:
            found.setdefault(f"{one.kind}: {phrase}", []).append(one.id)
    return found


def _range(values: Iterable[float]) -> dict[str, float] | None:
    known = np.array(list(values))
    if not len(known):
        return None
    ends = {"least": known.min(), "median": np.median(known), "most": known.max()}
    return {name: round(float(value), 3) for name, value in ends.items()}


def _images(images: list[Verdict]) -> dict[str, Any] | None:
    """What there is to know of images before a crop is chosen."""
    if not images:
        return None
    return {
        "shorter_side": _range(min(one.height, one.width) for one in images),
        "longer_side": _range(max(one.height, one.width) for one in images),
        "sizes": _sizes(images),
        "formats": _codecs(images),
    }


def _sizes(verdicts: list[Verdict]) -> dict[str, int]:
    return _most_common(f"{one.width}×{one.height}" for one in verdicts)


def _codecs(verdicts: list[Verdict]) -> dict[str, int]:
    return _most_common(one.codec for one in verdicts if one.codec)


def _most_common(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _clips(videos: list[Verdict]) -> dict[str, Any] | None:
    """At how many speeds clips can be cut from how many videos, by the defaults of `temporal`."""
    if not videos:
        return None
    time = TimeTransformations()
    counts = [one.frames for one in videos]
    enough = [count for count in counts if count >= time.min_frames]
    fastest = Counter(2 ** max_speed(count, time.frames, time.speeds) for count in enough)
    return {
        "frames": time.frames,
        "fewest_frames": time.min_frames,
        "speeds": [2**kappa for kappa in range(time.speeds)],
        "too_short": len(counts) - len(enough),
        "fastest_speed": {str(speed): fastest[speed] for speed in sorted(fastest)},
    }


def pack(
    data: VideoData,
    target: Path,
    *,
    size: tuple[int, int] = (128, 171),
    quality: int | None = 90,
    workers: int | None = None,
    quiet: bool = False,
) -> Outcome:
    """Decode and scale every frame that `data` names once, and store them in the pack `target`.

    `size` is (height, width), `quality` that of the JPEGs (1 … 100); without one, frames are stored
    as they are, exact and ten times as large. A job that was stopped or killed goes on where it
    was. `workers` processes decode (default: one for each core). Raises InputError, MachineError
    and Stopped.
    """
    if target.suffix.lower() != ".h5":
        raise InputError(f"{target}: a pack is an HDF5 file; give it a name that ends in .h5")
    encoding: Literal["jpeg", "raw"] = "raw" if quality is None else "jpeg"
    coding = Coding(size=size, encoding=encoding, quality=quality)
    return _pack("videos", packing, data, coding, target, workers, quiet)


def pack_images(
    data: ImageData,
    target: Path,
    *,
    shorter: int | None = None,
    quality: int = 90,
    workers: int | None = None,
    quiet: bool = False,
) -> Outcome:
    """Store every image file that `data` names in the pack `target`, once it has been decoded.

    Images whose shorter side is longer than `shorter` are scaled down to it and become JPEGs of
    `quality` (1 … 100); all others, or all of them without `shorter`, are stored as they are. The
    rest is as with videos (see `pack`).
    """
    if target.suffix.lower() != ".h5":
        raise InputError(f"{target}: a pack is an HDF5 file; give it a name that ends in .h5")
    coding = ImageCoding(shorter=shorter, quality=None if shorter is None else quality)
    return _pack("images", packing_images, data, coding, target, workers, quiet)


def _pack(
    what: str,
    how: Any,
    data: Data,
    coding: Coding | ImageCoding,
    target: Path,
    workers: int | None,
    quiet: bool,
) -> Outcome:
    """Plan a pack and make it, by the functions of a module (`how`)."""
    with signals.catching() as stop, Progress(quiet=quiet) as progress:

        def counting(said: str, kept: str) -> Callable[[int, int], None]:
            return _stopping(stop, progress.counting(said), kept)

        plan = how.plan(
            data,
            coding,
            workers=_workers(workers),
            progress=counting(f"indexing {what}", "the index so far"),
        )
        for out in plan.source.left_out:
            log.warning("left out: %s: %s", out.id, out.reason)
        packed = how.pack(
            plan,
            target,
            workers=_workers(workers),
            progress=counting(f"packing {what}", f"the {what} packed so far"),
        )
    return Outcome(text=_told(packed), data=_packed(packed))


def _stopping(
    stop: StopFlag, counter: Callable[[int, int], None], kept: str
) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        if stop:
            raise stop.stopped(kept)
        counter(done, total)

    return told


def _packed(packed: Packed) -> dict[str, Any]:
    tables = packed.tables
    about = tables.about
    what = "videos" if isinstance(about.coding, Coding) else "images"
    return {
        "pack": str(packed.path),
        "name": about.name,
        what: int((tables.frames > 0).sum()),
        "frames": int(tables.frames.sum()),
        "left_out": [
            {"id": tables.ids[int(row)], "reason": reason} for row, reason in about.reasons.items()
        ],
        "classes": None if about.classes is None else len(about.classes),
        "splits": list(about.splits),
        **about.coding.model_dump(mode="json"),
        "error": None if about.loss is None else about.loss.model_dump(),
        "bytes": packed.bytes,
        "source_bytes": packed.source_bytes,
        "packed_before": packed.resumed,
    }


def _told(packed: Packed) -> str:
    tables = packed.tables
    what = "videos" if isinstance(tables.about.coding, Coding) else "images"
    done, frames = int((tables.frames > 0).sum()), int(tables.frames.sum())
    left_out = len(tables.ids) - done
    ratio = packed.bytes / max(packed.source_bytes, 1)
    size = f"{packed.bytes / 2**20:,.1f} MB"
    lines = [
        f"{storage(tables)}",
        f"{done} {what}"
        + (f", {frames} frames" if what == "videos" else "")
        + (f", {left_out} {what} left out" if left_out else "")
        + (f"; {packed.resumed} {what} had been packed before" if packed.resumed else ""),
        f"{size}, {ratio:.1f} times the files" if packed.source_bytes else size,
        str(packed.path),
    ]
    return "\n".join(lines)


def _workers(asked: int | None) -> int:
    if asked is not None:
        return asked
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
