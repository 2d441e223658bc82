"""Checking recordings: the real one, cut short, shifted in space, and as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from selfsup_cli.data import video
from selfsup_cli.data.motionless import moving
from selfsup_cli.data.multiview_layouts import find_recordings
from selfsup_cli.data.pictures import VideoPictures
from selfsup_cli.data.survey import survey
from selfsup_cli.data.view_check import check_views
from selfsup_cli.data.view_recordings import Recordings
from selfsup_cli.visualization import recordings as pictures


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("surveys")


@pytest.fixture
def found(data_dir: Path) -> Recordings:
    return find_recordings(str(data_dir / "multiview" / "single_person" / "videos_small"))


def cut_short(source: Path, target: Path, frames: int) -> None:
    """The first packets of a video, copied."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if number == frames or packet.dts is None:
                break
            packet.stream = stream
            new.mux(packet)


def test_a_sound_recording_has_no_problems(found: Recordings, cache: Path) -> None:
    checked = check_views(found, cache=cache)
    assert checked.all_problems() == []
    (one,) = checked.recordings
    assert [each.frames for each in one.cameras] == [100] * 4
    for each in one.cameras:
        assert each.strays is not None
        assert each.strays < 0.25, "the calibration is of these cameras"
        assert each.missing is None
    assert len(one.pairs) == 6
    assert any("hardly leaves its place" in said for said in one.remarks)
    # It is told that a second and a half does not suffice, wherever it does not.
    for pair in one.pairs:
        assert pair.offset.doubt or abs(pair.offset.peak) < 5


def test_a_camera_cut_short_is_named_and_drawn(
    found: Recordings, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "event"
    folder.mkdir()
    for view in found.recordings[0].views:
        assert isinstance(view.pictures, VideoPictures)
        name = view.pictures.path
        if view.camera.name == "cam03":
            cut_short(name, folder / name.name, 61)
        else:
            (folder / name.name).symlink_to(name)
    (folder / "cam05.avi").write_bytes(b"no video")
    checked = check_views(find_recordings(str(folder)), cache=cache)
    problems = checked.all_problems()
    assert problems[0].startswith("event/1/cam05 cannot be read")
    assert "event/1: camera cam03 is cut short: 61 of 100 frames, nothing after 1.02 s" in problems
    pictures.coverage(tmp_path / "coverage.png", checked)
    drawn = np.asarray(Image.open(tmp_path / "coverage.png"))
    orange = (drawn == pictures._GONE).all(-1)
    width = pictures._WIDTH
    assert orange.sum(1).max() == pytest.approx(0.39 * width, abs=12)


def test_a_camera_that_was_turned_since_it_was_calibrated(found: Recordings, cache: Path) -> None:
    (one,) = found.recordings
    view = one.views[1]
    turn = np.radians(20)
    about = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    assert view.camera.rotation is not None
    assert view.camera.translation is not None
    rotation, translation = about @ view.camera.rotation, about @ view.camera.translation
    turned = replace(view.camera, rotation=rotation, translation=translation)
    views = (one.views[0], replace(view, camera=turned), *one.views[2:])
    checked = check_views(replace(found, recordings=[replace(one, views=views)]), cache=cache)
    assert checked.all_problems()[0].startswith("videos_small/1: the calibration of cam02")


def test_the_same_person_under_two_names(data_dir: Path, tmp_path: Path, cache: Path) -> None:
    real = data_dir / "multiview" / "single_person" / "videos_small"
    for subject in ("ann", "bob"):
        folder = tmp_path / subject / "walk"
        folder.mkdir(parents=True)
        (folder / "cam01.avi").symlink_to(real / "cam01.avi")
        (folder / "cam02.avi").symlink_to(real / ("cam02.avi" if subject == "ann" else "cam03.avi"))
    problems = check_views(find_recordings(str(tmp_path)), cache=cache).all_problems()
    assert problems == [
        "ann/walk/cam01, bob/walk/cam01 have the same content: one person under two names ends up "
        "in training and test"
    ]


def test_joints_that_are_missing_or_seen_elsewhere(data_dir: Path, cache: Path) -> None:
    found = find_recordings(str(data_dir / "multiview" / "mmpose-fixtures"))
    found.recordings = [one for one in found.recordings if one.subject in ("S1", "TS2")]
    problems = check_views(found, cache=cache).all_problems()
    assert "TS2/test: Cam0 never has the joints left wrist, right wrist" in problems
    assert not [said for said in problems if "miss where" in said]
    one = found.recordings[0]
    (view,) = one.views
    assert view.annotation.pixels is not None
    moved = replace(view.annotation, pixels=view.annotation.pixels + np.float32(12))
    found.recordings = [replace(one, views=(replace(view, annotation=moved),))]
    problems = check_views(found, cache=cache).all_problems()
    assert any("miss where they are seen by 17.0 pixels" in said for said in problems)


def test_a_survey_is_kept_and_made_again_when_damaged(
    found: Recordings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = found.recordings[0].views[0].pictures
    first = survey(shown, cache=tmp_path)
    frames = np.arange(shown.frames)
    everything = shown.read(frames)
    exact = np.sort(everything, 0)[(shown.frames - 1) // 2]
    assert (first.scene.picture != exact).mean() <= first.scene.clipped + 1e-9
    path = next((tmp_path / "surveys").iterdir())
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    again = survey(shown, cache=tmp_path)
    np.testing.assert_array_equal(again.profile, first.profile)
    monkeypatch.setattr(VideoPictures, "stream", None)
    kept = survey(shown, cache=tmp_path)
    np.testing.assert_array_equal(kept.places, first.places)
    assert kept.scene.clipped == first.scene.clipped


def test_frames_without_motion() -> None:
    motion = np.full(300, 5.0)
    motion[100:200] = 1.0
    found = moving(motion, 50.0)
    assert not found[115:185].any()
    assert found[:95].all()
    assert found[205:].all()
    assert moving(np.full(50, 3.0), 50.0).all(), "what moves evenly loses nothing"
    assert moving(np.ones(1), 50.0).tolist() == [True]


def test_streaming_a_video_is_decoding_it(data_dir: Path) -> None:
    for name in ("multiview/single_person/videos_small/cam02.avi", "actions-fight/fight"):
        path = data_dir / name
        path = sorted(path.glob("*.mp4"))[0] if path.is_dir() else path
        info = video.probe(path)
        for start in (0, 37):
            got = np.concatenate([one.numpy() for one in video.stream(path, info, start, 16)], 1)
            frames = np.arange(start, info.frames)
            np.testing.assert_array_equal(got, video.decode(path, info, frames).numpy())


def test_a_project_with_its_videos_in_a_folder_of_that_name(data_dir: Path) -> None:
    found = find_recordings(str(data_dir / "multiview" / "single_person"))
    (one,) = found.recordings
    assert all(view.camera.calibrated for view in one.views)
    assert any("not read: videos_small" in note for note in found.notes)
