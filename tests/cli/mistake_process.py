"""Runs command lines that come as JSON lines, and says how each of them ended.

In one process, as starting five hundred would take minutes; in one of its own, as that which runs
the tests has imported torch long ago. With the argument `guarded`, importing torch fails, and is
reported.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec


class Guard(MetaPathFinder):
    """Refuses the packages that take seconds to import."""

    refused: list[str]

    def __init__(self) -> None:
        self.refused = []

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name.partition(".")[0] in ("torch", "torchvision", "timm", "av", "h5py"):
            self.refused.append(name)
            raise RuntimeError(f"{name} would be imported")
        return None


def main() -> None:
    guard = Guard()
    if "guarded" in sys.argv:
        sys.meta_path.insert(0, guard)
    from selfsup_cli.__main__ import main as command

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        guard.refused.clear()
        before = dict(os.environ)
        os.environ.update(request["env"])
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = command(request["arguments"])
        os.environ.clear()
        os.environ.update(before)
        said = {"status": status, "out": out.getvalue(), "err": err.getvalue()}
        print(json.dumps({**said, "imported": guard.refused}), file=answers)


if __name__ == "__main__":
    main()
