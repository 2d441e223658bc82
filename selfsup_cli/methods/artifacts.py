"""Learning to spot artifacts (thesis, chapter 3).

An autoencoder {E, D} is trained to replicate images, and then stays as it is. From there on entries
of its codes are dropped, and a network R repairs between D's layers what is missing there, so that
images come out that are plausible wherever one looks closely, and wrong as a whole. A discriminator
C tells them from replicas of undamaged images and says where they were damaged; R tries to deceive
it (Eq. 3.4). What C has to know of objects for that is what is kept.

Both stages are one training: the autoencoder moves in the first epochs, R and C in all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from selfsup_cli.config.artifacts import PretrainArtifacts
from selfsup_cli.data.framing import RandomResizedCrop
from selfsup_cli.engine.schedule import build_optimizer
from selfsup_cli.engine.trainable import Batch, Update
from selfsup_cli.errors import InputError, TrainingError
from selfsup_cli.methods.artifacts_history import History
from selfsup_cli.methods.artifacts_losses import (
    CORRUPT,
    REAL,
    autoencoder_loss,
    discriminator_loss,
    kept_error,
    repair_loss,
    repair_loss_as_released,
)
from selfsup_cli.methods.artifacts_quality import Damaged, described, measured, share
from selfsup_cli.methods.image_pretext import (
    Examples,
    ImagePretext,
    Quality,
    initial_backbone,
    unwrapped,
)
from selfsup_cli.models.alexnet_artifacts import AlexNetLRN, Discriminator, Verdicts
from selfsup_cli.models.damage import Autoencoder, RepairNetwork
from selfsup_cli.randomness import generator
from selfsup_cli.transforms.color import recolor
from selfsup_cli.transforms.damage import damage, draw_kept, upsample
from selfsup_cli.transforms.images import coins, mirror, to_unit

KINDS = ("corrupt", "real")
STAGES = ("stage 1 of 2, autoencoder", "stage 2 of 2, damage and repair")


class Artifacts(ImagePretext):
    """The method as the engine sees it."""

    preset: PretrainArtifacts
    networks = ("recogniser", "repair", "autoencoder")
    kinds = KINDS

    def __init__(self, preset: PretrainArtifacts, classes: tuple[str, ...] | None = None) -> None:
        super().__init__(preset)
        self.questions = {"artifact": KINDS}
        seed, settings = preset.train.seed, preset.autoencoder
        backbone = initial_backbone(preset)
        assert isinstance(backbone, AlexNetLRN)  # noqa: S101 (the preset takes no other)
        self.recogniser = Discriminator(backbone, generator(seed, "head"), locates=preset.locate)
        self.repair: nn.Module = RepairNetwork(
            generator(seed, "repair"),
            base=settings.base,
            local=preset.repair.local,
            gated=preset.repair.gated,
        )
        self.autoencoder: nn.Module = Autoencoder(
            generator(seed, "autoencoder"), base=settings.base, kernel=settings.kernel
        )
        self.history = History(preset.history) if preset.history else None

    @property
    def plan(self) -> RandomResizedCrop:
        """A random part of an image, scaled to a square."""
        framing = self.preset.framing
        side = (framing.crop, framing.crop)
        return RandomResizedCrop(side, framing.area, framing.ratio, framing.cubic)

    @property
    def replicator(self) -> Autoencoder:
        """The autoencoder itself."""
        found = unwrapped(self.autoencoder)
        assert isinstance(found, Autoencoder)  # noqa: S101 (see __init__)
        return found

    @property
    def mender(self) -> RepairNetwork:
        """The repair network itself."""
        found = unwrapped(self.repair)
        assert isinstance(found, RepairNetwork)  # noqa: S101 (see __init__)
        return found

    @property
    def asking(self) -> bool:
        return self.replicator.frozen

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        optim, own = self.preset.optim, self.preset.autoencoder
        first = optim.model_copy(update={"lr": own.lr, "weight_decay": own.weight_decay})
        return {
            "main": build_optimizer(self.recogniser, optim),
            "repair": build_optimizer(self.repair, optim),
            "autoencoder": build_optimizer(self.autoencoder, first),
        }

    def periods(self, epoch: int, total: int) -> dict[str, tuple[int, int]]:
        turn = self.preset.beforehand * epoch
        if turn >= total:
            raise InputError(
                f"the autoencoder alone takes {turn} updates ({self.preset.beforehand} epochs), "
                f"and training ends after {total}: there would be no damage and repair; raise "
                "train.max_steps (--max-steps) or lower --autoencoder-epochs",
                kind="preset",
            )
        return {"autoencoder": (0, turn), "repair": (turn, total), "main": (turn, total)}

    def memory(self) -> dict[str, Tensor]:
        return {} if self.history is None else self.history.state_dict()

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        if self.history is not None:
            self.history.load_state_dict(memory)

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        images = self.augmented(batch["image"], update.generator("augmentation"))
        if update.moves("autoencoder"):
            self.stage = STAGES[0]
            return self._replicate(images, update)
        if not self.replicator.frozen:
            self.settle(images)
        self.stage = STAGES[1]
        return self._play(images, update)

    def augmented(self, images: Tensor, g: torch.Generator) -> Tensor:
        """Images uint8 `[B, 3, S, S]` as they are trained on: mirrored and recoloured at random,
        float in [-1, 1]."""
        framing, count = self.preset.framing, len(images)
        if framing.flip:
            images = mirror(images, coins(count, 0.5, g))
        if not framing.color:
            return to_unit(images)
        u = torch.rand(4, count, 1, 1, 1, generator=g, device=g.device)
        u[3] = 1  # none becomes grey
        return recolor(images.float().div_(255), u.to(images.device)).mul_(2).sub_(1)

    # Stage 1

    def _replicate(self, images: Tensor, update: Update) -> dict[str, Tensor]:
        weight = self.preset.autoencoder.error_weight
        with update.autocast():
            replicas = self.autoencoder(images)
        loss = autoencoder_loss(replicas, images, weight=weight)
        update(loss, "autoencoder")
        return {"loss_autoencoder": loss, "autoencoder_error": loss.detach() / weight}

    @torch.no_grad()
    def settle(self, images: Tensor) -> None:
        """Leave the autoencoder as it is from now on.

        Raises TrainingError if it replicates `images` (float `[B, 3, S, S]` in [-1, 1]) too poorly
        to serve.
        """
        self.replicator.eval()
        error = (self.replicator(images).float() - images).square().mean().item()
        settings = self.preset.autoencoder
        if not error <= settings.max_error:
            whence = f" of {settings.source}" if settings.source else ""
            way = (
                "take another one" if settings.source else "train it longer (--autoencoder-epochs)"
            )
            raise TrainingError(
                f"the autoencoder{whence} is too poor to serve: the mean squared error of its "
                f"replicas is {error:.4f}, more than {settings.max_error:g} "
                "(autoencoder.max_error)",
                kind="autoencoder",
                hint=f"{way}, or raise --max-error",
            )
        self.replicator.freeze()

    # Stage 2

    def _play(self, images: Tensor, update: Update) -> dict[str, Tensor]:
        """Move C, and R against it, both by what C says in one pass."""
        preset, decoder = self.preset, self.replicator.decoder
        g = update.generator("damage")
        with update.autocast():
            with torch.no_grad():
                codes = self.replicator.encoder(images)
                real = decoder(codes) if preset.real == "replicas" else images
                kept = self.draw_kept(codes, g)
                hurt = damage(codes, kept)
            repaired = self.repair(hurt, kept, decoder)
            shown, shown_kept, fresh = self._recall(repaired, kept, update)
            verdicts: Verdicts = self.recogniser(torch.cat([real.to(shown.dtype), shown]))
        said_real, said_corrupt = verdicts.split(len(images))
        loss = discriminator_loss(
            said_real, said_corrupt, shown_kept, mask_weight=preset.locate_weight
        )
        pixels = upsample(kept, (images.shape[2], images.shape[3]))
        weight = preset.repair.kept_recon_weight
        if preset.repair.objective == "as_released":
            loss_repair = repair_loss_as_released(
                said_real,
                said_corrupt,
                shown_kept,
                repaired,
                images,
                pixels,
                mask_weight=preset.locate_weight,
                kept_weight=weight,
            )
        else:
            loss_repair = repair_loss(
                said_corrupt.classes[:fresh], repaired, images, pixels, kept_weight=weight
            )
        update.together((loss, ("main",)), (loss_repair, ("repair",)))
        right_real = share(said_real.classes, REAL)
        right_corrupt = share(said_corrupt.classes, CORRUPT)
        return {
            "loss": loss,
            "loss_repair": loss_repair,
            "acc_artifact": (right_real + right_corrupt) / 2,
            "acc_real": right_real,
            "acc_corrupt": right_corrupt,
            "kept_error": kept_error(repaired.detach(), images, pixels),
        }

    def draw_kept(self, codes: Tensor, g: torch.Generator) -> Tensor:
        """Ω of codes `[B, L, M, N]`, bool `[B, 1, M, N]`."""
        size = (codes.shape[2], codes.shape[3])
        return draw_kept(len(codes), size, self.preset.drop_rate, g).to(codes.device)

    def _recall(self, repaired: Tensor, kept: Tensor, update: Update) -> tuple[Tensor, Tensor, int]:
        if self.history is None:
            return repaired, kept, len(repaired)
        g = generator(update.seed, update.step, update.part, "history")
        return self.history.mix(repaired, kept, g)

    # Looking at it

    def examples(self, images: Tensor, g: torch.Generator, kept: Tensor | None = None) -> Damaged:
        """Damage and repair images uint8 `[B, 3, S, S]`: those that are corrupt first, then those
        that are shown as real. With `kept`, bool `[B, 1, S/16, S/16]`, that is Ω."""
        x = to_unit(images)
        autoencoder, decoder = self.replicator, self.replicator.decoder
        with torch.no_grad():
            codes = autoencoder.encoder(x)
            replicas = decoder(codes)
            kept = self.draw_kept(codes, g) if kept is None else kept
            hurt = damage(codes, kept)
            unrepaired = decoder(hurt)
        repaired = self.mender(hurt, kept, decoder)
        real = replicas if self.preset.real == "replicas" else x.to(repaired.dtype)
        labels = torch.tensor([CORRUPT, REAL], device=x.device)
        return Damaged(
            torch.cat([repaired, real.to(repaired.dtype)]),
            labels.repeat_interleave(len(x)),
            x,
            kept=kept,
            replicas=replicas,
            repaired=repaired,
            unrepaired=unrepaired,
        )

    @torch.no_grad()
    def judge(
        self, images: Tensor, g: torch.Generator
    ) -> tuple[Damaged, dict[str, Tensor], dict[str, Tensor]]:
        examples = self.examples(images, g)
        if not self.asking:
            return examples, {}, {}
        verdicts: Verdicts = self.plain(examples.crops)
        other = examples.canvases if self.preset.real == "replicas" else examples.replicas
        examples = replace(examples, verdicts=verdicts, others=self.plain(other))
        answers = {"artifact": verdicts.classes.float()}
        return examples, answers, {"artifact": examples.labels}

    def facts(self) -> dict[str, Any]:
        preset = self.preset
        return {
            "drop_rate": preset.drop_rate,
            "real": preset.real,
            "locate": preset.locate,
            "repair": "local" if preset.repair.local else "distributed",
            "gated": preset.repair.gated,
            "objective": preset.repair.objective,
            "kernel": preset.autoencoder.kernel,
            "history": preset.history,
        }

    def quality(self, examples: Examples) -> dict[str, Tensor]:
        """See `artifacts_quality.measured`."""
        assert isinstance(examples, Damaged)  # noqa: S101 (what `examples` gives)
        return measured(examples)

    def describe(self, quality: Mapping[str, float]) -> list[Quality]:
        return described(quality, self.preset)


METHOD = Artifacts
