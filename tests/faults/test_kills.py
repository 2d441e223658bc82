"""SIGKILL anywhere: the same command again ends with the same result."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import pytest
from harness import BEGIN, DISK, EXTRACT, STEP, Server

from selfsup_cli.engine.checkpoints import Checkpoints
from selfsup_cli.runs.run import Run

KILLED = [place for place in harness.PLACES if not place.startswith("any")]


@pytest.mark.parametrize("place", KILLED)
def test_a_killed_pretraining_ends_the_same(
    server: Server,
    reference: Callable[[int, bool], dict[str, Any]],
    events: dict[str, int],
    tmp_path: Path,
    place: str,
) -> None:
    """Each time at another event of the place."""
    struck, within = harness.PLACES[place]
    plain = place != "reporting"
    for number, kill in enumerate(harness.kills(events[place], place)):
        hint = f"{place}: {kill}, of {events[place]}; FAULT_SEED={harness.SEED}"
        runs = tmp_path / f"{number}"
        command = harness.pretrain("whole", f"train.seed={kill.seed}")
        fault = harness.striking(struck, kill.nth, kill.do, within)
        killed = server(command, runs, fault, plain=plain)
        assert killed.status == -signal.SIGKILL, f"{hint}\n{killed.said}"
        checkpoints = Checkpoints(runs / "whole" / "checkpoints")
        assert all(checkpoints.problem(step) is None for step in checkpoints.steps()), hint
        again = server(command, runs, plain=plain)
        assert again.status == 0, f"{hint}\n{again.said}"
        assert harness.content(runs / "whole") == reference(kill.seed, plain), hint
        assert Run.open(runs / "whole").problems() == [], hint
        assert harness.temporaries(runs) == [], hint
        shutil.rmtree(runs)


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


@pytest.mark.parametrize(
    ("place", "struck", "within"),
    [("extraction", [*DISK, "os:open"], EXTRACT), ("probing", DISK, None)],
)
def test_a_killed_probing_ends_the_same(
    server: Server,
    undisturbed: Path,
    tmp_path: Path,
    copied: Path,
    place: str,
    struck: list[str],
    within: str | None,
) -> None:
    expected: dict[int, Any] = {}

    def counted(seed: int) -> int:
        """Events of the undisturbed job, of which each seed takes more clips."""
        shutil.rmtree(copied / ".cache", ignore_errors=True)
        command = harness.probe(f"probed-{seed}", "whole", f"clips.train={1 + seed}")
        whole = server(command, copied, harness.counting(struck, within))
        assert whole.status == 0, whole.said
        expected[seed] = harness.content(copied / f"probed-{seed}"), harness.shards(copied)
        assert len(expected[seed][1]) >= 4
        return whole.counts[0]

    total = counted(0)
    for number, kill in enumerate(harness.kills(total, place)):
        hint = f"{place}: {kill}, of {total}; FAULT_SEED={harness.SEED}"
        if kill.seed not in expected:
            counted(kill.seed)
        name = f"probed-{kill.seed}"
        command = harness.probe(name, "whole", f"clips.train={1 + kill.seed}")
        runs = tmp_path / f"{number}"
        runs.mkdir()
        (runs / "whole").symlink_to(undisturbed / "whole")
        killed = server(command, runs, harness.striking(struck, kill.nth, kill.do, within))
        assert killed.status == -signal.SIGKILL, f"{hint}\n{killed.said}"
        again = server(command, runs)
        assert again.status == 0, f"{hint}\n{again.said}"
        assert (harness.content(runs / name), harness.shards(runs)) == expected[kill.seed], hint
        assert Run.open(runs / name).problems() == [], hint
        assert harness.temporaries(runs) == [], hint
        (runs / "whole").unlink()
        shutil.rmtree(runs)


def test_a_killed_packing_ends_the_same(server: Server, clips: Path, tmp_path: Path) -> None:
    """A finished pack, or none yet, and the same in the end."""
    events = [*DISK, "os:open"]
    expected: dict[int, bytes] = {}

    def counted(seed: int) -> int:
        out = tmp_path / f"expected-{seed}.h5"
        runs = tmp_path / f"runs-{seed}"
        whole = server(harness.pack(clips, out, seed), runs, harness.counting(events))
        assert whole.status == 0, whole.said
        expected[seed] = out.read_bytes()
        return whole.counts[0]

    total = counted(0)
    for number, kill in enumerate(harness.kills(total, "packing")):
        hint = f"packing: {kill}, of {total}; FAULT_SEED={harness.SEED}"
        if kill.seed not in expected:
            counted(kill.seed)
        folder = tmp_path / f"{number}"
        folder.mkdir()
        command, runs = harness.pack(clips, folder / "clips.h5", kill.seed), folder / "runs"
        killed = server(command, runs, harness.striking(events, kill.nth, kill.do))
        assert killed.status == -signal.SIGKILL, f"{hint}\n{killed.said}"
        found = folder / "clips.h5"
        assert not found.exists() or found.read_bytes() == expected[kill.seed], hint
        again = server(command, runs)
        assert again.status == 0, f"{hint}\n{again.said}"
        assert found.read_bytes() == expected[kill.seed], hint
        assert [path.name for path in folder.glob("clips*")] == ["clips.h5"], hint
        shutil.rmtree(folder)


def test_a_pack_made_in_place_is_noticed(server: Server, clips: Path, tmp_path: Path) -> None:
    """Negative control: a kill leaves half a pack under the name of a whole one."""
    pack = tmp_path / "clips.h5"
    fault = harness.striking(["os:pwrite"], 4, "kill")
    killed = server(harness.pack(clips, pack), tmp_path / "runs", fault, broken=["pack in place"])
    assert killed.status == -signal.SIGKILL, killed.said
    assert pack.exists()
    again = server(harness.pack(clips, pack), tmp_path / "runs")
    assert again.status == 2, again.said


def test_a_page_is_there_as_a_whole_or_not_at_all(server: Server, copied: Path) -> None:
    command = ["report", "whole", "--out", str(copied / "page.html")]
    events = [*DISK, "os:open"]
    whole = server(command, copied, harness.counting(events))
    assert whole.status == 0, whole.said
    expected = (copied / "page.html").read_bytes()
    for number, kill in enumerate(harness.kills(whole.counts[0], "page", most=2 * whole.counts[0])):
        page = copied / "page.html"
        page.write_text("older") if number % 2 else page.unlink()
        killed = server(command, copied, harness.striking(events, kill.nth, kill.do))
        assert killed.status == -signal.SIGKILL, f"{kill}\n{killed.said}"
        assert not page.exists() or page.read_bytes() in (b"older", expected), kill
        assert server(command, copied).status == 0, kill
        assert page.read_bytes() == expected, kill


def test_a_page_written_in_place_is_noticed(server: Server, copied: Path) -> None:
    """Negative control: the kill that the test above begins with would leave half of it."""
    page = copied / "page.html"
    command = ["report", "whole", "--out", str(page)]
    fault = harness.striking(["os:write"], 1, "kill")
    killed = server(command, copied, fault, broken=["in place"])
    assert killed.status == -signal.SIGKILL, killed.said
    half = page.read_bytes()
    assert server(command, copied).status == 0
    assert half != page.read_bytes()
