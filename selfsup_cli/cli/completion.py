"""`selfsup completion SHELL`: the completions as a file that the shell can read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selfsup_cli.cli import console
from selfsup_cli.cli.groups import Action, command
from selfsup_cli.config.packaged import folder
from selfsup_cli.config.registry import unknown

# The file of each shell, and where it goes to be found at every start.
FILES = {"bash": "selfsup.bash", "zsh": "_selfsup", "fish": "selfsup.fish"}
ABOUT = """Print the completions for a shell. Nothing is installed.

\b
  bash   source <(selfsup completion bash)        in ~/.bashrc
  zsh    selfsup completion zsh > DIR/_selfsup    DIR being a folder of $fpath
  fish   selfsup completion fish > ~/.config/fish/completions/selfsup.fish
"""


def load() -> Any:
    """The command."""
    return command(_parse, "completion", ABOUT)


def _parse(
    shell: Annotated[str, typer.Argument(metavar="|".join(FILES), help="The shell.")],
) -> Action:
    if shell not in FILES:
        raise unknown("shell", shell, list(FILES))
    return lambda: console.emit(text(shell).rstrip("\n"))


def text(shell: str) -> str:
    """The completions for a shell, a key of `FILES`."""
    return (Path(folder("completions")) / FILES[shell]).read_text(encoding="utf-8")
