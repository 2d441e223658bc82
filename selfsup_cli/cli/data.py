"""`selfsup data check|pack`."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from selfsup_cli.cli import console, document, work
from selfsup_cli.cli.groups import HOUSE, Action, NamedGroup
from selfsup_cli.config.registry import DATASETS
from selfsup_cli.errors import InputError

_LINES = 50
_NAMES = 3
_ENDS = ("least", "median", "most")

Data = Annotated[
    str,
    typer.Argument(metavar="DATA", help="A folder, a CSV file or a registered dataset."),
]
Root = Annotated[
    str | None,
    typer.Option(
        "--data-root",
        metavar="DIR",
        help="Folder of a registered dataset, instead of $SELFSUP_DATA/NAME.",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=0,
        max=256,
        help="Processes that decode; 0 decodes in the main process. [default: one for each core]",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only results, warnings and errors.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say also what was decided and why.")
]

app = typer.Typer(
    name="data", cls=NamedGroup, help="Check files once; store decoded frames once.", **HOUSE
)


def load() -> Any:
    """The group of commands."""
    return typer.main.get_command(app)


@app.callback()
def _group() -> None:
    pass


@app.command("check")
def _check(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder, a CSV file, a registered dataset, a pack (.h5), or one single file.",
        ),
    ],
    root: Root = None,
    split: Annotated[
        int | None,
        typer.Option(
            "--split",
            metavar="N",
            min=1,
            max=99,
            help="The official split that is looked at; of stl10 the fold. [default: 1; all folds]",
            show_default=False,
        ),
    ] = None,
    test_share: Annotated[
        float,
        typer.Option(
            "--test-share",
            metavar="X",
            help="Share held out for testing where the data has no split of its own.",
        ),
    ] = 0.2,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where bad files are listed. [default: quarantine.jsonl in this folder]",
            show_default=False,
        ),
    ] = None,
    views: Annotated[
        bool | None,
        typer.Option(
            "--recordings/--no-recordings",
            help="Take DATA for recordings of the same moments by several cameras, or not. "
            "[default: as its files are named]",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        str | None,
        typer.Option(
            "--pictures",
            metavar="DIR",
            help="Where pictures of several cameras go. [default: check-NAME in this folder]",
            show_default=False,
        ),
    ] = None,
    workers: Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> Action:
    """Decode every video and image once, and tell which are sound, unusual or bad.

    Unusual files (portrait, very short, grey, with sound, …) are sound: jobs take them as they are.
    Bad ones are written to quarantine.jsonl, which --quarantine of any job leaves out. Files with
    the same content are named, also those that train and test have in common.

    Of recordings by several cameras it is told what each camera has when, whether they run in step,
    and whether joints and calibration fit, with pictures.
    """
    if not 0 < test_share < 1:
        raise InputError(f"--test-share must lie between 0 and 1; got {test_share}", kind="usage")
    fields = {"root": root, "test_share": test_share}
    if split is not None:
        fields["split"] = split
    verbosity = -1 if quiet else int(verbose)
    path = None if out is None else Path(out).expanduser()
    if views and out is not None:
        raise InputError("--out is for files, and --recordings looks at recordings", kind="usage")
    if views is False and pictures is not None:
        raise InputError("--pictures are of several cameras, not --no-recordings", kind="usage")
    folder = None if pictures is None else Path(pictures).expanduser()
    several = True if pictures is not None else False if out is not None else views
    return lambda: (
        _do_check_views(data, root, folder, verbosity, as_json)
        if (_are_views(data) if several is None else several)
        else _do_check(data, fields, path, workers, verbosity, as_json)
    )


@app.command("pack")
def _pack(
    data: Data,
    target: Annotated[
        str, typer.Argument(metavar="OUT.h5", help="The file that is made.", show_default=False)
    ],
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="HxW",
            help="Height and width of the stored frames of videos. [default: 128x171]",
            show_default=False,
        ),
    ] = None,
    shorter: Annotated[
        int | None,
        typer.Option(
            "--shorter",
            metavar="N",
            min=8,
            max=8192,
            help="Scale images whose shorter side is longer down to this; without it, they are "
            "stored as they are.",
            show_default=False,
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            "--quality",
            metavar="N",
            min=1,
            max=100,
            help="Quality of the JPEGs that frames, and images with --shorter, become. "
            "[default: 90]",
            show_default=False,
        ),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Store frames of videos as decoded: exact, and ten times as large."
        ),
    ] = False,
    root: Root = None,
    quarantine: Annotated[
        str | None,
        typer.Option(
            "--quarantine",
            metavar="FILE",
            help="File (quarantine.jsonl) that lists unreadable files to leave out.",
            show_default=False,
        ),
    ] = None,
    workers: Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> Action:
    """Decode and scale every frame of videos once, or put all images into one file.

    The pack is data like any other: --data OUT.h5. It keeps names, labels, classes and all splits.
    The same command again goes on where it was stopped.
    """
    if raw and quality is not None:
        raise InputError("--raw has no --quality: give one of them", kind="usage")
    frames = {"--size": None if size is None else _size(size), "--raw": raw or None}
    asked = _Packing(data, {"root": root, "quarantine": quarantine}, frames, shorter, quality)
    verbosity = -1 if quiet else int(verbose)
    path = Path(target).expanduser()
    return lambda: _do_pack(asked, path, workers, verbosity, as_json)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})[x×](\d{1,4})", text, re.IGNORECASE)
    if match is None or not all(8 <= int(side) <= 1024 for side in match.groups()):
        raise InputError(
            f"--size {text}: give height and width from 8 to 1024, as 128x171", kind="usage"
        )
    return int(match[1]), int(match[2])


def _processes(asked: int | None) -> int | None:
    """What was asked for, by the option or by $SELFSUP_WORKERS (whose mistakes jobs tell of)."""
    said = os.environ.get("SELFSUP_WORKERS", "")
    return int(said) if asked is None and said.isdecimal() else asked


def _are_views(name: str) -> bool:
    """Whether data that nobody called so looks like recordings by several cameras."""
    with contextlib.redirect_stdout(sys.stderr):
        from selfsup_cli.data.multiview_layouts import is_multiview

        return is_multiview(name)


def _do_check_views(
    name: str, root: str | None, pictures: Path | None, verbosity: int, as_json: bool
) -> None:
    work.listen(verbosity)
    with contextlib.redirect_stdout(sys.stderr):
        from selfsup_cli.jobs.check_views import check

        outcome = check(name, root=root, folder=pictures, quiet=verbosity < 0)
    if as_json:
        document.success(outcome.data)
    else:
        console.emit(console.plain(outcome.text, lines=True))


def _do_check(
    name: str,
    fields: dict[str, Any],
    out: Path | None,
    workers: int | None,
    verbosity: int,
    as_json: bool,
) -> None:
    work.listen(verbosity)
    workers = _processes(workers)
    with contextlib.redirect_stdout(sys.stderr):
        from selfsup_cli.config.blocks import VideoData
        from selfsup_cli.jobs import data

        outcome = data.check(
            VideoData(source=name, **fields), out=out, workers=workers, quiet=verbosity < 0
        )
    if as_json:
        document.success(outcome.data)
    else:
        console.emit("\n".join(console.plain(line, lines=True) for line in _told(outcome.data)))


@dataclass(frozen=True)
class _Packing:
    """What is to be packed and how: `frames` are the options of videos, None where not given."""

    data: str
    fields: dict[str, Any]
    frames: dict[str, Any]
    shorter: int | None
    quality: int | None

    def videos(self) -> dict[str, Any]:
        """How videos are to be stored."""
        # What does not exist is told by whoever looks for it.
        if self.shorter is not None and (self.data in DATASETS or Path(self.data).exists()):
            raise InputError(
                f"--shorter is for images, and {self.data} is taken for videos: give the size of "
                "their frames with --size HxW",
                kind="usage",
            )
        quality = None if self.frames["--raw"] else self.quality or 90
        return {"size": self.frames["--size"] or (128, 171), "quality": quality}

    def images(self) -> dict[str, Any]:
        """How images are to be stored."""
        for option, value in self.frames.items():
            if value is not None:
                raise InputError(
                    f"{option} is for videos, and {self.data} holds images: they are stored as "
                    "they are, or scaled down with --shorter N",
                    kind="usage",
                )
        if self.shorter is None and self.quality is not None:
            raise InputError(
                "--quality is for images that are scaled down, with --shorter N: without it they "
                "are stored as they are",
                kind="usage",
            )
        return {"shorter": self.shorter, "quality": self.quality or 90}


def _do_pack(
    asked: _Packing, target: Path, workers: int | None, verbosity: int, as_json: bool
) -> None:
    work.listen(verbosity)
    how: dict[str, Any] = {"workers": _processes(workers), "quiet": verbosity < 0}
    with contextlib.redirect_stdout(sys.stderr):
        from selfsup_cli.config.blocks import VideoData
        from selfsup_cli.config.images import ImageData
        from selfsup_cli.data.check_images import is_images
        from selfsup_cli.jobs import data

        if is_images(asked.data):
            images = ImageData(source=asked.data, **asked.fields)
            outcome = data.pack_images(images, target, **asked.images(), **how)
        else:
            videos = VideoData(source=asked.data, **asked.fields)
            outcome = data.pack(videos, target, **asked.videos(), **how)
    if as_json:
        document.success(outcome.data)
    else:
        console.emit(console.plain(outcome.text, lines=True))


# -- what a check has found, as a person reads it


def _told(found: dict[str, Any]) -> Iterator[str]:
    """The result of a check in lines and tables."""
    yield f"{found['name']}: {found['storage'] or found['root']}"
    yield ""
    yield from _tables(found)
    yield from _bad(found)
    yield from _unusual(found)
    yield from _same(found)
    yield from _division(found)
    yield from _speeds(found)
    for out in found["left_out"]:
        yield f"left out: {out['id']}: {out['reason']}"
    for note in found["notes"]:
        yield f"note: {note}"
    if found["quarantine"]:
        yield f"quarantine: {found['quarantine']} (for --quarantine)"


def _tables(found: dict[str, Any]) -> Iterator[str]:
    from selfsup_cli.cli import report

    rows: list[tuple[str, ...]] = [
        (f"{kind}s", *(str(row[name]) for name in ("files", "sound", "unusual", "bad")))
        for kind, row in found["counts"].items()
    ]
    others = found["other_files"]
    if others:
        rows.append(("other", str(sum(others.values())), "", "", ""))
    right = ("files", "sound", "of them unusual", "bad")
    yield report.table(("", *right), rows, right=right)
    if others:
        yield f"other files: {_counted(others)}"
    yield ""
    if ranges := _ranges(found, "frames", "seconds", "frames_per_second"):
        yield report.table(("sound videos", *_ENDS), ranges, right=_ENDS)
        yield f"sizes (width×height): {_counted(found['sizes'])}"
        yield f"codecs: {_counted(found['codecs'])}"
        yield ""
    if images := found["images"]:
        ranges = _ranges(images, "shorter_side", "longer_side")
        yield report.table(("sound images", *_ENDS), ranges, right=_ENDS)
        yield f"sizes (width×height): {_counted(images['sizes'])}"
        if images["formats"]:
            yield f"formats: {_counted(images['formats'])}"
        yield ""


def _ranges(found: dict[str, Any], *names: str) -> list[tuple[str, ...]]:
    return [
        (name.replace("_", " "), *(f"{found[name][end]:g}" for end in _ENDS))
        for name in names
        if found[name]
    ]


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:8]]
    return ", ".join(shown) + (f", and {len(counts) - 8} more" if len(counts) > 8 else "")


def _bad(found: dict[str, Any]) -> Iterator[str]:
    bad = [one for one in found["files"] if one["verdict"] == "bad"]
    if bad:
        yield "bad"
        yield from _first(f"  {one['id']}: {one['bad']}" for one in bad)
        yield ""


def _unusual(found: dict[str, Any]) -> Iterator[str]:
    if not found["unusual"]:
        return
    yield "sound but unusual"
    for phrase, names in found["unusual"].items():
        more = f", and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        yield f"  {phrase} ({len(names)}): {', '.join(names[:_NAMES])}{more}"
    yield ""


def _same(found: dict[str, Any]) -> Iterator[str]:
    groups = found["duplicates"]
    if groups:
        spare = sum(len(names) - 1 for names in groups)
        yield f"the same content: {spare} files are copies of others"
        yield from _first(f"  {' = '.join(names)}" for names in groups)
        yield ""


def _division(found: dict[str, Any]) -> Iterator[str]:
    split = found["split"]
    if split is None:
        return
    said = f"split ({split['rule']}): {split['train']} train, {split['test']} test"
    leaks = found["in_train_and_test"]
    if not leaks:
        yield f"{said}; no file of one has the content of a file of the other"
        return
    yield f"{said}; {len(leaks)} pairs of files have the same content in both"
    yield from _first(f"  train {leak['train']} = test {leak['test']}" for leak in leaks)


def _speeds(found: dict[str, Any]) -> Iterator[str]:
    clips = found["clips"]
    if clips is None:
        return
    reach = {int(speed): count for speed, count in clips["fastest_speed"].items()}
    videos, last = sum(reach.values()) + clips["too_short"], clips["speeds"][-1]
    slower = [f"{count} reach speed {speed}" for speed, count in reach.items() if speed < last]
    yield (
        f"clips of {clips['frames']} frames: {videos - reach.get(last, 0)} of {videos} sound "
        f"videos are too short for all speeds, up to {last} ({clips['frames'] * last} frames)"
        + "".join(f"; {one}" for one in slower)
        + f"; {clips['too_short']} have fewer than {clips['fewest_frames']} frames and are left "
        "out of pretraining"
    )


def _first(lines: Iterable[str]) -> Iterator[str]:
    """The first lines of many."""
    lines = list(lines)
    yield from lines[:_LINES]
    if len(lines) > _LINES:
        yield f"  … and {len(lines) - _LINES} more (--json has them all)"
