"""`selfsup probe` and `selfsup retrieve`, on videos and on images."""

from __future__ import annotations

from typing import Any

from selfsup_cli.cli import work
from selfsup_cli.cli.groups import command
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.jobs.kinds import jobs_of


def load(job: str) -> Any:
    """The command of `job`, which is called like it, and of the same job on images."""
    jobs = jobs_of(job)
    about = f"{JOBS[job].__doc__}\n\n{work.KINDS_NOTE}\n\n{work.DEFAULTS_NOTE}"
    parse = work.parser(jobs, _start, (work.RUN, work.DRY_RUN))
    return command(parse, job, about)


def _start(call: work.Call) -> None:
    work.do(work.module_of(call.job), call)
