"""`selfsup pretrain METHOD`."""

from __future__ import annotations

from functools import partial
from inspect import getdoc
from typing import TYPE_CHECKING, Any, ClassVar

from selfsup_cli.cli import work
from selfsup_cli.cli.groups import Entry, LazyGroup, command, group
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.registry import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping


def load() -> Any:
    """The command, with one subcommand for each method."""
    return group(
        Pretrain,
        "pretrain",
        "Learn a representation from data, without labels. 'selfsup pretrain METHOD --help' shows "
        "the options of a method.",
    )


def method_command(method: str) -> Any:
    """`selfsup pretrain METHOD`, with the options of that method."""
    job = f"pretrain/{method}"
    about = f"{getdoc(JOBS[job])}\n\n{work.DEFAULTS_NOTE}"
    parse = work.parser(job, partial(work.do, "pretrain"), (work.RUN, work.DRY_RUN))
    return command(parse, method, about)


class Pretrain(LazyGroup):
    """`selfsup pretrain`: its commands are the methods."""

    what = "method"
    metavar = "METHOD"
    hint_for_options = "options follow the method: selfsup pretrain METHOD --option …"
    entries: ClassVar[Mapping[str, Entry]] = {
        name: Entry(f"{method.about} (chapter {method.chapter})", partial(method_command, name))
        for name, method in METHODS.items()
    }
