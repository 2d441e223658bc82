"""Checks of a GAN on its way: is either side winning, is the noise sound, do samples differ?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from selfsup_cli.data.ring import coverage
from selfsup_cli.engine import processes
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.progress import Progress
from selfsup_cli.evaluation.frechet import Moments, distance_name, frechet_distance
from selfsup_cli.methods.dfgan import Dfgan
from selfsup_cli.methods.dfgan_health import (
    Distance,
    GanHealth,
    Noise,
    Told,
    Variety,
    mean_distance,
    told_apart,
)
from selfsup_cli.methods.dfgan_losses import Scores, generator_loss, split
from selfsup_cli.models import Backbone, build
from selfsup_cli.models.gan import batch_statistics, frozen
from selfsup_cli.models.gan_files import AnyGenerator
from selfsup_cli.models.gan_noise import LearnedNoise
from selfsup_cli.models.gan_sampling import Latents, Sampler
from selfsup_cli.randomness import generator
from selfsup_cli.runs.report import Measurement, ProtocolValue

log = logging.getLogger("selfsup")

# A discriminator of random weights, as wide as makes its last layer 128 channels at 32 pixels.
_FEATURES, _FEATURE_WIDTH, _FEATURE_SEED = "random-dcgan", 0.25, 0
_POINTS = 2500
_PAIRS = 256


class GanMonitoring:
    """The `check` of a GAN; the last verdict is kept for the report.

    `reals` are held-out images uint8 `[n, 3, S, S]`, or points float `[n, 2]`, made when they are
    first asked for. Latents, noise and images are the same in every check.
    """

    def __init__(
        self,
        method: Dfgan,
        reals: Callable[[], Tensor],
        hardware: Hardware,
        progress: Progress,
        *,
        dataset: str,
        split_rule: str,
    ) -> None:
        self.method = method
        self.hardware = hardware
        self.progress = progress
        self.dataset = dataset
        self.split_rule = split_rule
        self.last: GanHealth | None = None
        self._open = reals
        self._held: Tensor | None = None
        self._features: Backbone | None = None
        self._reference: Moments | None = None

    def __call__(self, epoch: int, step: int) -> dict[str, float]:
        if processes.rank() > 0:
            return {}
        self.progress.update(f"checking the game after epoch {epoch}", force=True)
        self.last = self.judge()
        for finding in self.last.findings():
            if finding.verdict == "bad":
                log.warning(finding.text)
            else:
                self.progress.say(f"epoch {epoch}: {finding.text}")
        return self.last.metrics()

    def concluded(self) -> GanHealth:
        """The last verdict. A run killed between its last checkpoint and its end has none."""
        if self.last is None:
            self.last = self.judge()
        return self.last

    def judge(self) -> GanHealth:
        """Look at the networks as they are now."""
        preset = self.method.preset
        held = self._reals()
        told, noise = self._play(held)
        samples = self._samples(_POINTS if preset.on_points else len(held))
        count = min(len(samples), len(held))
        some = slice(0, min(count, _PAIRS))
        variety = Variety(mean_distance(samples[some]), mean_distance(held[some]), len(held[some]))
        if preset.on_points:
            cover = coverage(samples, preset.data.ring)
            return GanHealth(told, noise, variety, coverage=cover, many="points")
        return GanHealth(told, noise, variety, distance=self._distance(samples, held))

    def measurements(self) -> list[Measurement]:
        """The last verdict as numbers for the report."""
        preset = self.method.preset
        protocol: dict[str, ProtocolValue] = {
            "weights": preset.monitor.weights,
            "batch_norm": f"by each batch of {preset.monitor.batch}",
            "seed": preset.train.seed,
        }
        if not preset.on_points:
            protocol["size"] = preset.network.size
        return self.concluded().measurements(
            dataset=self.dataset,
            split=self.split_rule,
            subject=f"generator, {preset.monitor.weights} weights",
            protocol=protocol,
        )

    def _reals(self) -> Tensor:
        """Held-out images as D sees them, on the CPU."""
        if self._held is None:
            key = "point" if self.method.preset.on_points else "image"
            self._held = self.method.real({key: self._open()})
        return self._held

    def _play(self, held: Tensor) -> tuple[Told, Noise | None]:
        """What D tells of held-out images and of as many samples, and the noise between."""
        method, device = self.method, self.hardware.device
        seed, settings = method.preset.train.seed, method.preset.monitor
        parts = -(-len(held) // settings.batch)
        size = len(held) // parts
        real_scores: list[Scores] = []
        fake_scores: list[Scores] = []
        gradients: list[float] = []
        squares: list[float] = []
        with (
            batch_statistics(method),
            frozen(method.discriminator),
            self.hardware.autocast(),
        ):
            for number in range(parts):
                g = generator(seed, number, "monitor", device=str(device))
                real = held[number * size : (number + 1) * size].to(device)
                with torch.no_grad():
                    z = method.latents(size, g)
                    fake: Tensor = method.generator(z)
                    noise = method.draw_noise(size, g, z)
                    on_real = method.discriminator(method.seen(real, noise))
                fake = fake.detach().requires_grad_()
                on_fake = split(method.discriminator(method.seen(fake, noise)), method.feeding)
                loss = generator_loss(method.objective, on_fake)
                (gradient,) = torch.autograd.grad(loss, fake)
                gradients.append(size * float(gradient.float().flatten(1).norm(dim=1).mean()))
                real_scores.append(split(on_real, method.feeding))
                fake_scores.append(on_fake)
                if noise is not None:
                    squares.append(float(noise.float().square().mean()))
        told = told_apart(method.objective, real_scores, fake_scores)
        told = replace(told, gradient=sum(gradients) / parts)
        if not squares:
            return told, None
        learned = isinstance(method.noise, LearnedNoise)
        reach = method.preset.filtering.reach if learned else None
        return told, Noise((sum(squares) / parts) ** 0.5, reach)

    def _samples(self, count: int) -> Tensor:
        """Samples float, on the CPU, of the weights that are to be looked at."""
        preset = self.method.preset
        network: AnyGenerator = getattr(
            self.method, "average" if preset.monitor.weights == "average" else "generator"
        )
        sampler = Sampler(network, batch=preset.monitor.batch, device=self.hardware.device)
        latents = Latents(preset.train.seed, network.latent, purpose="monitor")
        return torch.cat([part.float().cpu() for part in sampler.batches(latents, 0, count)])

    def _distance(self, samples: Tensor, held: Tensor) -> Distance:
        if self._features is None:
            size = self.method.preset.network.size
            self._features = build(
                "dcgan", width=_FEATURE_WIDTH, crop=size, seed=_FEATURE_SEED
            ).eval()
            self._features.to(self.hardware.device)
            self._reference = self._moments(held)
        assert self._reference is not None  # noqa: S101 (made with the network)
        value = frechet_distance(self._moments(samples), self._reference)
        return Distance(distance_name(_FEATURES), value, len(samples))

    @torch.no_grad()
    def _moments(self, images: Tensor) -> Moments:
        assert self._features is not None  # noqa: S101 (made before)
        network, moments = self._features, None
        for part in torch.split(images, self.method.preset.monitor.batch):
            found = network.embed(part.to(self.hardware.device)).float()
            moments = moments or Moments(found.shape[1])
            moments.add(found)
        assert moments is not None  # noqa: S101 (there are images)
        return moments
