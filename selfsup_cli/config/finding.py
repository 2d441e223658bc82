"""Where presets lie: the user's own files, `$SELFSUP_PRESET_PATH`, and those that come along."""

# ruff: noqa: PTH111, PTH113, PTH117 (os.path answers for any text, pathlib raises for some)

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.packaged import folder
from selfsup_cli.config.registry import nearest
from selfsup_cli.errors import InputError

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Found:
    """A preset file.

    `name` is what a user types for it, `shown` how messages call the file, `job` the job whose
    folder it lies in (None for a path of the user's own).
    """

    path: Path
    name: str
    shown: str
    job: str | None


@cache
def builtin_root() -> Path:
    """The folder of the presets that come with selfsup: of the checkout, else of the wheel."""
    return Path(folder("presets"))


def roots(env: Mapping[str, str]) -> list[Path]:
    """Folders in which names are looked up, in this order."""
    own = env.get("SELFSUP_PRESET_PATH", "").split(os.pathsep)
    return [*(Path(os.path.expanduser(one)) for one in own if one), builtin_root()]


def find(
    reference: str, env: Mapping[str, str], *, job: str | None = None, beside: Path | None = None
) -> Found:
    """The preset file that `reference` means.

    An existing path (relative to the folder `beside`, if given) comes first, then names in
    `$SELFSUP_PRESET_PATH` and the built-in ones. For a job the folder of the job, or of its verb,
    may be left out: `c3d`, `temporal/c3d` and `pretrain/temporal/c3d` are one. Raises InputError.
    """
    path = Path(os.path.expanduser(reference))
    if beside is not None:
        path = beside / path
    looks_like_path = (
        reference.endswith(SUFFIXES)
        or reference.startswith(("~", f".{os.sep}", f"..{os.sep}"))
        or os.path.isabs(reference)
    )
    if looks_like_path or os.path.isfile(path):
        return Found(path, reference, os.path.normpath(path) if beside else reference, None)
    # A preset of another job is found too, and then refused in words that say so.
    if found := look_up(reference, env, job=job) or look_up(reference, env):
        return found
    known = sorted({found.name for found in everything(env) if job in (None, found.job)})
    raise InputError(
        f"unknown preset '{reference[:80]}'{nearest(reference[:80], known)}; "
        "`selfsup presets list` shows them all, a file is given by its path",
        kind="unknown-preset",
    )


def look_up(name: str, env: Mapping[str, str], *, job: str | None = None) -> Found | None:
    """The preset called `name` in the first folder that has it."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or "\0" in name:
        return None
    prefixes = (f"{job}/", f"{job.split('/')[0]}/", "") if job else ("", "pretrain/")
    for root in roots(env):
        for prefix in prefixes:
            candidate = root / f"{prefix}{name}.yaml"
            if os.path.isfile(candidate):
                return _in(root, candidate)
    return None


def everything(env: Mapping[str, str]) -> Iterator[Found]:
    """All presets that can be named, sorted within each folder; shadowed ones are left out."""
    seen: set[str] = set()
    for root in roots(env):
        for job in JOBS:
            for path in sorted((root / job).rglob("*.yaml")):
                found = _in(root, path)
                if found.name not in seen and os.path.isfile(path):
                    seen.add(found.name)
                    yield found


def _in(root: Path, path: Path) -> Found:
    relative = path.relative_to(root).with_suffix("").as_posix()
    job = next((job for job in JOBS if relative.startswith(f"{job}/")), None)
    shown = f"presets/{relative}.yaml" if root == builtin_root() else str(path)
    return Found(path, relative.removeprefix("pretrain/"), shown, job)
