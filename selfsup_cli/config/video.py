"""What all pretraining on video shares: network, augmentation, monitor, the rest of a preset."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt, Le
from pydantic import model_validator

from selfsup_cli.config.blocks import Machine, Optim, Preset, Size, Train, VideoData
from selfsup_cli.config.fields import Model, field


class VideoNetwork(Model):
    """The 3D-CNN."""

    arch: str = field(
        "c3d",
        "Network: c3d, r3d, r2plus1d (of the thesis), r3d_18, mc3_18, r2plus1d_18 (torchvision).",
        flag="--arch",
        names="archs",
    )
    width: float = field(1.0, "Multiplier of the number of channels.", flag="--width", gt=0, le=4)
    shortcut: Literal["standard", "projected"] = field(
        "standard",
        "r3d and r2plus1d: identity shortcuts where shapes agree, or (as the author's code did) "
        "a projection in every block.",
    )
    head_init: Literal["normal", "xavier"] = field(
        "normal",
        "Weights of the last layer: from N(0, 0.001), as on the thesis' residual networks, or "
        "Xavier-uniform, as in all of its C3D.",
    )


class ClipAugmentation(Model):
    """What is done to the pixels of a clip."""

    resize: Size = field((128, 171), "Height and width to which frames are scaled.", unit="pixels")
    scale: tuple[Annotated[float, Gt(0), Le(1)], Annotated[float, Gt(0), Le(1)]] = field(
        (1.0, 1.0), "Range of a random further scaling, drawn per clip, aspect ratio kept."
    )
    crop: int = field(
        112, "Side of the random square crop.", flag="--crop", unit="pixels", ge=16, le=512
    )
    flip: bool = field(True, "Mirror half of the videos; the clips of one video share the coin.")
    color: Literal["none", "clip", "frame"] = field(
        "none", "Random brightness, saturation and greyscale: off, per clip, or per frame."
    )

    @property
    def resize_to_evaluate(self) -> tuple[int, int]:
        """Height and width of frames where nothing is random: `resize` in the middle of `scale`.

        256×256 at ½ … 1 makes 192×192, from which the author's test takes crops of 128.
        """
        height, width = (round(side * sum(self.scale) / 2) for side in self.resize)
        return height, width

    @model_validator(mode="after")
    def _fits(self) -> ClipAugmentation:
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale: the lower bound is above the upper one")
        if self.crop > min(self.resize) * self.scale[0] + 1e-6:
            raise ValueError(
                f"crop: {self.crop} does not fit into frames of {self.resize[0]}×{self.resize[1]} "
                f"scaled by {self.scale[0]:g}"
            )
        return self


class Monitor(Model):
    """Held-out checks while training: is it learning?"""

    every_epochs: int = field(
        5, "Epochs between checks; 0 checks at the end only.", flag="--monitor-every", ge=0
    )
    videos: int = field(256, "Held-out videos for the pretext accuracy.", ge=1)
    draws: int = field(2, "Clips drawn from each of them per transformation.", ge=1)
    knn_videos: int = field(
        512, "Videos for the k-NN check where the data has labels; 0 skips it.", ge=0
    )
    knn_k: int = field(5, "Neighbours that vote.", ge=1)


class PretrainVideo(Preset):
    """A preset of pretraining on video, whatever the method."""

    data: VideoData = field(VideoData(), "Where the videos come from.")
    network: VideoNetwork = field(VideoNetwork(), "The 3D-CNN.")
    augment: ClipAugmentation = field(ClipAugmentation(), "What is done to the pixels.")
    optim: Optim = field(Optim(), "Optimiser and schedule.")
    train: Train = field(Train(), "How long and in which numerics to train.")
    monitor: Monitor = field(Monitor(), "Held-out checks while training.")
    machine: Machine = field(Machine(), "Where and how wide the job runs.")

    @property
    def beforehand(self) -> int:
        """Epochs that pass before the method itself is trained."""
        return 0

    @property
    def training(self) -> Train:
        """How long to train."""
        return self.train

    @property
    def name(self) -> str:
        """The method's name."""
        raise NotImplementedError

    @property
    def frames(self) -> int:
        """Frames of a clip."""
        raise NotImplementedError

    @property
    def min_frames(self) -> int:
        """Videos with fewer frames are left out."""
        return self.frames
