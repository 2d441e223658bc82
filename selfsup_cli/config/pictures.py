"""Presets of the jobs that look inside a network: `selfsup visualize guided-backprop`."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import model_validator

from selfsup_cli.config.blocks import Preset, VideoData
from selfsup_cli.config.fields import Model, field


class Compared(Model):
    """What is looked at, side by side."""

    runs: list[str] = field(
        ["latest", "random"],
        "Runs, run directories or backbone.safetensors to look at, in this order; latest is the "
        "newest finished one that fits, supervised the newest that learned from action labels, "
        "random the network of the first of them with random weights.",
        flag="--from",
        names="starts",
        min_length=1,
    )
    random_seed: int = field(0, "Seed of the random weights.", ge=0)

    @model_validator(mode="after")
    def _not_random_alone(self) -> Compared:
        if set(self.runs) == {"random"}:
            raise ValueError("runs: random weights are of a run's network: name that run, too")
        return self


class Units(Model):
    """Whose gradient is shown."""

    layer: str | None = field(
        None,
        "Layer that the units belong to; by default the one whose average is the embedding (conv5 "
        "or layer4).",
        flag="--layer",
        names="layers",
    )
    unit: Annotated[int, Ge(0)] | Literal["all", "strongest"] = field(
        "all",
        "Channel of that layer, counted from 0; strongest is the most active one of each clip, "
        "all lets each count as much as it is active.",
        flag="--unit",
    )


class ShownClips(Model):
    """Which videos are shown, and what of them."""

    count: int = field(
        4,
        "Videos shown, chosen by the seed, in turn from every class.",
        flag="--count",
        ge=1,
        le=64,
    )
    columns: int = field(
        8, "Frames of each clip in the PNG; the animation has all.", flag="--columns", ge=1, le=32
    )
    max_skip: int = field(
        4, "Largest step between frames (see `clips.max_skip` of probe).", ge=1, le=16
    )
    seed: int = field(0, "Seed of the choice of videos.", flag="--seed", ge=0)


class OneMachine(Model):
    """Where the job runs. Nothing here changes what it computes."""

    device: str = field(
        "auto",
        "Device: auto, cpu, cuda or cuda:N.",
        flag="--device",
        form="auto, cpu, cuda or cuda:N",
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$",
        identity=False,
    )
    workers: Annotated[int, Ge(0), Le(256)] | Literal["auto"] = field(
        "auto",
        "Loader processes per device; 0 loads in the main process.",
        flag="--workers",
        identity=False,
    )


class GuidedBackprop(Preset):
    """Which pixels of videos make units of networks active, side by side (figure 5.4)."""

    task: Literal["guided-backprop"] = field("guided-backprop", "The task.")
    subjects: Compared = field(Compared(), "What is looked at, side by side.")
    units: Units = field(Units(), "Whose gradient is shown.")
    data: VideoData = field(VideoData(), "Where the videos come from.")
    clips: ShownClips = field(ShownClips(), "Which videos are shown, and what of them.")
    machine: OneMachine = field(OneMachine(), "Where the job runs.")
