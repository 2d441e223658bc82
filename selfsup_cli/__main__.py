"""`selfsup`, and `python -m selfsup_cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (default: those of the process); returns the exit status."""
    try:
        from selfsup_cli.cli.app import run
    except KeyboardInterrupt:
        sys.stderr.write("selfsup: error: interrupted\n")
        return 130
    return run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
