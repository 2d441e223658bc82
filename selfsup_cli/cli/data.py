"""`selfsup data check|pack`."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from selfsup_cli.cli import console, document, work
from selfsup_cli.cli.groups import HOUSE, Action, NamedGroup
from selfsup_cli.config.registry import DATASETS
from selfsup_cli.errors import InputError

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
        from selfsup_cli.cli.check_told import told

        console.emit("\n".join(console.plain(line, lines=True) for line in told(outcome.data)))


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
