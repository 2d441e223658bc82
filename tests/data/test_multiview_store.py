"""The store of prepared views: what goes in comes out, kills and damage do no harm."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from selfsup_cli.data.crops import cut
from selfsup_cli.data.geometry import Box
from selfsup_cli.data.multiview import Camera, Recording
from selfsup_cli.data.multiview_plan import Plan
from selfsup_cli.data.multiview_shard import Piece
from selfsup_cli.data.multiview_store import prepare
from selfsup_cli.data.stored_views import StoredViews
from selfsup_cli.errors import BadMediaError, InputError

SIDE, FRAMES = 32, 40


@dataclass
class Maker:
    """Pieces of ten frames that tell recording, camera and frame by their pixels."""

    dies_at: int | None = None
    bad: tuple[int, int] | None = None
    made: list[tuple[int, int, int]] = field(default_factory=list)

    def scene(self, recording: int, camera: int) -> np.ndarray | None:
        ramp = np.arange(60, dtype=np.uint8)
        return np.broadcast_to(ramp + camera, (3, 50, 60)) if recording == 0 else None

    def pieces(self, recording: int, camera: int, start: int) -> Iterator[Piece]:
        if self.bad == (recording, camera):
            raise BadMediaError("cam", "it is damaged")
        for first in range(start, FRAMES, 10):
            if first == self.dies_at:
                raise KeyboardInterrupt
            self.made.append((recording, camera, first))
            numbers = np.arange(first, first + 10)
            yield piece_of(recording, camera, numbers)


def piece_of(recording: int, camera: int, numbers: np.ndarray) -> Piece:
    level = (100 * recording + 50 * camera + numbers).astype(np.uint8)
    crops = np.broadcast_to(level[:, None, None, None], (len(numbers), 3, SIDE, SIDE))
    rows = np.arange(SIDE)[:, None] > numbers[:, None, None]
    return Piece(
        crops,
        (numbers + camera).astype(np.float32),
        masks=np.broadcast_to(rows, (len(numbers), SIDE, SIDE)),
        boxes=np.stack([numbers, numbers, 0 * numbers + SIDE], 1).astype(np.float32),
        backgrounds=crops if recording else None,
        poses=np.broadcast_to(numbers[:, None, None], (len(numbers), 17, 3)).astype(np.float32),
    )


def plan(quality: int | None = None, about: int = 0) -> Plan:
    cameras = tuple(Camera(name, 60, 50) for name in ("left", "right"))
    recordings = tuple(Recording(f"S{n}", "walk", "walk", cameras, FRAMES, 50.0) for n in range(2))
    return Plan("mine", {"about": about}, recordings, SIDE, quality)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> StoredViews:
    return prepare(plan(), Maker(), cache=tmp_path_factory.mktemp("cache"))


def test_any_frames_come_back_in_any_order(views: StoredViews) -> None:
    frames = [39, 0, 11, 11]
    crops = views.crops(1, 1, frames)
    assert crops.shape == (4, 3, SIDE, SIDE)
    assert crops[:, 0, 5, 7].tolist() == [150 + n for n in frames]
    masks = views.masks(1, 1, frames)
    assert masks is not None
    assert masks[:, :, 3].sum(1).tolist() == [SIDE - 1 - min(n, 31) for n in frames]
    poses = views.poses(1, 1, frames)
    assert poses is not None
    assert poses[:, 16, 2].tolist() == frames
    assert views.pixels(1, 1, frames) is None
    np.testing.assert_allclose(views.motion(0), np.arange(FRAMES) + 0.5)
    with pytest.raises(IndexError):
        views.crops(0, 0, [FRAMES])


def test_backgrounds_are_cut_out_of_the_scene_as_crops_are(views: StoredViews) -> None:
    found = views.backgrounds(0, 1, [3, 30])
    scene = Maker().scene(0, 1)
    assert found is not None
    assert scene is not None
    np.testing.assert_array_equal(found[1], cut(np.array(scene), Box(30, 30, SIDE), SIDE))
    stored = views.backgrounds(1, 0, [7])
    assert stored is not None
    assert (stored == 107).all()


def test_jpegs_are_near_and_much_smaller(tmp_path: Path, views: StoredViews) -> None:
    small = prepare(plan(quality=92), Maker(), cache=tmp_path)
    there, here = small.crops(1, 0, range(8)), views.crops(1, 0, range(8))
    np.testing.assert_allclose(there.astype(int), here.astype(int), atol=2)
    sizes = [
        sum(path.stat().st_size for path in one.folder.glob("0001*.h5")) for one in (small, views)
    ]
    assert sizes[0] < sizes[1] / 2
    assert small.fingerprint != views.fingerprint


def test_whoever_is_killed_goes_on_behind_the_last_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfsup_cli.data.multiview_store._SHARD_BYTES", 20 * 3 * SIDE * SIDE)
    first = Maker(dies_at=30)
    with pytest.raises(KeyboardInterrupt):
        prepare(plan(), first, cache=tmp_path)
    assert first.made == [(0, 0, 0), (0, 0, 10), (0, 0, 20)]
    second = Maker()
    found = prepare(plan(), second, cache=tmp_path)
    assert second.made[0] == (0, 0, 20), "two pieces were in a file, the third was not"
    assert found.crops(0, 0, range(FRAMES))[:, 0, 0, 0].tolist() == list(range(FRAMES))
    third = Maker()
    again = prepare(plan(), third, cache=tmp_path)
    assert third.made == []
    assert again.fingerprint == found.fingerprint


def test_a_flipped_bit_is_found_and_mended(tmp_path: Path) -> None:
    views = prepare(plan(), Maker(), cache=tmp_path)
    path = next(views.folder.glob("0001-00-*.h5"))
    data = bytearray(path.read_bytes())
    at = data.index(bytes([103]) * 500)
    data[at + 5] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    views.close()
    views = prepare(plan(), Maker(), cache=tmp_path)
    assert (views.crops(1, 0, [20]) == 120).all(), "other frames of the file are sound"
    with pytest.raises(InputError, match="run the same command again"):
        views.crops(1, 0, [3])
    maker = Maker()
    views = prepare(plan(), maker, cache=tmp_path)
    assert {one[:2] for one in maker.made} == {(1, 0)}
    assert (views.crops(1, 0, [3]) == 103).all()


def test_damaged_tables_and_other_files_are_refused(tmp_path: Path) -> None:
    views = prepare(plan(), Maker(), cache=tmp_path)
    path = next(views.folder.glob("0000-01-*.h5"))
    data = bytearray(path.read_bytes())
    at = data.index(np.arange(1, 9, dtype="<f4").tobytes())
    data[at] ^= 255
    path.write_bytes(data)
    with pytest.raises(InputError, match="tables do not match"):
        prepare(plan(), Maker(), cache=tmp_path).crops(0, 1, [0])


def test_a_camera_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    views = prepare(plan(), Maker(bad=(0, 0)), cache=tmp_path)
    assert views.left_out == [("S0/walk/left", "it is damaged")]
    assert [len(one.cameras) for one in views.recordings] == [1, 2]
    assert (views.crops(0, 0, [2]) == 52).all(), "the camera that is left is the right one"


def test_some_recordings_and_cameras(views: StoredViews) -> None:
    some = views.subset([1], ["right"])
    assert [one.id for one in some.recordings] == ["S1/walk"]
    assert (some.crops(0, 0, [4]) == 154).all()
    np.testing.assert_allclose(some.motion(0), np.arange(FRAMES) + 1)
    assert some.fingerprint != views.fingerprint


def test_it_travels_and_what_decides_it_has_a_place_of_its_own(
    tmp_path: Path, views: StoredViews
) -> None:
    views.crops(0, 0, [0])
    there = deepcopy(views)  # as travelling does, by what it says is its state
    np.testing.assert_array_equal(there.crops(1, 0, [5]), views.crops(1, 0, [5]))
    other = prepare(plan(about=1), Maker(), cache=tmp_path)
    assert other.folder.name != views.folder.name
    assert other.fingerprint != views.fingerprint
