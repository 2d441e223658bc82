"""The other tools, where they are installed (`pip install 'selfsup[bench]'`)."""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import av

_MARK = "SELFSUP_BENCH_LIBRARIES"


def find(name: str) -> ModuleType | None:
    """The module `name`, or None with a line on stderr."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        print(f"{name} is left out: it cannot be imported ({reason})", file=sys.stderr)
        return None


def lend_ffmpeg() -> None:
    """Start this script again with PyAV's FFmpeg under the names that torchcodec links to.

    Both then decode with the same build of FFmpeg, and no other need be installed. The loader of
    the system reads its search path only when a process begins.
    """
    libraries = Path(av.__file__).parent.with_name("av.libs")
    if _MARK in os.environ or not libraries.is_dir():
        return
    folder = Path(tempfile.gettempdir(), f"selfsup-bench-ffmpeg-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    for library in libraries.glob("lib*.so.*"):
        name = re.sub(r"-[0-9a-f]{8}(\.so\.\d+).*", r"\1", library.name)
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(library)
    path = ":".join(filter(None, [str(folder), os.environ.get("LD_LIBRARY_PATH")]))
    environment = {**os.environ, "LD_LIBRARY_PATH": path, _MARK: "1"}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)  # noqa: S606
