"""One job per run: across processes, within one, and after any kind of death."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import children
import pytest

from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.runs import lock as locks
from selfsup_cli.runs.lock import RunLock, held_by


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock file of a run called `mine`; nobody waits long for it."""
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.05)
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine" / "run.lock"


def holding(path: Path, grandchild: bool = False) -> tuple[int, list[int]]:
    """A child that holds the lock until it is killed, and the descriptors of its pipes."""
    ready, go = os.pipe(), os.pipe()

    def child() -> None:
        lock = RunLock(path)
        assert lock.held
        if grandchild and os.fork() == 0:
            os.write(ready[1], b".")
            os.close(go[1])
            os.read(go[0], 1)  # a loader worker that outlives its parent
            os._exit(0)
        os.write(ready[1], b".")
        os.read(go[0], 1)

    pid = children.fork(child)
    for _ in range(1 + grandchild):
        os.read(ready[0], 1)
    return pid, [*ready, *go]


def test_a_second_process_is_refused_by_host_and_pid_until_the_first_is_killed(path: Path) -> None:
    pid, pipes = holding(path)
    assert path.read_text() == f"{platform.node()} {pid}\n"
    with pytest.raises(InputError) as caught:
        RunLock(path)
    assert f"process {pid} on {platform.node()}" in str(caught.value)
    assert "run mine" in str(caught.value)
    assert held_by(path) == f"process {pid} on {platform.node()}"
    children.kill(pid)
    assert held_by(path) is None
    lock = RunLock(path)
    assert path.read_text() == f"{platform.node()} {os.getpid()}\n"
    lock.release()
    for fd in pipes:
        os.close(fd)


def test_an_orphaned_worker_does_not_keep_the_lock(path: Path) -> None:
    pid, pipes = holding(path, grandchild=True)
    children.kill(pid)
    lock = RunLock(path)
    assert lock.held
    lock.release()
    for fd in pipes:  # lets the orphan go
        os.close(fd)


def test_the_same_process_is_refused_and_looking_does_not_free_the_lock(path: Path) -> None:
    lock = RunLock(path)
    here = f"process {os.getpid()} on {platform.node()}"
    with pytest.raises(InputError, match="this one"):
        RunLock(path.parent / ".." / "mine" / "run.lock")
    assert held_by(path) == here

    def child() -> None:
        assert not lock.held
        with pytest.raises(InputError, match=f"process {os.getppid()} on"):
            RunLock(path)
        lock.release()  # a fork has nothing to release

    assert children.run(child) == 0
    assert lock.held
    assert held_by(path) == here
    lock.release()
    lock.release()
    assert not lock.held
    assert held_by(path) is None
    RunLock(path).release()


def test_of_eight_that_start_at_once_one_wins(path: Path) -> None:
    start, won, end = os.pipe(), os.pipe(), os.pipe()

    def child() -> None:
        os.read(start[0], 1)
        try:
            RunLock(path)
        except InputError as error:
            assert "is being written by" in str(error)  # noqa: PT017
            os.write(won[1], b"-")
            return
        os.write(won[1], b"+")
        os.read(end[0], 1)

    pids = [children.fork(child) for _ in range(8)]
    os.write(start[1], b"." * 8)
    answers = b""
    while len(answers) < 8:
        answers += os.read(won[0], 8)
    os.write(end[1], b".")
    assert [children.end(pid) for pid in pids] == [0] * 8
    assert sorted(answers) == sorted(b"+-------")
    for fd in (*start, *won, *end):
        os.close(fd)


def test_a_glance_does_not_turn_a_starting_job_away(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`held_by` takes the lock for a moment; a job that meets it waits for that moment."""
    pid, pipes = holding(path)
    monkeypatch.setattr(locks, "_PATIENCE_S", 30)
    real = locks.time.sleep

    def kill_the_other(seconds: float) -> None:
        children.kill(pid)
        monkeypatch.setattr(locks.time, "sleep", real)

    monkeypatch.setattr(locks.time, "sleep", kill_the_other)
    RunLock(path).release()
    for fd in pipes:
        os.close(fd)


def test_text_of_a_foreign_lock_file_is_not_repeated(path: Path) -> None:
    path.write_text("\x1b[31mnonsense")
    pid, pipes = holding(path)
    path.write_text("\x1b[31mnonsense")
    with pytest.raises(InputError, match=r"another process \(see mine/run\.lock\)"):
        RunLock(path)
    children.kill(pid)
    for fd in pipes:
        os.close(fd)


def test_a_file_system_without_locks_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.fcntl, "lockf", none)
    with pytest.raises(MachineError, match=r"run\.lock: No locks available"):
        RunLock(path)


def test_nobody_holds_what_is_not_there(path: Path) -> None:
    assert held_by(path) is None
    assert not path.exists()
