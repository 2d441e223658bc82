"""Commands that work: options from the preset's fields, one job, its outcome shown."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfsup_cli.cli import console, document, messages
from selfsup_cli.cli.groups import Action
from selfsup_cli.config import environment
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.options import Option, options_of
from selfsup_cli.version import __version__

if TYPE_CHECKING:
    from selfsup_cli.config.presets import Resolved

DEFAULTS_NOTE = (
    "Defaults are those of the fields; the preset may say otherwise ('selfsup presets show NAME "
    "--origin' tells). Every other field of the preset is set with --set."
)

KINDS_NOTE = (
    "It is about videos or images: as the preset says, else the dataset, else the network, else "
    "what lies where the data is. Options for one of them alone say so."
)

Parameters = Mapping[str, inspect.Parameter]


@dataclass(frozen=True)
class Call:
    """A parsed command line.

    `job` is the job that was meant, where a command has one for videos and one for images.
    `options` maps the dotted paths of preset fields to what was given for them, `more` holds what
    the job takes besides its preset.
    """

    job: str
    options: Mapping[str, Any]
    preset: str | None
    sets: Sequence[str]
    as_json: bool
    verbosity: int
    arguments: Sequence[str]
    more: Mapping[str, Any] = field(default_factory=dict)


def parameter(
    name: str, annotation: Any, default: Any, *flags: str, **told: Any
) -> inspect.Parameter:
    """An option of a command, as Typer reads it from a signature."""
    option = typer.Option(*flags, show_default=False, **told)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[annotation, option])


def parser(
    jobs: str | Sequence[str], start: Callable[[Call], None], more: Sequence[inspect.Parameter]
) -> Any:
    """The function whose parameters are the options of a job, those of all jobs, and `more`.

    It parses into a call of `start`. Of two `jobs`, on videos and on images, the options of both
    are taken, and which of them is meant is found out when it is started (see `jobs.kinds`).
    """
    names = (jobs,) if isinstance(jobs, str) else tuple(jobs)
    given = {_identifier(one.options[0]): one for one in shared(names)}
    mine = (*_FIRST, *more, *_LAST, *(_of_field(one) for one in given.values()))

    def parse(context: typer.Context, **values: Any) -> Action:
        def begin() -> None:
            job = names[0]
            taken = {name: _as_given(values[name]) for name in given}
            if len(names) > 1:
                job = _meant(names, given, taken, values)
            start(
                Call(
                    job=job,
                    options={
                        option.path: taken[name]
                        for name, one in given.items()
                        if (option := one.of(job)) is not None
                    },
                    preset=values["preset"],
                    sets=values["sets"] or [],
                    as_json=values["as_json"],
                    verbosity=-1 if values["quiet"] else int(values["verbose"]),
                    arguments=context.obj["arguments"],
                    more={parameter.name: values[parameter.name] for parameter in more},
                )
            )

        return begin

    context = inspect.Parameter(
        "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
    )
    parse.__signature__ = inspect.Signature([context, *mine])  # type: ignore[attr-defined]
    parse.__annotations__ = {}
    return parse


@dataclass(frozen=True)
class Shared:
    """An option of one job, or of two whose options have a spelling in common.

    `jobs` are the names of the jobs, in the order of `options`; `alone` says that the command has a
    job that lacks it.
    """

    jobs: tuple[str, ...]
    options: tuple[Option, ...]
    alone: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """All spellings, the negative one of a boolean last."""
        spelled = dict.fromkeys(flag for option in self.options for flag in option.flags)
        return tuple(sorted(spelled, key=lambda flag: flag.startswith("--no-")))

    def of(self, job: str) -> Option | None:
        """The option as `job` has it."""
        return dict(zip(self.jobs, self.options, strict=True)).get(job)


def shared(jobs: Sequence[str]) -> list[Shared]:
    """The options of `jobs`, those with a common spelling together."""
    found = [Shared((jobs[0],), (option,)) for option in options_of(JOBS[jobs[0]])]
    for job in jobs[1:]:
        for option in options_of(JOBS[job]):
            place = next(
                (k for k, one in enumerate(found) if set(one.flags) & set(option.flags)), None
            )
            if place is None:
                found.append(Shared((job,), (option,)))
            else:
                one = found[place]
                found[place] = Shared((*one.jobs, job), (*one.options, option))
    return [replace(one, alone=len(one.jobs) < len(jobs)) for one in found]


def _meant(
    names: Sequence[str],
    given: Mapping[str, Shared],
    taken: Mapping[str, Any],
    values: Mapping[str, Any],
) -> str:
    """The job that a command line of two is for. Raises InputError for an option of the other."""
    from selfsup_cli.jobs import kinds

    options = {one.options[0].path: taken[name] for name, one in given.items()}
    found = kinds.meant(
        names[0], preset=values["preset"], options=options, sets=values["sets"] or []
    )
    strange = [
        one.flags[-1] if one.options[0].is_bool and taken[name] is False else one.flags[0]
        for name, one in given.items()
        if taken[name] is not None and one.of(found.job) is None
    ]
    kinds.check_options(found, names[0], strange)
    return found.job


def resolved(call: Call) -> Resolved:
    """The call's preset, found, overridden and checked; says on stderr what is about to happen."""
    from selfsup_cli.config.presets import resolve

    listen(call.verbosity)
    found = resolve(call.job, preset=call.preset, options=call.options, sets=call.sets)
    announce(found, call.verbosity)
    return found


def listen(verbosity: int) -> None:
    """Show messages on stderr, beginning with what is odd about the environment."""
    messages.listen(verbosity)
    for warning in environment.warnings(os.environ):
        console.warn(warning)


def announce(found: Resolved, verbosity: int) -> None:
    """Say in one line what is about to happen, before torch is imported (which takes seconds)."""
    if verbosity < 0 or _is_silent():
        return
    facts = [found.job.rpartition("/")[2], f"preset {found.name}"]
    for path in ("network.arch", "subject.run", "start.init", "data.source"):
        if path == "network.arch" and getattr(found.preset, "start", None):
            continue  # it counts for random weights only
        value: Any = found.preset
        for part in path.split("."):
            value = getattr(value, part, None)
        if value is not None:
            facts.append(f"from {value}" if path.endswith((".run", ".init")) else str(value))
    console.say(console.plain(f"selfsup {__version__} · {' · '.join(facts)}"))
    if verbosity > 0:
        for path, origin in found.origin.items():
            if origin != "default":
                console.say(console.plain(f"  {path}: {origin}"))


def do(name: str, call: Call) -> None:
    """The job `name`, from its preset to its result on stdout."""
    found = resolved(call)
    if call.more["run"] is not None:
        from selfsup_cli.runs.folder import checked_name

        checked_name(call.more["run"])
    outcome = perform(
        name,
        name,
        found,
        command=["selfsup", *call.arguments],
        quiet=call.verbosity < 0,
        **call.more,
    )
    show(outcome, call, found.preset if call.more["dry_run"] else None)


def look(module: str, function: str, call: Call) -> None:
    """A job that draws: into a run of its own (`--run`), or into a file alone (`--out`)."""
    found = resolved(call)
    run, out = call.more["run"], call.more["out"]
    if run is not None:
        from selfsup_cli.runs.folder import checked_name

        checked_name(run)
    outcome = perform(
        module,
        function,
        found,
        run=run,
        out=None if out is None else Path(out),
        command=["selfsup", *call.arguments],
        quiet=call.verbosity < 0,
    )
    show(outcome, call)


def module_of(job: str) -> str:
    """The module of a job, and the function in it: `probe_images` for `probe-images`."""
    return job.partition("/")[0].replace("-", "_")


def perform(module: str, function: str, found: Resolved, **settings: Any) -> Any:
    """Import and call a job; gives its Outcome.

    What anything in it prints goes to stderr: stdout is for the result.
    """
    with contextlib.redirect_stdout(sys.stderr):
        job = getattr(import_module(f"selfsup_cli.jobs.{module}"), function)
        return job(found, **settings)


def show(outcome: Any, call: Call, preset: Any = None) -> None:
    """The result of a job on stdout: its report and text, and its run directory last.

    `preset` is given for a rehearsal, and shown first. Of several processes that a launcher
    started, the first alone speaks.
    """
    if _is_silent():
        return
    if call.as_json:
        data = dict(outcome.data)
        if preset is not None:
            data["preset"] = preset
        document.success(data, run=outcome.run_dir, report=outcome.report)
        return
    parts = []
    if preset is not None:
        from selfsup_cli.config.presets import dump

        parts.append(dump(preset).rstrip() + "\n")
    if outcome.report is not None:
        from selfsup_cli.cli import report

        shown = report.show(outcome.report, folder=outcome.run_dir, verbose=call.verbosity > 0)
        parts.append(shown)
    if outcome.text:
        parts.append(console.plain(outcome.text, lines=True).rstrip("\n"))
    if outcome.run_dir is not None:
        parts.append(console.plain(outcome.run_dir))
    if parts:
        console.emit("\n".join(parts))


def _is_silent() -> bool:
    """Of several processes that a launcher started, the first alone speaks."""
    return int(os.environ.get("RANK") or 0) > 0


_FIRST = (
    parameter(
        "preset",
        str | None,
        None,
        "--preset",
        metavar="NAME|FILE",
        help="Preset to start from (see 'selfsup presets list'). [default: the most specific that "
        "fits]",
    ),
    parameter(
        "sets",
        list[str] | None,
        None,
        "--set",
        metavar="FIELD=VALUE",
        help="Set any field of the preset, by its dotted path; may be repeated.",
    ),
)
RUN = parameter(
    "run",
    str | None,
    None,
    "--run",
    metavar="NAME",
    help="Name of the run; the same command again goes on with it. [default: a new name]",
)
DRY_RUN = parameter(
    "dry_run",
    bool,
    False,
    "--dry-run",
    help="Check everything, say what would be done, and do nothing.",
)
_LAST = (
    parameter("as_json", bool, False, "--json", help="Print the result as one JSON document."),
    parameter("quiet", bool, False, "--quiet", "-q", help="Only results, warnings and errors."),
    parameter("verbose", bool, False, "--verbose", "-v", help="Say also what was decided and why."),
)


def _of_field(one: Shared) -> inspect.Parameter:
    """The command-line option of a preset field. Its text is read where presets are read."""
    option, spelled = one.options[0], one.flags
    help_ = _help(one)
    if option.is_bool:
        positive, negative = spelled[:-1], spelled[-1]
        flags = ("/".join((positive[0], negative)), *positive[1:])
        return parameter(_identifier(option), bool | None, None, *flags, help=help_)
    kind = list[str] | None if option.is_list else str | None
    return parameter(_identifier(option), kind, None, *spelled, help=help_, metavar=_metavar(one))


def _help(one: Shared) -> str:
    """What it is for and its default: of two jobs once for each, where these differ."""
    told = []
    for option in one.options:
        unit = f" {option.unit}" if option.unit else ""
        told.append(f"{option.help} [default: {option.default_text or 'none'}{unit}]")
    if one.alone:
        return f"For {_about(one.jobs[0])}: {told[0]}"
    if len(set(told)) == 1:
        return told[0]
    pairs = zip(one.jobs, told, strict=True)
    return " ".join(f"For {_about(job)}: {text}" for job, text in pairs)


def _about(job: str) -> str:
    return "images" if "image" in job else "videos"


def _metavar(one: Shared) -> str:
    option = one.options[0]
    if choices := tuple(dict.fromkeys(choice for each in one.options for choice in each.choices)):
        word = "|".join(choices)
    else:
        word = {int: "N", float: "X"}.get(option.type) or option.flags[0].removeprefix("--").upper()
    return f"{word},…" if option.is_list else word


def _identifier(option: Option) -> str:
    return option.path.replace(".", "__")


def _as_given(value: Any) -> Any:
    """What was given for an option; a list's repetitions as if its items stood between commas."""
    return (",".join(value) or None) if isinstance(value, list) else value
