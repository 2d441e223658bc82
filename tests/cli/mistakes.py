"""Generates mistakes: in presets, in `--set`, in options, and in the words of a command line.

Every mistake is one by another judge than the code that is tested: the JSON Schema for values, the
tree of commands for words. What the judge lets pass is not run.
"""

from __future__ import annotations

import copy
import datetime
import json
import random
import string
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import typer
from ruamel.yaml import YAML

from selfsup_cli.cli.app import app
from selfsup_cli.cli.tree import Flag, Node, nodes
from selfsup_cli.config.document import write
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.options import Option, options_of
from selfsup_cli.config.presets import list_presets, resolve
from selfsup_cli.config.registry import PAIRS
from selfsup_cli.config.schema import schema

VALIDATOR = jsonschema.Draft7Validator(schema())
NODES = nodes(typer.main.get_command(app))
Plain = dict[str, Any]

# Values that are wrong for most fields, as one types them; what YAML makes of them is the judge's.
VALUES = (
    "", "x", "-1", "0", "-0.5", "1.5", "1e9", "1e400", ".nan", ".inf", "-.inf", "true", "no",
    "null", "~", "[]", "[1, [2]]", "[1, x]", "{}", "{a: 1}", "'1'", '"0.1"', "0x10", "1:30", "٣",
    "9" * 60, "9" * 400, "a" * 300, "nan", "é\u202e", "\x1b[31mred", "a\nb", "1,", ",,", "[", "{",
    "&a", "*a", "!!int 3", "- 1", "a: b: c", "\udcff", "None", "False", "1e-3x", "--lr", "../..",
)  # fmt: skip


@dataclass
class Mistake:
    """A command line that is wrong, by which rule of making it."""

    rule: str
    arguments: list[str]
    env: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.rule}: {self.arguments} {self.env or ''}"


class Generator:
    """Mistakes of all sorts, drawn from `seed`; presets go into `folder`.

    `let_pass` counts what the judge took for right, by rule.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.draw = random.Random(seed)
        self.let_pass: Counter[str] = Counter()
        self.presets = [one for one in list_presets({}) if one.problem is None]
        self.whole = {
            one.path: resolve(one.job, preset=str(one.path), env={}).preset.model_dump(mode="json")
            for one in self.presets
        }
        self.files = 0

    def early(self, each: int) -> Iterator[Mistake]:
        """About `each` mistakes of every rule, all found before anything is imported."""
        rules: dict[str, Callable[[], Mistake | None]] = {
            "structure of a preset": self.structure,
            "letters of a preset": self.letters,
            "--set": self.setting,
            "option": self.option,
            "environment": self.variable,
            "command": self.command,
            "flag": self.flag,
            "value of a flag": self.choice,
            "argument": self.argument,
        }
        yield from self._of(rules, each)

    def late(self, count: int) -> Iterator[Mistake]:
        """About `count` that are found only by the job."""
        yield from self._of({"what is missing": self.missing}, count)

    def _of(self, rules: dict[str, Callable[[], Mistake | None]], each: int) -> Iterator[Mistake]:
        for rule, make in rules.items():
            for _ in range(each):
                mistake = make()
                if mistake is None:
                    self.let_pass[rule] += 1
                else:
                    mistake.rule = rule
                    yield mistake

    # -- presets

    def structure(self) -> Mistake | None:
        """A preset with wrong keys, values, blocks."""
        one = self.draw.choice(self.presets)
        data = copy.deepcopy(self.whole[one.path])
        for _ in range(self.draw.choice((1, 1, 2, 30))):
            self._change(data)
        if not wrong(data):
            return None
        text = write(data) if self.draw.random() < 0.8 else json.dumps(data)
        return self._of_file(one.job, text)

    def _change(self, data: Plain) -> None:
        path = self.draw.choice(list(_paths(data)) or [()])
        if not path:
            return
        block: Any = data
        for key in path[:-1]:
            block = block[key]
        key = path[-1]
        match self.draw.randrange(6):
            case 0:
                block[self.typo(key)] = block.pop(key)
            case 1:
                del block[key]
            case 2:
                block[self.typo(key)] = copy.deepcopy(block[key])
            case 3:
                data[key] = copy.deepcopy(block[key])
            case 4:
                old = block[key]
                block[key] = [old] if self.draw.random() < 0.5 else {key: old}
            case _:
                block[key] = self.draw.choice(
                    (None, True, -1, 0, 1.5, 1e12, "", "zzz", [], {}, ["a", 3], [[1]], "9" * 99)
                )

    def letters(self) -> Mistake | None:
        """The text of a preset with letters gone, added or exchanged."""
        one = self.draw.choice(self.presets)
        text = one.path.read_text(encoding="utf-8")
        for _ in range(self.draw.choice((1, 1, 2, 5))):
            at = self.draw.randrange(len(text))
            until = min(len(text), at + self.draw.choice((0, 1, 1, 3, 40)))
            more = "".join(self.draw.choices("[]{}:,-&*!|>'\"#%@` \n\t1aé\x07", k=2))
            text = text[:at] + self.draw.choice(("", more, more[0])) + text[until:]
        try:
            data = _dates_as_text(YAML(typ="safe", pure=True).load(text))
        except Exception:
            data = None
        if data is not None and not wrong(data):
            return None
        return self._of_file(one.job, text)

    def _of_file(self, job: str, text: str) -> Mistake:
        self.files += 1
        file = self.folder / f"{self.files}.yaml"
        file.write_text(text, encoding="utf-8")
        commands: list[list[str]] = [
            ["presets", "validate", str(file)],
            ["presets", "show", str(file), "--origin"],
            job_command(job, file),
        ]
        return Mistake("", self.draw.choice(commands))

    # -- values

    def setting(self) -> Mistake | None:
        """`--set` of a field that there is not, or to what it cannot be."""
        one = self.draw.choice(self.presets)
        data = copy.deepcopy(self.whole[one.path])
        path = list(self.draw.choice(list(_paths(data))))
        if self.draw.random() < 0.3:
            at = self.draw.randrange(len(path))
            path[at] = self.typo(path[at])
        text = self.draw.choice(VALUES)
        name = ".".join(path)
        if not wrong(_with(data, path, text)):
            return None
        given = f"{name}{self.draw.choice(('=', '=', '=', '=', ' = ', '='))}{text}"
        if self.draw.random() < 0.1:
            forms = (name, f".{name}=1", f"{name}.=1", f"={text}", "", "=", "a..b=1")
            given = self.draw.choice(forms)
        if self.draw.random() < 0.7:
            return Mistake("", [*job_command(one.job, one.path), "--set", given])
        return Mistake("", ["presets", "show", str(one.path), "--set", given])

    def option(self) -> Mistake | None:
        """An option with what its field cannot be, or one that disagrees with `--set`."""
        one = self.draw.choice(self.presets)
        option = self.draw.choice([o for o in options_of(JOBS[one.job]) if not o.is_bool])
        flag = self.draw.choice(option.flags)
        command = job_command(one.job, one.path)
        if self.draw.random() < 0.15:
            low, high = self.draw.sample(range(1, 9), 2)
            return Mistake("", [*command, flag, str(low), "--set", f"{option.path}={high}"])
        text = self.draw.choice((*VALUES, *map(self.typo, option.choices)))
        data = copy.deepcopy(self.whole[one.path])
        if not wrong(_with_option(data, option, text)):
            return None
        joint = [f"{flag}={text}"] if text.startswith("-") else [flag, text]
        return Mistake("", [*command, *joint])

    def variable(self) -> Mistake | None:
        """A variable that sets a field to what it cannot be."""
        one = self.draw.choice(self.presets)
        text = self.draw.choice([text for text in VALUES if "\0" not in text])
        name, path = self.draw.choice(
            (("SELFSUP_WORKERS", ["machine", "workers"]), ("SELFSUP_DEVICE", ["machine", "device"]))
        )
        data = copy.deepcopy(self.whole[one.path])
        if not text.strip() or "machine" not in data:
            return None
        option = next(o for o in options_of(JOBS[one.job]) if o.path == ".".join(path))
        if not wrong(_with_option(data, option, text.strip())):
            return None
        command = job_command(one.job, one.path)
        return Mistake("", command, {name: text})

    # -- words

    def command(self) -> Mistake | None:
        """A command that there is not."""
        # What is no command of `predict` is data to be labelled.
        groups = [node for node in NODES if node.commands and tuple(node.path) != ("predict",)]
        node = self.draw.choice(groups)
        names = [name for name, _ in node.commands]
        word = self.draw.choice((self.typo(self.draw.choice(names)), *self.junk()))
        if word in names or word.startswith("-"):
            return None
        return Mistake("", [*node.path, word, *self.draw.choice(([], ["--dry-run"], ["x"]))])

    def flag(self) -> Mistake | None:
        """An option that there is not, one without its value, one with a value too many."""
        node = self.draw.choice(NODES)
        flag = self.draw.choice(node.flags)
        spelling = self.draw.choice(flag.spellings)
        match self.draw.randrange(3):
            case 0:
                word = self.typo(spelling.lstrip("-"))
                known = {name for one in node.flags for name in one.spellings}
                if f"--{word}" in known or word.startswith("-"):
                    return None
                value = [] if flag.value is None else ["1"]
                return Mistake("", [*node.path, f"--{word}", *value])
            case 1:
                return None if flag.value is None else Mistake("", [*node.path, spelling])
        if flag.value is not None or not spelling.startswith("--"):
            return None
        return Mistake("", [*node.path, f"{spelling}={self.draw.choice(('1', 'yes', ''))}"])

    def choice(self) -> Mistake | None:
        """A word that an option does not know."""
        found = [
            (node, flag)
            for node in NODES
            for flag in node.flags
            if flag.value is not None
            and flag.value.words
            and not (flag.value.files or flag.value.names)
        ]
        node, flag = self.draw.choice(found)
        return self._chosen(node, flag)

    def _chosen(self, node: Node, flag: Flag) -> Mistake | None:
        assert flag.value is not None
        word = self.typo(self.draw.choice(flag.value.words))
        if word in flag.value.words or not word.strip(", "):
            return None
        needed = {"report": ["some"], "data check": ["motion"], "data pack": ["motion", "x.h5"]}
        first = needed.get(" ".join(node.path), [])
        return Mistake("", [*node.path, *first, f"{flag.spellings[0]}={word}"])

    def argument(self) -> Mistake | None:
        """An argument too many, or one that names nothing."""
        node = self.draw.choice([node for node in NODES if not node.commands])
        names = [self.typo("temporal/c3d"), *self.junk()]
        name = self.draw.choice([name for name in names if not name.startswith("-")])
        if not node.positions:
            return Mistake("", [*node.path, name])
        if node.path[0] not in ("runs", "report", "presets", "completion"):
            return None  # what it names is looked for by the job
        return Mistake("", [*node.path, name, *self.draw.choice(([], [name]))])

    def missing(self) -> Mistake | None:
        """A run, weights, data or a list that are not there, or not what they should be.

        Jobs look for these themselves, and torch has been imported by then.
        """
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        text = self.folder / "text.h5"
        text.write_text("no video")
        names = [*self.junk(), str(empty), str(text), "nothing", "temporal/c3d", "z" * 300]
        here = ("", " ", ".", "..", "z" * 3000, str(self.folder))
        name = self.draw.choice([name for name in names if name not in here])
        one = self.draw.choice(self.presets)
        command = job_command(one.job, one.path)
        known = {spelling for node in NODES if node.path == command_of(one.job)
                 for flag in node.flags for spelling in flag.spellings}  # fmt: skip
        flags = [flag for flag in ("--data", "--from", "--init", "--run") if flag in known]
        if not flags or self.draw.random() < 0.4:
            others = [
                ["data", "check", name],
                ["data", "pack", name, str(self.folder / "out.h5")],
                ["data", "pack", "motion", name],
                ["data", "check", str(empty), "--test-share", self.draw.choice(("0", "1", "x"))],
                ["runs", "verify", name],
                ["report", name, "--format", "md"],
            ]
            return Mistake("", self.draw.choice(others))
        flag = self.draw.choice(flags)
        if flag == "--run" and name in ("x", "nothing"):
            return None
        data = [] if flag == "--data" else ["--data", "motion"]
        return Mistake("", [*command, *data, f"{flag}={name}"])

    def junk(self) -> list[str]:
        """Words that mean nothing anywhere."""
        return [
            *(
                "x",
                "é",
                "\x1b[2J",
                "a b",
                "a\nb",
                "/no/where",
                "~nobody",
                "z" * 3000,
                "\udcff",
                "%s",
            ),
            *("", " ", ".", "..", "a\0b", str(self.folder), f"{self.folder}/1.yaml/x", "🐍", "-"),
        ]

    def typo(self, word: str) -> str:
        """`word` with a letter too many, too few, or in the wrong place."""
        at = self.draw.randrange(len(word) + 1) if word else 0
        letter = self.draw.choice(string.ascii_lowercase + "-_9")
        other = self.draw.choice(
            (word[:at] + letter + word[at:], word[:at] + word[at + 1 :], word[at:] + word[:at])
        )
        return other or letter


def job_command(job: str, preset: Path) -> list[str]:
    """The command line of a job with that preset, which does nothing if it can be told to."""
    node = next(node for node in NODES if node.path == command_of(job))
    dry = any("--dry-run" in flag.spellings for flag in node.flags)
    return [*node.path, "--preset", str(preset), *(["--dry-run"] if dry else [])]


def command_of(job: str) -> tuple[str, ...]:
    """The words of the command that does a job; one command may do two."""
    both = {images: videos for videos, images in PAIRS.items()}
    name = both.get(job, job)
    words = tuple(name.split("/"))
    # `probe-tiles` is a command, and `probe-sync` one of the group `probe`.
    return words if any(node.path == words for node in NODES) else tuple(name.split("-"))


def wrong(data: Any) -> bool:
    """Whether the JSON Schema of presets refuses `data`."""
    return not VALIDATOR.is_valid(data)


def _paths(data: Plain, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in data.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from _paths(value, (*path, key))


def _with(data: Plain, path: list[str], text: str) -> Any:
    """`data` with the field at `path` set to what YAML 1.2 makes of `text`; None if nothing."""
    try:
        value = _dates_as_text(YAML(typ="safe", pure=True).load(text))
    except Exception:
        return None
    return None if isinstance(value, dict) else _put(data, path, value)


def _put(data: Plain, path: list[str], value: Any) -> Any:
    block: Any = data
    for key in path[:-1]:
        if not isinstance(block.get(key), dict):
            return None
        block = block[key]
    block[path[-1]] = value
    return data


def _with_option(data: Plain, option: Option, text: str) -> Any:
    """`data` with the field of `option` set to `text` as an option takes it."""
    if "\udcff" in text:
        return None
    value: Any = text
    read = option.type is not str or "number" in option.wanted
    if option.is_list:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        value = [_plain_scalar(part) for part in parts] if read else parts
    elif read:
        value = _plain_scalar(text.strip())
    return _put(data, option.path.split("."), value)


def _plain_scalar(text: str) -> Any:
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except Exception:
        return text
    return value if isinstance(value, bool | int | float) or value is None else text


def _dates_as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _dates_as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_dates_as_text(item) for item in value]
    return str(value) if isinstance(value, datetime.date) else value
