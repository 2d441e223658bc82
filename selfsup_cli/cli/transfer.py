"""`selfsup transfer TASK`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from selfsup_cli.cli import work
from selfsup_cli.cli.groups import Entry, LazyGroup, command, group
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.registry import TASKS

if TYPE_CHECKING:
    from collections.abc import Mapping


def load() -> Any:
    """The command, with one subcommand for each task."""
    return group(
        Transfer,
        "transfer",
        "Train on a task from what was learned. 'selfsup transfer TASK --help' shows the options "
        "of a task.",
    )


def task_command(task: str) -> Any:
    """`selfsup transfer TASK`, with the options of that task."""
    job = f"transfer/{task}"
    about = f"{JOBS[job].__doc__}\n\n{work.DEFAULTS_NOTE}"
    parse = work.parser(job, partial(work.do, "transfer"), (work.RUN, work.DRY_RUN))
    return command(parse, task, about)


class Transfer(LazyGroup):
    """`selfsup transfer`: its commands are the tasks."""

    what = "task"
    metavar = "TASK"
    hint_for_options = "options follow the task: selfsup transfer TASK --option …"
    entries: ClassVar[Mapping[str, Entry]] = {
        name: Entry(about, partial(task_command, name)) for name, about in TASKS.items()
    }
