"""`selfsup doctor`: what this machine brings along, and what is missing.

Every check stands alone: one that fails, in whatever way, is told as that, and the others go on.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

from selfsup_cli.config import environment
from selfsup_cli.config.blocks import VideoData
from selfsup_cli.config.registry import DATASETS
from selfsup_cli.errors import InputError, MachineError, SelfsupError
from selfsup_cli.runs.provenance import PACKAGES
from selfsup_cli.runs.run import runs_dir
from selfsup_cli.version import __version__

# Packages with compiled parts, which can be installed and yet not be usable.
IMPORTED = ("torch", "torchvision", "av", "h5py")
# Codecs of the usual datasets; videos in one of the others are left out and counted.
NEEDED_CODECS = ("h264", "mpeg4")
SAMPLES = Path(__file__).parents[1] / "data" / "samples"
SAMPLE_FRAMES = 4
GIB = 2**30
LITTLE_DISK = 2 * GIB
# A few batches of clips, on their way from the loader processes to the trainer.
LITTLE_SHARED_MEMORY = GIB
COMPLETION = {
    "bash": "source <(selfsup completion bash)   (in ~/.bashrc)",
    "zsh": "source <(selfsup completion zsh)   (in ~/.zshrc, after compinit)",
    "fish": "selfsup completion fish > ~/.config/fish/completions/selfsup.fish",
}

State = Literal["ok", "note", "warning", "broken"]


@dataclass(frozen=True)
class Check:
    """One thing looked at. `note` is neither good nor bad, `broken` something that is needed."""

    area: str
    name: str
    state: State
    found: str
    hint: str | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.found}{f'; {self.hint}' if self.hint else ''}"


class UnfitError(MachineError):
    """Something that is needed is broken. `problems` are those checks, `data` holds all of them."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.problems = [check for check in checks if check.state == "broken"]
        self.data = {"checks": list(checks)}
        super().__init__("not all that is needed works here", kind="unfit")


def examine() -> list[Check]:
    """Look at everything. Raises nothing; takes the time of importing torch."""
    areas: dict[str, Callable[[], Iterator[Check]]] = {
        "versions": _versions,
        "devices": _devices,
        "video": _video,
        "storage": _storage,
        "data": _data,
        "environment": _environment,
        "shell": _shell,
    }
    found: list[Check] = []
    for area, look in areas.items():
        try:
            found.extend(look())
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            found.append(Check(area, area, "broken", f"cannot be examined ({said})"))
    return found


def _versions() -> Iterator[Check]:
    area = "versions"
    yield Check(area, "selfsup", "ok", f"{__version__}, in {Path(__file__).parents[1]}")
    yield Check(area, "Python", "ok", f"{platform.python_version()}, {sys.executable}")
    yield Check(area, "system", "note", platform.platform())
    for name, least in _requirements():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Check(area, name, "broken", "is not installed", f"pip install '{name}>={least}'")
            continue
        if _numbers(version) < _numbers(least):
            wanted = f"{version}, and {least} or later is needed"
            yield Check(area, name, "broken", wanted, f"pip install '{name}>={least}'")
        elif name not in IMPORTED:
            yield Check(area, name, "ok", version)
        else:
            yield _imported(name, version)


def _imported(name: str, version: str) -> Check:
    """A package that is only as good as the libraries it brings."""
    try:
        module: Any = import_module(name)
        brings = {
            "torch": lambda: f"CUDA {module.version.cuda or 'none'}",
            "av": lambda: f"FFmpeg {module.ffmpeg_version_info}",
            "h5py": lambda: f"HDF5 {module.version.hdf5_version}",
        }
        more = brings[name]() if name in brings else ""
    except Exception as error:
        hint = "install torch and torchvision together, from one place" if "torch" in name else None
        said = f"{version} cannot be imported ({type(error).__name__}: {_line(error)})"
        return Check("versions", name, "broken", said, hint)
    return Check("versions", name, "ok", ", ".join(filter(None, (version, more))))


def _requirements() -> list[tuple[str, str]]:
    """Names and least versions of the packages that selfsup was installed with."""
    try:
        stated = metadata.requires("selfsup") or []
    except metadata.PackageNotFoundError:
        return [(name, "0") for name in PACKAGES]
    found = []
    for text in stated:
        match = re.match(r"([\w.-]+)(?:>=([\d.]+))?", text)
        if match and "extra ==" not in text:
            found.append((match[1], match[2] or "0"))
    return found


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part]  # type: ignore[index]


def _devices() -> Iterator[Check]:
    import torch

    from selfsup_cli.engine import devices

    area = "devices"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    bf16 = "with" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "without"
    threads = f"PyTorch computes in {torch.get_num_threads()} threads"
    yield Check(area, "CPU", "ok", f"{cores} cores usable, {bf16} bf16 arithmetic; {threads}")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield Check(area, "memory", "ok", f"{memory / GIB:.1f} GiB")
    if not torch.cuda.is_available():
        yield Check(area, "CUDA", "note", "PyTorch finds no CUDA device")
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        yield Check(
            area,
            f"cuda:{number}",
            "ok",
            f"{facts.name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, capability "
            f"{facts.major}.{facts.minor}, {'with' if native else 'without'} bf16 arithmetic",
        )
    asked = os.environ.get("SELFSUP_DEVICE") or "auto"
    try:
        chosen = devices.choose(asked)
    except SelfsupError as error:
        yield Check(area, "SELFSUP_DEVICE", "broken", str(error))
    else:
        said = f"{chosen.device}, precision {chosen.precision}"
        yield Check(area, "chosen", "ok", f"{said} (unless options say otherwise)")


def _video() -> Iterator[Check]:
    """Decode a few small videos, with the code that reads those of the user."""
    import numpy as np

    from selfsup_cli.data import video

    for path in sorted(SAMPLES.iterdir()):
        codec = path.stem
        try:
            info = video.probe(path)
            frames = video.decode(path, info, np.arange(info.frames))
            works = frames.shape[1] == SAMPLE_FRAMES
            why = f"{frames.shape[1]} of {SAMPLE_FRAMES} frames"
        except Exception as error:
            works, why = False, _line(error)
        if works:
            yield Check("video", codec, "ok", f"decodes ({path.suffix[1:]})")
        else:
            state: State = "broken" if codec in NEEDED_CODECS else "warning"
            yield Check(
                "video", codec, state, f"does not decode ({why})", "reinstall the package av"
            )


def _storage() -> Iterator[Check]:
    from selfsup_cli.data.index import cache_root

    yield _folder("runs", runs_dir(), "SELFSUP_RUNS")
    yield _folder("cache", cache_root(), "SELFSUP_CACHE")
    shared = Path("/dev/shm")  # noqa: S108 (looked at, not written to)
    if shared.is_dir():
        usage = shutil.disk_usage(shared)
        little = usage.free < LITTLE_SHARED_MEMORY
        hint = "set --workers 0, or enlarge it (docker run --shm-size 8g)" if little else None
        said = f"{usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free"
        yield Check("storage", str(shared), "warning" if little else "ok", said, hint)


def _folder(name: str, path: Path, variable: str) -> Check:
    """A folder that jobs write to, or the one in which it will be made."""
    path = path.expanduser().absolute()
    there = next((one for one in (path, *path.parents) if one.exists()), path)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Check("storage", name, "broken", f"{there} cannot be written to", f"set {variable}")
    free = shutil.disk_usage(there).free
    said = f"{path}{'' if there == path else ' (not made yet)'}, {free / GIB:.1f} GiB free"
    if free < LITTLE_DISK:
        return Check("storage", name, "warning", said, f"set {variable} to a larger disk")
    return Check("storage", name, "ok", said)


def _data() -> Iterator[Check]:
    from selfsup_cli.data.roots import registered_root

    for name, dataset in DATASETS.items():
        if not dataset.layout:
            yield Check("data", name, "ok", "built in")
            continue
        try:
            root = registered_root(name, VideoData(source=name))
        except InputError as error:
            yield Check("data", name, "note", str(error))
        else:
            yield Check("data", name, "ok", str(root))


def _environment() -> Iterator[Check]:
    for name in (*environment.VARIABLES, *environment.OTHERS):
        if name in os.environ:
            yield Check("environment", name, "note", os.environ[name])
    for said in environment.warnings(os.environ):
        yield Check("environment", "unknown", "warning", said)


def _shell() -> Iterator[Check]:
    shell = Path(os.environ.get("SHELL", "")).name
    if shell in COMPLETION:
        yield Check("shell", shell, "note", f"for completion: {COMPLETION[shell]}")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
