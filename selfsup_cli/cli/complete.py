"""`selfsup __complete KIND PREFIX`: the names that a shell offers when a user presses TAB.

Someone is waiting and nothing has been asked for yet: only `os` is imported, nothing is read but
folders, and no mistake is worth a message.
"""

# ruff: noqa: PTH113, PTH118, PTH208 (importing pathlib takes too long here)

from __future__ import annotations

import os

from selfsup_cli.config import packaged, registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

# A name with any other character would have to be quoted, differently in each shell; and what a
# shell is not given, it cannot run.
PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/+@-")


def answer(arguments: Sequence[str]) -> int:
    """Print the names that begin with a prefix, one per line; returns the exit status."""
    if len(arguments) != 2 or arguments[0] not in KINDS:
        return 2
    kind, prefix = arguments
    found = [name for name in names(kind) if name.startswith(prefix)]
    try:
        os.write(1, "".join(f"{name}\n" for name in found).encode())
    except OSError:
        return 1
    return 0


def names(kind: str) -> list[str]:
    """The plain names of a kind (a key of `KINDS`), each once, in a fixed order."""
    offered = dict.fromkeys(KINDS[kind]())
    return [name for name in offered if PLAIN.issuperset(name) and not name.startswith("-")]


def _runs() -> Iterator[str]:
    folder = os.environ.get("SELFSUP_RUNS") or "runs"
    try:
        found = sorted(os.listdir(folder))
    except OSError:
        return
    for name in found:
        if os.path.isfile(os.path.join(folder, name, "run.json")):
            yield name


def _roots() -> list[str]:
    own = os.environ.get("SELFSUP_PRESET_PATH", "").split(os.pathsep)
    return [*(os.path.expanduser(one) for one in own if one), packaged.folder("presets")]  # noqa: PTH111


def _experiments() -> Iterator[str]:
    for root in _roots():
        try:
            found = sorted(os.listdir(os.path.join(root, "paper")))
        except OSError:
            continue
        yield from (name[:-5] for name in found if name.endswith(".yaml"))


def _presets(jobs: Sequence[str]) -> Iterator[str]:
    for root in _roots():
        for job in jobs:
            for folder, _, files in os.walk(os.path.join(root, job)):
                inside = os.path.relpath(folder, root)
                for name in sorted(files):
                    if name.endswith(".yaml"):
                        yield f"{inside}/{name[:-5]}".removeprefix("pretrain/")


def _presets_of(job: str) -> Callable[[], Iterator[str]]:
    other = registry.PAIRS.get(job)
    return lambda: _presets([job, *([other] if other in registry.JOB_NAMES else [])])


KINDS: dict[str, Callable[[], Iterable[str]]] = {
    "methods": lambda: registry.METHODS,
    "archs": lambda: registry.archs("video"),
    "image-archs": lambda: [*registry.archs("image"), registry.TIMM],
    "layers": registry.all_layers,
    "datasets": lambda: registry.datasets("video"),
    "image-datasets": lambda: registry.datasets("image"),
    "view-datasets": lambda: registry.datasets("view"),
    "all-datasets": lambda: registry.DATASETS,
    "presets": lambda: _presets(registry.JOB_NAMES),
    "experiments": _experiments,
    "runs": _runs,
    **{f"presets:{job}": _presets_of(job) for job in registry.JOB_NAMES},
}
