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


OUT_FOLDER = work.parameter(
    "out",
    str | None,
    None,
    "--out",
    metavar="FOLDER",
    help="Where the pictures go. [default: dfgan-samples in this folder]",
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


def _dfgan() -> Any:
    job = "sample/dfgan"
    about = f"{JOBS[job].__doc__}\n\n{work.DEFAULTS_NOTE}"
    return command(work.parser(job, _start_dfgan, (OUT_FOLDER,)), "dfgan", about)


def _start_dfgan(call: work.Call) -> None:
    found = work.resolved(call)
    out = call.more["out"]
    path = None if out is None else Path(out)
    outcome = work.perform("sample_gan", "dfgan", found, out=path, quiet=call.verbosity < 0)
    work.show(outcome, call)


ALONE = work.parameter(
    "out",
    str | None,
    None,
    "--out",
    metavar="FILE",
    help="Write the picture alone, into this file (a .png), and make no run.",
)


def _artifacts() -> Any:
    job = "sample/artifacts"
    about = f"{JOBS[job].__doc__}\n\n{work.DEFAULTS_NOTE}"
    return command(work.parser(job, _start_artifacts, (work.RUN, ALONE)), "artifacts", about)


def _start_artifacts(call: work.Call) -> None:
    work.look("sample_artifacts", "artifacts", call)


class Sample(LazyGroup):
    """`selfsup sample`: its commands are the methods that make something."""

    what = "method"
    metavar = "METHOD"
    entries: ClassVar[Mapping[str, Entry]] = {
        "transformations": Entry(
            "Inpainted patches and warps of images (chapter 4).", _transformations
        ),
        "artifacts": Entry(
            "Damaged and repaired images, and where that is found (chapter 3).", _artifacts
        ),
        "dfgan": Entry("Images of a GAN, and what tells about them (chapter 7).", _dfgan),
    }
