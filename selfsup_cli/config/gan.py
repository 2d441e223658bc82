"""Presets of `selfsup pretrain dfgan` (thesis, chapter 7)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import field_validator, model_validator

from selfsup_cli.config.blocks import Machine, Optim, Preset, Train
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.images import ImageData
from selfsup_cli.config.registry import GAN_SIZES

RING = "ring"
"""The built-in data of points; all else are images."""


class Ring(Model):
    """Built-in points: Gaussians whose centres lie evenly on a circle (figures 7.1 and 7.4)."""

    modes: int = field(8, "Gaussians.", ge=1, le=64)
    radius: float = field(0.8, "Radius of the circle.", gt=0, le=10)
    sigma: float = field(0.01, "Standard deviation of each of them.", gt=0, le=1)
    points: int = field(32_768, "Points in the training part.", ge=8, le=10_000_000)
    test_points: int = field(4096, "Points in the test part.", ge=8, le=10_000_000)
    seed: int = field(0, "Seed from which the points are drawn.", ge=0)


class GanData(ImageData):
    """Where the images come from, or the points of the toy."""

    source: str | None = field(
        None,
        "A registered dataset (cifar10, stl10, celeba, imagenet, lsun, scenes, facelike …), the "
        "points of `ring`, a folder of images or of tar shards, a CSV file of path,label[,split], "
        "arrays (.npz, .h5), shards (.tar), or a pack (.h5).",
        flag="--data,--dataset",
        names="image-datasets",
    )
    images: Annotated[int, Ge(2)] | None = field(
        None,
        "Train on so many of the images only, chosen by the seed of the split.",
        flag="--images",
    )
    ring: Ring = field(Ring(), "The built-in points of `ring`.")


class GanNetwork(Model):
    """Generator, discriminator and noise generator."""

    arch: Literal["dcgan", "sngan", "mlp"] = field(
        "dcgan",
        "Networks: dcgan (table 7.2), sngan (its discriminator has two convolutions at each "
        "scale), or mlp, the small ones of `ring`.",
        flag="--arch",
    )
    size: int = field(
        32,
        f"Side of the images: {', '.join(map(str, GAN_SIZES))}.",
        flag="--size",
        unit="pixels",
    )
    width: float = field(
        1.0,
        "Multiplier of the channels: 64 at the full size, doubled with each halving of it.",
        flag="--width",
        gt=0,
        le=4,
    )
    latent: int = field(128, "Numbers that an image is made of.", ge=1, le=4096)
    discriminator: Literal["released", "table"] = field(
        "released",
        "Convolutions of dcgan's discriminator: as in the author's code, or one more as in "
        "table 7.2.",
    )
    depth: int = field(
        1, "Convolutions in each stage of all networks; 2 is section 7.3.3's.", ge=1, le=4
    )
    activation: Literal["relu", "tanh"] = field(
        "relu", "What follows each convolution: ReLU (leaky in the discriminator), or tanh."
    )
    norm_generator: Literal["auto", "batch", "none"] = field(
        "auto", "How the generator's layers are normalised; auto is batch, and none of mlp."
    )
    norm_discriminator: Literal["auto", "batch", "layer", "spectral", "none"] = field(
        "auto",
        "How the discriminator's layers are normalised: by the batch, for each image, by the "
        "largest singular value of the weights, or not; auto is batch, and none of mlp.",
        flag="--norm-discriminator",
    )

    @field_validator("size")
    @classmethod
    def _there_is_one(cls, size: int) -> int:
        if size not in GAN_SIZES:
            raise ValueError(
                f"there is no generator of {size}×{size} pixels; there are those of "
                f"{', '.join(map(str, GAN_SIZES))}"
            )
        return size

    @property
    def generator_norm(self) -> Literal["batch", "none"]:
        """How the generator is normalised."""
        auto: Literal["batch", "none"] = "none" if self.arch == "mlp" else "batch"
        return auto if self.norm_generator == "auto" else self.norm_generator

    @property
    def discriminator_norm(self) -> Literal["batch", "layer", "spectral", "none"]:
        """How the discriminator is normalised."""
        auto: Literal["batch", "none"] = "none" if self.arch == "mlp" else "batch"
        return auto if self.norm_discriminator == "auto" else self.norm_discriminator

    def channels(self, n: int = 64) -> int:
        """`n` times the width, as a multiple of 8 and at least 8."""
        return max(8, 8 * round(n * self.width / 8))


class Filtering(Model):
    """The noise with which the discriminator sees real and generated images (section 7.2)."""

    noise: Literal["none", "gaussian", "learned-sigma", "annealed", "learned"] = field(
        "learned",
        "Where it comes from: none (the standard GAN), a Gaussian of fixed, learned or falling "
        "standard deviation, or a network that is learned.",
        flag="--noise",
    )
    feeding: Literal["both", "noisy", "alternate"] = field(
        "both",
        "What the discriminator sees: images as they are and with noise, those with noise only, or "
        "half of the batch each way, which takes no longer than the standard GAN.",
        flag="--feeding",
    )
    weight: float = field(
        1.0, "Weight λ of the noise's magnitude in its loss.", flag="--noise-weight", ge=0
    )
    magnitude: Literal["mean", "sum"] = field(
        "mean",
        "Magnitude of learned noise: the mean of its squares over all pixels and channels, as in "
        "the author's code, or their sum as in Algorithm 1, where λ = 1 leaves no noise.",
    )
    sigma: float = field(1.0, "Standard deviation of Gaussian noise, at first.", gt=0, le=10)
    anneal_steps: Annotated[int, Ge(1)] | None = field(
        None,
        "Updates after which annealed noise has fallen to nothing; without a number the whole "
        "training.",
    )
    reach: float = field(2.0, "Largest value of learned noise (images reach 1).", gt=0, le=10)
    narrower: int = field(
        8, "By how much the noise generator is narrower than the generator.", ge=1, le=64
    )
    share_z: bool = field(
        False,
        "Make learned noise of the same latents as the images, as in the author's code; the theory "
        "wants independent ones.",
        flag="--share-z",
    )
    against: Literal["noisy", "all"] = field(
        "noisy",
        "What learned noise makes hard for the discriminator: the noisy images (Algorithm 1), or "
        "all it sees.",
    )
    standardize: bool | None = field(
        None,
        "Normalise noisy images per channel before the discriminator sees them, real and generated "
        "ones apart (section 7.2.3); without a word where images are judged without batch norm.",
    )


class Penalty(Model):
    """What else is asked of the discriminator."""

    kind: Literal["none", "gradient-penalty", "gradient-regularizer"] = field(
        "none",
        "gradient-penalty (WGAN-GP): gradients of norm 1 between real and generated images; "
        "gradient-regularizer (GAN+GP): small ones at both.",
        flag="--penalty",
    )
    weight: float = field(10.0, "Its weight.", gt=0)


class GanTrain(Train):
    """How long and in which numerics to train. An update is one of the generator."""

    epochs: int = field(100_000, "Passes over the training data.", flag="--epochs", ge=1)
    max_steps: int | None = field(
        100_000, "Stop after this many updates of the generator.", flag="--max-steps", ge=1
    )
    batch_size: int = field(
        64, "Images in one update, over all devices.", flag="--batch-size", ge=2
    )
    seeds: list[Annotated[int, Ge(0)]] = field(
        [],
        "Train once for each of these seeds instead, and report means and their intervals.",
        flag="--seeds",
    )
    discriminator_steps: int = field(
        1,
        "Updates of the discriminator, each on images of its own, before one of the generator.",
        flag="--n-disc",
        ge=1,
        le=100,
    )
    average: float = field(
        0.9999,
        "Decay of the generator's moving average, which begins lower; 0 keeps no memory.",
        ge=0,
        lt=1,
    )
    keep_generators: int = field(
        10,
        "Generators kept on the way, evenly spaced, for `selfsup sample dfgan --checkpoint`; 0 "
        "keeps the last one only.",
        flag="--keep-generators",
        identity=False,
        ge=0,
        le=1000,
    )


class GanMonitor(Model):
    """Held-out checks while training."""

    every_epochs: int = field(
        5, "Epochs between checks; 0 checks at the end only.", flag="--monitor-every", ge=0
    )
    images: int = field(512, "Held-out images, and as many generated ones.", ge=16)
    batch: int = field(
        100, "Images that are generated together: they share their batch norm.", ge=2, le=10_000
    )
    weights: Literal["average", "raw"] = field(
        "average", "Which generator is looked at: its moving average, or itself."
    )


class PretrainGan(Preset):
    """Generate images: a GAN whose discriminator sees everything with learned noise as well."""

    method: Literal["dfgan"] = field("dfgan", "The method.")
    objective: Literal["minimax", "non-saturating", "least-squares", "hinge", "wasserstein"] = (
        field(
            "non-saturating",
            "The game: minimax (7.1), non-saturating (DCGAN), least-squares (LSGAN), hinge "
            "(SVM-GAN, SNGAN), wasserstein (WGAN).",
            flag="--objective",
        )
    )
    data: GanData = field(GanData(), "Where the images come from.")
    network: GanNetwork = field(GanNetwork(), "The networks.")
    filtering: Filtering = field(Filtering(), "Noise in front of the discriminator.")
    penalty: Penalty = field(Penalty(), "What else is asked of the discriminator.")
    optim: Optim = field(
        Optim(name="adam", lr=1e-4, weight_decay=0.0, betas=(0.5, 0.999), schedule="constant"),
        "Optimiser of each of the networks.",
    )
    train: GanTrain = field(GanTrain(), "How long and in which numerics to train.")
    monitor: GanMonitor = field(GanMonitor(), "Held-out checks while training.")
    machine: Machine = field(Machine(), "Where and how wide the job runs.")

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method

    @property
    def training(self) -> GanTrain:
        """How long it all takes."""
        return self.train

    @property
    def beforehand(self) -> int:
        """Epochs of something else before it."""
        return 0

    @property
    def on_points(self) -> bool:
        """Whether points are generated, not images."""
        return self.network.arch == "mlp"

    @property
    def standardizes(self) -> bool:
        """Whether noisy images are normalised before the discriminator sees them."""
        given = self.filtering.standardize
        by_itself = self.network.discriminator_norm != "batch" and not self.on_points
        return by_itself if given is None else given

    @model_validator(mode="after")
    def _consistent(self) -> PretrainGan:
        points = self.data.source == RING
        if points and not self.on_points:
            raise ValueError(
                "network.arch: ring consists of points, which only mlp generates; use --arch mlp"
            )
        if self.on_points and self.data.source is not None and not points:
            raise ValueError("network.arch: mlp generates the points of --data ring, no images")
        if self.on_points:
            self._check_mlp()
        seeds = self.train.seeds
        if len(seeds) == 1 or len(set(seeds)) < len(seeds):
            raise ValueError("train.seeds: give at least two seeds, each once; --seed is for one")
        if self.train.accumulate > 1:
            raise ValueError(
                "train.accumulate: the discriminator moves before the generator is judged, so a "
                "batch cannot pass in parts; use a smaller --batch-size"
            )
        if self.train.compile:
            raise ValueError(
                "train.compile: two losses go back through one forward pass of the discriminator, "
                "which compiled networks do not allow; leave out --compile"
            )
        if self.filtering.share_z and self.filtering.noise != "learned":
            raise ValueError("filtering.share_z: only learned noise is made of latents")
        normed = self.network.discriminator_norm == "batch"
        if self.penalty.kind == "gradient-penalty" and normed:
            raise ValueError(
                "penalty.kind: a gradient penalty is one of single images, which batch norm in the "
                "discriminator mixes; use --norm-discriminator layer"
            )
        self._check_batch()
        return self

    def _check_mlp(self) -> None:
        network = self.network
        if network.discriminator_norm not in ("none", "spectral"):
            raise ValueError(
                "network.norm_discriminator: mlp judges points with none or spectral, not "
                f"{network.norm_discriminator}"
            )
        if (network.depth, network.activation, network.generator_norm) != (1, "relu", "none"):
            raise ValueError(
                "network: mlp has depth 1, activation relu and norm_generator none only"
            )

    def _check_batch(self) -> None:
        share = self.train.batch_size // self.machine.devices
        norms = {self.network.generator_norm, self.network.discriminator_norm}
        if share == 1 and "batch" in norms:
            raise ValueError(
                f"train.batch_size: {self.train.batch_size} on {self.machine.devices} devices is "
                "one image each, and batch norm makes all images equal then; use --batch-size "
                f"{2 * self.machine.devices} or more"
            )
