"""Presets of what is looked at of a pretraining of chapter 3: `selfsup sample artifacts`."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt
from pydantic import model_validator

from selfsup_cli.config.blocks import Preset
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.image_pictures import ShownImages
from selfsup_cli.config.images import ImageData
from selfsup_cli.config.pictures import OneMachine


class Damagers(Model):
    """Whose damage and repair is shown."""

    runs: list[str] = field(
        ["latest"],
        "Runs of 'selfsup pretrain artifacts', shown side by side if there are several; latest is "
        "the newest finished one.",
        flag="--from",
        names="runs",
        min_length=1,
    )


class ShownDamage(Model):
    """How much is damaged."""

    drop_rates: list[Annotated[float, Gt(0), Lt(1)]] = field(
        [],
        "Shares of the entries of a code that are dropped, side by side if there are several; that "
        "of the run if none is given.",
        flag="--drop-rates",
    )
    over: Literal["auto", "test", "train", "all"] = field(
        "auto",
        "Which part of the data is shown: auto is the test part of the data that the run was "
        "trained on, and all of any other.",
        flag="--over",
    )


class JudgedImages(Model):
    """On what it is measured how well the damage is found."""

    images: Annotated[int, Ge(0)] = field(
        256, "Images on which that is measured, chosen by the seed; 0 measures nothing.",
        flag="--images",
    )  # fmt: skip
    batch_size: int = field(
        32, "Images that go through the networks together.", ge=1, identity=False
    )


class SampleArtifacts(Preset):
    """Images as they are damaged and repaired, and where that is found (figures 3.3 and 3.6)."""

    task: Literal["sample-artifacts"] = field("sample-artifacts", "The task.")
    subject: Damagers = field(Damagers(), "Whose damage and repair is shown.")
    damage: ShownDamage = field(ShownDamage(), "How much is damaged.")
    data: ImageData = field(
        ImageData(), "Where the images come from; without a source, those of the first run."
    )
    shown: ShownImages = field(ShownImages(), "Which images are shown.")
    scored: JudgedImages = field(
        JudgedImages(), "On what it is measured how well the damage is found."
    )
    machine: OneMachine = field(OneMachine(), "Where the job runs.")

    @model_validator(mode="after")
    def _one_way(self) -> SampleArtifacts:
        if len(self.subject.runs) > 1 and len(self.damage.drop_rates) > 1:
            raise ValueError(
                "damage.drop_rates: either several runs are shown side by side or several drop "
                "rates; name one run, or one rate"
            )
        return self
