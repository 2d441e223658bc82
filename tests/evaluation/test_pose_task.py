"""Transfer to poses: targets, mirroring, the loss, and what is reported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfsup_cli.config.figures import Figures
from selfsup_cli.config.joints import JOINTS, MIRRORED, SIDES
from selfsup_cli.config.pose import PoseStart, TransferPose
from selfsup_cli.data.figures import RenderedFigures, rendered
from selfsup_cli.data.pose_images import PoseImages, frames_of
from selfsup_cli.data.view_pairs import Stretch
from selfsup_cli.engine.devices import choose
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.pose import Pose, flipped, targets_of
from selfsup_cli.evaluation.pose_scores import FoundPoses, Seen, measured
from selfsup_cli.models import build
from selfsup_cli.models.pose import REGRESSED, TrainedPose, is_pose, load_pose, save_pose

SIDE = 32


@pytest.fixture(scope="module")
def views() -> RenderedFigures:
    return rendered(Figures(actions=["dancing", "boxing"], seconds=3), SIDE, ["S1", "S9"])


def images_of(views: Any, every: int = 10, **changes: Any) -> PoseImages:
    stretches = [Stretch(n, 0, one.frames) for n, one in enumerate(views.recordings)]
    how: dict[str, Any] = {"name": "figures", "split": "train", "split_rule": "all", "masks": True}
    return PoseImages(views, frames_of(views, stretches, every), **(how | changes))


@pytest.fixture(scope="module")
def images(views: RenderedFigures) -> PoseImages:
    return images_of(views)


class Changed:
    """Views whose poses are something else."""

    def __init__(self, views: RenderedFigures, change: Any) -> None:
        self._views, self._change = views, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._views, name)

    def poses(self, *where: Any) -> Any:
        return self._change(self._views.poses(*where))


def a_task(images: PoseImages, **start: Any) -> Pose:
    preset = TransferPose(start=PoseStart(**start))
    backbone = build("resnet18", crop=SIDE, resize=(SIDE, SIDE), signed=True, seed=0)
    return Pose(preset, backbone, Pose.answers(preset, images), 0)


# -- images


def test_frames_are_those_of_all_cameras(views: RenderedFigures) -> None:
    places = frames_of(views, [Stretch(1, 20, 60)], 7)
    assert len(places) == 4 * 6
    assert set(places[:, 2].tolist()) == {20, 27, 34, 41, 48, 55}
    assert set(map(tuple, places[:, :2].tolist())) == {(1, camera) for camera in range(4)}


def test_frames_in_which_nothing_moves_are_left_out(views: RenderedFigures) -> None:
    all_frames = frames_of(views, [Stretch(0, 0, 150), Stretch(1, 0, 150)], 1)
    moving = frames_of(views, [Stretch(0, 0, 150), Stretch(1, 0, 150)], 1, 1.0)
    assert 0.4 * len(all_frames) < len(moving) < 0.6 * len(all_frames)
    motion = np.stack([views.motion(0), views.motion(1)])
    median = np.median(motion[:, 1:])
    kept = moving[moving[:, 2] > 0]
    assert (motion[kept[:, 0], kept[:, 2]] >= median).all()


def test_an_image_is_read_with_its_pose(views: RenderedFigures, images: PoseImages) -> None:
    recording, camera, frame = images.places[37].tolist()
    sample = images.read(37)
    np.testing.assert_array_equal(sample["image"], views.crops(recording, camera, [frame]))
    np.testing.assert_array_equal(sample["pose"], views.poses(recording, camera, [frame]))
    np.testing.assert_array_equal(sample["mask"], views.masks(recording, camera, [frame]))
    assert images.ids[37] == f"{views.recordings[recording].id}/camera{camera + 1}/{frame}"
    half = images.subset(np.arange(10))
    assert len(half) == 10
    assert half.fingerprint != images.fingerprint


def test_data_that_does_not_do_is_told(views: RenderedFigures) -> None:
    with pytest.raises(InputError, match="has no joints, and poses are learned"):
        images_of(Changed(views, lambda poses: None))
    with pytest.raises(InputError, match=r"in metres or normalised; give them in millimetres"):
        images_of(Changed(views, lambda poses: poses / 1000))

    def rootless(poses: np.ndarray) -> np.ndarray:
        poses[::2, 0] = np.nan
        return poses

    some = images_of(Changed(views, rootless))
    assert some.rootless == len(images_of(views)) - len(some) > 0
    with pytest.raises(InputError, match="the train part has no joints"):
        images_of(Changed(views, lambda poses: np.full_like(poses, np.nan)))

    def handless(poses: np.ndarray) -> np.ndarray:
        poses[:, 16] = np.nan
        return poses

    with pytest.raises(InputError, match="no training image has the joint right wrist"):
        targets_of(images_of(Changed(views, handless)))


# -- what is learned


@given(st.integers(0, 2**31), st.lists(st.booleans(), min_size=1, max_size=5))
def test_mirrored_twice_nothing_has_changed(seed: int, chosen: list[bool]) -> None:
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (len(chosen), 3, 4, 4), generator=g, dtype=torch.uint8)
    poses = torch.randn(len(chosen), 17, 3, generator=g)
    which = torch.tensor(chosen)
    once = flipped(images, poses, which)
    again = flipped(*once, which)
    assert torch.equal(again[0], images)
    assert torch.equal(again[1], poses)
    for left, right in SIDES:
        wanted = torch.where(
            which[:, None], poses[:, right] * torch.tensor([-1, 1, 1]), poses[:, left]
        )
        assert torch.equal(once[1][:, left], wanted)


def test_a_mirrored_body_is_what_a_mirrored_image_shows(views: RenderedFigures) -> None:
    crop = torch.from_numpy(views.crops(0, 2, [50]))
    pose = torch.from_numpy(views.poses(0, 2, [50]))
    image, turned = flipped(crop, pose, torch.tensor([True]))
    assert torch.equal(image, crop.flip(-1))
    # Pixels of joints, mirrored, are where the mirrored pose has the joint of the other side.
    pixels = views.pixels(0, 2, [50])[0]
    mirrored = np.stack([SIDE - pixels[:, 0], pixels[:, 1]], 1)[list(MIRRORED)]
    scale = np.abs(pixels - pixels[0]).sum() / pose[0, :, :2].abs().sum().item()
    off = mirrored - mirrored[0] - scale * turned[0, :, :2].numpy()
    assert np.abs(off).max() < 2.5  # joints are not all as far away as the root


def test_targets_are_standardised_over_known_joints(images: PoseImages) -> None:
    targets = targets_of(images)
    poses = images.poses[:, list(REGRESSED)].astype(np.float64)
    np.testing.assert_allclose(targets.mean, poses.mean(0), rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(targets.std, poses.std(0), rtol=1e-4)
    # A crop is 2.3 m wide.
    assert targets.scale == pytest.approx(1 / 2300, rel=0.05)
    network = a_task(images, init="random").plain
    given = torch.from_numpy(images.poses)
    standard = network.standardised(given)
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(standard.std(0, correction=0), 1, atol=1e-3)
    np.testing.assert_allclose(network.in_millimetres(standard), images.poses, atol=1e-2)


def test_the_loss_is_the_mean_square_of_what_is_known(images: PoseImages) -> None:
    task = a_task(images, init="random")
    task.preset = task.preset.model_copy(
        update={"images": task.preset.images.model_copy(update={"flip": False})}
    )
    task.eval()
    batch = {name: torch.cat([images.read(i)[name] for i in (3, 90)]) for name in images.read(3)}
    batch["pose"] = batch["pose"].clone()
    batch["pose"][0, 5] = torch.nan
    seen: list[torch.Tensor] = []

    class Update:
        def __call__(self, loss: torch.Tensor) -> None:
            seen.append(loss)
            torch.autograd.backward(loss)

        def autocast(self) -> Any:
            return torch.autocast("cpu", enabled=False)

    told = task.step(batch, Update())  # type: ignore[arg-type]
    from selfsup_cli.transforms.images import to_unit
    from selfsup_cli.transforms.views import remove_background

    with torch.no_grad():
        given = task.plain(to_unit(remove_background(batch["image"], batch["mask"])))
        target = task.plain.standardised(batch["pose"])
    squares = [
        float((given[b, j, k] - target[b, j, k]) ** 2)
        for b in range(2)
        for j in range(16)
        for k in range(3)
        if not torch.isnan(target[b, j, k])
    ]
    assert len(squares) == 2 * 48 - 3
    assert seen[0].item() == pytest.approx(np.mean(squares), rel=1e-4)
    assert torch.isfinite(told["mpjpe"])
    assert all(torch.isfinite(p.grad).all() for p in task.plain.parameters() if p.grad is not None)


def test_three_blocks_are_frozen_where_something_was_learned(images: PoseImages) -> None:
    task = a_task(images, init="latest")
    assert task.plain.frozen == ("stem", "layer1", "layer2", "layer3")
    task.train()
    backbone: Any = task.plain.backbone
    assert not backbone.layer3.training
    assert backbone.layer4.training
    trained = {name for name, p in task.named_parameters() if p.requires_grad}
    assert trained
    assert all(".layer4." in name or ".last." in name for name in trained)
    assert a_task(images, init="random").plain.frozen == ()
    assert a_task(images, init="random", freeze="layer1").plain.frozen == ("stem", "layer1")


# -- what is reported


def found_poses(images: PoseImages, seed: int = 0) -> FoundPoses:
    g = np.random.default_rng(seed)
    truth = images.poses.astype(np.float64)
    views = [Seen(*images.seen(i)) for i in range(len(images))]
    noisy = truth + g.normal(0, 60, size=truth.shape)
    noisy[:, 0] = 0
    return FoundPoses(images, views, noisy, truth)


def test_numbers_are_means_over_sixteen_joints(images: PoseImages) -> None:
    found = found_poses(images)
    about = {"task": "pose", "subject": "learned", "dataset": "figures", "split": "x"}
    rows = measured(found, np.zeros((17, 3)), about, {"start": "x"})
    by_name = {row.name: row for row in rows}
    off = np.linalg.norm(found.found - found.truth, axis=2)[:, 1:]
    assert by_name["MPJPE"].value == pytest.approx(off.mean())
    # 17 joints, times 17/16 (thesis, section 6.2.4).
    with_root = np.linalg.norm(found.found - found.truth, axis=2)
    assert by_name["MPJPE"].value == pytest.approx(with_root.mean() * 17 / 16)
    assert by_name["PCK 150 mm"].value == pytest.approx(100 * (off <= 150).mean())
    actions = np.array([one.action for one in found.views])
    assert by_name["MPJPE boxing"].value == pytest.approx(off[actions == "boxing"].mean())
    assert by_name["MPJPE boxing"].n == (actions == "boxing").sum()
    assert by_name["MPJPE left wrist"].value == pytest.approx(
        off[:, JOINTS.index("left wrist") - 1].mean()
    )
    lengths = np.linalg.norm(found.truth, axis=2)[:, 1:]
    assert by_name["MPJPE of the mean training pose"].value == pytest.approx(lengths.mean())
    assert by_name["PMPJPE"].value < by_name["NMPJPE"].value < by_name["MPJPE"].value
    interval = by_name["MPJPE"].interval
    assert interval is not None
    assert "4 recordings" in interval.method
    assert interval.low <= by_name["MPJPE"].value <= interval.high
    # Recordings whose errors agree tell more surely than such that do not.
    apart = found.found.copy()
    apart[actions == "boxing"] += 200.0
    wide = measured(
        FoundPoses(images, found.views, apart, found.truth), np.zeros((17, 3)), about, {"a": 1}
    )
    spread = wide[0].interval
    assert spread is not None
    assert spread.high - spread.low > 5 * (interval.high - interval.low)


def test_answers_come_for_every_image(images: PoseImages) -> None:
    task = a_task(images, init="random")
    some = images.subset(np.arange(0, len(images), 7))
    found = task.ask(some, choose("cpu", "32"), workers=0)
    assert found.ids == list(some.ids)
    np.testing.assert_allclose(found.truth, some.poses)
    assert (found.found[:, 0] == 0).all()
    assert np.isfinite(found.found).all()
    name, share = task.grade(found)
    assert name == "test_pck"
    assert 0 <= share <= 1


def test_a_network_is_kept_with_what_its_answers_mean(images: PoseImages, tmp_path: Any) -> None:
    task = a_task(images, init="random")
    digest = task.save(tmp_path / "model.safetensors", {"method": "transfer/pose"})
    assert is_pose(tmp_path / "model.safetensors")
    assert not is_pose(tmp_path / "other.safetensors")
    again = load_pose(tmp_path / "model.safetensors")
    assert again.weights == digest
    assert again.facts["side"] == SIDE
    x = torch.rand(2, 3, SIDE, SIDE)
    task.plain.eval()
    with torch.no_grad():
        wanted = task.plain.in_millimetres(task.plain(x))
        torch.testing.assert_close(again.network.in_millimetres(again.network(x)), wanted)
    assert save_pose(tmp_path / "m.safetensors", TrainedPose(again.network, {}), {}) == digest
