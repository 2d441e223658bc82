"""What differs between pretraining on videos, on images, and of a generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from selfsup_cli.config.gan import PretrainGan
from selfsup_cli.config.image_pretrain import PretrainImages
from selfsup_cli.config.multiview import PretrainMultiview
from selfsup_cli.config.video import PretrainVideo
from selfsup_cli.data.loader import EpochLoader, Loader, SourceDataset
from selfsup_cli.engine import processes
from selfsup_cli.engine.devices import Hardware, loader_workers
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.engine.trainable import Trainable
from selfsup_cli.evaluation.shortcut_scores import ShortcutReport
from selfsup_cli.jobs.common import AnyPart
from selfsup_cli.runs.report import Finding, Measurement, Picture
from selfsup_cli.runs.run import Run

P = TypeVar("P", bound=AnyPart)


class Verdict(Protocol):
    """What one check found."""

    def metrics(self) -> dict[str, float]:
        """For `metrics.jsonl`."""
        ...

    def chances(self) -> dict[str, float]:
        """What needs no learning of those metrics."""
        ...

    def findings(self) -> list[Finding]:
        """Each in a sentence."""
        ...


class Checks(Protocol):
    """Is it learning? The checks of a run on its way; the last verdict is kept for the report."""

    def __call__(self, epoch: int, step: int) -> dict[str, float]: ...

    def concluded(self) -> Verdict:
        """The last verdict."""
        ...

    def measurements(self) -> list[Measurement]:
        """The same as numbers for the report."""
        ...


class Work(Protocol[P]):
    """Pretraining on one kind of data.

    `many` is what the data consists of, `inputs` what the network gets of it.
    """

    many: str
    inputs: str

    @property
    def preset(self) -> PretrainVideo | PretrainImages | PretrainGan | PretrainMultiview:
        """The job's preset."""
        ...

    @property
    def per_update(self) -> int:
        """Samples that a step takes, over all devices."""
        ...

    @property
    def seeds(self) -> Sequence[int]:
        """Seeds for each of which it is all done anew; none where it is done once."""
        ...

    def begin(self, run: str | None) -> list[dict[str, Any]]:
        """Find what the run called `run`, which may go on, starts from: its parents."""
        ...

    def open(self, progress: Progress) -> tuple[P, P]:
        """What to learn from and what is held out; without labels, but for a control."""
        ...

    def create(self, part: P) -> Trainable:
        """The method, ready to be trained on a part."""
        ...

    def loader(self, part: P, hardware: Hardware) -> Loader:
        """The samples that the method is fed. After `create`."""
        ...

    def monitor(self, part: P, hardware: Hardware, progress: Progress) -> Checks:
        """The checks on what is held out. After `create`."""
        ...

    def watch(self, run: Run, part: P) -> Callable[[int, float], None] | None:
        """What is to be done after each update, given their number and what time they took, in
        seconds. After `create`."""
        ...

    def keep(self, run: Run, part: P, facts: dict[str, Any]) -> str | None:
        """Write what was learned from a part, with `facts` about it; gives the SHA-256 of the
        weights. After training."""
        ...

    def inputs_each(self) -> int:
        """How many inputs are made of one video or image. After `create`."""
        ...

    def about(self) -> dict[str, Any]:
        """What the method was asked to learn, for the record that its weights carry. After
        `create`."""
        ...

    def pictures(self, part: P, run: Run) -> list[Picture]:
        """Draw what the network is fed, and what else there is to see. After training."""
        ...

    def shortcuts(
        self, train: P, heldout: P, hardware: Hardware, progress: Progress, stop: StopFlag
    ) -> ShortcutReport | None:
        """Whether local cues solve the task, where the preset asks. After training."""
        ...

    def found(self, part: P) -> str:
        """How much data there is, in a phrase."""
        ...


def batches_of(dataset: SourceDataset, work: Work[P], part: P, hardware: Hardware) -> EpochLoader:
    """The samples of a part in batches, each process its share of them."""
    preset = work.preset
    return EpochLoader(
        dataset,
        len(part.source),
        batch_size=work.per_update,
        seed=preset.train.seed,
        workers=loader_workers(preset.machine.workers, preset.machine.devices),
        rank=processes.rank(),
        world=processes.world(),
        pin=hardware.device.type == "cuda",
    )
