"""Generative adversarial training with filtered distributions (thesis, chapter 7).

A generator G makes images of latents z, a discriminator D tells them from real ones. Where the two
distributions hardly overlap, D wins and G learns nothing. So D sees either also with noise added:
that filters both with the same kernel, spreads them until they overlap, and leaves their only
common optimum where it was (theorem 1, Eq. 7.5). The noise is a Gaussian, or what a network N makes
of latents w, which learns against D: it looks for the noise under which real and generated images
are alike (Eq. 7.8), and is kept small by the weight λ of its magnitude Γ.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn

from selfsup_cli.config.gan import PretrainGan
from selfsup_cli.engine import processes
from selfsup_cli.engine.schedule import build_optimizer
from selfsup_cli.engine.trainable import Batch, Trainable, Update
from selfsup_cli.errors import InputError
from selfsup_cli.methods.dfgan_losses import (
    OBJECTIVES,
    Feeding,
    Scores,
    accuracies,
    against,
    discriminator_loss,
    filtered,
    generator_loss,
    gradient_penalty,
    gradient_regularizer,
    noise_count,
    noise_loss,
    split,
)
from selfsup_cli.models.gan import (
    Discriminator,
    Generator,
    PointDiscriminator,
    PointGenerator,
    average_into,
    batch_statistics,
    frozen,
)
from selfsup_cli.models.gan_noise import GaussianNoise, LearnedNoise
from selfsup_cli.randomness import generator
from selfsup_cli.transforms.images import to_unit

_POINT_NOISE = 32
_POINT_DIMS = 2

# Networks (table 7.2)


def create_generator(preset: PretrainGan) -> Generator | PointGenerator:
    """G: latents `[B, latent]` → images `[B, 3, S, S]` in (−1, 1), or points `[B, 2]`."""
    network, g = preset.network, generator(preset.train.seed, "generator")
    if preset.on_points:
        return PointGenerator(g, latent=network.latent, hidden=network.channels())
    return Generator(
        g,
        size=network.size,
        latent=network.latent,
        base=network.channels(),
        norm=network.generator_norm,
        activation=network.activation,
        depth=network.depth,
    )


def create_discriminator(preset: PretrainGan) -> Discriminator | PointDiscriminator:
    """D: images, or points, → logits `[B]`."""
    network, g = preset.network, generator(preset.train.seed, "discriminator")
    if preset.on_points:
        return PointDiscriminator(g, hidden=network.channels(), norm=network.discriminator_norm)
    return Discriminator(
        g,
        size=network.size,
        base=network.channels(),
        norm=network.discriminator_norm,
        layout="sngan" if network.arch == "sngan" else network.discriminator,
        activation=network.activation,
        depth=network.depth,
    )


def create_noise(preset: PretrainGan) -> GaussianNoise | LearnedNoise | None:
    """Where noise comes from (section 7.2.1); None for the standard GAN.

    N is the generator with an eighth of its channels.
    """
    network, given = preset.network, preset.filtering
    if given.noise == "none":
        return None
    if given.noise != "learned":
        side = network.size
        shape = (_POINT_DIMS,) if preset.on_points else (3, side, side)
        return GaussianNoise(shape, sigma=given.sigma, learned=given.noise == "learned-sigma")
    g = generator(preset.train.seed, "noise")
    if preset.on_points:
        hidden = network.channels(_POINT_NOISE)
        made: nn.Module = PointGenerator(g, latent=network.latent, hidden=hidden, reach=given.reach)
    else:
        made = Generator(
            g,
            size=network.size,
            latent=network.latent,
            base=max(1, network.channels() // given.narrower),
            norm=network.generator_norm,
            activation=network.activation,
            depth=network.depth,
            reach=given.reach,
        )
    return LearnedNoise(made, latent=network.latent, reduction=given.magnitude)


class Dfgan(Trainable):
    """The method as the engine sees it; one step is one update of G."""

    def __init__(self, preset: PretrainGan) -> None:
        super().__init__()
        self.preset = preset
        self.objective = OBJECTIVES[preset.objective]
        self.feeding: Feeding = "clean"
        if preset.filtering.noise != "none":
            self.feeding = preset.filtering.feeding
        self.generator = create_generator(preset)
        self.discriminator = create_discriminator(preset)
        self.noise = create_noise(preset)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        for module in self.average.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # it never runs in training
        # Looking for them anew in every step takes as long as the networks of points do.
        self._averages: list[Tensor] = list(self.average.parameters())
        self._averaged: list[Tensor] = list(self.generator.parameters())
        self._normed = preset.network.discriminator_norm == "batch"
        self._last_step = 0
        self.learns_noise = any(
            parameter.requires_grad for parameter in (self.noise or nn.Module()).parameters()
        )
        self.to(memory_format=torch.channels_last)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        found = {name: build_optimizer(one, self.preset.optim) for name, one in self._players()}
        if processes.members() > 1:
            self._check_processes()
            for optimizer in found.values():
                optimizer.register_step_pre_hook(_average_gradients)
        return found

    def _players(self) -> Iterator[tuple[str, nn.Module]]:
        """What learns."""
        yield "discriminator", self.discriminator
        if self.learns_noise:
            assert self.noise is not None  # noqa: S101 (it learns)
            yield "noise", self.noise
        yield "generator", self.generator

    def periods(self, epoch: int, total: int) -> Mapping[str, tuple[int, int]]:
        self._last_step = total
        return super().periods(epoch, total)

    # What D sees

    def real(self, batch: Batch) -> Tensor:
        """Images uint8 in [−1, 1] without augmentation (section 5.2); points as they are."""
        return batch["point"] if self.preset.on_points else to_unit(batch["image"])

    def latents(self, count: int, g: torch.Generator) -> Tensor:
        """z, or w, from N(0, I): `[count, latent]`."""
        return torch.randn(count, self.preset.network.latent, generator=g, device=g.device)

    def draw_noise(self, images: int, g: torch.Generator, z: Tensor) -> Tensor | None:
        """ε for a batch of so many images made of `z`; None where none of them gets any."""
        count = noise_count(images, self.feeding)
        if self.noise is None or count == 0:
            return None
        if isinstance(self.noise, LearnedNoise):
            shared = z[:count] if self.preset.filtering.share_z else None
            drawn: Tensor = self.noise(count, g, shared)
        else:
            drawn = self.noise(count, g)
        return drawn

    def seen(self, images: Tensor, noise: Tensor | None) -> Tensor:
        """One batch of D, all real or all generated, with and without noise."""
        return filtered(images, noise, self.feeding, standardize=self.preset.standardizes)

    # Algorithm 1

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        turns = self.preset.train.discriminator_steps
        given = self.preset.filtering
        if given.noise == "annealed" and isinstance(self.noise, GaussianNoise):
            self.noise.anneal(update.step, given.anneal_steps or self._last_step)
        out: dict[str, Tensor] = {}
        parts = self.real(batch).chunk(turns)
        for turn, real in enumerate(parts):
            out = self._discriminate(real, update, turn)
            self._remember(update, turn)
        out |= self._generate(len(parts[0]), update)
        self._remember(update, turns)
        return out

    def _discriminate(self, real: Tensor, update: Update, turn: int) -> dict[str, Tensor]:
        """D descends L_D and N descends −L_D + λΓ, both from one forward pass.

        Real and generated images get the same noise, and batches of their own (section 7.2.3).
        """
        g = update.generator(f"discriminator {turn}")
        regular = self.preset.penalty.kind == "gradient-regularizer"
        with update.autocast():
            z = self.latents(len(real), g)
            with torch.no_grad():
                fake: Tensor = self.generator(z)
            noise = self.draw_noise(len(real), g, z)
            learned = noise if self.learns_noise else None
            shown = noise if learned is None or not self._at_once else against(learned)
            real_seen, fake_seen = self.seen(real, shown), self.seen(fake, shown)
            if regular:
                for seen in (real_seen, fake_seen):
                    if not seen.requires_grad:
                        seen.requires_grad_()
            real_logits, fake_logits = self._judged(real_seen, fake_seen)
            on_real, on_fake = split(real_logits, self.feeding), split(fake_logits, self.feeding)
            loss = discriminator_loss(self.objective, on_real, on_fake)
            if regular:
                penalty = gradient_regularizer(real_logits, real_seen, fake_logits, fake_seen)
                loss = loss + self.preset.penalty.weight * penalty
            elif self.preset.penalty.kind == "gradient-penalty":
                penalty = gradient_penalty(self.discriminator, real, fake, g)
                loss = loss + self.preset.penalty.weight * penalty
            losses: list[tuple[Tensor, tuple[str, ...]]] = [(loss, ("discriminator",))]
            if learned is not None and self._at_once:
                whole = loss + self.preset.filtering.weight * self._magnitude(learned)
                losses = [(whole, ("discriminator", "noise"))]
            elif learned is not None:
                losses.append((self._noise_loss(on_real, on_fake, learned), ("noise",)))
        update.together(*losses)
        if turn < self.preset.train.discriminator_steps - 1:
            return {}  # what it would say is not looked at
        out = {"loss_discriminator": loss.detach()}
        if learned is not None:
            out["loss_noise"] = self._noise_loss(on_real, on_fake, learned).detach()
        out |= self._accuracy(on_real, on_fake)
        if noise is not None:
            out["noise_rms"] = noise.detach().float().square().mean().sqrt()
        return out

    def _judged(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """D's logits on what it sees of real and of generated images.

        Batch norm is to see either by itself; where each image is judged by itself, one pass for
        both is quicker.
        """
        if self._normed:
            on_real: Tensor = self.discriminator(real)
            with self._unremembered():
                on_fake: Tensor = self.discriminator(fake)
        else:
            on_real, on_fake = self.discriminator(torch.cat([real, fake])).split(len(real))
        return on_real, on_fake

    @property
    def _at_once(self) -> bool:
        """Whether one pass back gives the gradients of both losses.

        −∂L_D/∂ε is what N descends where it plays against all that D sees, and also where clean
        images have nothing to do with the noise, which only batch norm brings them.
        """
        alike = self.preset.filtering.against == "all" or not self._normed
        return alike and self.preset.penalty.kind != "gradient-regularizer"

    def _magnitude(self, noise: Tensor) -> Tensor:
        assert self.noise is not None  # noqa: S101 (it made the noise)
        return self.noise.magnitude(noise)

    def _noise_loss(self, on_real: Scores, on_fake: Scores, noise: Tensor) -> Tensor:
        given = self.preset.filtering
        return noise_loss(
            self.objective,
            on_real,
            on_fake,
            self._magnitude(noise),
            given.weight,
            whole=given.against == "all",
        )

    def _accuracy(self, on_real: Scores, on_fake: Scores) -> dict[str, Tensor]:
        """The shares of clean and of noisy images that D tells apart."""
        found = accuracies(self.objective, on_real, on_fake)
        return {f"acc_{name}": value.detach() for name, value in found.items()}

    def _generate(self, count: int, update: Update) -> dict[str, Tensor]:
        """G descends L_G on fresh latents; neither D nor N moves, nor do D's running averages."""
        g = update.generator("generator")
        norms: list[Tensor] = []
        with frozen(self.discriminator), self._unremembered():
            with update.autocast():
                z = self.latents(count, g)
                fake: Tensor = self.generator(z)
                fake.register_hook(lambda gradient: norms.append(_norms(gradient)))  # type: ignore[no-untyped-call]
                with torch.no_grad():
                    noise = self.draw_noise(count, g, z)
                logits: Tensor = self.discriminator(self.seen(fake, noise))
                loss = generator_loss(self.objective, split(logits, self.feeding))
            update(loss, "generator")
        scale = 1.0 if update.scaler is None else update.scaler.get_scale()
        return {
            "loss_generator": loss.detach(),
            "gradient_at_fakes": norms[0] / scale,
        }

    def _remember(self, update: Update, turn: int) -> None:
        """Move the average of G (section 7.3), after each update of D as of G."""
        updates = update.step * (self.preset.train.discriminator_steps + 1) + turn
        average_into(self._averages, self._averaged, updates, self.preset.train.average)

    def _unremembered(self) -> AbstractContextManager[None]:
        """D normalises by the batch and remembers none of it: its averages are of real images."""
        return batch_statistics(self.discriminator) if self._normed else nullcontext()

    def _check_processes(self) -> None:
        """Gradients are averaged where they are used: what looks at them before sees a share."""
        if self.preset.optim.clip_grad is not None:
            raise InputError(
                "--clip-grad would clip each device's share of the gradient, not the whole, where "
                "a GAN trains on several; leave it out, or use --devices 1",
                kind="devices",
            )
        if self.preset.train.precision == "fp16":
            raise InputError(
                "a GAN trains on several devices in bf16 or 32 only: fp16 may leave out an update "
                "on one of them; use --precision bf16, or --devices 1",
                kind="devices",
            )


def _norms(gradient: Tensor) -> Tensor:
    """Mean over the images of |∂L/∂x̃|, L being the loss of that image alone."""
    each: Tensor = gradient.detach().float().flatten(1).norm(dim=1)
    return len(gradient) * each.mean()


def _average_gradients(
    optimizer: torch.optim.Optimizer, arguments: object, keywords: object
) -> None:
    """Mean of the gradients over all processes, before an optimiser moves.

    Wrapping the networks would not do: D runs twice, and batch norm in between, before one of its
    gradients is known, and N's and G's pass through it.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()


METHOD = Dfgan
