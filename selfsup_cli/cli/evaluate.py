"""`selfsup probe` and `selfsup retrieve`: of single videos and images, and of pairs of views."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from selfsup_cli.cli import work
from selfsup_cli.cli.groups import Entry, LazyGroup, command, group
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.jobs.kinds import jobs_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def load(job: str) -> Any:
    """The group of `job`; what is not named is `job` itself, on videos or on images."""
    cls = {"probe": Probe, "retrieve": Retrieve}[job]
    about = (
        f"{JOBS[job].__doc__}\n\nThat is what 'selfsup {job}' does unless another command is "
        f"named; its options are those of 'selfsup {job} {cls.default} --help'."
    )
    return group(cls, job, about)


def _single(job: str, name: str) -> Any:
    """The command of `job`, and of the same job on images."""
    about = f"{JOBS[job].__doc__}\n\n{work.KINDS_NOTE}\n\n{work.DEFAULTS_NOTE}"
    return command(work.parser(jobs_of(job), _start, (work.RUN, work.DRY_RUN)), name, about)


def _pairs(job: str) -> Any:
    """The command of `job` that is about pairs of synchronised views."""
    about = f"{JOBS[job].__doc__}\n\n{work.DEFAULTS_NOTE}"
    parse = work.parser(job, _start, (work.RUN, work.DRY_RUN))
    return command(parse, "sync", about)


def _start(call: work.Call) -> None:
    work.do(work.module_of(call.job), call)


class Probe(LazyGroup):
    """`selfsup probe`: of layers unless something else is named."""

    metavar = "[COMMAND]"
    default = "layers"
    entries: ClassVar[Mapping[str, Entry]] = {
        "layers": Entry(
            "Train linear classifiers on frozen layers.", partial(_single, "probe", "layers")
        ),
        "sync": Entry(
            "Tell synchronised views from others, by the time between them.",
            partial(_pairs, "probe-sync"),
        ),
    }


class Retrieve(LazyGroup):
    """`selfsup retrieve`: neighbours unless something else is named."""

    metavar = "[COMMAND]"
    default = "neighbours"
    entries: ClassVar[Mapping[str, Entry]] = {
        "neighbours": Entry(
            "Find nearest neighbours, and how often they share the class.",
            partial(_single, "retrieve", "neighbours"),
        ),
        "sync": Entry(
            "Find views that a network takes for synchronised.", partial(_pairs, "retrieve-sync")
        ),
    }
