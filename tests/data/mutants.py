"""Damage of every sort, and a process of its own in which damaged files are read.

A process, because a damaged file may bring down the libraries that read it: whether it crashed or
hangs is known only from outside. It is forked from one that has imported everything.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import logging
import multiprocessing
import os
import random
import resource
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfsup_cli.__main__ import main
from selfsup_cli.errors import BadMediaError, InputError

MUTANTS = 50
MOST_MEMORY = 12 << 30

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    ["selfsup_cli.jobs.data", "selfsup_cli.jobs.verify", "selfsup_cli.evaluation.cache",
     "selfsup_cli.models", "selfsup_cli.cli.report", "selfsup_cli.cli.app"]
)  # fmt: skip

# What means something to the readers of text: the end of it, numbers out of range, deep nesting.
WORDS = (
    b'"', b"'", b",", b",,", b":", b"\n", b"\r", b"\t", b"{", b"}", b"[", b"]", b"\\", b"\\u0000",
    b"\\ud800", b"\x00", b"\x1b[31m", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"\xe2\x80\xa8", b"-",
    b"-1", b"0", b"1e999", b"NaN", b"Infinity", b"null", b"true", b"/", b"../", b"/etc/passwd",
    b"9" * 400, b"9" * 5000, b"[" * 100_000, b'{"a":' * 20_000, b"a" * 5000, b" ", b"%", b"&a",
    b"*a", "é٣²".encode(),
)  # fmt: skip


def mutated(data: bytes, draw: random.Random) -> bytes:
    """`data` after one to three accidents; never what it was."""
    found = data
    while found == data:
        found = data
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            found = draw.choice(ACCIDENTS)(found, draw)
    return found


def _place(data: bytes, draw: random.Random) -> int:
    """A place in `data`, every other time near its beginning or end, where headers are."""
    near = min(len(data), 256)
    match draw.randrange(4):
        case 0:
            return draw.randint(0, near)
        case 1:
            return len(data) - draw.randint(0, near)
    return draw.randint(0, len(data))


def _span(data: bytes, draw: random.Random) -> tuple[int, int]:
    start = _place(data, draw)
    return start, min(len(data), start + draw.choice((1, 4, 16, 64, 512, 4096)))


def _flip(data: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 8, 64)) if out else 0):
        out[min(_place(data, draw), len(out) - 1)] ^= 1 << draw.randrange(8)
    return bytes(out)


def _truncate(data: bytes, draw: random.Random) -> bytes:
    return data[: _place(data, draw)]


def _behead(data: bytes, draw: random.Random) -> bytes:
    return data[_place(data, draw) :]


def _insert(data: bytes, draw: random.Random) -> bytes:
    at = _place(data, draw)
    return data[:at] + draw.randbytes(draw.choice((1, 2, 16, 300))) + data[at:]


def _insert_word(data: bytes, draw: random.Random) -> bytes:
    at = _place(data, draw)
    return data[:at] + draw.choice(WORDS) + data[at:]


def _replace_token(data: bytes, draw: random.Random) -> bytes:
    """One word of a text, or what looks like one, becomes another."""
    at = _place(data, draw)
    end = at
    while end < len(data) and end < at + 40 and data[end : end + 1].isalnum():
        end += 1
    return data[:at] + draw.choice(WORDS) + data[end:]


def _delete(data: bytes, draw: random.Random) -> bytes:
    start, stop = _span(data, draw)
    return data[:start] + data[stop:]


def _repeat(data: bytes, draw: random.Random) -> bytes:
    start, stop = _span(data, draw)
    return data[:stop] + data[start:stop] + data[stop:]


def _swap(data: bytes, draw: random.Random) -> bytes:
    a, b, c = sorted(_place(data, draw) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _fill(data: bytes, draw: random.Random) -> bytes:
    start, stop = _span(data, draw)
    return data[:start] + draw.choice((b"\0", b"\xff", b"\x7f")) * (stop - start) + data[stop:]


ACCIDENTS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _flip, _truncate, _behead, _insert, _insert_word, _replace_token, _delete, _repeat,
    _swap, _fill,
)  # fmt: skip


def said(*command: str) -> tuple[int, str]:
    """Exit status and stdout of a command; 2 is an `InputError`, anything but 0 a failure."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(command))
    lines = err.getvalue().splitlines()
    assert status in (0, 2), (command, status, err.getvalue())
    assert "Traceback" not in err.getvalue()
    assert len(lines) <= 20, lines
    if status == 2:
        assert any(line.startswith("selfsup: error: ") for line in lines), lines
    return status, out.getvalue()


@dataclass(frozen=True)
class Kind:
    """A kind of file that is read.

    `make(folder)` makes one, in an empty folder, and gives its path. `read(path)` reads it as the
    package does, and gives what was found, or raises `InputError` or `BadMediaError`. With `exact`
    the file has a checksum: what is found must then be the same as of the whole file.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    exact: bool = False


@dataclass
class Outcome:
    """How the mutants of a file ended, and what went wrong with which.

    `refused` are those that raised, `made again` those that were read as before after a warning,
    `read as before` those without one, and `read` those in which something else was found.
    """

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def read_mutants(
    name: str, kind: Kind, folder: Path, seed: int, count: int = MUTANTS, seconds: float = 20
) -> Outcome:
    """Make a file of that kind, and read `count` mutants of it in a process of its own.

    One that takes longer than `seconds` to be read ends it.
    """
    log = folder / "log.jsonl"
    (folder / "work").mkdir()
    task = (name, kind, folder / "work", log, seed, count, seconds)
    child = FORK.Process(target=_work, args=task)
    child.start()
    child.join()
    outcome = Outcome()
    begun: dict[str, Any] | None = None
    for line in log.read_text().splitlines() if log.exists() else ():
        row = json.loads(line)
        if "end" not in row:
            begun = row
            continue
        begun = None
        outcome.ends[row["end"]] += 1
        if "said" in row:
            outcome.wrong.append(f"{name}, mutant {row['mutant']}, seed {seed}: {row['said']}")
    if child.exitcode != 0:
        where = f"mutant {begun['mutant']}" if begun else "before or between mutants"
        said = (folder / "work.err").read_text(errors="replace")[-3000:]
        outcome.wrong.append(f"{name}, {where}, seed {seed}: exit {child.exitcode}\n{said}")
    return outcome


def _work(
    name: str, kind: Kind, folder: Path, log: Path, seed: int, count: int, seconds: float
) -> None:
    errors = Path(f"{folder}.err").open("w", buffering=1)  # noqa: SIM115 (until the process ends)
    rows = log.open("w", buffering=1)
    os.dup2(errors.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    sys.stdout = sys.stderr = errors
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    path = kind.make(folder)
    data = path.read_bytes()
    whole = kind.read(path)
    for number in range(count):
        path.write_bytes(mutated(data, random.Random(f"{seed} {name} {number}")))
        print(json.dumps({"mutant": number}), file=rows)
        faulthandler.dump_traceback_later(seconds, exit=True, file=errors)
        row = {"mutant": number, **_told(kind, path, whole)}
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(row), file=rows)
    path.write_bytes(data)
    if kind.read(path) != whole:
        print(json.dumps({"mutant": -1, "end": "wrong", "said": "damage stays"}), file=rows)


class _Warnings(logging.Handler):
    """How often somebody was warned."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.levelno >= logging.WARNING


def _told(kind: Kind, path: Path, whole: Any) -> dict[str, str]:
    logging.getLogger().handlers[:] = [warned := _Warnings()]
    try:
        found = kind.read(path)
    except (InputError, BadMediaError) as error:
        lines = str(error).splitlines()
        if not 1 <= len(lines) <= 20 or not all(lines):
            return {"end": "wrong", "said": f"{len(lines)} lines: {error}"}
        return {"end": "refused"}
    except BaseException:
        return {"end": "wrong", "said": traceback.format_exc()[-3000:]}
    if found == whole:
        return {"end": "made again" if warned.count else "read as before"}
    if kind.exact:
        return {"end": "wrong", "said": f"read something else: {str(found)[:500]}"}
    return {"end": "read"}
