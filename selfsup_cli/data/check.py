"""Looks at every file that data consists of, once and completely."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from selfsup_cli.config.blocks import Data, VideoData
from selfsup_cli.config.images import ImageData
from selfsup_cli.config.registry import DATASETS
from selfsup_cli.data import files, image_check, listing, processes
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.image_sets import layout_of
from selfsup_cli.data.source import LeftOut, Progress, Split
from selfsup_cli.errors import BadMediaError, InputError, MachineError
from selfsup_cli.runs.atomic import file_sha256

Kind = Literal["video", "image"]

_SHORT = 16  # frames of a clip, unless a preset says otherwise
_SMALL = 64
_LONG = 3
_SLOW, _FAST = 10.0, 120.0
PARTS: tuple[Split, Split] = ("train", "test")


@dataclass(frozen=True)
class Verdict:
    """What was found of one file.

    It is bad for the reason `bad`, or sound; `unusual` are phrases for what most files are not.
    What a kind of file does not have is 0 or empty; `sha256` (hex) is there where another file
    has the same length.
    """

    id: str
    kind: Kind
    bad: str | None = None
    unusual: tuple[str, ...] = ()
    bytes: int = 0
    sha256: str = ""
    width: int = 0
    height: int = 0
    frames: int = 0
    seconds: float = 0.0
    fps: float = 0.0
    codec: str = ""


@dataclass(frozen=True)
class Leak:
    """A file of the training part and one of the test part with the same content."""

    train: str
    test: str


@dataclass
class Checked:
    """What was found of all files.

    `duplicates` are groups of ids with the same content, `leaks` what train and test have in
    common. `parts` are the numbers of files in train and test, divided by `rule`; without a rule
    the data could not be divided, and `notes` say why. `others` counts files of other kinds by
    their suffix. `storage` describes a pack, and is empty for files.
    """

    name: str
    root: Path
    verdicts: list[Verdict]
    duplicates: list[tuple[str, ...]] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    parts: dict[str, int] = field(default_factory=dict)
    rule: str = ""
    notes: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    left_out: list[LeftOut] = field(default_factory=list)
    storage: str = ""

    def bad(self) -> list[LeftOut]:
        """The bad files, as a quarantine file names them."""
        return [LeftOut(one.id, one.bad) for one in self.verdicts if one.bad is not None]


def check_files(data: VideoData, *, workers: int, progress: Progress | None = None) -> Checked:
    """Decode all videos and images of a folder, a CSV file, a dataset, or one single file.

    `workers` processes do it (0: this one). `progress(done, total)` counts files. Raises
    `InputError` for anything that is not data at all.
    """
    found = _inventory(data)
    tasks = list(_tasks(found))
    verdicts = [Verdict(out.id, "video", bad=out.reason) for out in found.missing]
    if progress is not None:
        progress(0, len(tasks))
    looked_at = processes.each(look_at, _died, iter(tasks), len(tasks), workers)
    for done, verdict in enumerate(looked_at, 1):
        verdicts.append(verdict)
        if progress is not None:
            progress(done, len(tasks))
    verdicts.sort(key=lambda one: one.id)
    by_content: dict[tuple[int, str], list[str]] = defaultdict(list)
    for one in verdicts:
        if one.sha256:
            by_content[one.bytes, one.sha256].append(one.id)
    checked = Checked(found.name, found.root, verdicts, others=found.others, notes=found.notes)
    checked.left_out = found.unnamable
    compare(checked, by_content.values(), found.parts, found.rule)
    return checked


def compare(
    checked: Checked, same: Iterable[list[str]], parts: dict[str, set[str]], rule: str
) -> None:
    """Note what occurs twice, and what train and test share. `same` are ids of one content each."""
    checked.duplicates = [tuple(sorted(ids)) for ids in same if len(ids) > 1]
    checked.duplicates.sort()
    if not rule:
        return
    train, test = (parts[part] for part in PARTS)
    checked.rule = rule
    checked.parts = {"train": len(train), "test": len(test)}
    shared = [Leak(one, one) for one in sorted(train & test)]
    for ids in checked.duplicates:
        in_train, in_test = [i for i in ids if i in train], [i for i in ids if i in test]
        shared += [Leak(one, other) for one in in_train for other in in_test if one != other]
    checked.leaks = shared


# -- which files there are


@dataclass
class _Inventory:
    name: str
    root: Path
    ids: list[str]
    parts: dict[str, set[str]] = field(default_factory=dict)
    rule: str = ""
    missing: list[LeftOut] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    unnamable: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _inventory(data: VideoData) -> _Inventory:
    """All files that belong to `data`, in a list of it or not, and how it is divided."""
    if data.source == "motion":
        raise InputError("motion is rendered: there is nothing to check", kind="check")
    path = Path(data.source or "").expanduser().absolute()
    kinds = listing.SUFFIXES + image_check.SUFFIXES
    if data.source not in (None, *DATASETS) and path.is_file() and path.suffix.lower() in kinds:
        # By its whole path, which is how a job on any folder above knows it too.
        return _Inventory(path.name, Path("/"), [str(path)])
    listed = _listed(data, "all")
    found = _Inventory(listed.name, listed.root, list(listed.ids), notes=list(listed.notes))
    if not path.is_file():
        under = listing.find_files(listed.root, kinds)
        found.ids = list(under.ids)
        found.others, found.unnamable = under.others, under.unnamable
        if not found.ids and not found.unnamable:
            raise listing.none_found(listed.root, under)
    if len(listed.ids) > 1:
        _divide(found, data)
    known = set(found.ids)
    for name in sorted(set().union(*found.parts.values()) - known):
        found.missing.append(LeftOut(name, "it is listed, but does not exist"))
    return found


def of_images(data: VideoData) -> ImageData:
    """The same data, should it turn out to be images: then a split is a fold, and none is first."""
    return ImageData(**data.model_dump(include=set(Data.model_fields), exclude_unset=True))


def _listed(data: VideoData, split: Split) -> listing.Listing:
    """The videos of `data`, or the images of a folder that has no videos."""
    try:
        return files.listing_of(data, split, labels=False)
    except InputError as error:
        if error.kind != "empty-folder":
            raise
    path = Path(data.source or "").expanduser().absolute()
    try:
        return layout_of(path)(path, of_images(data), split, False)
    except InputError as error:
        if error.kind != "empty-folder":
            raise
    return listing.Listing(path.name, path, PackedIds(), "")


def _divide(found: _Inventory, data: VideoData) -> None:
    try:
        listings = [_listed(data, part) for part in PARTS]
    except InputError as error:
        found.notes.append(f"it cannot be divided into train and test: {error}")
        return
    found.rule = listings[0].split_rule
    found.parts = {part: set(one.ids) for part, one in zip(PARTS, listings, strict=True)}


# -- one file


@dataclass(frozen=True)
class Task:
    """One file; `hashed` if its content has to be compared with that of others."""

    id: str
    path: Path
    kind: Kind
    hashed: bool


def _tasks(found: _Inventory) -> Iterator[Task]:
    sizes = {}
    for name in found.ids:
        try:
            sizes[name] = (found.root / name).stat().st_size
        except OSError:
            sizes[name] = 0  # looking at it tells why
    often = Counter(sizes.values())
    for name, size in sizes.items():
        kind: Kind = "image" if name.lower().endswith(image_check.SUFFIXES) else "video"
        yield Task(name, found.root / name, kind, hashed=size > 0 and often[size] > 1)


def look_at(task: Task) -> Verdict:
    """Decode one file completely."""
    size, sha256 = 0, ""
    try:
        size = task.path.stat().st_size
        if task.hashed:
            sha256 = file_sha256(task.path)
        return _video(task, size, sha256) if task.kind == "video" else _image(task, size, sha256)
    except BadMediaError as error:
        reason = error.reason
    except FileNotFoundError:
        reason = "the file does not exist"
    except OSError as error:
        reason = error.strerror or str(error)
    except MemoryError as error:
        raise MachineError(f"not enough memory to look through {task.path}") from error
    return Verdict(task.id, task.kind, bad=reason, bytes=size, sha256=sha256)


def _died(task: Task) -> Verdict:
    return Verdict(task.id, task.kind, bad=processes.CRASHED)


def _image(task: Task, size: int, sha256: str) -> Verdict:
    picture = image_check.examine(task.path)
    return Verdict(
        task.id,
        "image",
        unusual=picture.unusual,
        bytes=size,
        sha256=sha256,
        width=picture.width,
        height=picture.height,
        codec=picture.format,
    )


def _video(task: Task, size: int, sha256: str) -> Verdict:
    from selfsup_cli.data import video

    found = video.examine(task.path)
    info = found.info
    small, large = sorted((info.width, info.height))
    unusual = {
        "a single frame": info.frames == 1,
        f"fewer than {_SHORT} frames": 1 < info.frames < _SHORT,
        "portrait": info.height > info.width,
        "turned or mirrored when shown": info.orientation != 0,
        "an odd number of pixels a side": bool((info.width | info.height) & 1),
        f"smaller than {_SMALL} pixels": small < _SMALL,
        f"longer than {_LONG}:1": large > _LONG * small,
        f"fewer than {_SLOW:g} frames a second": 0 < info.fps < _SLOW,
        f"more than {_FAST:g} frames a second": info.fps > _FAST,
        "no frame rate": info.fps == 0,
        "a varying frame rate": not found.steady,
        "an audio track": found.audio,
    }
    return Verdict(
        task.id,
        "video",
        unusual=tuple(phrase for phrase, applies in unusual.items() if applies),
        bytes=size,
        sha256=sha256,
        width=info.width,
        height=info.height,
        frames=info.frames,
        seconds=found.seconds,
        fps=info.fps,
        codec=info.codec,
    )
