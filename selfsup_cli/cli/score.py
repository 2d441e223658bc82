"""`selfsup score`."""

from __future__ import annotations

from functools import partial
from typing import Any

from selfsup_cli.cli import work
from selfsup_cli.cli.groups import command
from selfsup_cli.config.jobs import JOBS


def load() -> Any:
    """The command."""
    about = f"{JOBS['score'].__doc__}\n\n{work.DEFAULTS_NOTE}"
    parse = work.parser("score", partial(work.do, "score"), (work.RUN, work.DRY_RUN))
    return command(parse, "score", about)
