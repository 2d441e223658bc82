"""Presets of `selfsup pretrain transformations` (thesis, chapter 4)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import model_validator

from selfsup_cli.config.blocks import Fraction
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.image_pretrain import ImageFraming, PretrainImages
from selfsup_cli.config.registry import TRANSFORMS
from selfsup_cli.config.shortcuts import Shortcuts


class Warping(Model):
    """Random warps: a polyharmonic spline of order 2 through moved control points."""

    points: int = field(4, "Control points along each side.", ge=2, le=16)
    reach: float = field(
        0.1,
        "Largest offset of a control point along each axis, as a share of the canvas.",
        gt=0,
        le=0.5,
    )
    placement: Literal["grid", "random"] = field(
        "grid",
        "Control points on a grid that reaches into the corners, or anywhere, anew for each image "
        "(with reach 1/16 as in the author's code, where half of the warps fold).",
    )


class Inpainting(Model):
    """Limited-context inpainting: inpainter F, patch discriminator D, and their losses."""

    patch: int = field(48, "Side of the patch that is replaced.", unit="pixels", ge=8, le=512)
    border: int = field(
        2, "Pixels along its sides that the inpainter is shown.", unit="pixels", ge=1
    )
    margin: int = field(1, "Pixels of the canvas around a patch.", unit="pixels", ge=0)
    noise: float = field(
        0.1, "Standard deviation of the noise that replaces the inside of a patch.", gt=0, le=2
    )
    layers: int = field(4, "Scales of F; D has one fewer.", ge=2, le=6)
    width: float = field(1.0, "Multiplier of the channels of F (48) and D (64).", gt=0, le=4)
    pack: int = field(2, "Patches that D judges together.", ge=1, le=8)
    lr: float = field(2e-4, "Learning rate of F (Adam).", gt=0)
    lr_discriminator: float = field(8e-4, "Learning rate of D (Adam).", gt=0)
    schedule: Literal["constant", "classifier"] = field(
        "constant",
        "Whether these rates stay as they are or fall as the classifier's does, which paints "
        "better patches after a short training.",
    )
    border_weight: float = field(50.0, "Weight of the squared error in the border.", ge=0)
    autoencode_weight: float = field(
        50.0, "Weight of the squared error of autoencoded patches.", ge=0
    )
    against_classifier: bool = field(
        True, "F also makes the classifier's task hard (its loss enters F's with a minus)."
    )
    against_discriminator: bool = field(True, "F also makes the discriminator's task hard.")
    beforehand_steps: Annotated[int, Ge(0)] = field(
        0,
        "Train F alone for so many updates, then leave it as it is and train the classifier only, "
        "whose schedule begins there; 0 trains all together.",
    )
    hidden_negatives: Fraction = field(
        0.5,
        "Share of the images without inpainting whose patch is autoencoded, so that traces of F do "
        "not give the inpainted ones away.",
    )


class PretrainTransformations(PretrainImages):
    """Recognise which transformation an image went through: inpainted, warped or turned."""

    method: Literal["transformations"] = field("transformations", "The method.")
    kinds: list[str] = field(
        ["identity", "rotate90", "rotate180", "rotate270", "warp", "lci"],
        "Transformations to tell apart: " + ", ".join(TRANSFORMS) + ".",
        flag="--kinds",
        names="transformations",
        min_length=2,
    )
    framing: ImageFraming = field(ImageFraming(), "What of an image is seen.")
    warp: Warping = field(Warping(), "How images are warped.")
    tiles: int = field(4, "Tiles along each side that `tiles` puts into random order.", ge=2, le=16)
    lci: Inpainting = field(Inpainting(), "Limited-context inpainting.")
    shortcuts: Shortcuts = field(
        Shortcuts(), "Whether local cues solve the task, looked into after pretraining."
    )

    @property
    def name(self) -> str:
        return self.method

    @property
    def inpaints(self) -> bool:
        """Whether any of the transformations needs the inpainter."""
        return any(TRANSFORMS[kind].inpaints for kind in self.kinds if kind in TRANSFORMS)

    @model_validator(mode="after")
    def _consistent(self) -> PretrainTransformations:
        for kind in self.kinds:
            if self.kinds.count(kind) > 1:
                raise ValueError(f"kinds: {kind} stands there twice")
        if self.inpaints:
            self._check_patch()
        return self

    def _check_patch(self) -> None:
        lci, canvas = self.lci, self.framing.canvas
        least = lci.patch + 2 * lci.margin
        if least > canvas:
            raise ValueError(
                f"lci.patch: {lci.patch} pixels with {lci.margin} around them need a canvas of "
                f"{least}, not {canvas}"
            )
        if lci.border > (lci.patch - 1) // 2:
            raise ValueError(
                f"lci.border: {lci.border} leaves nothing to inpaint in a patch of {lci.patch}; "
                f"at most {(lci.patch - 1) // 2}"
            )
        multiple = 2 ** (lci.layers - 1)
        if lci.patch % multiple:
            raise ValueError(
                f"lci.patch: with {lci.layers} layers it must be a multiple of {multiple}, "
                f"not {lci.patch}"
            )
        if not self.lci.against_discriminator:
            return
        batch, parts = self.train.batch_size, self.train.accumulate * self.machine.devices
        step = parts * lci.pack
        if batch % step:
            nearest = max(step, round(batch / step) * step)
            raise ValueError(
                f"lci.pack: the discriminator sees {lci.pack} patches at once, so what passes "
                f"through the networks at a time must be a multiple of {lci.pack}; a batch of "
                f"{batch} in {parts} part{'' if parts == 1 else 's'} is not; use --batch-size "
                f"{nearest}"
            )
