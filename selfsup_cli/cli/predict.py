"""`selfsup predict PATH`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from selfsup_cli.cli import console, document, work
from selfsup_cli.cli.groups import Action, command

ABOUT = (
    "Label videos with a network of 'selfsup transfer action', or images with one of 'selfsup "
    "transfer classify'.\n\nDATA is a video or image, a folder of them, a CSV file or a registered "
    "dataset. Files that cannot be read are named, counted and left out."
)


def load() -> Any:
    """The command."""
    return command(_parse, "predict", ABOUT)


def _option(flag: str, metavar: str | None, help_: str, **rules: Any) -> Any:
    return typer.Option(*flag.split(","), metavar=metavar, help=help_, show_default=False, **rules)


def _parse(
    path: Annotated[str, typer.Argument(metavar="DATA", help="What to label.")],
    subject: Annotated[
        str,
        _option(
            "--from",
            "RUN",
            "Run of 'selfsup transfer action' or 'classify', or its model.safetensors; latest is "
            "the newest finished one for what DATA holds. [default: latest]",
        ),
    ] = "latest",
    out: Annotated[
        str,
        _option("--out", "FILE", "Where labels go: .csv or .json. [default: predictions.csv here]"),
    ] = "predictions.csv",
    pictures: Annotated[
        str | None, _option("--pictures", "DIR", "Also draw each with its labels, here.")
    ] = None,
    clips: Annotated[
        int | None,
        _option(
            "--clips",
            "N",
            "Clips of each video that are averaged. [default: as many as in its test]",
            min=1,
            max=64,
        ),
    ] = None,
    crops: Annotated[
        Literal["center", "ten"] | None,
        _option(
            "--test-crops",
            "center|ten",
            "Crops of each image that are averaged. [default: as in its test]",
        ),
    ] = None,
    top: Annotated[
        int, _option("--top", "N", "Classes told of each in JSON. [default: 5]", min=1)
    ] = 5,
    device: Annotated[
        str, _option("--device", "DEVICE", "Device: auto, cpu, cuda or cuda:N. [default: auto]")
    ] = "auto",
    workers: Annotated[
        int | None,
        _option("--workers", "N", "Processes that decode. [default: auto]", min=0, max=256),
    ] = None,
    force: Annotated[bool, _option("--force", None, "Replace a file that exists.")] = False,
    as_json: Annotated[
        bool, _option("--json", None, "Print the result as one JSON document.")
    ] = False,
    quiet: Annotated[
        bool, _option("--quiet,-q", None, "Say nothing but warnings and errors.")
    ] = False,
    verbose: Annotated[
        bool, _option("--verbose,-v", None, "Say also what was decided and why.")
    ] = False,
) -> Action:
    def start() -> None:
        work.listen(-1 if quiet else int(verbose))
        with contextlib.redirect_stdout(sys.stderr):
            from selfsup_cli.jobs.predict import predict

            outcome = predict(
                path,
                subject,
                out=Path(out).expanduser(),
                pictures=None if pictures is None else Path(pictures).expanduser(),
                clips=clips,
                crops=crops,
                top=top,
                device=device,
                workers=workers,
                force=force,
                quiet=quiet,
            )
        if as_json:
            document.success(outcome.data)
        else:
            console.emit(console.plain(outcome.text, lines=True))

    return start
