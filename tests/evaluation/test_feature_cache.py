from __future__ import annotations

import hashlib
import io
import json
import logging
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfsup_cli.data.hdf5 import StructureError, check_structure
from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.evaluation import cache as caches
from selfsup_cli.evaluation.cache import (
    FeatureCache,
    build_shard,
    cache_root,
    key_of,
    plan_shards,
)
from selfsup_cli.runs.seal import sealed

DIMS = {"conv1": 6, "fc1": 3}
ROWS = np.array([2, 3, 1, 4, 2, 2], dtype=np.int64)
FORK = multiprocessing.get_context("fork")


def make(folder: Path, **about: object) -> FeatureCache:
    # Two or three videos make a shard of 200 bytes.
    return FeatureCache(folder, {"weights": "abc", **about}, DIMS, ROWS, shard_bytes=200)


def content(cache: FeatureCache, shard: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    span = cache.spans[shard]
    rng = np.random.default_rng(shard)
    rows = span.stop - span.start
    video = np.repeat(np.arange(len(ROWS)), ROWS)[span.start : span.stop]
    return video, {k: rng.normal(size=(rows, d)).astype(np.float32) for k, d in DIMS.items()}


def fill(cache: FeatureCache, only: int | None = None) -> list[int]:
    with cache.locked():
        missing = cache.missing()
        for shard in missing[:only]:
            cache.write(shard, *content(cache, shard))
    return missing


def digests(folder: Path) -> dict[str, str]:
    files = [*folder.glob("*.h5"), *folder.glob("*.json")]
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@given(
    rows=st.lists(st.integers(1, 50), max_size=40),
    row_bytes=st.integers(1, 300),
    limit=st.integers(1, 5000),
)
def test_shards_cut_the_videos_into_whole_runs(rows: list[int], row_bytes: int, limit: int) -> None:
    spans = plan_shards(np.array(rows, dtype=np.int64), row_bytes, limit)
    videos = [v for span in spans for v in range(span.first, span.last)]
    assert videos == list(range(len(rows)))
    starts = np.concatenate([[0], np.cumsum(rows)]).astype(int)
    for span in spans:
        assert (span.start, span.stop) == (starts[span.first], starts[span.last])
        one = span.last - span.first == 1
        assert one or (span.stop - span.start) * row_bytes <= limit
        if span.last < len(rows):  # no shard ends before it must
            assert (span.stop - span.start + rows[span.last]) * row_bytes > limit


def test_gives_back_what_was_written(tmp_path: Path) -> None:
    cache = make(tmp_path / "c")
    assert len(cache.spans) > 2
    assert fill(cache) == list(range(len(cache.spans)))
    again = make(tmp_path / "c")
    assert fill(again) == []
    for shard in range(len(again.spans)):
        video, layers = content(again, shard)
        assert (again.read(shard, "video") == video).all()
        for name, array in layers.items():
            assert (again.read(shard, name) == array).all()
            assert (again.read(shard, name, 1, 3) == array[1:3]).all()


def test_a_shard_is_the_same_bytes_whenever_it_is_built() -> None:
    arrays = {"a": np.arange(12, dtype=np.float32).reshape(4, 3), "video": np.arange(4)}
    assert build_shard(arrays) == build_shard(arrays)
    with h5py.File(io.BytesIO(build_shard(arrays))) as file:
        assert file["a"].fletcher32


def test_an_extraction_that_ends_early_goes_on_at_the_next_shard(tmp_path: Path) -> None:
    whole, broken = make(tmp_path / "whole"), make(tmp_path / "broken")
    fill(whole)
    shards = len(whole.spans)
    assert fill(broken, only=1) == list(range(shards))
    assert fill(make(tmp_path / "broken"), only=1) == list(range(1, shards))
    assert fill(make(tmp_path / "broken")) == list(range(2, shards))
    assert digests(tmp_path / "whole") == digests(tmp_path / "broken")


def _kill_in_write(folder: Path, write: int) -> None:
    """Fill the cache; die at the given call of fsync, that is, inside a write."""
    calls = 0
    fsync = os.fsync

    def dying(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == write:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(fd)

    os.fsync = dying
    fill(make(folder))


def test_killed_at_any_moment_it_ends_bit_identical(tmp_path: Path) -> None:
    fill(make(tmp_path / "whole"))
    folder = tmp_path / "killed"
    for write in (1, 2, 3, 4, 5, 7):
        child = FORK.Process(target=_kill_in_write, args=(folder, write))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    fill(make(folder))
    assert digests(folder) == digests(tmp_path / "whole")
    assert not list(folder.glob(".*.tmp"))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_flip, "does not match its checksum"),
        (_truncate, "bytes instead of"),
        (Path.unlink, "is gone"),
        (lambda path: path.write_bytes(b""), "has 0 bytes"),
    ],
)
def test_a_damaged_shard_is_made_again_and_that_is_said(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    said: str,
) -> None:
    cache = make(tmp_path / "c")
    fill(cache)
    before = digests(tmp_path / "c")
    damage(cache.path(1))
    with caplog.at_level(logging.WARNING, "selfsup"):
        assert fill(make(tmp_path / "c")) == [1]
    assert "shard-00001.h5" in caplog.text
    assert said in caplog.text
    assert digests(tmp_path / "c") == before


def test_every_flipped_bit_is_detected(tmp_path: Path) -> None:
    cache = make(tmp_path / "c")
    fill(cache)
    path = cache.path(0)
    good = path.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(good), 40):
        bad = bytearray(good)
        bad[position] ^= 1 << int(position % 8)
        path.write_bytes(bad)
        with cache.locked():
            assert cache.missing() == [0]
    path.write_bytes(good)
    assert fill(make(tmp_path / "c")) == []


@pytest.mark.parametrize(
    "index", [b"", b"[]", b"{}", b'{"schema": 1', b'{"shards": 3, "schema": "x"}', b"\xff\xfe"]
)
def test_an_unreadable_index_means_starting_over(tmp_path: Path, index: bytes) -> None:
    cache = make(tmp_path / "c")
    fill(cache)
    (tmp_path / "c" / "index.json").write_bytes(index)
    assert fill(make(tmp_path / "c")) == list(range(len(cache.spans)))
    assert fill(make(tmp_path / "c")) == []


@pytest.mark.parametrize("field", ["schema", "key", "about", "layers", "shards_in_all"])
def test_a_cache_that_does_not_match_is_never_used(tmp_path: Path, field: str) -> None:
    cache = make(tmp_path / "c")
    fill(cache)
    path = tmp_path / "c" / "index.json"
    index = json.loads(path.read_text())
    index[field] = {"another": 1} if isinstance(index[field], dict) else "another"
    path.write_text(json.dumps(index))
    assert fill(make(tmp_path / "c")) == list(range(len(cache.spans)))


def test_the_key_depends_on_everything_but_the_order() -> None:
    assert key_of({"a": 1, "b": [2, 3]}) == key_of({"b": [2, 3], "a": 1})
    several = [{}, {"a": 1}, {"a": 2}, {"a": "1"}, {"a": 1, "b": [2, 3]}, {"a": 1, "b": [3, 2]}]
    assert len({key_of(about) for about in several}) == len(several)


# Structure: files that HDF5 would read, and we do not


def structure(path: Path, expected: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    wanted = {name: (np.dtype(dtype), shape) for name, (dtype, shape) in expected.items()}
    with h5py.File(path, "r", locking=False) as file:
        check_structure(file, wanted, path.stat().st_size)


def _external_storage(file: h5py.File) -> None:
    secret = Path(file.filename).with_name("secret.txt")
    secret.write_bytes(b"x" * 64)
    file.create_dataset("a", (4, 4), "f4", external=[(str(secret), 0, 64)])


def _external_link(file: h5py.File) -> None:
    file["a"] = h5py.ExternalLink("other.h5", "/a")


def _soft_link(file: h5py.File) -> None:
    file["a"] = h5py.SoftLink("/a")


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 4), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "a", (4, 4))
    file.create_virtual_dataset("a", layout)


def _filtered(file: h5py.File) -> None:
    file.create_dataset("a", (4, 4), "f4", scaleoffset=2)


HOSTILE: list[tuple[Callable[[h5py.File], object], str]] = [
    (_external_storage, "keeps its data elsewhere"),
    (_external_link, "is a link"),
    (_soft_link, "is a link"),
    (_virtual, "keeps its data elsewhere"),
    (_filtered, "unknown filters"),
    (lambda f: f.create_group("a"), "not a dataset"),
    (lambda f: f.create_dataset("b", (4, 4), "f4"), "instead of"),
    (lambda f: f.create_dataset("a", (4, 5), "f4"), "instead of"),
    (lambda f: f.create_dataset("a", (4, 4), "f8"), "instead of"),
    (lambda f: f.create_dataset("a", (4, 4), h5py.string_dtype()), "instead of"),
    (lambda f: None, r"holds \[\]"),
]


@pytest.mark.parametrize(("build", "said"), HOSTILE)
def test_refuses_files_that_are_not_as_we_write_them(
    tmp_path: Path, build: Callable[[h5py.File], object], said: str
) -> None:
    path = tmp_path / "shard.h5"
    with h5py.File(path, "w") as file:
        build(file)
    with pytest.raises(StructureError, match=said):
        structure(path, {"a": ("f4", (4, 4))})


def test_refuses_a_shape_that_the_file_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "shard.h5"
    huge = (1 << 20, 1 << 20)
    with h5py.File(path, "w") as file:
        file.create_dataset("a", huge, "f4", chunks=(1, 1024))
    with pytest.raises(StructureError, match="more data than the file can hold"):
        structure(path, {"a": ("f4", huge)})


def test_accepts_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "shard.h5"
    path.write_bytes(build_shard({"a": np.zeros((4, 4), np.float32)}))
    structure(path, {"a": ("f4", (4, 4))})


def test_a_foreign_file_under_a_listed_checksum_is_still_refused(tmp_path: Path) -> None:
    cache = make(tmp_path / "c")
    fill(cache)
    path = cache.path(0)
    with h5py.File(path, "w") as file:
        file["conv1"] = h5py.ExternalLink("/etc/hostname.h5", "/")
    index = json.loads((tmp_path / "c" / "index.json").read_text())
    data = path.read_bytes()
    index["shards"]["0"].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    del index["check"]
    (tmp_path / "c" / "index.json").write_text(json.dumps(sealed(index)))
    assert fill(make(tmp_path / "c")) == [0]


def test_damage_after_opening_is_an_error_and_not_a_number(tmp_path: Path) -> None:
    cache = make(tmp_path / "c")
    fill(cache)
    data = bytearray(cache.path(0).read_bytes())
    _, layers = content(cache, 0)
    at = bytes(data).index(layers["conv1"].tobytes())
    data[at + 5] ^= 8
    cache.path(0).write_bytes(data)
    with pytest.raises(InputError, match=r"shard-00000.h5 cannot be read .*run the same command"):
        cache.read(0, "conv1")


# Place and room


def _hold(folder: Path, ready: multiprocessing.synchronize.Event) -> None:
    with make(folder).locked():
        ready.set()
        signal.pause()


def test_two_jobs_never_write_one_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class GivesUpError(Exception):
        pass

    ready = FORK.Event()
    child = FORK.Process(target=_hold, args=(tmp_path / "c", ready))
    child.start()
    assert ready.wait(20)
    naps: list[float] = []
    monkeypatch.setattr(caches.time, "sleep", naps.append)

    def waiting() -> None:
        if len(naps) == 2:
            raise GivesUpError

    try:
        with pytest.raises(GivesUpError), make(tmp_path / "c").locked(waiting):
            pytest.fail("took a lock that another process holds")
    finally:
        child.kill()
        child.join()
    with make(tmp_path / "c").locked(waiting):
        pass  # freed by the kill


def test_too_little_room_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make(tmp_path / "c")
    fill(cache, only=0)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda path: usage._replace(free=500))
    cache.require_room([0])
    with pytest.raises(MachineError, match="MB free"):
        cache.require_room(list(range(len(cache.spans))))


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"cannot write .*file/c/lock"),
        make(tmp_path / "file" / "c").locked(),
    ):
        pass


def test_the_cache_lies_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "a"))
    assert cache_root() == tmp_path / "a"
    monkeypatch.delenv("SELFSUP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_root() == tmp_path / "b" / "selfsup"
