"""Recognising image transformations (thesis, chapter 4).

An image is turned by quarters, warped, or has a patch that was inpainted from nothing but its
border (limited-context inpainting, LCI). All of them keep local statistics and change global ones,
so a classifier C that tells them apart (Eq. 4.1) has to learn what images look like as a whole.

LCI is learned along with it. An inpainter F paints a patch anew (Eq. 4.3); it is trained against a
discriminator D of patches, and against C, whose loss enters F's with a minus. So that C does not
recognise F by its traces, F also autoencodes patches, and half of the images that were not
inpainted show one of these (section 4.2.4).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.config.image_pretrain import ImageFraming
from selfsup_cli.config.registry import TRANSFORMS as REGISTERED
from selfsup_cli.config.transformations import PretrainTransformations
from selfsup_cli.data.framing import Crop
from selfsup_cli.engine.schedule import build_optimizer
from selfsup_cli.engine.trainable import Batch, Update
from selfsup_cli.errors import InputError
from selfsup_cli.methods.image_pretext import (
    Examples,
    ImagePretext,
    Quality,
    initial_backbone,
    unwrapped,
)
from selfsup_cli.methods.pretext import Recogniser
from selfsup_cli.models.inpainting import Inpainter, PatchDiscriminator
from selfsup_cli.randomness import generator
from selfsup_cli.runs.report import Finding
from selfsup_cli.transforms import images as pixels
from selfsup_cli.transforms.inpainting import Inpainted, draw_noise, inpaint, inside
from selfsup_cli.transforms.pretext import TRANSFORMS, Means, coinciding
from selfsup_cli.transforms.warp import RandomWarp, random_angles, rotated_crops

log = logging.getLogger("selfsup")

_SIGMA_HEAD = 0.005
_BASE_INPAINTER, _BASE_DISCRIMINATOR = 48, 64
_BETAS = (0.5, 0.999)
_MANY_FOLDS = 0.05
# Error in the border, as a share of a patch's standard deviation, below which no seam is seen.
_BLENDS = 0.1

# Transformation


def seen(canvases: Tensor, framing: ImageFraming, g: torch.Generator) -> Tensor:
    """What the network sees of canvases `[B, 3, S, S]`: `[B, 3, crop, crop]`.

    Turned by a small angle, or not, and cut out near the centre. Whether an image is turned depends
    on nothing else: in the author's code those with autoencoded patches never were, which gave
    inpainted ones away.
    """
    count, side = len(canvases), canvases.shape[-1]
    room = side - framing.crop
    jitter = room // 2 if framing.jitter is None else framing.jitter
    span = room + 1 if framing.jitter is None else 2 * jitter + 1
    drawn = torch.rand(count, 2, generator=g, device=g.device, dtype=torch.float64)
    first = 0 if framing.jitter is None else room // 2 - jitter
    corners = (drawn * span).to(torch.int64) + first
    angles = random_angles(count, framing.rotate_angle * torch.pi / 180, g)
    turned = pixels.coins(count, framing.rotate_share, g)
    if framing.rotate_share == 0 or framing.rotate_angle == 0:
        return pixels.crop(canvases, corners, framing.crop)
    return rotated_crops(canvases, angles * turned, corners, framing.crop)


# Networks and losses


class _Against(torch.autograd.Function):
    """The identity, whose gradient has the opposite sign: what is before it wants the opposite."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return -gradient


def against(x: Tensor) -> Tensor:
    """`x`; a loss behind it is maximised by what is before it."""
    out: Tensor = _Against.apply(x)
    return out


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The hinge loss of decisions `[N]` on real and on inpainted patches."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def border_loss(painted: Inpainted, border: int) -> Tensor:
    """Mean squared error of inpainted patches in the border that F was shown.

    The thesis writes a sum (section 4.2.1); with its weight of 50 the author's code takes the mean,
    and the sum would leave nothing of the game.
    """
    kept = ~inside(painted.original.shape[-1], border, painted.original.device)
    return F.mse_loss(painted.inpainted_patches[..., kept].float(), painted.original[..., kept])


def autoencode_loss(painted: Inpainted) -> Tensor:
    """Mean squared error |F(e) − e|² of autoencoded patches (section 4.2.4)."""
    return F.mse_loss(painted.autoencoded_patches.float(), painted.original)


class Transformations(ImagePretext):
    """The method as the engine sees it."""

    preset: PretrainTransformations

    @property
    def plan(self) -> Crop:
        """The canvas, anywhere in an image."""
        side, shorter = self.preset.framing.canvas, self.preset.framing.shorter
        return Crop((side, side), shorter, random=True)

    def __init__(
        self, preset: PretrainTransformations, classes: tuple[str, ...] | None = None
    ) -> None:
        super().__init__(preset)
        self.kinds = tuple(preset.kinds)
        self.questions = {"transformation": self.kinds}
        seed, lci = preset.train.seed, preset.lci
        self.constant = ("inpainter", "discriminator") if lci.schedule == "constant" else ()
        if preset.inpaints and lci.beforehand_steps:
            self.begins = {"main": lci.beforehand_steps}
        self.warp = _warp(preset)
        self._check()
        thesis = preset.network.arch == "alexnet"
        self.recogniser = Recogniser(
            initial_backbone(preset),
            self.questions,
            generator(seed, "head"),
            truncated=_SIGMA_HEAD if thesis else None,
        )
        self.inpainter: nn.Module | None = None
        self.discriminator: nn.Module | None = None
        if preset.inpaints:
            self.networks = ("recogniser", "inpainter")
            self.inpainter = Inpainter(
                generator(seed, "inpainter"),
                layers=lci.layers,
                base=max(1, round(_BASE_INPAINTER * lci.width)),
            )
        if preset.inpaints and lci.against_discriminator:
            self.networks = ("recogniser", "inpainter", "discriminator")
            self.discriminator = PatchDiscriminator(
                generator(seed, "discriminator"),
                layers=lci.layers,
                base=max(1, round(_BASE_DISCRIMINATOR * lci.width)),
                pack=lci.pack,
            )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        lci = self.preset.lci
        found = {"main": build_optimizer(self.recogniser, self.preset.optim)}
        for name, network, lr in (
            ("inpainter", self.inpainter, lci.lr),
            ("discriminator", self.discriminator, lci.lr_discriminator),
        ):
            if network is not None:
                found[name] = torch.optim.Adam(
                    network.parameters(), lr=lr, betas=_BETAS, fused=True
                )
        return found

    def examples(self, images: Tensor, g: torch.Generator) -> Examples:
        framing = self.preset.framing
        canvases = pixels.to_unit(images)
        if framing.flip:
            canvases = pixels.mirror(canvases, pixels.coins(len(canvases), 0.5, g))
        painted = self._painted(canvases, g)
        means = Means(g, self.warp, self.preset.tiles, painted)
        # Those that are done to the crop share it, as the turns of one image do in the code.
        plain = seen(self._hiding(canvases, painted, g), framing, g)
        crops = [
            TRANSFORMS[kind](plain, means)
            if REGISTERED[kind].at == "crop"
            else seen(TRANSFORMS[kind](canvases, means), framing, g)
            for kind in self.kinds
        ]
        labels = torch.arange(len(self.kinds), device=canvases.device)
        return Examples(
            torch.cat(crops), labels.repeat_interleave(len(canvases)), canvases, painted
        )

    def _painted(self, canvases: Tensor, g: torch.Generator) -> Inpainted | None:
        if self.inpainter is None:
            return None
        lci, size = self.preset.lci, canvases.shape[-1]
        count = len(canvases)
        corners = pixels.random_corners(count, (size, size), lci.patch, g, margin=lci.margin)
        noise = draw_noise(count, lci.patch, g, lci.noise)
        learning = self.training and torch.is_grad_enabled()
        network = self.inpainter if learning else unwrapped(self.inpainter)
        return inpaint(network, canvases, corners, noise, lci.border)

    def _hiding(self, canvases: Tensor, painted: Inpainted | None, g: torch.Generator) -> Tensor:
        """Canvases, some of them with an autoencoded patch: the hidden negatives."""
        share = self.preset.lci.hidden_negatives
        if painted is None or share == 0:
            return canvases
        hidden = pixels.coins(len(canvases), share, g).to(canvases.device)
        return torch.where(hidden[:, None, None, None], painted.autoencoded, canvases)

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        lci = self.preset.lci
        if self.discriminator is not None and len(batch["image"]) % lci.pack:
            raise InputError(
                f"{len(batch['image'])} images in a process at a time: the discriminator sees "
                f"{lci.pack} at once; make --batch-size a multiple of {lci.pack} for each process",
                kind="batch-size",
            )
        g = update.generator("transformations")
        alone = self.inpainter is not None and update.step < lci.beforehand_steps
        frozen = self.inpainter is None or (lci.beforehand_steps > 0 and not alone)
        with update.autocast():
            if frozen:
                with torch.no_grad():
                    examples = self.examples(batch["image"], g)
            else:
                examples = self.examples(batch["image"], g)
            if alone:
                return self._play(examples.inpainted, update, None)
            crops = against(examples.crops) if lci.against_classifier else examples.crops.detach()
            logits = self.recogniser(crops)["transformation"]
        loss = F.cross_entropy(logits, examples.labels)
        out = {"loss": loss, **self._right(logits, examples.labels)}
        if frozen:
            update(loss)
            return out
        return {**out, **self._play(examples.inpainted, update, loss)}

    def _right(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        right = (logits.argmax(1) == labels).float().view(len(self.kinds), -1).mean(1)
        named = {f"acc_{kind}": right[k] for k, kind in enumerate(self.kinds)}
        return {"acc_transformation": right.mean(), **named}

    def _play(
        self, painted: Inpainted | None, update: Update, classifier: Tensor | None
    ) -> dict[str, Tensor]:
        """Move F, the classifier by its loss along with it if there is one, and then D."""
        assert painted is not None  # noqa: S101 (there is an inpainter)
        lci = self.preset.lci
        border, autoencode = border_loss(painted, lci.border), autoencode_loss(painted)
        loss = lci.border_weight * border + lci.autoencode_weight * autoencode
        judge = self.discriminator
        if judge is not None:
            with update.autocast():
                loss = loss - unwrapped(judge)(painted.inpainted_patches).float().mean()
        out = {"loss_inpainter": loss, **self._blending(painted, border, autoencode)}
        if judge is not None:
            fakes = painted.inpainted_patches.detach()
            with update.autocast():
                loss_judge = discriminator_loss(*_both(judge, painted.original, fakes, lci.pack))
            out["loss_discriminator"] = loss_judge
        if classifier is None:
            update(loss, "inpainter")
            out = {"loss": loss, **out}
        else:
            update(classifier + loss, "main", "inpainter")
        if judge is not None:
            update(loss_judge, "discriminator")
        return out

    def quality(self, examples: Examples) -> dict[str, Tensor]:
        """`border_error` and `autoencode_error` (0 …): root mean squared errors of inpainted
        patches in their border and of autoencoded ones, as shares of the patches' own standard
        deviation."""
        if examples.inpainted is None:
            return {}
        border = border_loss(examples.inpainted, self.preset.lci.border)
        return self._blending(examples.inpainted, border, autoencode_loss(examples.inpainted))

    def describe(self, quality: Mapping[str, float]) -> list[Quality]:
        return [Quality(name, value, _told(name, value)) for name, value in quality.items()]

    def _blending(
        self, painted: Inpainted, border: Tensor, autoencode: Tensor
    ) -> dict[str, Tensor]:
        # Of uniform patches there is none; a grey level stands for it.
        deviation = painted.original.float().std((2, 3)).square().mean().sqrt().clamp(min=2 / 255)
        return {
            "border_error": border.detach().sqrt() / deviation,
            "autoencode_error": autoencode.detach().sqrt() / deviation,
        }

    def _check(self) -> None:
        """Raise InputError for transformations nobody can tell apart; warn of warps that fold."""
        preset = self.preset
        g = generator(0, "checks")
        means = Means(g, self.warp, preset.tiles)
        pairs = coinciding(self.kinds, means, mirrored=preset.framing.flip)
        if pairs:
            first, second = pairs[0]
            flips = " where images are mirrored at random (framing.flip)"
            raise InputError(
                f"kinds: {first} and {second} cannot be told apart"
                f"{flips if preset.framing.flip else ''}; leave one of them out",
                kind="preset",
            )
        if self.warp is not None:
            folding = self.warp.folding(g)
            if folding.images > _MANY_FOLDS:
                log.warning(
                    "%.0f%% of the warps fold the image over itself (%.1f%% of the pixels)%s; "
                    "fewer warp.points or a smaller warp.reach fold less",
                    100 * folding.images,
                    100 * folding.pixels,
                    ": neighbouring points can change places" if folding.crossing else "",
                )


def _warp(preset: PretrainTransformations) -> RandomWarp | None:
    if "warp" not in preset.kinds:
        return None
    side, settings = preset.framing.canvas, preset.warp
    return RandomWarp(
        side, side, points=settings.points, reach=settings.reach, placement=settings.placement
    )


def _told(name: str, value: float) -> Finding:
    what = {
        "border_error": "inpainted patches differ from the image in the border they were shown by",
        "autoencode_error": "autoencoded patches differ from the image by",
    }[name]
    said = f"{what} {100 * value:.1f} % of a patch's standard deviation"
    if name != "border_error":
        return Finding(text=said, verdict="note")
    if value < _BLENDS:
        return Finding(text=f"{said}: they blend in", verdict="good")
    return Finding(
        text=f"{said}: they do not blend in so far; train longer (--epochs), or show a wider "
        "border (lci.border)",
        verdict="bad",
    )


def _both(judge: nn.Module, real: Tensor, fake: Tensor, pack: int) -> tuple[Tensor, Tensor]:
    """D's decisions on real and on inpainted patches, in one pass; packs hold one kind only."""
    mixed = [part for pair in zip(real.chunk(pack), fake.chunk(pack), strict=True) for part in pair]
    decisions: Tensor = judge(torch.cat(mixed)).float()
    first, second = decisions.chunk(2)
    return first, second


METHOD = Transformations
