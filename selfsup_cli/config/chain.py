"""A preset file and the files that it extends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfsup_cli.config.document import Document, KeyPath, UnreadableError, read
from selfsup_cli.config.finding import Found, find
from selfsup_cli.config.jobs import JOBS, discriminator, job_in
from selfsup_cli.config.layers import Origin
from selfsup_cli.config.problems import PresetError, Problem, dotted, shown
from selfsup_cli.errors import InputError

MAX_EXTENDS = 4


@dataclass(frozen=True)
class PresetFile:
    """A file of the chain. `content` is the mapping it holds, without `extends`."""

    found: Found
    content: dict[str, Any]
    lines: dict[KeyPath, int]
    problems: tuple[Problem, ...]
    extended: bool

    def origin(self, path: KeyPath) -> Origin:
        """Where the value at `path` stands in this file."""
        length = len(path)
        while length and path[:length] not in self.lines:
            length -= 1
        line = self.lines.get(path[:length], 1)
        return Origin(self.found.shown, line, base=self.found.name if self.extended else None)


def load_chain(found: Found, job: str, env: Mapping[str, str]) -> list[PresetFile]:
    """The preset file `found`, then the file it extends, and so on (at most four).

    Raises PresetError where a file cannot be read, is for another job, or extends what it cannot.
    Smaller mistakes are in the files' `problems`.
    """
    files: list[PresetFile] = []
    seen: set[str] = set()
    while True:
        document = open_preset(found)
        seen.add(os.path.realpath(found.path))
        other = job_in(document.data)
        if other not in (None, job):
            key, value = discriminator(str(other))
            line = document.lines.get((key,), 1)
            said = f"'{value}' is a preset of `{_command(str(other))}`, not of `{_command(job)}`"
            raise PresetError([Problem(found.shown, line, key, said)])
        content = dict(document.data)
        base = content.pop("extends", None)
        problems = [
            *(
                Problem(found.shown, line, dotted(path), said)
                for line, path, said in document.problems
            ),
            *_missing(found, content, job),
        ]
        files.append(
            PresetFile(found, content, document.lines, tuple(problems), extended=bool(files))
        )
        if base is None:
            return files
        line = document.lines[("extends",)]
        found = _base(base, files, line, job, env)
        if os.path.realpath(found.path) in seen:
            raise _fatal(files, line, f"'{base}' leads back to a preset that extends it")


def open_preset(found: Found) -> Document:
    """Read a preset file; what it holds is a mapping. Raises PresetError."""
    try:
        document = read(found.path)
    except UnreadableError as error:
        raise PresetError([Problem(found.shown, error.line, "", str(error))]) from None
    if not isinstance(document.data, dict):
        if document.data is None and not document.problems:
            said = "is empty"
        else:
            said = "holds no `key: value` lines, so it is no preset"
        problems = [
            Problem(found.shown, line, dotted(path), text) for line, path, text in document.problems
        ]
        raise PresetError(problems or [Problem(found.shown, 1, "", said)])
    return document


def job_of_file(found: Found) -> str:
    """The job that a preset file says it is for. Raises PresetError if it says none."""
    document = open_preset(found)
    job = job_in(document.data)
    if job is None:
        ways = " or ".join(f"`{key}: {value}`" for key, value in map(discriminator, JOBS))
        said = f"does not say which job it is for: {ways}"
        raise PresetError([Problem(found.shown, document.lines.get((), 1), "", said)])
    return job


def _missing(found: Found, content: Mapping[str, Any], job: str) -> list[Problem]:
    needed = [("version", "1"), discriminator(job)]
    return [
        Problem(found.shown, 1, key, f"is missing; write `{key}: {value}`")
        for key, value in needed
        if key not in content
    ]


def _base(base: Any, files: list[PresetFile], line: int, job: str, env: Mapping[str, str]) -> Found:
    if not isinstance(base, str):
        raise _fatal(files, line, f"must be the name or path of one preset; got {shown(base)}")
    if len(files) > MAX_EXTENDS:
        raise _fatal(files, line, f"more than {MAX_EXTENDS} presets extend each other")
    try:
        return find(base, env, job=job, beside=files[-1].found.path.parent)
    except InputError as error:
        raise _fatal(files, line, str(error)) from None


def _fatal(files: list[PresetFile], line: int, message: str) -> PresetError:
    problems = [problem for file in files for problem in file.problems]
    return PresetError([*problems, Problem(files[-1].found.shown, line, "extends", message)])


def _command(job: str) -> str:
    command = job.replace("/", " ").removesuffix("-images").replace(" image-", " ")
    return f"selfsup {command}"
