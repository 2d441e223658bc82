"""`selfsup sync FOLDER`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from selfsup_cli.cli import console, document, work
from selfsup_cli.cli.groups import Action, command
from selfsup_cli.errors import InputError

ABOUT = (
    "Find by how much cameras that recorded the same event are apart in time.\n\nFOLDER holds "
    "their videos or images, those of one event together (EVENT/CAMERA.mp4). An offset is how much "
    "later the second camera's recording shows the same moment. It comes with an interval, and "
    "with a warning where it cannot be told."
)


def load() -> Any:
    """The command."""
    return command(_parse, "sync", ABOUT)


def _option(flag: str, metavar: str | None, help_: str, **rules: Any) -> Any:
    return typer.Option(*flag.split(","), metavar=metavar, help=help_, show_default=False, **rules)


def _parse(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Recordings to align.")],
    by: Annotated[
        Literal["model", "motion"],
        _option(
            "--by",
            "model|motion",
            "By what a network says of pairs of frames, or by how much moves at which height, "
            "which needs no network. [default: model]",
        ),
    ] = "model",
    subject: Annotated[
        str,
        _option(
            "--from",
            "RUN",
            "Run of 'selfsup pretrain multiview'; latest is the newest finished one. "
            "[default: latest]",
        ),
    ] = "latest",
    cameras: Annotated[
        list[str] | None, _option("--cameras", "NAMES", "Only these cameras, by name.")
    ] = None,
    most: Annotated[
        float,
        _option("--most", "X", "Seconds up to which offsets are searched. [default: 5]"),
    ] = 5.0,
    background: Annotated[
        Literal["auto", "remove", "keep"],
        _option(
            "--background",
            "auto|remove|keep",
            "What becomes of the scene before the network sees a picture; auto is as it was "
            "trained. [default: auto]",
        ),
    ] = "auto",
    out: Annotated[
        str, _option("--out", "FILE", "Where offsets go: .csv or .json. [default: offsets.csv]")
    ] = "offsets.csv",
    picture: Annotated[
        str | None,
        _option("--picture", "FILE", "Where the curves go: .png. [default: beside --out]"),
    ] = None,
    device: Annotated[
        str, _option("--device", "DEVICE", "Device: auto, cpu, cuda or cuda:N. [default: auto]")
    ] = "auto",
    force: Annotated[bool, _option("--force", None, "Replace files that exist.")] = False,
    as_json: Annotated[
        bool, _option("--json", None, "Print the result as one JSON document.")
    ] = False,
    quiet: Annotated[
        bool, _option("--quiet,-q", None, "Only results, warnings and errors.")
    ] = False,
    verbose: Annotated[
        bool, _option("--verbose,-v", None, "Say also what was decided and why.")
    ] = False,
) -> Action:
    if not 0 < most <= 3600:
        raise InputError(f"--most {most}: give seconds, more than 0, at most 3600", kind="usage")
    names = [name for given in cameras or () for name in given.split(",") if name]

    def start() -> None:
        work.listen(-1 if quiet else int(verbose))
        with contextlib.redirect_stdout(sys.stderr):
            from selfsup_cli.jobs.sync import sync

            outcome = sync(
                folder,
                by=by,
                subject=subject,
                cameras=names,
                most=most,
                background=background,
                out=Path(out).expanduser(),
                picture=None if picture is None else Path(picture).expanduser(),
                device=device,
                force=force,
                quiet=quiet,
            )
        if as_json:
            document.success(outcome.data)
        else:
            console.emit(console.plain(outcome.text, lines=True))

    return start
