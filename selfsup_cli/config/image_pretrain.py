"""What all pretraining on images shares: network, framing, monitor, the rest of a preset."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import model_validator

from selfsup_cli.config.blocks import Machine, Optim, Preset, Train
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.images import ImageData


class ImageNetwork(Model):
    """The 2D-CNN."""

    arch: str = field(
        "alexnet",
        "Network: alexnet, alexnet_lrn, cifarnet, inception_small, preact_resnet18 (of the "
        "thesis), resnet18, resnet34, resnet50 (torchvision), or any of timm's as timm/NAME.",
        flag="--arch",
        names="image-archs",
    )
    width: float = field(
        1.0,
        "Multiplier of the number of channels of a network of the thesis.",
        flag="--width",
        gt=0,
        le=4,
    )
    padding: Literal["same", "valid"] = field(
        "same", "How an alexnet's first convolution and its poolings treat the border."
    )


class Framing(Model):
    """What of an image the network sees."""

    crop: int = field(
        64, "Side of what the network sees.", flag="--crop", unit="pixels", ge=16, le=512
    )
    flip: bool = field(True, "Mirror half of the images.")

    def sides(self) -> tuple[int, int]:
        """Side of what is cut out of an image, and what the shorter side of those that the network
        is tested on is scaled to."""
        raise NotImplementedError

    @property
    def wanted(self) -> int:
        """Shorter side below which images are enlarged."""
        raise NotImplementedError


class ImageFraming(Framing):
    """What is cut out of an image before it is transformed, and what of that the network sees."""

    shorter: Annotated[int, Ge(8), Le(1024)] | None = field(
        96,
        "Scale the shorter side of images to this; without it they keep their scale, unless they "
        "are smaller than the canvas.",
        unit="pixels",
    )
    canvas: int = field(
        80,
        "Side of the random square that is cut out first, in which patches are inpainted and "
        "which is warped.",
        flag="--canvas",
        unit="pixels",
        ge=16,
        le=1024,
    )
    jitter: Annotated[int, Ge(0)] | None = field(
        7,
        "How far from the centre of the canvas that crop may lie along each axis; without a number "
        "as far as there is room.",
        unit="pixels",
    )
    rotate_share: float = field(
        0.5,
        "Share of what the network sees that is turned by a small random angle, chosen anew for "
        "each transformed image.",
        ge=0,
        le=1,
    )
    rotate_angle: float = field(12.6, "Largest of those angles.", unit="degrees", ge=0, le=45)

    def sides(self) -> tuple[int, int]:
        return self.canvas, self.wanted

    @property
    def wanted(self) -> int:
        return self.shorter or self.canvas

    @model_validator(mode="after")
    def _fits(self) -> ImageFraming:
        if self.shorter is not None and self.canvas > self.shorter:
            raise ValueError(
                f"canvas: {self.canvas} does not fit into images whose shorter side is "
                f"{self.shorter}"
            )
        if self.crop > self.canvas:
            raise ValueError(f"crop: {self.crop} does not fit into a canvas of {self.canvas}")
        room = (self.canvas - self.crop) // 2
        if self.jitter is not None and self.jitter > room:
            raise ValueError(
                f"jitter: a crop of {self.crop} can lie at most {room} pixels from the centre of a "
                f"canvas of {self.canvas}"
            )
        return self


class ImageTrain(Train):
    """How long and in which numerics to train."""

    epochs: int = field(200, "Passes over the training data.", flag="--epochs", ge=1)
    batch_size: int = field(
        64, "Images in one update, over all devices.", flag="--batch-size", ge=1
    )


class ImageMonitor(Model):
    """Held-out checks while training: is it learning?"""

    every_epochs: int = field(
        5, "Epochs between checks; 0 checks at the end only.", flag="--monitor-every", ge=0
    )
    images: int = field(512, "Held-out images for the pretext accuracy.", ge=2)
    knn_images: int = field(
        1024, "Images for the k-NN check where the data has labels; 0 skips it.", ge=0
    )
    knn_k: int = field(5, "Neighbours that vote.", ge=1)


class PretrainImages(Preset):
    """A preset of pretraining on images, whatever the method."""

    data: ImageData = field(ImageData(), "Where the images come from.")
    network: ImageNetwork = field(ImageNetwork(), "The 2D-CNN.")
    framing: Framing = field(ImageFraming(), "What of an image is seen.")
    optim: Optim = field(Optim(betas=(0.5, 0.99)), "Optimiser and schedule.")
    train: ImageTrain = field(ImageTrain(), "How long and in which numerics to train.")
    monitor: ImageMonitor = field(ImageMonitor(), "Held-out checks while training.")
    machine: Machine = field(Machine(), "Where and how wide the job runs.")

    @property
    def name(self) -> str:
        """The method's name."""
        raise NotImplementedError

    @property
    def beforehand(self) -> int:
        """Epochs that pass before the method itself is trained."""
        return 0

    @property
    def training(self) -> ImageTrain:
        """How long to train, all stages together."""
        return self.train
