"""The built-in figures of `--data figures`: people that are rendered from four cameras."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import MinLen

from selfsup_cli.config.fields import Model, field

SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
"""They are named as in Human3.6M; S9 and S11 are tested on."""

MOTIONS = ("walking", "running", "jumping", "waving", "directing", "squatting", "boxing", "dancing")
"""The motions that are made by rule."""


class Figures(Model):
    """Built-in people, seen by four calibrated cameras at 50 frames per second."""

    mocap: Annotated[str, MinLen(1)] | None = field(
        None,
        "Folder of BVH files (as of the CMU motion capture database) whose motions they do; "
        "without one, motions made by rule.",
        flag="--mocap",
    )
    scene: Literal["room", "none"] = field(
        "room",
        "What stands still behind them: a room, which each camera sees from its corner, or plain "
        "grey.",
        flag="--scene",
    )
    actions: list[Annotated[str, MinLen(1)]] = field(
        [],
        "What they do: walking, running, jumping, waving, directing, squatting, boxing, dancing, "
        "or of motion capture the names of files without numbers; everything by default.",
        flag="--actions",
    )
    sequences: int = field(1, "Sequences of each action that a subject does.", ge=1, le=100)
    seconds: float = field(6.0, "Longest part of a motion.", unit="s", ge=3, le=600)
    seed: int = field(0, "Seed from which bodies, motions and rooms are made.", ge=0)
