"""What a run was made with: versions, the revision of the code, the machine's name."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch", "torchvision", "timm", "av", "h5py", "numpy", "pydantic", "safetensors", "simplejpeg",
    "pillow", "matplotlib", "tensorboard", "torchmetrics",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of this package and of what it computes with, read without importing any."""
    found = {}
    for name in ("selfsup", *PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def revision(package: Path = Path(__file__).parents[1]) -> dict[str, Any] | None:
    """Commit of the checkout that `package` belongs to and whether it was changed since.

    None for an installed package, also where the environment lies inside some other repository.
    """

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603 (fixed words, no shell)
                ["git", "-C", str(package), *words],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = git("rev-parse", "HEAD")
    if not commit:
        return None
    changes = git("status", "--porcelain", "--untracked-files=no", "--", ".")
    return {"commit": commit, "changed": changes is None or bool(changes)}


def machine() -> dict[str, str]:
    """Host, Python and operating system."""
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
