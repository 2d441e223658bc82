"""What the tasks on images share: a classifier, how images come to it, what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.config.registry import PADDED
from selfsup_cli.config.transfer_images import Classifying, ImageAugmentation
from selfsup_cli.data.framing import Crop, Plan, RandomResizedCrop
from selfsup_cli.data.image_dataset import ImageDataset
from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.fresh import first_samples, rescale_classifier
from selfsup_cli.evaluation.reading import in_batches
from selfsup_cli.evaluation.task import ClassifierTask, Told
from selfsup_cli.evaluation.views import Crops, ImageViews, read_images, shorter_side
from selfsup_cli.models import Backbone
from selfsup_cli.models.backbone import Spec
from selfsup_cli.models.building import construct
from selfsup_cli.models.classifier import Classifier, HeadSpec
from selfsup_cli.models.preact_resnet import PreActResNet
from selfsup_cli.randomness import derive, generator
from selfsup_cli.runs.report import ProtocolValue
from selfsup_cli.transforms.finetuning import (
    cut_from_padded,
    cut_out,
    recolored,
    relit,
    turned,
)
from selfsup_cli.transforms.images import coins, mirror, to_unit

_BATCH = 64
_RANDOM = 10
_QUICK = 1024

Bad = Callable[[str, str], None]
Outputs = Callable[[Tensor], Tensor]


class ImageTask(ClassifierTask):
    """A task on images: how they come to its network. A task gives `step`, and what is reported."""

    many = "images"
    labelled = True
    preset: Classifying

    def __init__(
        self, preset: Classifying, backbone: Backbone, classes: tuple[str, ...], seed: int
    ) -> None:
        super().__init__()
        self.preset = preset
        self.classes = classes
        self.seed = seed
        self.network = classifier(preset, backbone, len(classes), seed=seed)
        self.input = self.plain.backbone.input

    @property
    def views(self) -> ImageViews:
        """Which crops stand for a test image."""
        return views_of(self.preset.test.crops)

    @property
    def framing(self) -> Plan:
        """Which part of a training image is cut out, and scaled to the crop."""
        augment, side = self.preset.augment, self.input.crop
        if augment.framing == "resized":
            return RandomResizedCrop((side, side), augment.scale)
        shorter = shorter_side(self.input)
        if augment.pad:
            side = shorter  # the rest of the way is gone on the device
        return Crop((side, side), shorter, random=augment.framing == "random")

    def samples(self, source: ImageSource) -> ImageDataset:
        return ImageDataset(source, self.seed, plan=self.framing)

    def rescale(self, source: ImageSource, hardware: Hardware) -> None:
        images = to_unit(first_samples(self.samples(source), self.seed)["image"])
        everything = self.preset.start.init == "random"
        rescale_classifier(self.plain, images, hardware, everything=everything, seed=self.seed)

    def augmented(self, images: Tensor, g: torch.Generator) -> Tensor:
        """Crops uint8 `[B, 3, S, S]` as the network is trained on them, float in [-1, 1]."""
        return augmented(images, self.preset.augment, g, self.input.crop)

    def asked(self, source: ImageSource, *, quick: bool) -> tuple[ImageSource, ImageViews]:
        """Which images are looked at, and how; with `quick` as little as says something."""
        if not quick:
            return source, self.views
        if len(source) > _QUICK:
            order = sorted(range(len(source)), key=lambda i: derive(0, source.ids[i], "quick"))
            source = source.subset(np.array(sorted(order[:_QUICK]), dtype=np.int64))
        return source, ImageViews()

    @property
    def seen(self) -> dict[str, ProtocolValue]:
        return {
            "crop": f"{self.input.crop} of images whose shorter side is {shorter_side(self.input)}",
            "augmentation": described(self.preset.augment),
            "test_crops": self.views.told(),
        }

    @property
    def facts(self) -> dict[str, Any]:
        return {"crops": self.preset.test.crops}


def views_of(crops: Crops) -> ImageViews:
    """Which crops stand for a test image: of those at random places, ten."""
    return ImageViews(crops, _RANDOM if crops == "random" else 1)


def augmented(images: Tensor, how: ImageAugmentation, g: torch.Generator, side: int = 0) -> Tensor:
    """What is done to the pixels of crops uint8 `[B, 3, S, S]`: float32 in [-1, 1].

    Of padded ones a square of `side` is cut out. What `light` does may leave that range.
    """
    if how.pad:
        images = cut_from_padded(images, how.pad, side, g)
    if how.flip:
        images = mirror(images, coins(len(images), 0.5, g))
    if not (how.color or how.affine or how.cutout or how.light):
        return to_unit(images)
    x = images.float().div_(255)
    if how.affine:
        x = turned(x, how.affine, g)
    if how.color:
        x = recolored(x, g)
    if how.cutout:
        x = cut_out(x, how.cutout, how.cutout_side, g)
    if how.light:
        x = relit(x, g)
    return x.mul_(2).sub_(1)


def described(how: ImageAugmentation) -> str:
    """The augmentation in a phrase."""
    share = f"{100 * how.scale[0]:g} to {100 * how.scale[1]:g} %"
    parts = [
        {
            "random": "random crops",
            "resized": f"random crops of {share} of the area",
            "center": "centre crops",
        }[how.framing],
        f"of images with {how.pad} pixels of black around" if how.pad else "",
        "mirrored" if how.flip else "",
        "brightness and contrast" if how.light else "",
        f"{100 * how.affine:g} % turned, moved, scaled and sheared" if how.affine else "",
        "colours" if how.color else "",
        f"{100 * how.cutout:g} % with a square cut out" if how.cutout else "",
    ]
    return ", ".join(part for part in parts if part)


@torch.no_grad()
def ask(
    network: Classifier,
    source: ImageSource,
    views: ImageViews,
    outputs: Outputs,
    hardware: Hardware,
    *,
    workers: int,
    bad: Bad | None = None,
    told: Told | None = None,
) -> np.ndarray:
    """Mean over the views of each image of what `outputs` makes of the logits: float64 `[N, C]`.

    A file that cannot be read raises InputError, or where `bad` is given is told to it and gets
    zeros. Leaves the network in evaluation mode.
    """
    network.eval().to(hardware.device)
    size = network.backbone.input
    sums = np.zeros((len(source), network.head_spec.outputs))
    items = read_images(source, range(len(source)), views, size, workers, bad)
    for images, owners in in_batches(items, _BATCH, hardware.device):
        with hardware.autocast():
            logits = network(to_unit(images))
        np.add.at(sums, owners, outputs(logits.float()).double().cpu().numpy())
        if told is not None:
            told(owners[-1] + 1, len(source))
    return sums / len(views)


def classifier(preset: Classifying, backbone: Backbone, outputs: int, *, seed: int) -> Classifier:
    """The network that is trained: `backbone`, partly frozen, with the head the preset asks for."""
    fresh, head = preset.start.reinit_head, preset.head
    width, thesis = float(backbone.spec["width"]), backbone.arch in PADDED
    spec = HeadSpec(
        kind="fc" if fresh else "linear",
        outputs=outputs,
        hidden=[max(8, 8 * round(n * width / 8)) for n in head.hidden] if fresh else [],
        pooling=head.pooling,
        dropout=head.dropout if fresh else preset.regularize.dropout,
        batch_norm=head.batch_norm if fresh else True,
        truncated=0.005 if thesis or fresh else None,
    )
    backbone = sized(backbone, preset.augment, fresh=fresh, seed=seed)
    if preset.regularize.inside and isinstance(backbone, PreActResNet):
        backbone.drop(preset.regularize.inside)
    network = Classifier(backbone, spec, generator=generator(seed, "head"))
    return network.freeze(preset.start.freeze)


def sized(backbone: Backbone, how: ImageAugmentation, *, fresh: bool, seed: int) -> Backbone:
    """The same network for images and crops of other sizes, where the preset names any.

    Raises InputError where its weights are those of one size; those above the convolutions do not
    count where the head is `fresh`.
    """
    now = backbone.input
    crop = how.crop or now.crop
    shorter = how.shorter or max(shorter_side(now), crop)
    if crop > shorter:
        raise InputError(
            f"augment.shorter: a crop of {crop} does not fit into images whose shorter side is "
            f"{shorter}; use --crop {shorter} or less",
            kind="augment",
        )
    if (crop, shorter) == (now.crop, shorter_side(now)):
        return backbone
    spec = Spec.model_validate({**backbone.spec, "crop": crop, "resize": (shorter, shorter)})
    other = construct(spec)
    other.initialize(generator(seed, "resized"))
    state, room = backbone.state_dict(), other.state_dict()
    unfit = [name for name in room if name not in state or state[name].shape != room[name].shape]
    above = tuple(f"{name}." for name in _above(other)) if fresh else ()
    if any(not name.startswith(above or "\0") for name in unfit):
        way = (
            "" if fresh or backbone.arch not in PADDED else ", or --reinit-head, which replaces it"
        )
        raise InputError(
            f"augment.crop: {unfit[0]} of this {backbone.arch} is for crops of {now.crop} pixels, "
            f"and {crop} does not fit; leave out --crop{way}",
            kind="augment",
        )
    other.load_state_dict({**room, **{k: v for k, v in state.items() if k not in unfit}})
    other.trained_on = backbone.trained_on
    return other


def _above(backbone: Backbone) -> Mapping[str, None]:
    layers = backbone.layers
    return dict.fromkeys(layers[layers.index(backbone.embedding) + 1 :])
