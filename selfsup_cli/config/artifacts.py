"""Presets of `selfsup pretrain artifacts` (thesis, chapter 3)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import field_validator, model_validator

from selfsup_cli.config.blocks import Fraction, Optim
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.image_pretrain import (
    Framing,
    ImageNetwork,
    ImageTrain,
    PretrainImages,
)

STRIDE = 16
"""Pixels along each side that an entry of the autoencoder's code stands for."""

ARCH = "alexnet_lrn"
_SMALLEST = 2 * STRIDE
Positive = Annotated[float, Gt(0)]


class ArtifactNetwork(ImageNetwork):
    """The discriminator, of which the backbone is kept."""

    arch: str = field(ARCH, f"Network: {ARCH}, and no other.", flag="--arch", names="image-archs")


class ArtifactFraming(Framing):
    """What of an image the networks see: all of a random part, scaled to a square."""

    crop: int = field(
        96,
        "Side of the images, a multiple of 16.",
        flag="--crop",
        unit="pixels",
        ge=16,
        le=512,
    )
    area: tuple[Positive, Annotated[float, Gt(0), Le(1)]] = field(
        (1 / 3, 1.0), "Share of an image's area that is cut out, from and to."
    )
    ratio: tuple[Positive, Positive] = field(
        (0.75, 1.33), "Width by height of what is cut out, from and to."
    )
    cubic: Fraction = field(
        0.5, "Share of what is cut out that is scaled with a cubic kernel, not bilinearly."
    )
    color: bool = field(True, "Change brightness and saturation at random.")
    test_share: float = field(
        0.85, "Side of the centre of an image that the network is tested on.", ge=0.1, le=1
    )

    def sides(self) -> tuple[int, int]:
        return self.crop, round(self.crop / self.test_share)

    @property
    def wanted(self) -> int:
        return self.crop

    @field_validator("crop")
    @classmethod
    def _whole_entries(cls, value: int) -> int:
        if value % STRIDE or value < _SMALLEST:
            nearest = max(_SMALLEST, STRIDE * int(value / STRIDE + 0.5))
            raise ValueError(
                f"an entry of the autoencoder's code stands for {STRIDE} pixels: the side must be "
                f"a multiple of {STRIDE} from {_SMALLEST} on; the nearest to {value} is {nearest}"
            )
        return value

    @model_validator(mode="after")
    def _ordered(self) -> ArtifactFraming:
        for name in ("area", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: from {low:g} to {high:g} is no range")
        return self


class Replication(Model):
    """The autoencoder, which is trained first and then stays as it is."""

    source: str | None = field(
        None,
        "Take it from a finished run of 'selfsup pretrain artifacts' or a method.safetensors "
        "instead of training one.",
        flag="--autoencoder",
        names="runs",
    )
    epochs: int = field(
        80, "Passes over the training data for it alone.", flag="--autoencoder-epochs", ge=1
    )
    base: int = field(
        32, "Channels of its first layer; the code has 16 times as many.", ge=4, le=256
    )
    kernel: Literal[2, 3] = field(
        2, "Side of the encoder's kernels at stride 2: with 2 an entry sees 18 pixels, with 3, 33."
    )
    lr: float = field(3e-4, "Its learning rate at the start of the schedule.", gt=0)
    weight_decay: float = field(5e-5, "Its weight decay.", ge=0)
    error_weight: float = field(30.0, "Weight of its squared error beside weight decay.", gt=0)
    max_error: float = field(
        0.06,
        "Mean squared error, of values in [-1, 1], above which it is too poor to serve: what the "
        "discriminator is shown as real would show little.",
        flag="--max-error",
        gt=0,
        identity=False,
    )


class Repair(Model):
    """The repair network, which hides the damage from the discriminator."""

    local: bool = field(
        False, "All five repair layers before the decoder, and none between its layers."
    )
    gated: bool = field(True, "Repair layers change only what was dropped.")
    objective: Literal["flipped", "as_released"] = field(
        "flipped",
        "What it minimises: that its images are taken for real (flipped), or with that also the "
        "discriminator's own loss, as the author's code does by mistake (as_released).",
    )
    kept_recon_weight: float = field(
        30.0, "Weight of the squared error in pixels that were kept.", ge=0
    )


class PretrainArtifacts(PretrainImages):
    """Spot what was damaged in a code of the image and repaired by another network."""

    method: Literal["artifacts"] = field("artifacts", "The method.")
    network: ArtifactNetwork = field(ArtifactNetwork(), "The discriminator.")
    framing: ArtifactFraming = field(ArtifactFraming(), "What of an image is seen.")
    autoencoder: Replication = field(Replication(), "The autoencoder.")
    drop_rate: float = field(
        0.7,
        "Share θ of the entries of a code that are dropped.",
        flag="--drop-rate",
        gt=0,
        lt=1,
    )
    repair: Repair = field(Repair(), "The repair network.")
    locate: bool = field(True, "The discriminator also says where the damage is.")
    locate_weight: float = field(0.1, "Weight of that beside telling real from damaged.", ge=0)
    real: Literal["replicas", "images"] = field(
        "replicas",
        "What it is shown as real: images that went through the autoencoder, or as they are.",
    )
    history: Annotated[int, Ge(0)] = field(
        0,
        "Damaged images of earlier steps that are kept, to make up half of the damaged ones in a "
        "batch; 0 keeps none.",
    )
    optim: Optim = field(
        Optim(
            name="adam",
            betas=(0.5, 0.999),
            eps=1e-5,
            weight_decay=5e-5,
            schedule="linear",
            final_factor=0.01,
            falling=0.9,
        ),
        "Optimiser and schedule of discriminator and repair network.",
    )

    @property
    def name(self) -> str:
        return self.method

    @property
    def beforehand(self) -> int:
        return 0 if self.autoencoder.source else self.autoencoder.epochs

    @property
    def training(self) -> ImageTrain:
        return self.train.model_copy(update={"epochs": self.beforehand + self.train.epochs})

    @model_validator(mode="after")
    def _consistent(self) -> PretrainArtifacts:
        if self.network.arch != ARCH:
            raise ValueError(
                f"network.arch: the discriminator of this method is {ARCH}, not {self.network.arch}"
            )
        if self.network.padding != "same":
            raise ValueError(
                "network.padding: without padding the discriminator's cells are not those of the "
                "autoencoder's code; use same"
            )
        if self.history:
            self._check_history()
        return self

    def _check_history(self) -> None:
        if self.machine.devices > 1:
            raise ValueError(
                "history: each of several processes would keep another one, and a run that is "
                "interrupted could not go on as it was; use --devices 1, or a history of 0"
            )
        half = self.train.batch_size // self.train.accumulate // 2
        if self.history < half:
            raise ValueError(
                f"history: half of what passes through the networks at a time, {half} images, "
                f"comes from it; keep at least as many, or 0 for none"
            )
