"""Files are whole or absent: under kills at every step, full disks and refused folders."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import children
import pytest

from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.runs import atomic

OLD, NEW = b"old" * 1000, b"new!" * 5000


def write_new(path: Path) -> None:
    atomic.write_bytes(path, (NEW[i : i + 4000] for i in range(0, len(NEW), 4000)))


def write_carelessly(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for i in range(0, len(NEW), 4000):
        os.write(fd, NEW[i : i + 4000])
    os.fsync(fd)
    os.close(fd)


def dying_at(call: int, work: Callable[[], None]) -> Callable[[], None]:
    """`work`, killed by SIGKILL just before the `call`-th system call that touches a file."""
    left = call

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def counting(*args: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return counting

    def child() -> None:
        for name in ("open", "write", "ftruncate", "fsync", "close", "rename", "replace"):
            setattr(os, name, counted(getattr(os, name)))
        work()

    return child


def kill_everywhere(folder: Path, write: Callable[[Path], None]) -> list[bytes]:
    """What the target holds after a kill before each system call of `write`, until it gets by."""
    found = []
    for call in range(100):
        target = folder / str(call) / "file"
        target.parent.mkdir()
        target.write_bytes(OLD)
        status = children.run(dying_at(call, lambda target=target: write(target)))
        found.append(target.read_bytes())
        if status == 0:
            return found
        assert status == -signal.SIGKILL
    raise AssertionError("the writer makes more than 100 system calls")


def test_a_kill_before_any_system_call_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    found = kill_everywhere(tmp_path, write_new)
    assert len(found) >= 10
    assert set(found) == {OLD, NEW}
    assert found[0] == OLD
    assert found[-1] == NEW


def test_the_same_kills_tear_a_careless_writer(tmp_path: Path) -> None:
    assert set(kill_everywhere(tmp_path, write_carelessly)) - {OLD, NEW}


def test_kills_from_outside_leave_a_whole_file_and_one_temporary(tmp_path: Path) -> None:
    target = tmp_path / "file"
    seed = 5
    draw = random.Random(seed)
    stale = 0
    for _ in range(25):
        read, write = os.pipe()

        def pieces(i: int, write: int = write) -> Iterator[bytes]:
            for _ in range(10):
                os.write(write, b".")
                yield f"{i}\n".encode() * 2000

        def loop(pieces: Callable[[int], Iterator[bytes]] = pieces) -> None:
            for i in range(1_000_000):
                atomic.write_bytes(target, pieces(i))

        child = children.fork(loop)
        os.close(write)
        for _ in range(draw.randrange(1, 120)):
            assert os.read(read, 1) == b"."
        children.kill(child)
        os.close(read)
        lines = target.read_text().splitlines() if target.exists() else []
        assert len(lines) in (0, 20_000), f"seed {seed}"
        assert len(set(lines)) <= 1, f"seed {seed}"
        left = [path.name for path in tmp_path.iterdir() if path != target]
        assert left in ([], [".file.tmp"])
        stale += len(left)
        assert [path.name for path in atomic.sweep(tmp_path)] == left
        assert [path for path in tmp_path.iterdir() if path != target] == []
    assert stale > 0, "no kill met a write, so nothing was tested"


def test_a_stale_longer_temporary_does_not_leak_into_the_next_file(tmp_path: Path) -> None:
    (tmp_path / ".file.tmp").write_bytes(b"x" * 100_000)
    atomic.write_text(tmp_path / "file", "short")
    assert (tmp_path / "file").read_bytes() == b"short"


def test_hash_and_count_are_those_of_the_file(tmp_path: Path) -> None:
    with atomic.writing(tmp_path / "file") as file:
        file.write(b"")
        file.write(bytearray(b"ab"))
        file.write(memoryview(b"abcdef").cast("B")[2:])
        assert file.tell() == file.bytes == 6
    digest = hashlib.sha256(b"abcdef").hexdigest()
    assert file.sha256 == digest
    assert atomic.file_sha256(tmp_path / "file") == digest
    assert atomic.write_bytes(tmp_path / "two", [b"abc", b"def"]) == digest


def test_wide_memory_is_counted_in_bytes(tmp_path: Path) -> None:
    values = memoryview(bytes(range(64))).cast("I")
    with atomic.writing(tmp_path / "file") as file:
        assert file.write(values) == 64
    assert (tmp_path / "file").read_bytes() == bytes(range(64))


def test_large_files_are_written_whole(tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 40
    digest = atomic.write_bytes(tmp_path / "file", data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "file").stat().st_size == len(data)


def test_no_library_can_write_past_the_hash(tmp_path: Path) -> None:
    with atomic.writing(tmp_path / "file") as file:
        with pytest.raises(OSError, match="fileno"):
            file.fileno()
        with pytest.raises(OSError, match="seek"):
            file.seek(0)


def test_an_error_in_the_block_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def write() -> None:
        with atomic.writing(path) as file:
            file.write(NEW)
            (tmp_path / "elsewhere").read_bytes()

    with pytest.raises(FileNotFoundError):
        write()
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_what_json_has_not(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    atomic.write_json(path, {"κ": [1, 2.5, None]})
    assert json.loads(path.read_text()) == {"κ": [1, 2.5, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        atomic.write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text()) == {"κ": [1, 2.5, None]}


def test_a_full_disk_keeps_the_old_file_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def child() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        with pytest.raises(MachineError) as caught:
            atomic.write_bytes(path, NEW)
        message = str(caught.value)
        assert str(path) in message
        assert "File too large" in message
        assert "bytes free" in message
        assert path.read_bytes() == OLD
        assert list(tmp_path.iterdir()) == [path]

    assert children.run(child) == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "ftruncate"])
def test_each_call_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def failing(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(MachineError, match=os.strerror(number)) as caught:
            atomic.write_bytes(path, NEW)
    assert caught.value.exit_status == 3
    assert path.read_bytes() == OLD
    assert [p for p in tmp_path.iterdir() if p != path] == []


def test_a_disk_error_is_told_though_a_library_hides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def hide(file: atomic.Recorder, raised: bool) -> None:
        try:
            file.write(b"x")
        except OSError:
            if raised:
                raise RuntimeError("unexpected pos 704 vs 598") from None

    for raised in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with (
                pytest.raises(MachineError, match="No space left"),
                atomic.writing(path) as file,
            ):
                hide(file, raised)
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(MachineError, match=r"cannot write .*file: Permission denied .*permission"):
        atomic.write_text(tmp_path / "file", "x")


def test_a_wrong_path_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (
        tmp_path / "missing" / "file",
        tmp_path / "file" / "below",
        tmp_path / "folder",
        tmp_path / ("n" * 300),
    ):
        with pytest.raises(InputError, match="cannot write"):
            atomic.write_text(path, "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_sweep_removes_temporaries_below_and_nothing_else(tmp_path: Path) -> None:
    keep = ["a.txt", ".hidden", "b.tmp", "sub/.tmp", "sub/deep/c"]
    drop = [".a.txt.tmp", "sub/.state.pt.tmp", "sub/deep/.x.tmp", "sub/.step-1.tmp/state.pt"]
    for name in keep + drop:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    removed = {path.relative_to(tmp_path).as_posix() for path in atomic.sweep(tmp_path)}
    assert removed == {".a.txt.tmp", "sub/.state.pt.tmp", "sub/deep/.x.tmp", "sub/.step-1.tmp"}
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == set(keep)


def test_sweep_leaves_what_another_process_is_writing(tmp_path: Path) -> None:
    ready, go = os.pipe(), os.pipe()

    def child() -> None:
        with atomic.writing(tmp_path / "file") as file:
            file.write(b"whole")
            os.write(ready[1], b".")
            os.read(go[0], 1)

    pid = children.fork(child)
    os.read(ready[0], 1)
    assert atomic.sweep(tmp_path) == []
    os.write(go[1], b".")
    assert children.end(pid) == 0
    assert (tmp_path / "file").read_bytes() == b"whole"
    for fd in (*ready, *go):
        os.close(fd)


def test_processes_that_write_one_target_never_mix(tmp_path: Path) -> None:
    target = tmp_path / "file"

    def child(mark: str) -> Callable[[], None]:
        def loop() -> None:
            for _ in range(40):
                atomic.write_bytes(target, (mark.encode() * 5000 for _ in range(5)))
                assert len(set(target.read_bytes())) == 1

        return loop

    pids = [children.fork(child(mark)) for mark in "abcd"]
    assert [children.end(pid) for pid in pids] == [0, 0, 0, 0]
    assert len(target.read_bytes()) == 25_000
    assert list(tmp_path.iterdir()) == [target]


def test_new_files_have_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("x")
    atomic.write_text(tmp_path / "ours", "x")
    modes = {(tmp_path / name).stat().st_mode for name in ("usual", "ours")}
    assert len(modes) == 1
