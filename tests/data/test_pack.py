"""Packs: data like any other, the same however they were made, and damage in them is found."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image
from videos import write_video

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.data import frame_codec, pack_layout, packing
from selfsup_cli.data.clips import open_source
from selfsup_cli.data.files import FileSource
from selfsup_cli.data.loader import ClipDataset, ClipPlan, EpochLoader
from selfsup_cli.data.pack import PackSource
from selfsup_cli.data.pack_about import Coding
from selfsup_cli.data.pack_layout import START
from selfsup_cli.data.pack_part import Part
from selfsup_cli.data.source import ClipSource, LeftOut
from selfsup_cli.errors import BadMediaError, InputError, MachineError

FORK = multiprocessing.get_context("fork")
SIZE = (24, 32)
JPEG = Coding(size=SIZE, encoding="jpeg", quality=90)
RAW = Coding(size=SIZE, encoding="raw", quality=None)
PARTS: tuple[Any, ...] = ("train", "test", "all")


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of three videos each, of 10, 11, … frames, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("packed")
    for number, name in enumerate(("a/1", "a/2", "a/3", "b/1", "b/2", "b/3")):
        (folder / name).parent.mkdir(exist_ok=True)
        write_video(folder / f"{name}.avi", 10 + number, codec="mpeg4", size=(48, 64))
    (folder / "b" / "broken.avi").write_bytes(b"RIFF" + bytes(100))
    return folder


@pytest.fixture(scope="session")
def lists(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same videos with the lists of two splits, in an order of their own."""
    folder = tmp_path_factory.mktemp("lists") / "mine"
    shutil.copytree(root, folder)
    (folder / "classInd.txt").write_text("1 b\n2 a\n")
    for number, test in ((1, "1"), (3, "2")):
        names = [f"{c}/{n}.avi" for c in "ba" for n in "321"] + ["b/broken.avi"]
        for part in ("train", "test"):
            chosen = [n for n in names if (test in n) == (part == "test")]
            (folder / f"{part}list0{number}.txt").write_text("\n".join(chosen))
    return folder


def made(
    source: Path,
    out: Path,
    coding: Coding = RAW,
    workers: int = 0,
    progress: Any = None,
    **data: Any,
) -> packing.Packed:
    named = VideoData(source=str(source), **data)
    plan = packing.plan(named, coding, workers=0, progress=None)
    return packing.pack(plan, out, workers=workers, progress=progress)


def opened(source: Path, part: Any = "all", labels: bool = False, **data: Any) -> Any:
    return open_source(VideoData(source=str(source), **data), part, labels=labels, workers=0)


def refused(source: Path, part: Any = "all", labels: bool = False, **data: Any) -> str:
    with pytest.raises(InputError) as caught:
        opened(source, part, labels, **data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="session")
def packs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFSUP_CACHE", str(folder / "cache"))
        made(root, folder / "raw.h5")
        made(root, folder / "jpeg.h5", JPEG)
    return folder


@pytest.fixture
def raw(packs: Path) -> Path:
    return packs / "raw.h5"


@pytest.fixture
def jpeg(packs: Path) -> Path:
    return packs / "jpeg.h5"


def all_frames(source: ClipSource, i: int, size: Any = SIZE) -> torch.Tensor:
    return source.read(i, np.arange(source.num_frames[i]), size)


# -- a source like any other


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("labels", [False, True])
def test_a_raw_pack_is_what_the_files_are(root: Path, raw: Path, part: Any, labels: bool) -> None:
    files, pack = opened(root, part, labels), opened(raw, part, labels)
    assert isinstance(pack, PackSource)
    assert isinstance(pack, ClipSource)
    same_source(files, pack)
    for i in range(len(files)):
        assert torch.equal(all_frames(files, i), all_frames(pack, i))


def same_source(files: Any, pack: Any) -> None:
    assert list(files.ids) == list(pack.ids)
    assert files.num_frames.tolist() == pack.num_frames.tolist()
    assert (files.name, files.split, files.split_rule) == (pack.name, pack.split, pack.split_rule)
    assert files.classes == pack.classes
    assert (files.labels is None) == (pack.labels is None)
    assert files.labels is None or files.labels.tolist() == pack.labels.tolist()
    assert list(files.left_out) == list(pack.left_out)


@pytest.mark.parametrize("number", [1, 3])
def test_all_splits_and_their_order_are_kept(lists: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "lists.h5"
    made(lists, out)
    for part in PARTS:
        files = opened(lists, part, True, split=number)
        same_source(files, opened(out, part, True, split=number))
    assert files.classes == ("b", "a")
    assert "split 2 does not exist" in refused(out, split=2)
    assert "there is: 1, 3" in refused(out, split=2)


def test_a_csv_with_a_split_of_its_own(root: Path, tmp_path: Path) -> None:
    rows = ["b/3.avi,x,train", "a/1.avi,y,test", "a/2.avi,y,train", "b/1.avi,x,val"]
    table = tmp_path / "my.csv"
    table.write_text("\n".join(["path,label,split", *rows]))
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    out = tmp_path / "my.h5"
    made(table, out)
    for part in PARTS:
        same_source(opened(table, part, True), opened(out, part, True))


def test_what_is_held_out_is_what_would_be_of_the_files(root: Path, raw: Path) -> None:
    for seed in range(5):
        for part in PARTS:
            choice: dict[str, Any] = {"split_seed": seed, "test_share": 0.4}
            same_source(opened(root, part, **choice), opened(raw, part, **choice))


def test_batches_of_a_raw_pack_are_those_of_the_files(root: Path, raw: Path) -> None:
    def plan(frames: int, g: torch.Generator) -> ClipPlan:
        start = int(torch.randint(frames - 8, (1,), generator=g))
        return ClipPlan(np.array([np.arange(start, start + 8), [3, 1, 1, 7, 0, 2, 9, 3]]))

    def batches(source: Path) -> Iterator[dict[str, Any]]:
        clips = opened(source, "all")
        loader = EpochLoader(
            ClipDataset(clips, plan, SIZE, seed=7), len(clips), batch_size=3, seed=7
        )
        for epoch in range(2):
            yield from loader.epoch(epoch)

    pairs = list(zip(batches(root), batches(raw), strict=True))
    assert len(pairs) == 4
    for one, other in pairs:
        assert one.keys() == other.keys()
        assert one["bad"] == other["bad"] == []
        assert torch.equal(one["clip"], other["clip"])
        assert torch.equal(one["index"], other["index"])


def test_any_frames_in_any_order(raw: Path, jpeg: Path) -> None:
    for path in (raw, jpeg):
        pack = opened(path)
        whole = all_frames(pack, 2)
        for wanted in ([0], [11], [3, 3], [5, 2, 2, 9], [0, 11], list(range(12))):
            assert torch.equal(pack.read(2, np.array(wanted), None), whole[:, wanted])
        for wrong in ([12], [-1], [], [[1]]):
            with pytest.raises(ValueError, match="frame"):
                pack.read(2, np.array(wrong), None)


def test_another_size_is_scaled_from_the_stored_one(raw: Path) -> None:
    pack = opened(raw)
    small = pack.read(0, np.array([4]), (12, 16))
    assert small.shape == (3, 1, 12, 16)
    # Half the size: what antialiasing gives is near the mean of four.
    mean = all_frames(pack, 0)[:, 4].float().reshape(3, 12, 2, 16, 2).mean((2, 4))
    assert (small[:, 0].float() - mean).abs().mean() < 12


def test_a_subset_and_what_arrives_in_another_process(raw: Path) -> None:
    pack = opened(raw, labels=True)
    subset = pack.subset(np.array([4, 1]))
    assert list(subset.ids) == ["b/2.avi", "a/2.avi"]
    assert subset.num_frames.tolist() == [14, 11]
    assert subset.labels.tolist() == [1, 0]
    assert torch.equal(all_frames(subset, 0), all_frames(pack, 4))
    assert subset.fingerprint != pack.fingerprint
    assert pack.subset(np.arange(6)).fingerprint == pack.fingerprint
    ours, theirs = Pipe()
    with ours, theirs:
        ours.send(subset)
        arrived = theirs.recv()
    assert torch.equal(all_frames(arrived, 1), all_frames(pack, 1))
    with FORK.Pool(1) as pool:
        assert torch.equal(pool.apply(all_frames, (subset, 1)), all_frames(pack, 1))


def test_the_fingerprint_follows_the_content(
    root: Path, raw: Path, jpeg: Path, tmp_path: Path
) -> None:
    again = tmp_path / "elsewhere" / "again.h5"
    again.parent.mkdir()
    shutil.copyfile(raw, again)
    assert opened(again).fingerprint == opened(raw).fingerprint
    prints = {opened(path).fingerprint for path in (root, raw, jpeg)}
    prints.add(opened(raw, labels=True).fingerprint)
    assert len(prints) == 4


def test_a_quarantine_is_honoured(root: Path, raw: Path, tmp_path: Path) -> None:
    listed = tmp_path / "quarantine.jsonl"
    listed.write_text(json.dumps({"path": "a/2.avi", "reason": "dull"}) + "\n")
    pack = opened(raw, quarantine=str(listed))
    assert "a/2.avi" not in pack.ids
    assert LeftOut("a/2.avi", "quarantined: dull") in pack.left_out
    out = tmp_path / "less.h5"
    made(root, out, quarantine=str(listed))
    less = opened(out)
    assert list(less.ids) == list(pack.ids)
    assert LeftOut("a/2.avi", "quarantined: dull") in less.left_out


def test_what_the_user_has_to_mend(root: Path, raw: Path, tmp_path: Path) -> None:
    assert "is registered datasets" not in refused(raw, root="x")
    assert "--data-root is for registered datasets" in refused(raw, root="x")
    assert "cannot be read" in refused(tmp_path / "none.h5")
    plain = tmp_path / "flat"
    plain.mkdir()
    shutil.copyfile(root / "a" / "1.avi", plain / "1.avi")
    shutil.copyfile(root / "a" / "2.avi", plain / "2.avi")
    made(plain, tmp_path / "flat.h5")
    assert len(opened(tmp_path / "flat.h5")) == 2
    assert "has no labels" in refused(tmp_path / "flat.h5", labels=True)
    for source in ("motion", str(raw)):
        with pytest.raises(InputError, match="pack"):
            packing.plan(VideoData(source=source), RAW, workers=0, progress=None)


# -- JPEG


def test_a_jpeg_pack_says_how_far_it_is_off(root: Path, jpeg: Path) -> None:
    files, pack = opened(root), opened(jpeg)
    off = []
    for i in range(len(files)):
        middle = np.array([files.num_frames[i] // 2])
        exact, kept = (source.read(i, middle, SIZE).numpy().astype(int) for source in (files, pack))
        off.append(np.abs(exact - kept))
    tables, _ = pack_layout.read(jpeg)
    loss = tables.about.loss
    assert loss is not None
    assert 0.2 < loss.mean < 20
    assert loss.mean == pytest.approx(np.mean(off), abs=1e-4)
    assert (loss.largest, loss.frames) == (np.max(off), 6)
    assert f"{loss.mean:.2f} grey levels" in pack.storage
    with h5py.File(jpeg) as file:
        assert file["data"].attrs["mean_error_grey_levels"] == loss.mean
        assert file["data"].attrs["largest_error_grey_levels"] == loss.largest


def test_any_program_can_read_a_pack(jpeg: Path) -> None:
    """One contiguous run of JPEGs with offsets, as the HDF5 library and Pillow see it."""
    pack = opened(jpeg)
    with h5py.File(jpeg) as file:
        assert set(file) == set(pack_layout._FORMS)
        data, offsets = file["data"], file["offsets"][()]
        assert (data.chunks, data.id.get_offset()) == (None, START)
        names = file["names"][()].tobytes().decode()
        assert names.startswith("a/1.avia/2.avi")
        for frame in (0, 9, 10):
            image = Image.open(io.BytesIO(data[offsets[frame] : offsets[frame + 1]].tobytes()))
            ours = pack.read(frame // 10, np.array([frame % 10]), None)[:, 0].permute(1, 2, 0)
            # Programs differ in how they scale colours up, but not in the brightness.
            brightness = np.array([0.299, 0.587, 0.114])
            assert np.abs(np.asarray(image) @ brightness - ours.numpy() @ brightness).mean() < 2


# -- made in one go or in many


def test_processes_and_pieces_change_nothing(
    root: Path, jpeg: Path, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_PIECE_BYTES", 1)
    monkeypatch.setattr(packing, "_LEAST_FRAMES", 4)
    made(root, tmp_path / "raw.h5")
    assert (tmp_path / "raw.h5").read_bytes() == raw.read_bytes()
    made(root, tmp_path / "jpeg.h5", JPEG, workers=2)
    assert (tmp_path / "jpeg.h5").read_bytes() == jpeg.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jpeg.h5", "raw.h5"]


def in_child(work: Callable[[], None]) -> int:
    """How a process that did `work` ended."""

    def child() -> None:
        work()
        os._exit(0)

    process = FORK.Process(target=child)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


# What a packing process does to the disk, in this order, over and over.
POINTS = ("_write", "_note", "close_video", "publish", "forget")


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_anywhere_loses_nothing_but_time(
    root: Path, jpeg: Path, tmp_path: Path, point: str
) -> None:
    out = tmp_path / "pack.h5"
    kills = 0
    for count in range(1, 12):
        status = in_child(lambda count=count: pack_until(root, out, point, count))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        kills += 1
        if out.exists():
            assert out.read_bytes() == jpeg.read_bytes()
        made(root, out, JPEG)
        assert out.read_bytes() == jpeg.read_bytes()
        assert [path.name for path in tmp_path.iterdir()] == ["pack.h5"]
        out.unlink()
    assert kills >= {"publish": 1, "forget": 1}.get(point, 6)


def pack_until(root: Path, out: Path, point: str, count: int) -> None:
    """Be killed in the middle of the `count`-th call of a method of `Part`."""
    method = getattr(Part, point)
    left = [count]

    def deadly(self: Part, *arguments: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            if point == "_write":  # half of it is written
                data, at = arguments
                method(self, data[: len(data) // 2], at)
            os.kill(os.getpid(), signal.SIGKILL)
        return method(self, *arguments)

    setattr(Part, point, deadly)
    made(root, out, JPEG)


def test_what_is_done_is_not_done_again(root: Path, jpeg: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack.h5"

    class EnoughError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise EnoughError

    with pytest.raises(EnoughError):
        made(root, out, JPEG, progress=stop)
    told: list[tuple[int, int]] = []
    packed = made(root, out, JPEG, progress=lambda *done: told.append(done))
    assert packed.resumed == 4
    assert told == [(1, 6), (2, 6), (3, 6), (4, 6), (4, 6), (5, 6), (6, 6)]
    assert out.read_bytes() == jpeg.read_bytes()
    assert made(root, out, JPEG).resumed == 6  # complete: left as it is


@pytest.mark.parametrize("what", ["part", "journal", "cut"])
def test_damage_to_what_is_unfinished_is_made_good(
    root: Path, jpeg: Path, tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "pack.h5"
    assert in_child(lambda: pack_until(root, out, "close_video", 5)) == -signal.SIGKILL
    part, journal = (tmp_path / f"pack.h5.{end}" for end in ("part", "journal"))
    if what == "part":
        flip(part, START + (part.stat().st_size - START) // 2)
    elif what == "journal":
        flip(journal, journal.stat().st_size // 2)
    else:
        os.truncate(part, START + 100)
    packed = made(root, out, JPEG)
    assert packed.resumed < 4
    assert "damaged" in caplog.text
    assert out.read_bytes() == jpeg.read_bytes()


def test_without_the_look_at_what_is_there_damage_would_stay(
    root: Path, jpeg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above."""
    out = tmp_path / "pack.h5"
    assert in_child(lambda: pack_until(root, out, "close_video", 5)) == -signal.SIGKILL
    flip(tmp_path / "pack.h5.part", START + 500)
    monkeypatch.setattr(Part, "_holds", lambda self, video, length: True)
    made(root, out, JPEG)
    assert out.read_bytes() != jpeg.read_bytes()


def flip(path: Path, place: int, bit: int = 3) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def test_a_video_that_turns_bad_on_the_way_is_left_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = FileSource.read

    def failing(self: FileSource, i: int, frames: np.ndarray, size: Any) -> torch.Tensor:
        if self.ids[i] == "a/3.avi" and frames[0] >= 8:
            raise BadMediaError("a/3.avi", "a cosmic ray")
        return read(self, i, frames, size)

    monkeypatch.setattr(FileSource, "read", failing)
    monkeypatch.setattr(packing, "_PIECE_BYTES", 1)
    monkeypatch.setattr(packing, "_LEAST_FRAMES", 4)
    made(root, tmp_path / "pack.h5")
    pack = opened(tmp_path / "pack.h5", labels=True)
    assert list(pack.ids) == ["a/1.avi", "a/2.avi", "b/1.avi", "b/2.avi", "b/3.avi"]
    assert LeftOut("a/3.avi", "a cosmic ray") in pack.left_out
    files = opened(root)
    assert torch.equal(all_frames(pack, 2), all_frames(files, 3))
    assert torch.equal(all_frames(pack, 4), all_frames(files, 5))


def test_nothing_of_others_is_overwritten(root: Path, raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack.h5"
    for path in (out, tmp_path / "pack.h5.part", tmp_path / "pack.h5.journal"):
        path.write_text("my diary")
        with pytest.raises(InputError):
            made(root, out)
        assert path.read_text() == "my diary"
        path.unlink()
        (tmp_path / "pack.h5.part").unlink(missing_ok=True)
    shutil.copyfile(raw, out)
    with pytest.raises(InputError, match="is another pack"):
        made(root, out, JPEG)
    assert out.read_bytes() == raw.read_bytes()
    with pytest.raises(InputError, match="there is no folder"):
        made(root, tmp_path / "none" / "pack.h5")


def test_other_settings_do_not_go_on_with_what_was_begun(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack.h5"
    assert in_child(lambda: pack_until(root, out, "close_video", 3)) == -signal.SIGKILL
    before = (tmp_path / "pack.h5.part").read_bytes()
    for coding in (RAW, Coding(size=(16, 16), encoding="jpeg", quality=90)):
        with pytest.raises(InputError, match=r"other data or settings \((size|encoding)"):
            made(root, out, coding)
    assert (tmp_path / "pack.h5.part").read_bytes() == before


def test_two_processes_do_not_write_one_pack(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack.h5"
    plan = packing.plan(VideoData(source=str(root)), RAW, workers=0, progress=None)
    refusals = []

    def try_too(done: int, total: int) -> None:
        def second() -> None:
            with pytest.raises(InputError, match="being written by another process"):
                packing.pack(plan, out, workers=0)

        if done == 2:
            refusals.append(in_child(second))

    packing.pack(plan, out, workers=0, progress=try_too)
    assert refusals == [0]


def test_a_full_disk_keeps_what_is_done(root: Path, jpeg: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack.h5"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (START + 30_000, resource.RLIM_INFINITY))
        with pytest.raises(MachineError, match=r"pack\.h5\.part.*bytes free"):
            made(root, out, JPEG)

    assert in_child(limited) == 0
    assert made(root, out, JPEG).resumed > 0
    assert out.read_bytes() == jpeg.read_bytes()


def test_a_raw_pack_that_will_not_fit_is_told_at_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(MachineError, match=r"has 0\.0 GiB free"):
        made(root, tmp_path / "pack.h5")


# -- damage and malice


@pytest.mark.parametrize("coding", [RAW, JPEG], ids=["raw", "jpeg"])
def test_one_flipped_bit_in_the_frames_names_the_video(
    coding: Coding, raw: Path, jpeg: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pack.h5"
    shutil.copyfile(raw if coding is RAW else jpeg, path)
    tables, _ = pack_layout.read(path)
    with h5py.File(path) as file:
        offsets = file["offsets"][()]
    first = int(tables.frames[:3].sum())
    flip(path, START + int(offsets[first + 5]) + 40)
    pack = opened(path)
    for i in range(len(pack)):
        if i == 3:
            with pytest.raises(BadMediaError, match=r"b/1\.avi.*checksum"):
                all_frames(pack, i)
            with pytest.raises(BadMediaError, match=r"b/1\.avi.*checksum"):
                pack.verify(i)
            pack.read(3, np.array([0, 4, 6, 12]), None)  # the others are sound
        else:
            all_frames(pack, i)
            pack.verify(i)


def test_one_flipped_bit_elsewhere_is_found_when_it_is_opened(jpeg: Path, tmp_path: Path) -> None:
    path = tmp_path / "pack.h5"
    size = jpeg.stat().st_size
    _, places = pack_layout.read(jpeg)
    behind = range(places.data_end, size)
    for place in (0, 9, 100, 2000, START - 1, *behind[:: len(behind) // 40], size - 60, size - 1):
        shutil.copyfile(jpeg, path)
        flip(path, place)
        assert "\n" not in refused(path)
    for length in (0, 7, 5000, START, places.data_end, size - 1):
        shutil.copyfile(jpeg, path)
        os.truncate(path, length)
        assert "pack" in refused(path)


def test_a_pack_that_changes_while_it_is_open_is_not_believed(jpeg: Path, tmp_path: Path) -> None:
    path = tmp_path / "pack.h5"
    shutil.copyfile(jpeg, path)
    first, second = opened(path), opened(path)
    all_frames(first, 0)
    os.truncate(path, START + 10)
    with pytest.raises(BadMediaError, match="cut short"):
        all_frames(first, 0)
    with pytest.raises(BadMediaError, match="has changed"):
        all_frames(second, 0)
    path.unlink()
    with pytest.raises(BadMediaError):
        all_frames(opened_and_unread(jpeg, path), 0)


def opened_and_unread(jpeg: Path, path: Path) -> Any:
    shutil.copyfile(jpeg, path)
    source = opened(path)
    path.unlink()
    return source


Change = Callable[[h5py.File, Path], None]


def link_out(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["labels"] = file["labels"][()]
    del file["labels"]
    file["labels"] = h5py.ExternalLink("other.h5", "labels")


def soft_link(file: h5py.File, folder: Path) -> None:
    del file["labels"]
    file["labels"] = h5py.SoftLink("/frames")


def external(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(bytes(48))
    del file["labels"]
    file.create_dataset("labels", (6,), "<i8", external=[("secret", 0, 48)])


def virtual(file: h5py.File, folder: Path) -> None:
    del file["labels"]
    layout = h5py.VirtualLayout((7,), "<i8")
    layout[:] = h5py.VirtualSource("other.h5", "labels", (7,))
    file.create_virtual_dataset("labels", layout)


def huge(file: h5py.File, folder: Path) -> None:
    del file["labels"]
    file.create_dataset("labels", (1 << 50,), "<i8")


def chunked(file: h5py.File, folder: Path) -> None:
    values = file["labels"][()]
    del file["labels"]
    file.create_dataset("labels", data=values, chunks=(2,), compression="gzip")


def compact(file: h5py.File, folder: Path) -> None:
    values = file["labels"][()]
    del file["labels"]
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(values.shape)
    h5py.h5d.create(file.id, b"labels", h5py.h5t.STD_I64LE, space, settings)


def group(file: h5py.File, folder: Path) -> None:
    del file["labels"]
    file.create_group("labels")


def text(file: h5py.File, folder: Path) -> None:
    del file["labels"]
    file["labels"] = ["a", "b", "c", "d", "e", "f", "g"]


def extra(file: h5py.File, folder: Path) -> None:
    file["more"] = 1


def missing(file: h5py.File, folder: Path) -> None:
    del file["order"]


def put(name: str, value: Any) -> Change:
    def change(file: h5py.File, folder: Path) -> None:
        values = np.asarray(value(file[name][()]))
        del file[name]
        file[name] = values

    change.__name__ = name
    return change


def about(**changes: Any) -> Change:
    def edit(data: np.ndarray) -> np.ndarray:
        found = {**json.loads(data.tobytes()), **changes}
        return np.frombuffer(json.dumps(found).encode(), np.uint8)

    return put("about", edit)


HOSTILE: tuple[Change, ...] = (
    link_out, soft_link, external, virtual, huge, chunked, compact, group, text, extra, missing,
    put("frames", lambda frames: frames * 2),
    put("frames", lambda frames: np.where(frames == 10, 10 - (1 << 63), frames)),
    put("frames", lambda frames: np.zeros(0, np.int64)),
    put("labels", lambda labels: labels + 5),
    put("labels", lambda labels: -labels - 1),
    put("labels", lambda labels: labels[:3]),
    put("name_ends", lambda ends: ends[::-1]),
    put("name_ends", lambda ends: ends * 3),
    put("names", lambda names: names | 0x80),
    put("digests", lambda digests: digests[:2]),
    put("checksums", lambda checksums: checksums[:-1]),
    put("order", lambda order: np.array([99], np.int64)),
    put("about", lambda data: data[:-9]),
    put("about", lambda data: np.frombuffer(b"[]", np.uint8)),
    about(schema="selfsup.pack/9"),
    about(surplus=1),
    about(classes=None),
    about(coding={"size": [1 << 30, 1 << 30], "encoding": "raw", "quality": None}),
    about(coding={"size": [24, 32], "encoding": "pickle", "quality": None}),
    about(splits={"1": {"rule": "r", "train": [0, 9], "test": [0, 0]}}),
    about(splits={"one": {"rule": "r", "train": [0, 0], "test": [0, 0]}}),
    about(name="../../etc"),
)  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_what_pretends_to_be_a_pack(change: Change, raw: Path, tmp_path: Path) -> None:
    """Sealed as a pack is, so that only the look at its structure stands in the way."""
    said = refused(sealed_again(change, raw, tmp_path))
    assert "damaged or not ours" in said
    assert "do not match" not in said


def sealed_again(change: Change, raw: Path, folder: Path) -> Path:
    path = folder / "evil.h5"
    shutil.copyfile(raw, path)
    with h5py.File(path, "r+") as file:
        change(file, folder)
    data = path.read_bytes()
    _, places = pack_layout.read(raw)
    seal = hashlib.sha256(data[:START] + data[places.data_end :]).digest()
    trailer = pack_layout._TRAILER.pack(pack_layout._MARK, places.data_end, seal)
    path.write_bytes(data + trailer)
    return path


def test_the_harness_seals_what_is_sound(raw: Path, tmp_path: Path) -> None:
    """The negative control of the test above: what is not changed passes."""
    path = sealed_again(lambda file, folder: None, raw, tmp_path)
    assert opened(path).fingerprint == opened(raw).fingerprint


@pytest.mark.parametrize(
    "value",
    [
        lambda offsets: offsets[::-1],
        lambda offsets: offsets + (1 << 40),
        lambda offsets: offsets - 200,
        lambda offsets: np.where(np.arange(len(offsets)) % 2, 1 << 62, 0),
    ],
)
def test_offsets_that_lead_elsewhere(value: Any, raw: Path, tmp_path: Path) -> None:
    pack = opened(sealed_again(put("offsets", value), raw, tmp_path))
    for i in range(len(pack)):
        with pytest.raises(BadMediaError):
            all_frames(pack, i)
        with pytest.raises(BadMediaError):
            pack.verify(i)


def test_frames_that_are_other_pictures_than_they_should_be() -> None:
    empty = (np.zeros((h, w, 3), np.uint8) for h, w in ((300, 300), (8, 8), (32, 24)))
    stored = [simplejpeg.encode_jpeg(image, 90, "RGB") for image in empty]
    for data in (*stored, stored[0][:300], b"", b"\xff\xd8\xff"):
        with pytest.raises(ValueError, match=r"buffer|instead of|header|JPEG|Premature"):
            frame_codec.decode(JPEG, [data])
        with pytest.raises(ValueError, match=r"bytes instead of 2304"):
            frame_codec.decode(RAW, [data])
