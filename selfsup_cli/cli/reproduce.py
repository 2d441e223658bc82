"""`selfsup reproduce NAME`: a table or figure of the thesis, end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfsup_cli.cli import console, document, work
from selfsup_cli.cli.groups import Action, command
from selfsup_cli.errors import InputError
from selfsup_cli.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from selfsup_cli.config.experiment import ScaleName

ABOUT = """Run a table or figure of the thesis end to end, and print it beside its numbers.

Every stage of every row is a run of its own, and what is done is skipped: killed at any point, the
same command goes on. The scale smoke takes minutes on a CPU and needs no data, small about an hour
on a GPU, paper is the thesis' own. It ends with what the numbers support of what the thesis found.
"""


def load() -> Any:
    """The command."""
    return command(_parse, "reproduce", ABOUT)


def _parse(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[EXPERIMENT]",
            help="Which table or figure (see --list), or a file of your own.",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        str, typer.Option("--scale", metavar="smoke|small|paper", help="How large it is run.")
    ] = "smoke",
    rows: Annotated[
        list[str] | None,
        typer.Option(
            "--rows",
            metavar="GLOB,…",
            help="Run these rows only, or all but those with a ! in front. [default: all]",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "--dataset",
            metavar="DATA",
            help="Videos of your own instead of the built-in ones; not at the scale paper.",
            show_default=False,
        ),
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(
            "--data-root",
            metavar="FOLDER",
            help="Folder that holds the datasets, each under its name, instead of $SELFSUP_DATA.",
            show_default=False,
        ),
    ] = None,
    inception: Annotated[
        str | None,
        typer.Option(
            "--inception",
            metavar="FILE",
            help="Weights of the Inception network of 2015, for FID at the scale paper.",
            show_default=False,
        ),
    ] = None,
    imagenet: Annotated[
        str | None,
        typer.Option(
            "--imagenet",
            metavar="FILE",
            help="Weights of a ResNet-50 of ImageNet (.safetensors), for table 6.2 at the scale "
            "paper.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", metavar="N", help="Stages to run at the same time.")
    ] = 1,
    print_commands: Annotated[
        bool,
        typer.Option("--print-commands", help="Print a shell script of plain commands instead."),
    ] = False,
    list_: Annotated[
        bool,
        typer.Option("--list", help="List all experiments, or the stages of one, and their state."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only results, warnings and errors.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say also what was decided and why.")
    ] = False,
) -> Action:
    from selfsup_cli.config.experiment import SCALES
    from selfsup_cli.config.registry import unknown

    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    if jobs < 1:
        raise InputError(f"--jobs must be at least 1; got {jobs}", kind="usage")
    if name is None and not list_:
        raise InputError(
            "name an experiment, as `selfsup reproduce table-5.1`",
            kind="usage",
            hint="selfsup reproduce --list shows them all",
        )
    call = work.Call(
        job="reproduce",
        options={},
        preset=None,
        sets=(),
        as_json=as_json,
        verbosity=-1 if quiet else int(verbose),
        arguments=context.obj["arguments"],
    )
    settings: dict[str, Any] = {
        "scale": scale,
        "rows": [part for text in rows or [] for part in text.split(",") if part],
        "given": (data, root, inception, imagenet),
    }
    if name is None:
        return lambda: _list_all(call)
    if list_:
        return lambda: _list_stages(call, name, settings)
    if print_commands:
        return lambda: _print_commands(call, name, settings)
    return lambda: _reproduce(call, name, jobs, settings)


def _reproduce(call: work.Call, name: str, jobs: int, settings: Mapping[str, Any]) -> None:
    from selfsup_cli.jobs.reproduce import FailedStagesError, reproduce

    work.listen(call.verbosity)
    _announce(call, name, settings["scale"])
    try:
        outcome = reproduce(
            name, **_given(settings), jobs=jobs, command=["selfsup", *call.arguments]
        )
    except FailedStagesError as error:
        # What there is of the table is shown all the same; --json has it with the error.
        if not call.as_json:
            work.show(error.outcome, call)
        raise
    work.show(outcome, call)


def _announce(call: work.Call, name: str, scale: ScaleName) -> None:
    if call.verbosity >= 0:
        console.say(console.plain(f"selfsup {__version__} · reproduce {name} · {scale}"))


def _print_commands(call: work.Call, name: str, settings: Mapping[str, Any]) -> None:
    from selfsup_cli.jobs.reproduce import script

    work.listen(call.verbosity)
    text = script(name, **_given(settings))
    if call.as_json:
        document.success({"script": text})
    else:
        console.emit(text)


def _list_all(call: work.Call) -> None:
    from selfsup_cli.jobs.reproduce import listing

    work.listen(call.verbosity)
    found = listing()
    if call.as_json:
        document.success({"experiments": found})
        return
    from selfsup_cli.cli import report
    from selfsup_cli.config.experiment import SCALES

    rows = [
        [
            one["name"],
            *(_progress(one["scales"].get(scale)) for scale in SCALES),
            one["problem"] or one["title"],
        ]
        for one in found
    ]
    shown = [[console.plain(cell) for cell in row] for row in rows]
    console.emit(report.table(("experiment", *SCALES, "about"), shown, wraps=("about",)))


def _progress(at: Mapping[str, Any] | None) -> str:
    return "" if at is None else f"{at['done']}/{at['stages']}, {at['hours']:g} h"


def _list_stages(call: work.Call, name: str, settings: Mapping[str, Any]) -> None:
    from selfsup_cli.jobs.reproduce import stages

    work.listen(call.verbosity)
    found = stages(name, **_given(settings))
    if call.as_json:
        document.success({"stages": found})
        return
    from selfsup_cli.cli import report

    rows = [[console.plain(one[key]) for key in ("row", "stage", "state", "run")] for one in found]
    console.emit(report.table(("row", "stage", "state", "run"), rows))
    for one in found:
        if one["problem"]:
            console.warn(one["problem"])


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    from selfsup_cli.jobs.reproduce_plan import Given

    return {**settings, "given": Given(*settings["given"])}
