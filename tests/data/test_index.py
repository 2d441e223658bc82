"""The frame index remembers, forgets what has changed, and survives whatever happens to it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from videos import write_video

from selfsup_cli.data import index, prober, video
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.prober import CRASHED, Finding, Task
from selfsup_cli.errors import MachineError


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [
        write_video(folder / f"{count}.avi", count, codec="mpeg4", size=(16, 16))
        for count in range(4, 9)
    ]


@pytest.fixture
def root(tmp_path: Path, clips: list[Path]) -> Path:
    """Twelve good videos and a broken one, `names()` in order."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(12):
        shutil.copyfile(clips[number % 5], folder / f"{number:02}.avi")
    (folder / "broken.mp4").write_text("no video")
    return folder


def names(root: Path) -> PackedIds:
    return PackedIds(sorted(path.name for path in root.iterdir()))


def built(root: Path, workers: int = 0, progress: Any = None) -> index.Indexed:
    return index.build(root, names(root), workers=workers, progress=progress)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are really opened, from now on."""
    seen: list[str] = []
    probe = video.probe

    def spy(path: Path) -> Any:
        seen.append(path.name)
        return probe(path)

    monkeypatch.setattr(video, "probe", spy)
    return seen


def same(one: index.Indexed, two: index.Indexed) -> bool:
    return (
        np.array_equal(one.num_frames, two.num_frames)
        and np.array_equal(one.digests, two.digests)
        and (one.errors, one.missing) == (two.errors, two.missing)
    )


def test_every_file_is_looked_at_once(root: Path, looked_at: list[str]) -> None:
    first = built(root)
    assert first.num_frames.tolist() == [4 + number % 5 for number in range(12)] + [0]
    assert first.errors == {12: "not a readable MP4, MOV, AVI, MKV or WebM file"}
    assert first.missing == []
    assert len(looked_at) == 13
    assert same(built(root), first)
    assert len(looked_at) == 13  # broken files are remembered too


def test_the_work_of_processes_is_the_same(root: Path) -> None:
    counts: list[tuple[int, int]] = []
    many = built(root, workers=2, progress=lambda done, total: counts.append((done, total)))
    index.index_path(root).unlink()
    assert same(many, built(root))
    assert counts[0] == (0, 13)
    assert counts[-1] == (13, 13)
    assert [done for done, _ in counts] == sorted(done for done, _ in counts)


def test_a_file_that_changed_is_looked_at_again(
    root: Path, clips: list[Path], looked_at: list[str]
) -> None:
    before = built(root)
    looked_at.clear()
    shutil.copyfile(clips[4], root / "00.avi")
    later = (root / "01.avi").stat().st_mtime_ns + 1
    os.utime(root / "01.avi", ns=(later, later))
    after = built(root)
    assert looked_at == ["00.avi", "01.avi"]
    assert after.num_frames[:2].tolist() == [8, 5]
    assert not np.array_equal(after.digests[0], before.digests[0])
    assert np.array_equal(after.digests[1], before.digests[1])


def test_files_that_are_gone_are_told_apart_from_broken_ones(root: Path) -> None:
    ids = names(root)
    (root / "03.avi").unlink()
    found = index.build(root, ids, workers=0, progress=None)
    assert found.missing == [3]
    assert list(found.errors) == [12]


def test_an_error_of_the_moment_is_not_remembered(
    root: Path, monkeypatch: pytest.MonkeyPatch, looked_at: list[str]
) -> None:
    sample = prober._sample

    def failing(path: Path, size: int) -> bytes:
        if path.name == "05.avi":
            raise PermissionError(13, "Permission denied")
        return sample(path, size)

    monkeypatch.setattr(prober, "_sample", failing)
    assert built(root).errors[5] == "Permission denied"
    monkeypatch.setattr(prober, "_sample", sample)
    looked_at.clear()
    assert 5 not in built(root).errors
    assert looked_at == ["05.avi"]


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, " * 1000)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 2] = b"\xff" * 4096
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [empty, garbage, cut, overwritten])
def test_a_damaged_index_is_built_anew(
    root: Path,
    damage: Callable[[Path], None],
    looked_at: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = built(root)
    damage(index.index_path(root))
    looked_at.clear()
    with caplog.at_level(logging.WARNING, logger="selfsup"):
        assert same(built(root), before)
    assert len(looked_at) == 13
    if damage is not empty:  # an empty file is how SQLite spells a new one
        assert "damaged" in caplog.text
    assert same(built(root), before)
    assert len(looked_at) == 13


def test_a_wrong_entry_is_noticed(
    root: Path, looked_at: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = built(root)
    looked_at.clear()
    with sqlite3.connect(index.index_path(root)) as connection:
        connection.execute("UPDATE files SET frames = 100 WHERE frames = 8")
    connection.close()
    assert index.IndexReader(root).look_up("04.avi") is None
    with caplog.at_level(logging.WARNING, logger="selfsup"):
        assert same(built(root), before)
    assert looked_at == ["04.avi", "09.avi"]
    assert "damaged entry for" in caplog.text


def test_an_index_of_another_version_is_built_anew(root: Path, looked_at: list[str]) -> None:
    before = built(root)
    with sqlite3.connect(index.index_path(root)) as connection:
        connection.execute("PRAGMA user_version = 77")
    connection.close()
    looked_at.clear()
    assert same(built(root), before)
    assert len(looked_at) == 13


def test_an_index_that_cannot_be_written_says_what_to_do(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="cannot write the frame index") as caught:
        built(root)
    assert caught.value.hint is not None
    assert "SELFSUP_CACHE" in caught.value.hint


def test_a_full_disk_is_the_machines_fault(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    built(root)
    monkeypatch.setattr(index, "_build", full)
    with pytest.raises(MachineError, match="full"):
        built(root)


def test_entries_can_be_read_in_another_process(root: Path) -> None:
    built(root)
    reader = index.IndexReader(root)
    entry = reader.look_up("02.avi")
    assert entry is not None
    info, size, mtime_ns = entry
    assert info.row() == video.probe(root / "02.avi").row()
    stat = (root / "02.avi").stat()
    assert (size, mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert reader.look_up("broken.mp4") is None
    assert reader.look_up("none.avi") is None
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_frames_of, (reader, "04.avi")) == 8
    index.index_path(root).unlink()
    assert index.IndexReader(root).look_up("02.avi") is None


def _frames_of(reader: index.IndexReader, name: str) -> int:
    entry = reader.look_up(name)
    assert entry is not None
    return entry[0].frames


@dataclass(frozen=True)
class Deadly(Task):
    """A file that kills the process that looks at it."""

    def __getattribute__(self, name: str) -> Any:
        if name == "path" and multiprocessing.parent_process() is not None:
            os._exit(9)
        return super().__getattribute__(name)

    def __reduce__(self) -> Any:
        return (Deadly, (self.place, self.path))


def test_a_file_that_kills_the_decoder_is_named_and_the_rest_goes_on(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [os.fsencode(path) for path in sorted(root.glob("*.avi"))]
    tasks: list[Task] = [Task(place, path) for place, path in enumerate(paths)]
    tasks[6] = Deadly(6, paths[6])
    found = {finding.place: finding for finding in prober.findings(iter(tasks), len(tasks), 2)}
    assert sorted(found) == list(range(12))
    assert [place for place, finding in found.items() if finding.error] == [6]
    assert found[6].error == CRASHED
    assert found[6].lasting
    assert "06.avi" in caplog.text


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from selfsup_cli.data import index

    sys.path.insert(0, {tests!r})
    from test_index import names

    def progress(done, total):
        if done >= int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

    if __name__ == "__main__":
        index._COMMIT_SECONDS = 0
        root = Path(sys.argv[1])
        index.build(root, names(root), workers=2, progress=progress)
"""


def test_indexing_goes_on_after_a_kill(
    root: Path, clips: list[Path], tmp_path: Path, looked_at: list[str]
) -> None:
    for number in range(12, 60):
        shutil.copyfile(clips[number % 5], root / f"{number:02}.avi")
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(KILLED.format(tests=str(Path(__file__).parent))))
    killed = subprocess.run([sys.executable, script, root, "20"], capture_output=True, timeout=100)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    found = built(root)
    assert found.num_frames.tolist() == [4 + number % 5 for number in range(60)] + [0]
    assert 1 <= len(looked_at) <= 61 - 20
    _wait_until_no_process_names(script)


def _wait_until_no_process_names(script: Path) -> None:
    """The helpers of a killed job end by themselves."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(_mentions(proc, script) for proc in Path("/proc").glob("[0-9]*")):
            return
        time.sleep(0.1)
    pytest.fail("a process has outlived its parent")


def _mentions(process: Path, script: Path) -> bool:
    try:
        return (
            str(script).encode()
            in (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        )
    except OSError:
        return False


def test_stopping_from_the_progress_keeps_what_is_done(root: Path, looked_at: list[str]) -> None:
    def stop(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(root, progress=stop)
    assert len(looked_at) == 7
    built(root)
    assert len(looked_at) == 13


def test_two_jobs_that_index_the_same_folder_wait_for_each_other(
    root: Path, tmp_path: Path
) -> None:
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(KILLED.format(tests=str(Path(__file__).parent))))
    command = [sys.executable, script, root, "1000"]
    jobs = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for job in jobs:
        _, errors = job.communicate(timeout=100)
        assert job.returncode == 0, errors
    assert built(root).num_frames[:12].tolist() == [4 + number % 5 for number in range(12)]


def test_memory_grows_with_names_and_counts_only(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of a kilobyte a file: half a million of them fit into any machine."""
    count = 3000
    for number in range(count):
        (tmp_path / f"some_name_of_common_length_{number:06}.avi").symlink_to(clips[0])
    info = video.probe(clips[0])
    stat = clips[0].stat()

    def quick(tasks: Iterator[Task], total: int, workers: int, _: Any) -> Iterator[Finding]:
        for task in tasks:
            yield Finding(task.place, task.path, stat.st_size, stat.st_mtime_ns, b"", info)

    monkeypatch.setattr(index, "findings", quick)
    ids = names(tmp_path)
    for _ in ("unknown", "known"):
        tracemalloc.start()
        found = index.build(tmp_path, ids, workers=0, progress=None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.num_frames.tolist() == [4] * count
        assert peak < 100 * count + 400_000
