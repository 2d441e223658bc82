"""`log.txt`: what a job said, with the time, one line per line."""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress
from pathlib import Path

from selfsup_cli.runs.atomic import cannot_write

# File names come from users; an escape sequence in one must not reach the terminal that shows it.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class LogFile(logging.Handler):
    """Appends what `logger` says to a file, in UTC. Raises MachineError if it cannot be opened.

    A line that cannot be written later is lost in silence: the log is not worth a run.
    """

    def __init__(self, path: Path, logger: logging.Logger, level: int) -> None:
        super().__init__(level)
        try:
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
        except OSError as error:
            raise cannot_write(path, error) from error
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)
        self._logger = logger
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        with suppress(Exception):
            self._file.write(_CONTROL.sub(_escaped, self.format(record)) + "\n")

    def detach(self) -> None:
        """Stop listening and close the file."""
        self._logger.removeHandler(self)
        with suppress(OSError):
            self._file.close()
        self.close()


def _escaped(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"
