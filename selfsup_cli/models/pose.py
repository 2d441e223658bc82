"""A backbone with one linear layer that says where joints are (thesis, section 6.2.4)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from selfsup_cli.config.joints import JOINTS, ROOT
from selfsup_cli.errors import InputError
from selfsup_cli.models.backbone import Backbone
from selfsup_cli.models.classifier import OnBackbone
from selfsup_cli.models.heads import LinearHead
from selfsup_cli.models.weights import (
    Sidecar,
    blank,
    fill,
    read_weights,
    sidecar_path,
    write_weights,
)

REGRESSED = tuple(joint for joint in range(len(JOINTS)) if joint != ROOT)
"""The joints that are looked for: all but the root, from which they are measured."""


class PoseRegressor(OnBackbone):
    """Images float `[B, 3, S, S]` in [-1, 1] → joints `[B, 16, 3]`, standardised.

    `mean` and `std` `[16, 3]` in mm are those of the training poses; they are kept with the
    weights, since without them an answer means nothing.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, *, generator: torch.Generator | None = None) -> None:
        super().__init__(backbone)
        count = 3 * len(REGRESSED)
        self.last: nn.Linear = LinearHead(
            backbone.out_features, count, xavier=True, generator=generator
        )
        self.register_buffer("mean", torch.zeros(len(REGRESSED), 3))
        self.register_buffer("std", torch.ones(len(REGRESSED), 3))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.backbone(x))
        return found.float().view(-1, len(REGRESSED), 3)

    def standardised(self, poses: Tensor) -> Tensor:
        """Poses `[B, 17, 3]` in mm from the root as the network gives them, `[B, 16, 3]`."""
        return (poses[:, REGRESSED] - self.mean) / self.std

    def in_millimetres(self, found: Tensor) -> Tensor:
        """What the network gives as poses `[B, 17, 3]` in mm; the root is 0."""
        poses = found.new_zeros(len(found), len(JOINTS), 3)
        poses[:, REGRESSED] = found * self.std + self.mean
        return poses

    def describe(self) -> dict[str, Any]:
        return {"head": f"one linear layer ({3 * len(REGRESSED)}) on the network"}


_FORMAT: Literal["selfsup.pose/1"] = "selfsup.pose/1"


class _File(Sidecar):
    format: Literal["selfsup.pose/1"]
    joints: list[str]
    facts: dict[str, Any]


@dataclass(frozen=True)
class TrainedPose:
    """A trained `PoseRegressor`, and how images come to it (`facts`)."""

    network: PoseRegressor
    facts: dict[str, Any]
    weights: str = ""


def save_pose(path: Path | str, trained: TrainedPose, trained_on: dict[str, Any]) -> str:
    """Write weights and sidecar atomically; gives the SHA-256 of the weights in hex."""
    facts = {
        "format": _FORMAT,
        "spec": trained.network.backbone.spec,
        "joints": list(JOINTS),
        "facts": trained.facts,
        "trained_on": trained_on,
    }
    return write_weights(path, trained.network, facts)


def is_pose(path: Path) -> bool:
    """Whether the sidecar of weights says that they are those of a `PoseRegressor`."""
    try:
        said = json.loads(sidecar_path(path).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and said.get("format") == _FORMAT


def load_pose(path: Path | str) -> TrainedPose:
    """What `save_pose` wrote, on the CPU, ready to be used. Raises InputError as `load_backbone`
    does."""
    file, tensors = read_weights(path, _File)
    if file.joints != list(JOINTS):
        raise InputError(f"{path} is about other joints than those of this version", kind="weights")
    network = PoseRegressor(blank(path, file))
    fill(path, network, tensors, f"{network.backbone.arch} that estimates poses")
    network.backbone.trained_on = file.trained_on
    return TrainedPose(network.eval(), file.facts, file.weights.sha256)
