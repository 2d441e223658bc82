"""Frames come out exactly as a decode of the whole file gives them, or not at all."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate
from videos import full_decode, picture, write_video

from selfsup_cli.data import scan, video
from selfsup_cli.data.bitstream import can_start
from selfsup_cli.data.frame_table import FrameTable, VideoInfo
from selfsup_cli.errors import BadMediaError

SHORT_GOPS = {"x264-params": "keyint=12:min-keyint=12:scenecut=0"}
OPEN_GOPS = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:open-gop=1:bframes=4"}
REFRESH = {"x264-params": "keyint=20:intra-refresh=1:bframes=2"}
XVID: dict[str, Any] = {"codec": "mpeg4", "gop": 12, "max_b_frames": 2}

KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"options": SHORT_GOPS, "frames": 70},
    "h264-one-gop.mov": {"frames": 40},
    "h264-in.avi": {"options": SHORT_GOPS},
    "open-gop.mp4": {"options": OPEN_GOPS, "frames": 60},
    "open-gop.mkv": {"options": OPEN_GOPS, "frames": 60},
    "intra-refresh.mp4": {"options": REFRESH, "frames": 60},
    "mpeg4-b.avi": {**XVID, "frames": 70},
    "mpeg4-b.mp4": {**XVID},
    "mpeg4.avi": {"codec": "mpeg4", "gop": 12, "frames": 60},
    "hevc.mp4": {
        "codec": "libx265",
        "frames": 40,
        "options": {
            "preset": "ultrafast",
            "x265-params": "keyint=12:min-keyint=12:bframes=3:temporal-layers=3:log-level=none",
        },
    },
    "mpeg2-b.mkv": {"codec": "mpeg2video", "gop": 12, "max_b_frames": 2},
    "vp8-hidden-frames.webm": {
        "codec": "libvpx",
        "options": {"g": "16", "cpu-used": "8", "lag-in-frames": "16", "auto-alt-ref": "1"},
    },
    "vfr.mp4": {"options": SHORT_GOPS, "times": [number * number * 7 for number in range(40)]},
    "vfr.mkv": {"options": SHORT_GOPS, "times": [number * number * 7 for number in range(40)]},
    "late.mp4": {"options": SHORT_GOPS, "times": [5000 + 40 * number for number in range(40)]},
    "turned.mp4": {"options": SHORT_GOPS, "rotate": -90},
    "odd.avi": {**XVID, "size": (67, 99)},
    "odd-444.mp4": {"size": (65, 97), "pixels": "yuv444p"},
    "ten-bit.mp4": {"options": SHORT_GOPS, "pixels": "yuv420p10le"},
    "gray.mp4": {"options": SHORT_GOPS, "pixels": "gray"},
    "audio.mp4": {"options": SHORT_GOPS, "audio": True},
    "audio.avi": {"codec": "mpeg4", "gop": 12, "audio": True},
    "one-frame.mp4": {"frames": 1},
    "two-frames.avi": {**XVID, "frames": 2},
}
Sample = tuple[Path, VideoInfo, list[np.ndarray]]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sample]:
    """A video of each kind, with its index and its frames, made once."""
    folder = tmp_path_factory.mktemp("videos")
    made: dict[str, Sample] = {}

    def get(kind: str) -> Sample:
        if kind not in made:
            path = write_video(folder / kind, **KINDS[kind])
            made[kind] = path, video.probe(path), full_decode(path)
        return made[kind]

    return get


def fetched(path: Path, info: VideoInfo, frames: Any) -> np.ndarray:
    return video.decode(path, info, np.asarray(frames)).permute(1, 2, 3, 0).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_the_count_and_size_are_those_of_a_full_decode(
    kind: str, sample: Callable[[str], Sample]
) -> None:
    _, info, frames = sample(kind)
    assert info.frames == len(frames) == KINDS[kind].get("frames", 40)
    assert (info.height, info.width, 3) == frames[0].shape


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_list_of_frames_equals_a_full_decode(
    kind: str, sample: Callable[[str], Sample], data: st.DataObject
) -> None:
    path, info, frames = sample(kind)
    wanted = data.draw(st.lists(st.integers(0, info.frames - 1), min_size=1, max_size=16))
    assert np.array_equal(fetched(path, info, wanted), np.stack([frames[i] for i in wanted]))


@pytest.mark.parametrize("kind", ["h264.mp4", "open-gop.mkv", "mpeg4-b.avi", "intra-refresh.mp4"])
def test_every_single_frame_equals_a_full_decode(
    kind: str, sample: Callable[[str], Sample]
) -> None:
    path, info, frames = sample(kind)
    for number, frame in enumerate(frames):
        assert np.array_equal(fetched(path, info, [number])[0], frame), number


@pytest.mark.parametrize(
    "kind", ["h264.mp4", "open-gop.mp4", "open-gop.mkv", "mpeg4-b.avi", "audio.avi", "hevc.mp4"]
)
def test_sound_files_are_entered_where_their_index_says(
    kind: str, sample: Callable[[str], Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starting over from the beginning would hide that decoding started at a wrong place."""
    path, info, frames = sample(kind)
    fetch = video._fetch

    def only_once(*args: Any, seek: bool) -> Any:
        assert seek, "the file was decoded from its beginning"
        return fetch(*args, seek=seek)

    monkeypatch.setattr(video, "_fetch", only_once)
    for first in range(0, info.frames, 2):
        for wanted in ([first], [first, min(first + 9, info.frames - 1)]):
            got = fetched(path, info, wanted)
            assert np.array_equal(got, np.stack([frames[i] for i in wanted])), wanted


def test_strided_clips_equal_a_full_decode(sample: Callable[[str], Sample]) -> None:
    path, info, frames = sample("h264.mp4")
    for stride in (1, 2, 4):
        wanted = np.arange(3, 3 + 16 * stride, stride)
        assert np.array_equal(fetched(path, info, wanted), np.stack([frames[i] for i in wanted]))


def test_frames_are_scaled_as_torch_scales_the_upright_full_frames(
    sample: Callable[[str], Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, info, frames = sample("turned.mp4")
    wanted = [5, 30, 5, 0]
    upright = torch.from_numpy(np.stack([frames[i] for i in wanted])).permute(0, 3, 1, 2)
    expected = interpolate(upright.contiguous(), (24, 31), mode="bilinear", antialias=True)
    expected = expected.permute(1, 0, 2, 3)
    assert torch.equal(video.decode(path, info, np.array(wanted), (24, 31)), expected)
    monkeypatch.setattr(video, "_STAGE_BYTES", 1)  # frame by frame
    assert torch.equal(video.decode(path, info, np.array(wanted), (24, 31)), expected)
    assert np.array_equal(fetched(path, info, wanted), np.stack([frames[i] for i in wanted]))


def test_the_result_is_uint8_and_contiguous(sample: Callable[[str], Sample]) -> None:
    path, info, _ = sample("h264.mp4")
    clip = video.decode(path, info, np.arange(16), (20, 30))
    assert clip.shape == (3, 16, 20, 30)
    assert clip.dtype == torch.uint8
    assert clip.is_contiguous()


@pytest.mark.parametrize(
    ("degrees", "clockwise", "corner"),
    [(0, 0, (0, 0)), (-90, 90, (0, 1)), (90, 270, (1, 0)), (180, 180, (1, 1))],
)
def test_rotated_videos_come_upright(
    tmp_path: Path, degrees: int, clockwise: int, corner: tuple[int, int]
) -> None:
    """The patch that `picture` draws into the stored top left corner turns with the frame."""
    path = write_video(
        tmp_path / "v.mp4", 3, size=(64, 96), rotate=degrees, pixels="yuv444p", options={"qp": "1"}
    )
    info = video.probe(path)
    assert info.rotation == clockwise
    assert (info.height, info.width) == ((64, 96) if clockwise % 180 == 0 else (96, 64))
    frame = fetched(path, info, [2])[0]
    high, wide = info.height // 8, info.width // 8
    patch = frame[-high:] if corner[0] else frame[:high]
    patch = patch[:, -wide:] if corner[1] else patch[:, :wide]
    stored = int(picture(2, 64, 96)[0, 0, 0])
    assert abs(patch.astype(int) - stored).max() < 8


def display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write another display matrix into an MP4 file that has one."""
    data = path.read_bytes()
    old = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    turned = data.find(old[:20])
    assert turned > 0
    new = struct.pack(">5i", a, b, 0, c, d)
    path.write_bytes(data[:turned] + new + data[turned + 20 :])


@pytest.mark.parametrize("axes", [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)])
def test_mirrored_videos_come_as_their_matrix_says(tmp_path: Path, axes: tuple[int, ...]) -> None:
    """The orientation agrees with the matrix applied to coordinates, pixel by pixel."""
    path = write_video(tmp_path / "v.mp4", 2, rotate=-90)
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    display_matrix(path, *(axis << 16 for axis in axes))
    a, b, c, d = axes
    y, x = np.mgrid[: stored.shape[0], : stored.shape[1]]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    expected = np.empty((to_y.max() + 1, to_x.max() + 1, 3), np.uint8)
    expected[to_y, to_x] = stored
    assert np.array_equal(fetched(path, video.probe(path), [0])[0], expected)


def test_a_rotation_by_no_quarter_turn_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 2, rotate=-90)
    display_matrix(path, 46341, 46341, -46341, 46341)
    with pytest.raises(BadMediaError, match="quarter turn"):
        video.probe(path)


@pytest.mark.parametrize(("kind", "at_most"), [("h264.mp4", 16), ("mpeg4-b.avi", 16)])
def test_no_more_is_decoded_than_the_group_of_pictures_needs(
    kind: str, at_most: int, sample: Callable[[str], Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key frame every 12, two frames near the end cost at most one group; and with
    unreferenced frames skipped, one frame costs less than that."""
    path, info, _ = sample(kind)
    assert len(info.table.keys) >= 5
    seen: list[int | None] = []
    put = video._Images.put
    monkeypatch.setattr(
        video._Images, "put", lambda self, slot, frame: (seen.append(slot), put(self, slot, frame))
    )
    video.decode(path, info, np.array([59, 58]))
    assert len(seen) <= at_most
    seen.clear()
    video.decode(path, info, np.array([3, 65]))
    assert len(seen) <= 14


def test_a_missed_seek_costs_time_but_changes_nothing(sample: Callable[[str], Sample]) -> None:
    path, info, frames = sample("h264.mp4")
    table = info.table
    for wrong in (
        dataclasses.replace(table, key_positions=table.key_positions + 7),
        dataclasses.replace(table, key_times=np.full_like(table.key_times, table.key_times[-1])),
        dataclasses.replace(table, key_times=np.zeros_like(table.key_times)),
    ):
        got = fetched(path, dataclasses.replace(info, table=wrong), [40, 20])
        assert np.array_equal(got, np.stack([frames[40], frames[20]]))


def test_without_a_match_of_packets_and_frames_the_file_is_played(
    sample: Callable[[str], Sample],
) -> None:
    path, info, frames = sample("mpeg4-b.avi")
    empty = np.empty(0, np.int64)
    table = dataclasses.replace(
        info.table, order=None, keys=empty, key_positions=empty, key_times=empty
    )
    assert FrameTable.from_bytes(table.to_bytes()).order is None
    wanted = [69, 2, 2, 31]
    got = fetched(path, dataclasses.replace(info, table=table), wanted)
    assert np.array_equal(got, np.stack([frames[i] for i in wanted]))


def test_a_file_that_yields_less_than_its_index_says_is_bad(
    sample: Callable[[str], Sample],
) -> None:
    _, longer, _ = sample("mpeg4-b.avi")
    path, _, _ = sample("mpeg4.avi")
    with pytest.raises(BadMediaError):
        video.decode(path, longer, np.array([68]))


def test_frames_outside_the_video_are_a_mistake_of_the_caller(
    sample: Callable[[str], Sample],
) -> None:
    path, info, _ = sample("mpeg4.avi")
    for wrong in ([-1], [info.frames], []):
        with pytest.raises(ValueError, match="frame"):
            video.decode(path, info, np.array(wrong, np.int64))


@pytest.mark.parametrize("stated", [0, 7, 39, 41, 5000])
def test_the_count_in_the_container_is_not_believed(tmp_path: Path, stated: int) -> None:
    path = write_video(tmp_path / "v.avi", **XVID)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.find(b"strh") + 8 + 32, stated)
    struct.pack_into("<I", data, data.find(b"avih") + 8 + 16, stated)
    path.write_bytes(data)
    assert video.probe(path).frames == len(full_decode(path)) == 40


def test_key_flags_that_lie_are_not_believed(tmp_path: Path) -> None:
    """Every packet of an AVI file is flagged as a key frame; the frames are right nevertheless."""
    path = write_video(tmp_path / "v.avi", codec="mpeg4", gop=12)
    keys = video.probe(path).table.keys.tolist()
    assert 3 < len(keys) < 10
    data = bytearray(path.read_bytes())
    at = data.find(b"idx1") + 8
    while data[at : at + 4] == b"00dc":
        struct.pack_into("<I", data, at + 4, 0x10)
        at += 16
    path.write_bytes(data)
    info, frames = video.probe(path), full_decode(path)
    assert info.table.keys.tolist() == keys
    for number in (5, 17, 39):
        assert np.array_equal(fetched(path, info, [number])[0], frames[number])


def faststart(path: Path, **kinds: Any) -> Path:
    """An MP4 file with its index in front."""
    plain = write_video(path.with_name("plain.mp4"), **kinds)
    with (
        av.open(str(plain)) as source,
        av.open(str(path), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return path


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    whole = faststart(tmp_path / "whole.mp4", frames=60).read_bytes()
    cut = tmp_path / "cut.mp4"
    for share in (0.5, 0.8, 0.97):
        cut.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BadMediaError, match=r"cut short|not a readable|damaged|decoded"):
            video.probe(cut)


def test_a_cut_between_packets_is_seen_too(tmp_path: Path) -> None:
    path = faststart(tmp_path / "v.mp4", frames=60)
    with av.open(str(path)) as container:
        ends = sorted(p.pos + p.size for p in container.demux(video=0) if p.size)
    path.write_bytes(path.read_bytes()[: ends[29]])
    with pytest.raises(BadMediaError, match=r"cut short: \d+ of 60"):
        video.probe(path)


def test_damage_that_shows_only_when_read_is_an_error_not_a_picture(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", 400, size=(240, 320), codec="mpeg4", gop=12)
    with av.open(str(path)) as container:
        spots = [(p.pos, p.size) for p in container.demux(video=0)]
    data = bytearray(path.read_bytes())
    position, size = spots[301]
    data[position + 20 : position + size - 8] = b"\xa5" * (size - 28)
    path.write_bytes(data)
    info = video.probe(path)
    assert info.frames == 400
    with pytest.raises(BadMediaError):
        video.decode(path, info, np.arange(296, 312))
    assert video.decode(path, info, np.arange(100, 116)).shape == (3, 16, 240, 320)


@pytest.mark.parametrize("suffix", ["avi", "mkv"])
def test_damage_in_a_small_file_is_found_at_once(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"v.{suffix}", 60, codec="mpeg4", gop=30)
    with av.open(str(path)) as container:
        spots = [(p.pos, bytes(p)) for p in container.demux(video=0)]
    data = bytearray(path.read_bytes())
    packet = spots[50][1]
    start = data.find(packet, spots[50][0])
    data[start + 12 : start + len(packet) - 4] = b"\xa5" * (len(packet) - 16)
    path.write_bytes(data)
    with pytest.raises(BadMediaError, match=r"damaged|decoded"):
        video.probe(path)


HOSTILE = {
    "empty.mp4": (b"", "empty"),
    "text.mp4": (b"this is no video\n" * 50, "not a readable"),
    "playlist.mp4": (b"#EXTM3U\n#EXTINF:1,\nhttp://localhost:1/x.ts\n", "not a readable"),
    "concat.avi": (b"ffconcat version 1.0\nfile good.mp4\n", "not a readable"),
    "header.avi": (b"RIFF\xff\xff\xff\x7fAVI LIST", "."),
    "noise.mkv": (np.random.default_rng(0).bytes(5000), "not a readable"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_video_is_refused_and_opens_nothing_else(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "good.mp4", 2)
    data, reason = HOSTILE[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadMediaError, match=reason) as caught:
        video.probe(tmp_path / name)
    assert str(tmp_path / name) == caught.value.path
    assert "\n" not in caught.value.reason


def test_files_that_are_not_there_or_not_videos_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadMediaError, match="does not exist"):
        video.probe(tmp_path / "none.mp4")
    with pytest.raises(BadMediaError):
        video.probe(tmp_path)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(BadMediaError, match="no video stream"):
        video.probe(tmp_path / "sound.mp4")


def test_a_name_that_looks_like_a_protocol_is_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.mp4", 5).rename(tmp_path / "concat:a|b.mp4")
    assert video.probe("concat:a|b.mp4").frames == 5


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.mp4", 30, size=(64, 96))
    monkeypatch.setattr(scan, "MAX_FRAMES", 29)
    with pytest.raises(BadMediaError, match="more than 29 frames"):
        video.probe(path)
    monkeypatch.undo()
    monkeypatch.setattr(video, "MAX_PIXELS", 64 * 95)
    with pytest.raises(BadMediaError, match="96×64 pixels"):
        video.probe(path)


def test_a_mistake_of_ours_is_not_blamed_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "v.mp4", 2)
    monkeypatch.delattr(scan.Scan, "show")
    with pytest.raises(AttributeError):
        video.probe(path)


def test_packed_b_frames_of_a_real_ucf101_file(data_dir: Path) -> None:
    path = data_dir / "ucf101-sample/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"
    info, frames = video.probe(path), full_decode(path)
    assert info.table.packed
    assert info.frames == len(frames) == 164
    rng = np.random.default_rng(3)
    for wanted in (np.arange(140, 156), np.arange(0, 160, 10), rng.integers(0, 164, 16)):
        assert np.array_equal(fetched(path, info, wanted), np.stack([frames[i] for i in wanted]))


REAL = [
    "ucf101-sample/BaseballPitch/v_BaseballPitch_g01_c01.avi",
    "actions/Run/v_Run_g01_c01.avi",
    "actions-orig-mp4/Walk/Walk_10_12.mp4",
    "actions-fight/fight/fi007.mp4",
    "actions-fight/fight/fi059.mp4",
    "actions-fight/noFight/nofi091.mp4",
    "multiview/single_person/videos_small/cam03.avi",
    "broken/one_frame.avi",
    "broken/one_frame.mp4",
    "broken/five_frames.avi",
    "broken/portrait.mp4",
    "broken/slow_5fps.avi",
    "broken/tiny_16x16.avi",
]


@pytest.mark.parametrize("name", REAL)
def test_real_files(data_dir: Path, name: str) -> None:
    path = data_dir / name
    info, frames = video.probe(path), full_decode(path)
    assert info.frames == len(frames)
    assert (info.height, info.width, 3) == frames[0].shape
    rng = np.random.default_rng(0)
    for wanted in (rng.integers(0, len(frames), 8), np.arange(len(frames))[-16:]):
        assert np.array_equal(fetched(path, info, wanted), np.stack([frames[i] for i in wanted]))


BROKEN = {
    "audio_only.mp4": "no video stream",
    "bitflips.avi": "4 of its 35 frames are damaged",
    "text_renamed.mp4": "not a readable",
    "truncated_faststart.mp4": "cut short: 28 of 63",
    "truncated_half.avi": "cut short: 15 of 35",
    "truncated_half.mp4": "not a readable",
    "truncated_header.mp4": "not a readable",
    "zero_byte.avi": "empty",
    "zero_byte.mp4": "empty",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_with_the_reason(data_dir: Path, name: str) -> None:
    with pytest.raises(BadMediaError, match=BROKEN[name]):
        video.probe(data_dir / "broken" / name)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_frame_tables_survive_the_way_to_bytes(data: st.DataObject) -> None:
    packets = data.draw(st.integers(1, 60))
    order = np.array(data.draw(st.permutations(range(packets))), np.int32)
    keys = sorted(data.draw(st.sets(st.integers(0, packets - 1))))
    table = FrameTable(
        packets=packets,
        order=order[: data.draw(st.integers(1, packets))] if data.draw(st.booleans()) else None,
        keys=np.array(keys, np.int32),
        key_positions=np.array(keys, np.int64) * (1 << 33),
        key_times=np.array(keys, np.int64) * -512,
        reorder_depth=data.draw(st.integers(0, 255)),
        packed=data.draw(st.booleans()),
    )
    back = FrameTable.from_bytes(table.to_bytes())
    for field in dataclasses.fields(FrameTable):
        assert np.array_equal(getattr(back, field.name), getattr(table, field.name)), field.name


def test_what_is_no_frame_table_is_refused(sample: Callable[[str], Sample]) -> None:
    data = sample("h264.mp4")[1].table.to_bytes()
    assert len(data) < 200
    for wrong in (b"", data[:10], data[:-1], b"\x09" + data[1:], data[:15] + b"garbage"):
        with pytest.raises(ValueError, match="frame table"):
            FrameTable.from_bytes(wrong)


def test_where_decoding_can_start() -> None:
    avcc = b"\x01\x64\x00\x1f\xff"

    def unit(*data: int) -> bytes:
        return len(data).to_bytes(4, "big") + bytes(data)

    note = unit(6, 5, 255, 3, *(5 for _ in range(258)), 0x80)  # 258 bytes of user data
    assert can_start("h264", avcc, note + unit(0x65, 1, 2))
    assert not can_start("h264", avcc, note + unit(0x41, 1, 2))
    assert can_start("h264", avcc, unit(6, 6, 1, 0xC4, 0x80) + unit(0x41, 1))  # 0 frames
    assert not can_start("h264", avcc, unit(6, 6, 1, 0x24, 0x80) + unit(0x41, 1))  # 8 frames
    assert can_start("h264", b"", b"\0\0\0\1\x67\x01\0\0\1\x65\x01")
    assert can_start("mpeg4", b"", b"\0\0\1\xb6\x10\x00")
    assert not can_start("mpeg4", b"", b"\0\0\1\xb6\x50\x00")
    assert can_start("vp9", b"", b"x")
    assert not can_start("msmpeg4v3", b"", b"x")
