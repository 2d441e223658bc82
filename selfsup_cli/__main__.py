"""`selfsup`, and `python -m selfsup_cli`."""

from __future__ import annotations

import gc
import sys

from selfsup_cli.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (default: those of the process); returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["__complete"]:
        from selfsup_cli.cli.complete import answer

        return answer(given[1:])
    if given == ["--version"] and _version_was_printed():
        return 0
    process_is_ours = arguments is None
    if process_is_ours:
        # Searching for cycles while importing, and among what is left at exit, takes a fifth of
        # the time of --help and finds nothing.
        gc.disable()
    try:
        from selfsup_cli.cli.app import run
    except KeyboardInterrupt:
        sys.stderr.write("selfsup: error: interrupted\n")
        return 130
    finally:
        gc.enable()
    status = run(given)
    if process_is_ours and "torch" not in sys.modules:
        gc.freeze()
    return status


def _version_was_printed() -> bool:
    """Print the version without importing the command line, which also knows how to fail."""
    try:
        sys.stdout.write(f"selfsup {__version__}\n")
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
