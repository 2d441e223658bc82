"""One forking process for all fault tests, and the runs as they come out undisturbed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import av
import harness
import numpy as np
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


@pytest.fixture(scope="session")
def reference(
    server: harness.Server, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int, bool], dict[str, Any]]:
    """What an undisturbed pretraining with a seed comes to, with its curves drawn or not."""

    @cache
    def content(seed: int, plain: bool) -> dict[str, Any]:
        runs = tmp_path_factory.mktemp(f"seed-{seed}")
        ended = server(harness.pretrain("whole", f"train.seed={seed}"), runs, plain=plain)
        assert ended.status == 0, ended.said
        return harness.content(runs / "whole")

    return content


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small videos, two classes of three."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(6):
        path = folder / "ab"[number % 2] / f"{number}.avi"
        path.parent.mkdir(exist_ok=True)
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("mpeg4", rate=25)
            stream.height, stream.width, stream.pix_fmt = 24, 32, "yuv420p"
            for at in range(6 + number):
                image = np.random.default_rng([number, at]).integers(0, 255, (24, 32, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(stream.encode(None))
    return folder


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
