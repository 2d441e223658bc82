"""Write the completions: `python -m selfsup_cli.cli.completions_generate [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from selfsup_cli.cli import shells
from selfsup_cli.cli.app import app
from selfsup_cli.cli.completion import FILES
from selfsup_cli.cli.tree import nodes
from selfsup_cli.config.packaged import folder


def generated() -> dict[str, str]:
    """The text of each completion file, by its name."""
    found = nodes(typer.main.get_command(app))
    write = {"bash": shells.bash, "zsh": shells.zsh, "fish": shells.fish}
    return {name: write[shell](found) for shell, name in FILES.items()}


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else folder("completions"))
    target.mkdir(parents=True, exist_ok=True)
    for name, text in generated().items():
        (target / name).write_text(text, encoding="utf-8")
