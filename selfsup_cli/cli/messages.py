"""What loggers say, as a person reads it on stderr."""

from __future__ import annotations

import logging

from selfsup_cli.cli.console import plain, say


class _Messages(logging.Handler):
    """Log records as a person reads them: no dates, no module names, a word for warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        text = plain(record.getMessage(), lines=True)
        if record.levelno >= logging.WARNING:
            text = f"selfsup: {record.levelname.lower()}: {text}"
        say(text)


def listen(verbosity: int) -> None:
    """Show the package's log records on stderr.

    `verbosity` -1 shows warnings and errors, 0 messages too, 1 also decisions and what other
    packages warn about.
    """
    handler = _Messages({-1: logging.WARNING, 0: logging.INFO, 1: logging.DEBUG}[verbosity])
    logger = logging.getLogger("selfsup")
    logger.handlers[:] = [handler]
    # A run's log.txt listens to the same logger, however quiet the terminal is to be.
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logging.captureWarnings(True)
    foreign = logging.getLogger("py.warnings")
    foreign.handlers[:] = [handler] if verbosity > 0 else [logging.NullHandler()]
    foreign.propagate = False
