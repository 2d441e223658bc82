"""Files that come along: `presets`, `completions`. Nothing but `os.path`, for the shell's sake."""

# ruff: noqa: PTH112, PTH113, PTH118, PTH120 (importing pathlib takes as long as starting Python)

from __future__ import annotations

import os


def folder(name: str) -> str:
    """The folder `name` of the checkout that this package belongs to, else that of the wheel."""
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    checkout = os.path.dirname(package)
    if os.path.isfile(os.path.join(checkout, "pyproject.toml")):
        found = os.path.join(checkout, name)
        if os.path.isdir(found):
            return found
    return os.path.join(package, "_data", name)
