"""What all tests share: the real data, and an environment of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A loaded machine must not fail a property by the clock.
settings.register_profile("selfsup", deadline=None)
settings.load_profile("selfsup")

ROOT = Path(__file__).resolve().parent.parent


# Begun last, one of these would keep one process busy while the other has nothing left to do.
LONGEST = ("learning/", "test_readme.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest tests begin first."""
    here = Path(__file__).parent
    items.sort(key=lambda item: not item.path.relative_to(here).as_posix().startswith(LONGEST))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real test data; without it the test is skipped, or fails where it must run."""
    folder = Path(os.environ.get("SELFSUP_TEST_DATA", ROOT.parent / "shared" / "data")).resolve()
    if folder.is_dir():
        return folder
    reason = f"real test data is not at {folder}; set SELFSUP_TEST_DATA"
    if os.environ.get("SELFSUP_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def own_environment(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs, caches and settings of the person who tests stay out of the tests, and theirs alone."""
    keep = {"SELFSUP_TEST_DATA", "SELFSUP_REQUIRE_DATA"}
    for name in [name for name in os.environ if name.startswith("SELFSUP_") and name not in keep]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("SELFSUP_CACHE", str(home / "cache"))
    monkeypatch.setenv("SELFSUP_RUNS", str(home / "runs"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def same_signal_handlers() -> Iterator[None]:
    """A test that leaves a signal handler behind fails."""
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in watched]
    yield
    after = [signal.getsignal(number) for number in watched]
    assert after == before
