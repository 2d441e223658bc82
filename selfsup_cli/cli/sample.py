"""`selfsup sample METHOD`: what a method makes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from selfsup_cli.cli import work
from selfsup_cli.cli.groups import Entry, LazyGroup, command, group
from selfsup_cli.config.jobs import JOBS

if TYPE_CHECKING:
    from collections.abc import Mapping

OUT = work.parameter(
    "out",
    str | None,
    None,
    "--out",
    metavar="FILE",
    help="Where the picture goes (a .png). [default: transformations.png in this folder]",
)


def load() -> Any:
    """The group of what can be sampled."""
    return group(Sample, "sample", "Show what a method makes: patches that it painted, warps.")


def _transformations() -> Any:
    job = "sample/transformations"
    about = f"{JOBS[job].__doc__}\n\n{work.DEFAULTS_NOTE}"
    return command(work.parser(job, _start, (OUT,)), "transformations", about)


def _start(call: work.Call) -> None:
    found = work.resolved(call)
    out = call.more["out"]
    path = None if out is None else Path(out)
    outcome = work.perform("sample", "transformations", found, out=path, quiet=call.verbosity < 0)
    work.show(outcome, call)


class Sample(LazyGroup):
    """`selfsup sample`: its commands are the methods that make something."""

    what = "method"
    metavar = "METHOD"
    entries: ClassVar[Mapping[str, Entry]] = {
        "transformations": Entry(
            "Inpainted patches and warps of images (chapter 4).", _transformations
        ),
    }
