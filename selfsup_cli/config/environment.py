"""The environment variables that selfsup reads: these and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from selfsup_cli.config.registry import nearest


@dataclass(frozen=True)
class Variable:
    """`about` is its one-line meaning; `field` the preset field it sets, if it sets one."""

    about: str
    field: str | None = None


VARIABLES: dict[str, Variable] = {
    "SELFSUP_DATA": Variable(
        "Folder in which registered datasets are looked for, as $SELFSUP_DATA/NAME."
    ),
    "SELFSUP_RUNS": Variable("Folder of the runs (default: runs)."),
    "SELFSUP_CACHE": Variable("Folder of indexes and features that can be computed again."),
    "SELFSUP_PRESET_PATH": Variable(
        "Folders with presets of your own, looked into before the built-in ones."
    ),
    "SELFSUP_DEVICE": Variable(
        "Device, unless an option names one: auto, cpu, cuda or cuda:N.", "machine.device"
    ),
    "SELFSUP_WORKERS": Variable(
        "Loader processes per device, unless an option says it.", "machine.workers"
    ),
    "SELFSUP_DEBUG": Variable("1 shows the traceback of an error."),
}

# Read by the test suite only.
_OF_TESTS = ("SELFSUP_TEST_DATA", "SELFSUP_REQUIRE_DATA")


def warnings(env: Mapping[str, str]) -> list[str]:
    """One sentence for each SELFSUP_* variable that nothing reads."""
    return [
        f"the environment variable {name} is not one that selfsup reads"
        f"{nearest(name, list(VARIABLES))}"
        for name in sorted(env)
        if name.startswith("SELFSUP_") and name not in VARIABLES and name not in _OF_TESTS
    ]
