"""What all pictures of a generator share: whose they are, how samples are drawn, where they go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfsup_cli.config.generated import SampleDfgan
from selfsup_cli.engine.progress import Progress
from selfsup_cli.jobs.generators import Origin, weights_of
from selfsup_cli.models.gan_files import Generators
from selfsup_cli.models.gan_sampling import Latents, Sampler
from selfsup_cli.runs import atomic

FACTS = "samples.json"
"""What says how samples were drawn, and by which a folder is known for one of ours."""


@dataclass
class Drawing:
    """One call: which generator, at which step, and where what is made of it goes."""

    preset: SampleDfgan
    origin: Origin
    step: int
    found: Generators
    device: torch.device
    folder: Path
    progress: Progress
    said: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Whose samples these are."""
        return f"{self.origin.name}, step {self.step}"

    def sampler(self, found: Generators) -> Sampler:
        """What draws with the generators of one step, as the preset says."""
        settings = self.preset.samples
        network, _ = weights_of(found, self.preset.subject.weights)
        return Sampler(
            network, batch_norm=settings.batch_norm, batch=settings.batch, device=self.device
        )

    def latents(self, found: Generators) -> Latents:
        """The latents by number, the same for all steps."""
        settings = self.preset.samples
        return Latents(settings.seed, found.raw.latent, settings.truncation)

    def first(self, found: Generators, count: int) -> Tensor:
        """The first samples of one step, float, on the CPU."""
        sampler, latents = self.sampler(found), self.latents(found)
        return torch.cat([part.cpu() for part in sampler.batches(latents, 0, count)])

    def moments(self) -> Iterator[tuple[int, Generators]]:
        """Steps that were kept, with their generators: at most so many as the preset shows."""
        steps, most = sorted(self.origin.files), self.preset.show.moments
        if len(steps) > most:
            steps = [steps[round(k * (len(steps) - 1) / (most - 1))] for k in range(most)]
        for step in steps:
            yield self.origin.at(step)

    def path(self, name: str) -> Path:
        """Where a file goes; it is among what the command tells of, and in `FACTS` before it is
        made, so that a call that was stopped can be made again."""
        self.files.append(name)
        self.tell()
        return self.folder / name

    def tell(self) -> None:
        """Write `FACTS`."""
        atomic.write_json(self.folder / FACTS, {**self.facts, "files": self.files})


def note(drawing: Drawing, more: str = "") -> str:
    """How samples were drawn, for below a picture."""
    facts = drawing.facts
    cut = "" if facts["truncation"] is None else f", truncated at {facts['truncation']:g}"
    return (
        f"Weights: {facts['weights']}; batch norm {facts['batch_norm']}; seed {facts['seed']}{cut}."
        f" {more}".rstrip()
    )
