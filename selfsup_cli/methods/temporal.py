"""Recognising transformations of time (thesis, chapter 5).

A clip of 16 frames is taken from a video in one of four ways: at a constant *speed*, in *random*
order, forwards and then backwards (*periodic*), or with uneven steps (*warp*). All of them hold
similar frames, so only their evolution in time tells them apart. A 3D-CNN φ recognises which one
it sees (φ^m), and for clips of constant speed, which speed (φ^s).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.config.temporal import PretrainTemporal, TimeTransformations
from selfsup_cli.data.loader import ClipPlan
from selfsup_cli.engine.schedule import build_optimizer
from selfsup_cli.engine.trainable import Batch, Trainable, Update
from selfsup_cli.models import Backbone, build
from selfsup_cli.models.heads import LinearHead
from selfsup_cli.randomness import derive, generator
from selfsup_cli.transforms import clips as pixels
from selfsup_cli.transforms import time as temporal

NO_SPEED = -1
"""Speed label of clips that have no constant speed."""


# Transformation


def plan(settings: TimeTransformations, n: int, g: torch.Generator) -> ClipPlan:
    """The clips of a video of n frames: one of each kind, at one speed κ ~ U{0 … κ_max(n)}.

    Labels: `motion` is the position of the kind in `settings.kinds`; `speed` is κ where the speed
    loss applies (speed clips; periodic ones too with `speed_on_periodic`), else NO_SPEED.
    """
    drawn = temporal.draw(n, settings, g)
    kinds: list[str] = list(settings.kinds)
    judged = {"speed", "periodic"} if settings.speed_on_periodic else {"speed"}
    return ClipPlan(
        np.stack([clip.frames for clip in drawn]),
        {
            "motion": np.array([kinds.index(clip.kind) for clip in drawn]),
            "speed": np.array([c.speed if c.kind in judged else NO_SPEED for c in drawn]),
        },
    )


class Plan:
    """`plan` with its settings bound; passed to loader processes."""

    def __init__(self, settings: TimeTransformations) -> None:
        self.settings = settings

    def __call__(self, n: int, g: torch.Generator) -> ClipPlan:
        return plan(self.settings, n, g)


# Networks


class Recogniser(nn.Module):
    """φ: a backbone and one linear layer, whose outputs are split into motion and speed logits."""

    def __init__(
        self, backbone: Backbone, motions: int, speeds: int, start: torch.Generator
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = LinearHead(backbone.out_features, motions + speeds, generator=start)
        self.motions = motions

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Clips float `[B, 3, T, H, W]` in [−1, 1] → motion logits `[B, M]`, speed logits `[B, S]`.

        M = 0 when speed is the only kind, S = 0 without the speed loss.
        """
        logits = self.head(self.backbone(clips)).float()
        return logits[:, : self.motions], logits[:, self.motions :]


# Losses


def losses(
    motion_logits: Tensor, speed_logits: Tensor, batch: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Eq. 5.1: cross-entropy of the motion type over all clips plus that of the speed over clips
    that have one, both as means, weight 1 each; with the accuracies as fractions."""
    out: dict[str, Tensor] = {}
    total = motion_logits.new_zeros(())
    if motion_logits.shape[1]:
        loss = F.cross_entropy(motion_logits, batch["motion"])
        total = total + loss
        out["loss_motion"] = loss
        out["acc_motion"] = (motion_logits.argmax(1) == batch["motion"]).float().mean()
    if speed_logits.shape[1]:
        judged = batch["speed"] != NO_SPEED
        logits, labels = speed_logits[judged], batch["speed"][judged]
        loss = F.cross_entropy(logits, labels)
        total = total + loss
        out["loss_speed"] = loss
        out["acc_speed"] = (logits.argmax(1) == labels).float().mean()
    return {"loss": total, **out}


# Step


class Temporal(Trainable):
    """The method as the engine sees it."""

    networks = ("recogniser",)

    def __init__(self, preset: PretrainTemporal) -> None:
        super().__init__()
        self.preset = preset
        kinds = preset.time.kinds
        motions = len(kinds) if len(kinds) > 1 else 0
        speeds = preset.time.speeds if preset.time.speed_loss else 0
        self.recogniser = Recogniser(
            initial_backbone(preset), motions, speeds, generator(preset.train.seed, "head")
        )

    @property
    def plan(self) -> Plan:
        """How the loader takes clips from a video."""
        return Plan(self.preset.time)

    @property
    def backbone(self) -> Backbone:
        """What is kept after pretraining."""
        recogniser = getattr(self.recogniser, "module", self.recogniser)
        return recogniser.backbone

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"main": build_optimizer(self.recogniser, self.preset.optim)}

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        clips = pixels.augment(
            batch["clip"],
            self.preset.augment,
            update.generator("augment"),
            group=len(self.preset.time.kinds),
        )
        with update.autocast():
            motion, speed = self.recogniser(clips)
        out = losses(motion, speed, batch)
        update(out["loss"])
        return out

    @torch.no_grad()
    def predict(self, clips: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Motion and speed logits of uint8 clips `[B, 3, T, H, W]`, cropped in the centre."""
        recogniser = getattr(self.recogniser, "module", self.recogniser)
        motion, speed = recogniser(pixels.center(clips, self.preset.augment.crop))
        return (motion if motion.shape[1] else None, speed if speed.shape[1] else None)


def initial_backbone(preset: PretrainTemporal, *, seed: int | None = None) -> Backbone:
    """The backbone before training; the seed is that of the preset unless another is given."""
    arguments: dict[str, Any] = {
        "width": preset.network.width,
        "shortcut": preset.network.shortcut,
        "frames": preset.time.frames,
        "crop": preset.augment.crop,
        "resize": tuple(preset.augment.resize),
    }
    return build(
        preset.network.arch,
        **arguments,
        seed=derive(preset.train.seed if seed is None else seed, "backbone"),
    )
