"""The root of the command line: what there is, and how every call of it ends."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from selfsup_cli.cli import console, failure
from selfsup_cli.cli.groups import HOUSE, Action, Entry, LazyGroup
from selfsup_cli.config import environment
from selfsup_cli.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ABOUT = "Learn visual representations without labels, and see what was learned."

EXAMPLES = """\
  selfsup pretrain temporal --data motion --run first    learn from videos, without labels
  selfsup probe --from first --data motion               what do its layers know?
  selfsup retrieve --from first --data motion            what does it hold to be alike?
"""

_TERMINAL = {name: environment.OTHERS[name] for name in ("NO_COLOR", "FORCE_COLOR")}
_VARIABLES = "\n".join(
    f"  {name:<20} {variable.about}"
    for name, variable in (environment.VARIABLES | _TERMINAL).items()
)

EPILOG = f"""\
Examples:

\b
{EXAMPLES}
Exit status:

\b
  0    done
  1    a bug in selfsup; the traceback is saved to crash.txt
  2    the input is wrong: an option, a preset, data, a checkpoint, a run
  3    the machine is short of memory, disk, permission or a package
  4    training failed: the loss is not finite, or too much data is unreadable
  75   stopped by a signal after saving: run the same command again
  130, 143  interrupted (SIGINT, SIGTERM)
  141  the reader of the output went away

Environment:

\b
{_VARIABLES}
"""


def _loader(module: str, *arguments: str) -> Callable[[], Any]:
    def load() -> Any:
        return import_module(f"selfsup_cli.cli.{module}").load(*arguments)

    return load


class Root(LazyGroup):
    """`selfsup` itself."""

    entries: ClassVar[Mapping[str, Entry]] = {
        "pretrain": Entry("Learn a representation from data, without labels.", _loader("pretrain")),
        "transfer": Entry(
            "Train on a task from what was learned: action, sync, order.", _loader("transfer")
        ),
        "predict": Entry("Label videos or images with a transferred network.", _loader("predict")),
        "probe": Entry("Train linear classifiers on frozen layers.", _loader("evaluate", "probe")),
        "probe-tiles": Entry("Tell real images from tile-shuffled ones.", _loader("tiles")),
        "retrieve": Entry(
            "Find nearest neighbours, and how often they share the class.",
            _loader("evaluate", "retrieve"),
        ),
        "sync": Entry(
            "Find by how much cameras of the same event are apart in time.", _loader("sync")
        ),
        "score": Entry(
            "How near a generator's samples come to real images: FID and others.", _loader("score")
        ),
        "visualize": Entry(
            "Look inside: what a network is fed, and what it looks at.", _loader("visualize")
        ),
        "sample": Entry("Show what a method makes: inpainted patches, warps.", _loader("sample")),
        "shortcuts": Entry(
            "Does a local cue alone solve the pretext task of a run?", _loader("shortcuts")
        ),
        "export": Entry(
            "Write a network for other tools, or a table of features.", _loader("export")
        ),
        "reproduce": Entry(
            "Run a table or figure of the thesis, and print it beside its numbers.",
            _loader("reproduce"),
        ),
        "report": Entry(
            "Show a run's report, make its pages, or compare runs.", _loader("report_command")
        ),
        "data": Entry("Check files once; store decoded frames once.", _loader("data")),
        "runs": Entry("List, show and resume runs.", _loader("runs")),
        "presets": Entry("List, show, check and copy presets.", _loader("presets")),
        "doctor": Entry("Check what this machine brings along.", _loader("doctor")),
        "completion": Entry("Print the completions for bash, zsh or fish.", _loader("completion")),
    }


app = typer.Typer(
    name="selfsup", cls=Root, help=ABOUT, epilog=EPILOG, invoke_without_command=True, **HOUSE
)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.emit(f"selfsup {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> Action | None:
    return None if context.invoked_subcommand else _introduce


def _introduce() -> None:
    """The answer to `selfsup` alone: how to begin, as a usage error."""
    console.say(f"{ABOUT}\n\nUsage: selfsup COMMAND …   ({', '.join(Root.entries)})\n")
    console.say(f"{EXAMPLES}\nsee 'selfsup --help'")
    raise typer.Exit(failure.INPUT)


def run(arguments: Sequence[str]) -> int:
    """Parse and run one command line; returns its exit status and raises nothing."""
    try:
        console.prepare_streams()
        command: Any = typer.main.get_command(app)
        with command.make_context(
            "selfsup", list(arguments), obj={"arguments": list(arguments)}
        ) as context:
            action = command.invoke(context)
        action()
        status = 0
    except typer.Exit as exit_:
        status = exit_.exit_code
    except (Exception, KeyboardInterrupt) as error:
        as_json = "--json" in arguments
        status = failure.tell(error, as_json=as_json, arguments=arguments)
    return failure.close(status)
