"""3D poses: where 17 joints are in space, from a single image (thesis, section 6.2.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from selfsup_cli.config.joints import JOINTS, MIRRORED
from selfsup_cli.config.pose import TransferPose
from selfsup_cli.data.pose_images import PoseDataset, PoseImages
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.trainable import Batch, Update
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.evaluation.pose_scores import FoundPoses, Seen, measured
from selfsup_cli.evaluation.reading import Unreadable, in_batches, read_items
from selfsup_cli.evaluation.task import Task, Told
from selfsup_cli.models import Backbone
from selfsup_cli.models.pose import REGRESSED, PoseRegressor, TrainedPose, save_pose
from selfsup_cli.randomness import derive, generator
from selfsup_cli.runs.report import Measurement, ProtocolValue
from selfsup_cli.transforms.images import coins, mirror, to_unit
from selfsup_cli.transforms.views import remove_background

_BATCH = 64
_QUICK = 512
_NARROWEST = 1.0


@dataclass(frozen=True)
class Targets:
    """What standardises poses: per joint and axis, of the known joints of the training part.

    `mean` and `std` are float32 [16, 3] in mm; `mean_pose` [17, 3] is the mean with the root.
    `scale` says how many sides of a crop a millimetre is at the depth of the root, None where
    joints are not known in pixels.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    scale: float | None

    @property
    def mean_pose(self) -> NDArray[np.float64]:
        """The mean pose, [17, 3], in mm from the root."""
        pose = np.zeros((len(JOINTS), 3))
        pose[list(REGRESSED)] = self.mean
        return pose

    def __len__(self) -> int:
        return len(JOINTS)


class Pose(Task):
    """The task as the engine sees it."""

    name = "pose"
    many = "images"
    labelled = True
    preset: TransferPose

    def __init__(
        self, preset: TransferPose, backbone: Backbone, targets: Targets, seed: int
    ) -> None:
        super().__init__()
        self.preset = preset
        self.targets = targets
        self.classes = JOINTS
        self.seed = seed
        network = PoseRegressor(backbone, generator=generator(seed, "head"))
        network.mean.copy_(torch.from_numpy(targets.mean))
        network.std.copy_(torch.from_numpy(targets.std))
        self.network = network.freeze(frozen(preset, backbone))

    @property
    def plain(self) -> PoseRegressor:
        network = super().plain
        assert isinstance(network, PoseRegressor)  # noqa: S101 (it makes no other)
        return network

    @property
    def layer(self) -> str | None:
        return None

    @classmethod
    def answers(cls, preset: TransferPose, source: PoseImages) -> Targets:
        """What standardises the poses of the training part. Raises InputError for a joint that no
        image has."""
        return targets_of(source)

    def samples(self, source: PoseImages) -> PoseDataset:
        return PoseDataset(source)

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        images, poses = batch["image"], batch["pose"]
        if "mask" in batch:
            images = remove_background(images, batch["mask"])
        if self.preset.images.flip:
            chosen = coins(len(images), 0.5, update.generator("augment"))
            images, poses = flipped(images, poses, chosen)
        target = self.plain.standardised(poses)
        known = torch.isfinite(target)
        with update.autocast():
            found = self.network(to_unit(images))
        off = torch.where(known, found.float() - torch.nan_to_num(target), 0.0)
        loss = off.square().sum() / known.sum().clamp(min=1)
        update(loss)
        with torch.no_grad():
            wide = torch.where(known, off * self.plain.std, 0.0).norm(dim=2)
            error = wide.sum() / known.all(2).sum().clamp(min=1)
        return {"loss": loss, "mpjpe": error}

    def ask(
        self,
        source: PoseImages,
        hardware: Hardware,
        *,
        workers: int,
        quick: bool = False,
        told: Told | None = None,
    ) -> FoundPoses:
        positions = range(len(source))
        if quick and len(source) > _QUICK:
            order = sorted(positions, key=lambda i: derive(0, source.ids[i], "quick"))
            source = source.subset(np.array(sorted(order[:_QUICK]), dtype=np.int64))
            positions = range(len(source))
        network = self.plain.eval().to(hardware.device)
        found = np.empty((len(source), len(JOINTS), 3))
        items = read_items(_Shown(source), source, positions, workers)
        with torch.no_grad():
            for images, owners in in_batches(items, _BATCH, hardware.device):
                with hardware.autocast():
                    given = network(to_unit(images))
                found[owners] = network.in_millimetres(given.float()).double().cpu().numpy()
                if told is not None:
                    told(owners[-1] + 1, len(source))
        views = [Seen(*source.seen(i)) for i in positions]
        return FoundPoses(source, views, found, source.poses.astype(np.float64))

    def grade(self, found: FoundPoses) -> tuple[str, float]:
        return "test_pck", found.near

    def measurements(
        self,
        found: FoundPoses,
        about: Mapping[str, Any],
        protocol: dict[str, ProtocolValue],
    ) -> list[Measurement]:
        return measured(found, self.targets.mean_pose, {**about, "task": self.name}, protocol)

    def save(self, path: Path, trained_on: dict[str, Any]) -> str:
        return save_pose(path, TrainedPose(self.plain, self.facts), trained_on)

    @property
    def seen(self) -> dict[str, ProtocolValue]:
        how, labelled = self.preset.images, self.preset.subjects
        return {
            "labelled_subjects": ", ".join(labelled) if labelled else "all of the training part",
            "crop": self.preset.data.side or self.plain.backbone.input.crop,
            "background": {"remove": "removed", "keep": "kept"}[how.background],
            "augmentation": "mirrored" if how.flip else "none",
            "test_frames": "each" if how.test_every == 1 else f"one in {how.test_every}",
        }

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "side": self.preset.data.side or self.plain.backbone.input.crop,
            "background": self.preset.images.background,
            "scale": self.targets.scale,
        }


def frozen(preset: TransferPose, backbone: Backbone) -> str:
    """The layer up to which the network stays as it is: the third of four residual blocks of one
    that has learned, nothing of one that has not."""
    if preset.start.freeze is not None:
        return preset.start.freeze
    below = backbone.layers[: backbone.layers.index(backbone.embedding)]
    return "none" if preset.start.init == "random" or not below else below[-1]


def flipped(images: Tensor, poses: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Images uint8 `[B, 3, S, S]` mirrored where `chosen` (bool `[B]`), and their poses
    `[B, 17, 3]` alike: x changes its sign, and left and right their names."""
    turned = poses[:, MIRRORED] * poses.new_tensor([-1.0, 1.0, 1.0])
    where = chosen.to(poses.device)[:, None, None]
    return mirror(images, chosen), torch.where(where, turned, poses)


def targets_of(source: PoseImages) -> Targets:
    """Mean and standard deviation of each joint and axis, over the images that know it.

    Raises InputError for a joint that none has.
    """
    poses = source.poses[:, list(REGRESSED)].astype(np.float64)
    known = np.asarray(np.isfinite(poses).all(axis=2))
    missing = [JOINTS[joint] for place, joint in enumerate(REGRESSED) if not known[:, place].any()]
    if missing:
        raise InputError(
            f"{source.name}: no training image has the joint{'s' if len(missing) > 1 else ''} "
            f"{', '.join(missing)}",
            kind="no-joints",
        )
    poses[~known] = np.nan
    mean, std = np.nanmean(poses, 0), np.nanstd(poses, 0)
    return Targets(
        mean.astype(np.float32),
        np.maximum(std, _NARROWEST).astype(np.float32),
        _scale(source),
    )


def _scale(source: PoseImages) -> float | None:
    """How many sides of the crop a millimetre is, at the depth of the root: the median over some
    images of what fits their joints in pixels best."""
    found = []
    for index in np.linspace(0, len(source) - 1, min(64, len(source))).astype(int).tolist():
        pixels = source.pixels(index)
        if pixels is None:
            return None
        flat = source.poses[index, :, :2].astype(np.float64)
        known = np.isfinite(flat).all(1) & np.isfinite(pixels).all(1)
        if known.sum() < 3:
            continue
        flat, seen = flat[known], pixels[known].astype(np.float64)
        flat, seen = flat - flat.mean(0), seen - seen.mean(0)
        length = float((flat * flat).sum())
        if length > 0:
            found.append(float((flat * seen).sum()) / length)
    return float(np.median(found)) / source.views.side if found else None


@dataclass(frozen=True)
class _Image:
    """An image that was read, uint8 [3, S, S], as the network is to see it."""

    position: int
    image: Tensor

    def inputs(self, device: torch.device) -> Iterator[Tensor]:
        return iter([self.image.to(device, non_blocking=True)])


class _Shown(Dataset[_Image | Unreadable]):
    def __init__(self, source: PoseImages) -> None:
        self.source = source

    def __getitem__(self, position: int) -> _Image | Unreadable:
        try:
            sample = self.source.read(position)
        except BadMediaError as error:
            return Unreadable(position, error.reason)
        image = sample["image"]
        if "mask" in sample:
            image = remove_background(image, sample["mask"])
        return _Image(position, image[0])


TASK = Pose
