"""`data check`: the right verdict for every file, copies found, and what is hostile left alone."""

from __future__ import annotations

import csv
import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from videos import write_video

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.data import check, image, image_check, packing, processes, quarantine, video
from selfsup_cli.data.check import Checked, Leak, Task, Verdict, check_files, look_at
from selfsup_cli.data.clips import open_source
from selfsup_cli.data.pack_about import Coding
from selfsup_cli.data.pack_check import check_pack
from selfsup_cli.data.pack_layout import START
from selfsup_cli.data.source import LeftOut
from selfsup_cli.errors import BadMediaError, InputError

# What is said of the unusual ones. All that is not listed here must be bad or no media at all.
UNUSUAL = {
    "cmyk.jpg": "CMYK colours",
    "exif_rotated.jpg": "to be turned upright (EXIF)",
    "five_frames.avi": "fewer than 16 frames",
    "gray.jpg": "grey",
    "gray16.png": "16 bits a value",
    "gray_alpha.png": "grey, with transparency",
    "jpg_renamed.png": "JPEG under another name",
    "one_bit.png": "black and white only",
    "one_frame.avi": "a single frame",
    "one_frame.mp4": "a single frame",
    "palette_transparent.png": "a palette, with transparency",
    "portrait.mp4": "portrait",
    "progressive.jpg": "progressive",
    "rgba.png": "with transparency",
    "slow_5fps.avi": "fewer than 10 frames a second",
    "tiny_16x16.avi": "smaller than 64 pixels",
    "tiny_1x1.png": "smaller than 32 pixels",
    "wide_600x4.png": "longer than 4:1",
}
BAD = {
    "audio_only.mp4": "no video stream",
    "bitflips.avi": "4 of its 35 frames are damaged",
    "html_error_page.jpg": "not a readable JPEG",
    "text_renamed.jpg": "not a readable JPEG",
    "text_renamed.mp4": "not a readable MP4",
    "truncated_faststart.mp4": "cut short: 28 of 63 frames",
    "truncated_half.avi": "cut short: 15 of 35 frames",
    "truncated_half.jpg": "truncated",
    "truncated_half.mp4": "not a readable MP4",
    "truncated_header.jpg": "damaged",
    "truncated_header.mp4": "not a readable MP4",
    "zero_byte.avi": "empty",
    "zero_byte.jpg": "empty",
    "zero_byte.mp4": "empty",
}
OTHER = {"truncated.bvh", "truncated.h5", "truncated.npz", "truncated_hierarchy.bvh", "files.csv"}


def checked(source: Path | str, **data: Any) -> Checked:
    return check_files(VideoData(source=str(source), **data), workers=0)


def verdicts(found: Checked) -> dict[str, Verdict]:
    return {one.id: one for one in found.verdicts}


def test_the_verdict_of_every_broken_file(data_dir: Path) -> None:
    found = checked(data_dir / "broken")
    told = verdicts(found)
    with (data_dir / "broken" / "files.csv").open() as file:
        named = {row["file"] for row in csv.DictReader(file)} | {"files.csv"}
    assert named == set(told) | OTHER == set(UNUSUAL) | set(BAD) | OTHER
    assert sum(found.others.values()) == len(OTHER)
    for name, phrase in UNUSUAL.items():
        assert told[name].bad is None, name
        assert phrase in told[name].unusual, name
    for name, reason in BAD.items():
        assert reason in (told[name].bad or "it is sound"), name
    assert told["exif_rotated.jpg"].width < told["exif_rotated.jpg"].height
    portrait = told["portrait.mp4"]
    assert (portrait.width, portrait.height, portrait.frames) == (240, 320, 20)
    assert (portrait.fps, round(portrait.seconds, 3)) == (30.0, 0.667)


def test_ordinary_files_are_not_unusual(data_dir: Path, tmp_path: Path) -> None:
    shutil.copyfile(
        data_dir / "ucf101-sample" / "BaseballPitch" / "v_BaseballPitch_g01_c01.avi",
        tmp_path / "pitch.avi",
    )
    photo = sorted((data_dir / "photos" / "test" / "ketch").iterdir())[0]
    shutil.copyfile(photo, tmp_path / "ketch.jpg")
    pitch, ketch = verdicts(checked(tmp_path)).values()
    if pitch.kind == "image":
        pitch, ketch = ketch, pitch
    assert (pitch.bad, pitch.unusual, ketch.bad, ketch.unusual) == (None, (), None, ())
    assert (pitch.frames, pitch.codec, pitch.fps) == (107, "mpeg4", 30000 / 1001)
    assert pitch.seconds == pytest.approx(107 / 29.97, rel=1e-3)


def test_what_is_unusual_about_videos(tmp_path: Path) -> None:
    kinds: dict[str, tuple[dict[str, Any], set[str]]] = {
        "plain.mp4": ({}, set()),
        "turned.mp4": ({"rotate": 90}, {"turned or mirrored when shown", "portrait"}),
        "sound.mp4": ({"audio": True}, {"an audio track"}),
        "varying.mkv": (
            {"times": [40 * n + (200 if n > 10 else 0) for n in range(20)]},
            {"a varying frame rate"},
        ),
        "odd.avi": ({"size": (65, 97), "codec": "mpeg4"}, {"an odd number of pixels a side"}),
        "long.mp4": ({"size": (64, 256)}, {"longer than 3:1"}),
        "short.mp4": ({"frames": 15}, {"fewer than 16 frames"}),
    }
    for name, (settings, _) in kinds.items():
        write_video(tmp_path / name, **{"frames": 20, **settings})
    told = verdicts(checked(tmp_path))
    for name, (_, unusual) in kinds.items():
        assert (name, set(told[name].unusual), told[name].bad) == (name, unusual, None)
    assert (told["turned.mp4"].width, told["turned.mp4"].height) == (64, 96)


def test_damage_behind_what_indexing_looks_at(tmp_path: Path) -> None:
    """The index is content with the packets of a large file; the check decodes all of it."""
    path = write_video(tmp_path / "large.avi", 60, codec="mpeg4", size=(480, 640), gop=12)
    assert not video._looked_through(path).decoded
    data = bytearray(path.read_bytes())
    place = data.rfind(b"00dc") - 4000
    data[place : place + 600] = bytes(600)
    path.write_bytes(data)
    assert video.probe(path).frames == 60
    told = verdicts(checked(tmp_path))["large.avi"]
    assert "damaged" in (told.bad or "")


# -- copies


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three different videos: a.avi, b.avi, c.avi; c as long as b."""
    for number, name in enumerate("ab"):
        write_video(tmp_path / f"{name}.avi", 16 + number, codec="mpeg4")
    data = bytearray((tmp_path / "b.avi").read_bytes())
    data[-5] ^= 1
    (tmp_path / "c.avi").write_bytes(data)
    return tmp_path


def test_copies_are_found_by_content(three: Path) -> None:
    assert checked(three).duplicates == []
    (three / "deep").mkdir()
    shutil.copyfile(three / "a.avi", three / "deep" / "copy.avi")
    (three / "linked.avi").symlink_to(three / "a.avi")
    shutil.copyfile(three / "b.avi", three / "b again.avi")
    (three / "empty.avi").touch()
    (three / "empty too.avi").touch()
    found = checked(three)
    assert found.duplicates == [("a.avi", "deep/copy.avi", "linked.avi"), ("b again.avi", "b.avi")]


def test_files_that_train_and_test_share(three: Path) -> None:
    (three / "train").mkdir()
    (three / "test").mkdir()
    for name in "ab":
        shutil.move(three / f"{name}.avi", three / "train")
    shutil.move(three / "c.avi", three / "test")
    found = checked(three)
    assert (found.parts, found.leaks) == ({"train": 2, "test": 1}, [])
    assert found.rule == "the folders train and test"
    shutil.copyfile(three / "train" / "a.avi", three / "test" / "z.avi")
    assert checked(three).leaks == [Leak("train/a.avi", "test/z.avi")]


def test_a_file_listed_in_both_parts(three: Path) -> None:
    (three / "trainlist01.txt").write_text("a.avi 1\nb.avi 1\n")
    (three / "testlist01.txt").write_text("b.avi 1\nc.avi 1\ngone.avi 1\n")
    found = checked(three)
    assert found.leaks == [Leak("b.avi", "b.avi")]
    assert verdicts(found)["gone.avi"].bad == "it is listed, but does not exist"
    # What the check writes makes the data usable.
    named = VideoData(source=str(three), quarantine=str(three / "bad.jsonl"))
    with pytest.raises(InputError, match=r"gone\.avi"):
        open_source(VideoData(source=str(three)), "test", labels=False, workers=0)
    quarantine.write(three / "bad.jsonl", found.bad())
    assert list(open_source(named, "test", labels=False, workers=0).ids) == ["b.avi", "c.avi"]


def test_a_csv_is_checked_file_by_file(three: Path, tmp_path: Path) -> None:
    table = three / "mine.csv"
    table.write_text("path,label,split\na.avi,x,train\nc.avi,y,test\ngone.avi,x,train\n")
    found = checked(table)
    told = verdicts(found)
    assert set(told) == {"a.avi", "c.avi", "gone.avi"}
    assert told["gone.avi"].bad == "the file does not exist"
    assert found.parts == {"train": 2, "test": 1}


def test_one_single_file(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "broken" / "portrait.mp4"
    (verdict,) = checked(path).verdicts
    assert (verdict.id, verdict.bad) == (str(path), None)
    assert "portrait" in verdict.unusual
    # Named by its whole path, it is left out of any folder that it lies in.
    write_video(tmp_path / "good.avi", 4, codec="mpeg4", size=(16, 16))
    shutil.copyfile(data_dir / "broken" / "bitflips.avi", tmp_path / "bad.avi")
    quarantine.write(tmp_path / "q.jsonl", checked(tmp_path / "bad.avi").bad())
    named = VideoData(source=str(tmp_path), quarantine=str(tmp_path / "q.jsonl"))
    source = open_source(named, "all", labels=False, workers=0)
    assert next(iter(source.left_out)).reason.startswith("quarantined: 4 of its 35 frames")


def test_a_folder_of_images_alone(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    found = checked(tmp_path)
    assert [one.id for one in found.verdicts] == ["a.png"]
    assert (found.rule, found.notes) == ("", [])


def test_what_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for source in (tmp_path, tmp_path / "notes.txt", tmp_path / "none", "motion", "ucf102"):
        with pytest.raises(InputError):
            checked(source)


def test_data_that_cannot_be_divided_is_checked_all_the_same(three: Path) -> None:
    found = checked(three, split=1)
    assert found.parts == {"train": 2, "test": 1}
    (three / "trainlist01.txt").write_text("../a.avi 1\n")
    (three / "testlist01.txt").write_text("b.avi 1\n")
    found = checked(three)
    assert len(found.verdicts) == 3
    assert (found.parts, found.rule) == ({}, "")
    assert "leads out of the dataset" in found.notes[0]


# -- hostile files


def test_playlists_open_nothing_else(tmp_path: Path) -> None:
    secret = write_video(tmp_path / "secret.mp4", 20)
    lists = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "concat.avi": f"ffconcat version 1.0\nfile '{secret}'\n",
        "dash.mkv": f'<?xml version="1.0"?><MPD><BaseURL>{secret}</BaseURL></MPD>',
        "sdp.mov": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        "picture.mp4": "",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    Image.new("RGB", (32, 32)).save(tmp_path / "picture.mp4", "PNG")
    told = verdicts(checked(tmp_path))
    assert told["secret.mp4"].bad is None
    for name in lists:
        assert "not a readable MP4" in (told[name].bad or ""), name


def test_names_that_could_do_something(tmp_path: Path) -> None:
    names = ["a\x1b[31mb.avi", "new\nline.avi", "sep\u2028\x85arate.avi", "https:x.avi", "-rf.avi"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / os.fsdecode(b"\xff\xfe.avi")).write_bytes(b"")
    write_video(tmp_path / "concat:a|b.avi", 20, codec="mpeg4")
    found = checked(tmp_path)
    told = verdicts(found)
    assert set(told) == {*names, "concat:a|b.avi"}
    assert told["concat:a|b.avi"].bad is None
    assert found.left_out == [LeftOut("\\xff\\xfe.avi", "its name is not UTF-8")]
    path = tmp_path / "q.jsonl"
    quarantine.write(path, found.bad())
    assert quarantine.read(path) == dict.fromkeys(names, "the file is empty")


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*c) for c in chunks) + chunk(b"IEND", b"")


def test_bombs_are_not_lit(tmp_path: Path) -> None:
    pixels = zlib.compress(bytes(1000))
    (tmp_path / "large.png").write_bytes(png(60_000, 60_000, (b"IDAT", pixels)))
    text = b"Comment\0\0" + zlib.compress(bytes(80 << 20))
    (tmp_path / "text.png").write_bytes(png(40, 40, (b"zTXt", text), (b"IDAT", pixels)))
    (tmp_path / "short.png").write_bytes(png(40, 40, (b"IDAT", pixels)))
    Image.new("RGB", (40, 40)).save(tmp_path / "really.gif.png", "GIF")
    (tmp_path / "code.jpg").write_text("%!PS-Adobe-3.0 EPSF\n%%BoundingBox: 0 0 9 9\n(x) run\n")
    told = verdicts(checked(tmp_path))
    assert told["large.png"].bad == "60000×60000 pixels are too many"
    for name in ("text.png", "short.png", "really.gif.png", "code.jpg"):
        assert told[name].bad, name


def test_limits_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (40, 50)).save(tmp_path / "a.png")
    assert image_check.examine(tmp_path / "a.png").unusual == ()
    monkeypatch.setattr(image, "MAX_PIXELS", 1999)
    with pytest.raises(BadMediaError, match="40×50 pixels are too many"):
        image_check.examine(tmp_path / "a.png")


def deadly(task: Task) -> Verdict:
    if "kill" in task.id:
        os._exit(9)
    return look_at(task)


def test_a_file_that_kills_its_process_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / f"{number:02}.bmp")
    shutil.move(tmp_path / "11.bmp", tmp_path / "11kill.bmp")
    monkeypatch.setattr(check, "look_at", deadly)
    found = check_files(VideoData(source=str(tmp_path)), workers=2)
    assert [one.id for one in found.verdicts if one.bad == processes.CRASHED] == ["11kill.bmp"]
    assert sum(one.bad is None for one in found.verdicts) == 19


# -- quarantine files


def test_a_quarantine_file_replaces_its_own_kind_only(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    quarantine.write(path, [LeftOut("a", "x")])
    quarantine.write(path, [LeftOut("b", "y")])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"path": "b", "reason": "y"}
    ]
    for text in ("my notes\n", '{"name": 1}\n', "[1]\n"):
        path.write_text(text)
        with pytest.raises(InputError, match="not a quarantine file"):
            quarantine.write(path, [LeftOut("a", "x")])
        assert path.read_text() == text


# -- packs


def test_a_pack_is_checked_frame_by_frame(three: Path, tmp_path: Path) -> None:
    shutil.copyfile(three / "a.avi", three / "z.avi")
    (three / "broken.avi").write_bytes(b"x")
    out = tmp_path / "pack.h5"
    named = VideoData(source=str(three))
    plan = packing.plan(
        named, Coding(size=(16, 16), encoding="jpeg", quality=80), workers=0, progress=None
    )
    packing.pack(plan, out, workers=0)
    told: list[tuple[int, int]] = []
    found = check_pack(
        VideoData(source=str(out)), workers=0, progress=lambda *done: told.append(done)
    )
    assert [(one.id, one.bad, one.frames) for one in found.verdicts] == [
        ("a.avi", None, 16), ("b.avi", None, 17), ("c.avi", None, 17), ("z.avi", None, 16),
    ]  # fmt: skip
    assert told[-1] == (4, 4)
    assert ("a.avi", "z.avi") in found.duplicates
    assert [out.id for out in found.left_out] == ["broken.avi"]
    assert "JPEG quality 80, off by" in found.storage
    assert sum(found.parts.values()) == 4
    data = bytearray(out.read_bytes())
    data[START + 30] ^= 4
    out.write_bytes(data)
    found = check_pack(VideoData(source=str(out)), workers=0)
    assert [one.id for one in found.bad()] == ["a.avi"]
    assert np.sum([one.bad is None for one in found.verdicts]) == 3
