"""SIGKILL anywhere: the same command again ends with the same result."""

from __future__ import annotations

import signal
from pathlib import Path

import harness
import pytest
from harness import BEGIN, DISK, EXTRACT, STEP, Server

from selfsup_cli.engine.checkpoints import Checkpoints
from selfsup_cli.runs.run import Run

KILLED = [place for place in harness.PLACES if not place.startswith("any")]


@pytest.mark.parametrize("place", KILLED)
def test_a_killed_pretraining_ends_the_same(
    server: Server, undisturbed: Path, events: dict[str, int], tmp_path: Path, place: str
) -> None:
    """Each time at another event of the place."""
    expected = harness.content(undisturbed / "whole")
    struck, within = harness.PLACES[place]
    for nth in harness.places(events[place], place):
        hint = f"{place}, event {nth} of {events[place]}, FAULT_SEED={harness.SEED}"
        runs = tmp_path / f"{nth}"
        killed = server(
            harness.pretrain("whole"), runs, harness.striking(struck, nth, "kill", within)
        )
        assert killed.status == -signal.SIGKILL, f"{hint}\n{killed.said}"
        checkpoints = Checkpoints(runs / "whole" / "checkpoints")
        assert all(checkpoints.problem(step) is None for step in checkpoints.steps()), hint
        again = server(harness.pretrain("whole"), runs)
        assert again.status == 0, f"{hint}\n{again.said}"
        assert harness.content(runs / "whole") == expected, hint
        assert Run.open(runs / "whole").problems() == [], hint
        assert harness.temporaries(runs) == [], hint


def test_killed_in_every_step_it_ends_the_same(
    server: Server, undisturbed: Path, tmp_path: Path
) -> None:
    """No attempt makes more than two steps; when a third begins, the first is on the disk."""
    for _ in range(harness.STEPS):
        ended = server(harness.pretrain("whole"), tmp_path, harness.striking([STEP], 3, "kill"))
        if ended.status == 0:
            break
        assert ended.status == -signal.SIGKILL, ended.said
    assert harness.content(tmp_path / "whole") == harness.content(undisturbed / "whole")
    run = Run.open(tmp_path / "whole")
    assert len(run.attempts) >= harness.STEPS // 2
    assert "ended without closing" in (run.attempts[0].reason or "")


@pytest.mark.parametrize("broken", ["position", "optimizer"])
def test_a_broken_resumption_is_noticed(
    server: Server, undisturbed: Path, tmp_path: Path, broken: str
) -> None:
    """Negative control: what is compared above tells a wrong resumption from a right one."""
    at = harness.STEPS - 2
    killed = server(harness.pretrain("whole"), tmp_path, harness.striking([STEP], at, "kill"))
    assert killed.status == -signal.SIGKILL
    again = server(harness.pretrain("whole"), tmp_path, broken=[broken])
    assert again.status == 0, again.said
    found, expected = (harness.content(runs / "whole") for runs in (tmp_path, undisturbed))
    assert found["backbone.safetensors"] != expected["backbone.safetensors"]


def test_checkpoints_written_in_place_are_noticed(server: Server, tmp_path: Path) -> None:
    """Negative control: a kill leaves torn files where nothing is renamed."""
    killed = server(
        harness.pretrain("whole"),
        tmp_path,
        harness.striking(["os:write"], 3, "kill", within=BEGIN),
        broken=["in place"],
    )
    assert killed.status == -signal.SIGKILL, killed.said
    again = server(harness.pretrain("whole"), tmp_path)
    assert again.status == 2, again.said
    assert "run.json is damaged" in again.said


def test_a_killed_extraction_ends_the_same(
    server: Server, undisturbed: Path, tmp_path: Path, copied: Path
) -> None:
    command = harness.probe("probed", "whole")
    whole = server(command, copied, harness.counting(DISK, EXTRACT))
    assert whole.status == 0, whole.said
    expected = harness.content(copied / "probed"), harness.shards(copied)
    assert len(expected[1]) >= 4
    for nth in harness.places(whole.counts[0], "extraction"):
        hint = f"extraction, event {nth} of {whole.counts[0]}, FAULT_SEED={harness.SEED}"
        runs = tmp_path / f"{nth}"
        runs.mkdir()
        (runs / "whole").symlink_to(undisturbed / "whole")
        killed = server(command, runs, harness.striking(DISK, nth, "kill", EXTRACT))
        assert killed.status == -signal.SIGKILL, f"{hint}\n{killed.said}"
        again = server(
            command, runs, harness.counting(["selfsup_cli.evaluation.cache:build_shard"])
        )
        assert again.status == 0, f"{hint}\n{again.said}"
        assert (harness.content(runs / "probed"), harness.shards(runs)) == expected, hint
        assert harness.temporaries(runs) == [], hint
