"""`selfsup visualize WHAT`: pictures of what goes on inside."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from selfsup_cli.cli import work
from selfsup_cli.cli.groups import Entry, LazyGroup, command, group
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.registry import METHODS
from selfsup_cli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

OUT = work.parameter(
    "out",
    str | None,
    None,
    "--out",
    metavar="FILE",
    help="Where the picture goes (a .png). [default: pretext.png in this folder]",
)
OUTS = work.parameter(
    "out",
    list[str] | None,
    None,
    "--out",
    metavar="FILE",
    help="Where the picture goes: a strip (.png) or an animation (.webp, .gif); may be repeated. "
    "[default: guided-backprop.png and guided-backprop.webp in this folder]",
)
MEAN = work.parameter(
    "out",
    str | None,
    None,
    "--out",
    metavar="FILE",
    help="Where the picture goes (a .png). [default: mean-image.png in this folder]",
)
LOOK = work.parameter(
    "out",
    str | None,
    None,
    "--out",
    metavar="FILE",
    help="Write the picture alone, into this file (a .png), and make no run.",
)
LOOKS = {
    "filters": "What the first convolution looks for.",
    "activations": "The image patches that make each unit most active.",
    "gradcam": "Where in images the evidence for an answer lies.",
    "neighbours": "Images and what a network finds alike.",
}
COUNT = work.parameter(
    "count", int, 4, "--count", metavar="N", help="Videos or images shown. [default: 4]"
)


def load() -> Any:
    """The group of pictures."""
    return group(Visualize, "visualize", "Look inside: pictures of what goes on.")


def _pretext() -> Any:
    return group(
        Pretext,
        "pretext",
        "The contact sheet of what METHOD is really fed: images transformed in all ways, or each "
        f"frame with its index in the video. METHOD is {Pretext.default} unless named.",
    )


def _method_command(method: str) -> Any:
    about = f"The contact sheet of what {method} is really fed.\n\n{work.DEFAULTS_NOTE}"
    return command(work.parser(f"pretrain/{method}", _start, (OUT, COUNT)), method, about)


def _start(call: work.Call) -> None:
    out, count = call.more["out"], call.more["count"]
    if count < 1:
        raise InputError(f"--count must be at least 1; got {count}", kind="usage")
    found = work.resolved(call)
    path = None if out is None else Path(out)
    quiet = call.verbosity < 0
    outcome = work.perform("visualize", "pretext", found, out=path, count=count, quiet=quiet)
    work.show(outcome, call)


def _guided() -> Any:
    job = "visualize/guided-backprop"
    about = f"{JOBS[job].__doc__}\n\n{work.DEFAULTS_NOTE}"
    return command(work.parser(job, _start_guided, (OUTS,)), "guided-backprop", about)


def _start_guided(call: work.Call) -> None:
    found = work.resolved(call)
    paths = [Path(one) for one in call.more["out"] or ()]
    quiet = call.verbosity < 0
    outcome = work.perform("visualize_guided", "guided_backprop", found, out=paths, quiet=quiet)
    work.show(outcome, call)


def _mean() -> Any:
    job = "visualize/mean-image"
    about = f"{JOBS[job].__doc__}\n\n{work.DEFAULTS_NOTE}"
    return command(work.parser(job, _start_mean, (MEAN,)), "mean-image", about)


def _start_mean(call: work.Call) -> None:
    found = work.resolved(call)
    out = call.more["out"]
    path = None if out is None else Path(out)
    outcome = work.perform("visualize_images", "average", found, out=path, quiet=call.verbosity < 0)
    work.show(outcome, call)


def _look(what: str) -> Any:
    job = f"visualize/{what}"
    about = f"{JOBS[job].__doc__}\n\n{work.DEFAULTS_NOTE}"
    return command(work.parser(job, partial(_start_look, what), (work.RUN, LOOK)), what, about)


def _start_look(what: str, call: work.Call) -> None:
    work.look(f"visualize_{what}", what, call)


class Pretext(LazyGroup):
    """`selfsup visualize pretext`: its commands are the methods, the first one by default."""

    what = "method"
    metavar = "[METHOD]"
    default = next(iter(METHODS))
    entries: ClassVar[Mapping[str, Entry]] = {
        name: Entry(method.about, partial(_method_command, name))
        for name, method in METHODS.items()
    }


class Visualize(LazyGroup):
    """`selfsup visualize`: its commands are what can be looked at."""

    what = "picture"
    metavar = "WHAT"
    entries: ClassVar[Mapping[str, Entry]] = {
        "pretext": Entry(
            "What the network is really fed, clip by clip or image by image.", _pretext
        ),
        "mean-image": Entry("The mean of a data set, and patches of it turned.", _mean),
        "guided-backprop": Entry("Which pixels of a video make networks active.", _guided),
        **{what: Entry(about, partial(_look, what)) for what, about in LOOKS.items()},
    }
