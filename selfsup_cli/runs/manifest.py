"""The list of a run's files with their sizes and SHA-256, written last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfsup_cli.runs import atomic
from selfsup_cli.runs.seal import opened, parsed, sealed

NAME = "manifest.json"
SCHEMA = "selfsup.manifest/1"
MUTABLE = ("run.lock", "status.json", "log.txt")
MUTABLE_FOLDERS = ("events", "debug")


def write(folder: Path) -> None:
    """List every file of `folder` in its manifest, those that may still change by name alone.

    Temporaries and links are not part of a run and are left out.
    """
    fixed: dict[str, dict[str, Any]] = {}
    mutable: list[str] = []
    for name, path in sorted(_files(folder)):
        if name in MUTABLE or name.split("/", 1)[0] in MUTABLE_FOLDERS:
            mutable.append(name)
        else:
            fixed[name] = {"bytes": path.stat().st_size, "sha256": atomic.file_sha256(path)}
    atomic.write_json(folder / NAME, sealed({"schema": SCHEMA, "files": fixed, "mutable": mutable}))


def problems(folder: Path) -> list[str]:
    """What in `folder` is not as its manifest says, one sentence each; empty if all is well."""
    try:
        record = opened(parsed((folder / NAME).read_bytes()))
        files = {
            str(name): (int(e["bytes"]), str(e["sha256"])) for name, e in record["files"].items()
        }
    except FileNotFoundError:
        return [f"{NAME} is missing"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{NAME} cannot be read ({error or type(error).__name__})"]
    found = []
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            found.append(f"{name} leads out of the folder")
        elif not path.is_file():
            found.append(f"{name} is missing")
        elif path.stat().st_size != size:
            found.append(f"{name} has {path.stat().st_size} bytes instead of {size}")
        elif atomic.file_sha256(path) != digest:
            found.append(f"{name} does not match its checksum")
    return found


def checksum(folder: Path, name: str) -> str | None:
    """The SHA-256 that the manifest of `folder` has for a file; None if it does not list it."""
    try:
        return str(opened(parsed((folder / NAME).read_bytes()))["files"][name]["sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            relative = path.relative_to(folder).as_posix()
            if relative != NAME and not name.startswith(".") and not path.is_symlink():
                yield relative, path
