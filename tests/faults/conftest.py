"""One forking process for all fault tests, and the runs as they come out undisturbed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import harness
import pytest


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Server]:
    server = harness.Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def counted(
    server: harness.Server, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, int]]:
    """A folder of runs with a pretraining `whole`, and how many events each place has in it."""
    runs = tmp_path_factory.mktemp("undisturbed")
    faults = [harness.counting(*place) for place in harness.PLACES.values()]
    ended = server(harness.pretrain("whole"), runs, *faults)
    assert ended.status == 0, ended.said
    return runs, dict(zip(harness.PLACES, ended.counts, strict=True))


@pytest.fixture
def undisturbed(counted: tuple[Path, dict[str, int]]) -> Path:
    """A folder of runs with a pretraining `whole` that nobody disturbed."""
    return counted[0]


@pytest.fixture
def events(counted: tuple[Path, dict[str, int]]) -> dict[str, int]:
    """How many events each place of that pretraining has."""
    return counted[1]


@pytest.fixture
def copied(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    runs = tmp_path / "runs"
    shutil.copytree(undisturbed, runs)
    return runs
