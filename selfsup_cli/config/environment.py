"""The environment variables that selfsup reads: these and no others.

`python -m selfsup_cli.config.reference environment` writes them down as `docs/environment.md`.
"""

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

# What others have agreed on, and selfsup obeys.
OTHERS: dict[str, Variable] = {
    "NO_COLOR": Variable("Not empty: no colours."),
    "FORCE_COLOR": Variable("Neither empty nor 0: colours also where there is no terminal."),
    "TERM": Variable("dumb: no colours and no moving progress bar."),
    "CI": Variable("Not empty: no moving progress bar."),
    "XDG_CACHE_HOME": Variable(
        "Its folder selfsup takes the place of SELFSUP_CACHE where that is not set (default: "
        "~/.cache)."
    ),
    "XDG_STATE_HOME": Variable(
        "In its folder selfsup goes the crash.txt of an error outside of any run (default: "
        "~/.local/state)."
    ),
    "SHELL": Variable("The shell for which `selfsup doctor` explains completion."),
    "RANK": Variable("Set by torchrun: the number of this process among all."),
    "LOCAL_RANK": Variable("Set by torchrun: the number of this process on its machine."),
    "WORLD_SIZE": Variable("Set by torchrun: how many processes share the work."),
    "SLURM_JOB_ID": Variable(
        "Set by SLURM: part of the name of a run without --run, so that a requeued job goes on."
    ),
    "SLURM_ARRAY_JOB_ID": Variable("Set by SLURM: takes the place of SLURM_JOB_ID in an array."),
    "SLURM_ARRAY_TASK_ID": Variable("Set by SLURM: follows SLURM_ARRAY_JOB_ID in that name."),
}

# Read by the test suite; and by the processes that selfsup itself starts.
_INTERNAL = ("SELFSUP_TEST_DATA", "SELFSUP_REQUIRE_DATA", "SELFSUP_RANK_ERRORS")


def warnings(env: Mapping[str, str]) -> list[str]:
    """One sentence for each SELFSUP_* variable that nothing reads."""
    return [
        f"the environment variable {name} is not one that selfsup reads"
        f"{nearest(name, list(VARIABLES))}"
        for name in sorted(env)
        if name.startswith("SELFSUP_") and name not in VARIABLES and name not in _INTERNAL
    ]
