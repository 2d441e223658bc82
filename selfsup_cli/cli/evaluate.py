"""`selfsup probe` and `selfsup retrieve`."""

from __future__ import annotations

from functools import partial
from typing import Any

from selfsup_cli.cli import work
from selfsup_cli.cli.groups import command
from selfsup_cli.config.jobs import JOBS


def load(job: str) -> Any:
    """The command of `job`, which is called like it."""
    about = f"{JOBS[job].__doc__}\n\n{work.DEFAULTS_NOTE}"
    parse = work.parser(job, partial(work.do, job), (work.RUN, work.DRY_RUN))
    return command(parse, job, about)
