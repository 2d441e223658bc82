"""Whether a command is about videos or images, where one command does both.

Nothing here imports torch, except to look into files that could be either.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup_cli.config.chain import job_of_file
from selfsup_cli.config.finding import find
from selfsup_cli.config.given import from_sets
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.registry import DATASETS, PAIRS, find_arch
from selfsup_cli.errors import InputError
from selfsup_cli.runs.run import located, runs_dir, summarize

if TYPE_CHECKING:
    from selfsup_cli.config.registry import Kind

_VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_FILES = 2000
_TEXT = 1 << 16


@dataclass(frozen=True)
class Chosen:
    """The job that was meant, what it is about, and why."""

    job: str
    kind: Kind
    why: str


def jobs_of(job: str) -> tuple[str, ...]:
    """The jobs of one command, that on videos first: `("probe", "probe-images")`."""
    other = PAIRS.get(job)
    return (job, other) if other in JOBS else (job,)


def meant(
    job: str,
    *,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Chosen:
    """Which of the jobs of the command of `job` the options are for.

    The preset decides, else the dataset where it is a registered one, else the network that is
    looked at where it is named, else what lies where the data is; where nothing says it, it is
    videos. Mistakes are left to the job to tell.
    """
    if len(jobs_of(job)) == 1:
        return Chosen(job, "video", "there is no other")
    chosen = _by_preset(job, preset, os.environ if env is None else env)
    if chosen is not None:
        return chosen
    given = {path: str(value) for path, value in (options or {}).items() if value is not None}
    for value in from_sets(sets, []):
        given.setdefault(".".join(map(str, value.path)), str(value.value))
    data, network = given.get("data.source"), given.get("subject.run")
    if data in DATASETS:
        kind = DATASETS[str(data)].kind
        # Points and views are read by none of these jobs; who reads images says so.
        read: Kind = "video" if kind == "video" else "image"
        return _chosen(job, read, f"{data} has {kind}s")
    if network is not None and (arch := _arch(network)) is not None:
        found = find_arch(arch)
        if found is not None:
            return _chosen(job, found.kind, f"{network} holds {arch}, which takes {found.kind}s")
    if data is not None:
        kind = held(data)
        return _chosen(job, kind, f"{data} holds {kind}s")
    return _chosen(job, "video", "nothing says that it is about images (--data, --from, --preset)")


def check_options(chosen: Chosen, job: str, strange: Sequence[str]) -> None:
    """Raise InputError if there are `strange` options: those of the other job of the command."""
    if strange:
        other = "images" if chosen.kind == "video" else "videos"
        is_are = "is" if len(strange) == 1 else "are"
        raise InputError(
            f"{', '.join(strange)} {is_are} for {other}, and this is about {chosen.kind}s: "
            f"{chosen.why}",
            kind="usage",
            hint=f"'selfsup {job.replace('/', ' ')} --help' says which options are for which",
        )


def held(source: str) -> Kind:
    """What lies at a path: images, or else videos. Never raises."""
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            seen = _in_folder(path)
        elif path.suffix.lower() == ".csv":
            with path.open("rb") as file:
                seen = _named_in(file.read(_TEXT).decode("utf-8", "replace").lower())
        elif path.suffix.lower() in (*_VIDEOS, *_IMAGES):
            seen = "video" if path.suffix.lower() in _VIDEOS else "image"
        else:
            seen = None
    except (OSError, ValueError, RuntimeError):  # no such user's home is the last of these
        return "video"
    if seen is not None:
        return seen
    from selfsup_cli.data.check_images import is_images

    return "image" if is_images(source) else "video"


def _chosen(job: str, kind: Kind, why: str) -> Chosen:
    video, image = jobs_of(job)
    return Chosen(image if kind == "image" else video, kind, why)


def _by_preset(job: str, preset: str | None, env: Mapping[str, str]) -> Chosen | None:
    if preset is None:
        return None
    for kind, one in zip(("video", "image"), jobs_of(job), strict=True):
        try:
            if job_of_file(find(preset, env, job=one)) == one:
                return _chosen(job, kind, f"so says the preset {preset}")  # type: ignore[arg-type]
        except InputError:
            continue
    return None


def _arch(reference: str) -> str | None:
    """The network of a run or of a weights file; None where that cannot be read."""
    if reference == "latest":
        return None
    path = Path(reference)
    try:
        sidecar = path.with_name(f"{path.name}.json")
        if path.suffix == ".safetensors" or sidecar.is_file():
            return str(json.loads(sidecar.read_bytes())["spec"]["arch"])
        return summarize(located(reference, runs_dir())).arch
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return None


def _in_folder(folder: Path) -> Kind | None:
    """The kind of the files in a folder and below, by their names: images beside videos are
    thumbnails or annotations."""
    files = (name for _, _, names in os.walk(folder) for name in sorted(names))
    seen: Kind | None = None
    for name in islice(files, _FILES):
        if name.lower().endswith(_VIDEOS):
            return "video"
        if name.lower().endswith(_IMAGES):
            seen = "image"
    return seen


def _named_in(text: str) -> Kind | None:
    """The kind of the files that a list names."""
    if any(suffix in text for suffix in _VIDEOS):
        return "video"
    return "image" if any(suffix in text for suffix in _IMAGES) else None
