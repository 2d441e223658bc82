"""Groups of commands whose code is imported when one of them is named, and not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from selfsup_cli.config.registry import unknown

# How every Typer object of this package is made: plain help, our own errors, no completion code
# that would write into the user's shell files.
HOUSE: dict[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "add_completion": False,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
}

# A command only parses. It returns what is to be done, so that everything that can fail while
# doing it is handled in one place, outside of the parser.
Action = Callable[[], None]


@dataclass(frozen=True)
class Entry:
    """A command of a group: one line about it, and how to get at it."""

    about: str
    load: Callable[[], Any]


class NamedGroup(TyperGroup):
    """A group that answers a wrong or missing name with the names it has.

    `what` is the word for its commands in messages, `metavar` that in the line of usage.
    """

    what: ClassVar[str] = "command"
    metavar: ClassVar[str] = "COMMAND"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "subcommand_metavar": f"{self.metavar} …"})

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, in the order in which they are declared."""
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Name, command and remaining arguments; InputError with the nearest name otherwise."""
        command = self.get_command(ctx, args[0])
        if command is None:
            raise unknown(self.what, args[0], self.list_commands(ctx))
        return args[0], command, args[1:]

    def invoke(self, ctx: Any) -> Any:
        """Call the command; a group that needs one says which there are."""
        if not ctx._protected_args and not self.invoke_without_command:
            ctx.fail(f"missing {self.what}; known are: {', '.join(self.list_commands(ctx))}")
        return super().invoke(ctx)


class LazyGroup(NamedGroup):
    """A group that knows its commands by name and loads the one that is called.

    `default` is inserted where no command is named. `hint_for_options` is the hint of the error
    for an option given before the command.
    """

    default: ClassVar[str | None] = None
    hint_for_options: ClassVar[str | None] = None
    entries: ClassVar[Mapping[str, Entry]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, in the order in which they are declared."""
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, or None."""
        entry = self.entries.get(cmd_name)
        return None if entry is None else entry.load()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the group's own options, naming the default command where none is named."""
        named = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        if self.default is not None and not named:
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands without loading any."""
        with formatter.section(f"{self.what.capitalize()}s"):
            formatter.write_dl([(name, entry.about) for name, entry in self.entries.items()])


def group(cls: type[TyperGroup], name: str, about: str) -> Any:
    """The group `name` of class `cls`, without options of its own."""
    app = typer.Typer(name=name, cls=cls, help=about, **HOUSE)
    app.callback()(lambda: None)
    return typer.main.get_command(app)


def command(function: Callable[..., Action], name: str, about: str) -> Any:
    """The command `name`, which parses into what `function` returns."""
    app = typer.Typer(**HOUSE)
    app.command(name=name, help=about, context_settings=HOUSE["context_settings"])(function)
    return typer.main.get_command(app)
