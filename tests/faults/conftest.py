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
def undisturbed(server: harness.Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a pretraining `whole` that nobody disturbed."""
    runs = tmp_path_factory.mktemp("undisturbed")
    ended = server(harness.pretrain("whole"), runs)
    assert ended.status == 0, ended.said
    return runs


@pytest.fixture
def copied(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    runs = tmp_path / "runs"
    shutil.copytree(undisturbed, runs)
    return runs
