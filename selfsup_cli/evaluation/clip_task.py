"""What the tasks on video share: a classifier of clips, how it is trained, what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from selfsup_cli.config.fields import Model
from selfsup_cli.config.transfer import TransferVideo
from selfsup_cli.config.video import ClipAugmentation
from selfsup_cli.data.loader import ClipDataset, Plan
from selfsup_cli.data.source import ClipSource
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.trainable import Batch, Update
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.clips import in_batches, read_videos
from selfsup_cli.evaluation.steps import Passed
from selfsup_cli.evaluation.task import ClassifierTask, Told
from selfsup_cli.models import Backbone
from selfsup_cli.models.classifier import Classifier, HeadSpec
from selfsup_cli.randomness import derive, generator
from selfsup_cli.runs.report import ProtocolValue
from selfsup_cli.transforms import clips as pixels

_BATCH = 32
_QUICK = 256


@dataclass(frozen=True)
class Answers:
    """What a network answered: for each question its id, the true class, probabilities [N, C].

    `video` int64 [N] is the position in the source of the video, or image, that is asked about;
    `truth` int64 [N].
    """

    ids: Sequence[str]
    video: np.ndarray
    truth: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]

    @property
    def predictions(self) -> np.ndarray:
        """The most probable class of each, int64 [N]."""
        given: np.ndarray = self.probabilities.argmax(1)
        return given


class TestQuestions(Protocol):
    """Which clips of a test video are asked about, and what is right; goes to loader processes."""

    def __call__(self, video: int) -> np.ndarray:
        """Frame indices int64 [K, T]."""
        ...

    def truth(self, video: int, number: int) -> tuple[int, str]:
        """The right answer to question `number` about a video, and the question's id."""
        ...


class ClipTask(ClassifierTask):
    """A task on video: its questions, its answers and its measurements.

    A task says which clips of a video are a question in training (`plan`) and in testing
    (`questions`), and what is reported (`measurements`). `compared` clips make one question.
    """

    many = "videos"
    preset: TransferVideo
    compared: int = 1
    heads: str = "fc"

    def __init__(
        self, preset: TransferVideo, backbone: Backbone, classes: tuple[str, ...], seed: int
    ) -> None:
        super().__init__()
        self.preset = preset
        self.classes = classes
        self.seed = seed
        self.input = backbone.input
        self.augment = augmentation(preset, backbone)
        self.network = classifier(
            preset, backbone, len(classes), self.compared, fresh=self.heads == "fc", seed=seed
        )

    @classmethod
    def min_frames(cls, preset: TransferVideo, frames: int) -> int:
        """Frames that a video needs; `frames` are those of the network's clips."""
        raise NotImplementedError

    @classmethod
    def answers(cls, preset: TransferVideo, source: ClipSource) -> tuple[str, ...]:
        """The classes that are told apart."""
        raise NotImplementedError

    @property
    def taken(self) -> Model:
        """The preset's block that says which clips are taken."""
        raise NotImplementedError

    @property
    def plan(self) -> Plan:
        """Which clips of a training video are a question, with the answer as `target`."""
        raise NotImplementedError

    def questions(self, source: ClipSource, *, quick: bool = False) -> TestQuestions:
        """What is asked about test videos; with `quick` as little as says something."""
        raise NotImplementedError

    def samples(self, source: ClipSource) -> ClipDataset:
        return ClipDataset(source, self.plan, self.augment.resize, self.seed)

    @property
    def seen(self) -> dict[str, ProtocolValue]:
        size = "×".join(str(side) for side in self.augment.resize_to_evaluate)
        return {"frames": self.input.frames, "crop": f"centre {self.augment.crop} of {size}"}

    @property
    def facts(self) -> dict[str, Any]:
        clips = {"resize": list(self.augment.resize_to_evaluate), "crop": self.augment.crop}
        return clips | self.taken.model_dump(mode="json")

    def grade(self, found: Answers) -> tuple[str, float]:
        return "test_accuracy", float((found.predictions == found.truth).mean())

    def passed(self, batch: Batch, update: Update, g: torch.Generator) -> Passed:
        clips = pixels.augment(
            batch["clip"],
            self.augment,
            g,
            group=self.compared,
            alike=self.compared > 1,
        )
        target = batch["label" if self.labelled else "target"][:: self.compared]
        with update.autocast():
            logits = self.network(clips)
        loss = F.cross_entropy(logits, target)
        scalars = {"acc": (logits.argmax(1) == target).float().mean()}
        return Passed(loss, scalars, batch.get("sample"), logits, target)

    def ask(
        self,
        source: ClipSource,
        hardware: Hardware,
        *,
        workers: int,
        quick: bool = False,
        told: Told | None = None,
    ) -> Answers:
        """All questions about the videos of `source`; with `quick` few of at most 256 of them.

        Leaves the network in evaluation mode.
        """
        if quick and len(source) > _QUICK:
            order = sorted(range(len(source)), key=lambda i: derive(0, source.ids[i], "quick"))
            source = source.subset(np.array(sorted(order[:_QUICK]), dtype=np.int64))
        return ask(
            self.plain,
            source,
            self.questions(source, quick=quick),
            self.classes,
            hardware,
            size=self.augment.resize_to_evaluate,
            crop=self.augment.crop,
            workers=workers,
            whole_videos=self.labelled,
            told=told,
        )


@torch.no_grad()
def ask(
    network: Classifier,
    source: ClipSource,
    questions: TestQuestions,
    classes: tuple[str, ...],
    hardware: Hardware,
    *,
    size: tuple[int, int],
    crop: int,
    workers: int,
    whole_videos: bool,
    told: Told | None = None,
) -> Answers:
    """Softmax outputs for the planned clips; with `whole_videos` averaged over those of a video.

    Raises InputError for a video that cannot be read: an evaluation leaves nothing out by itself.
    """
    network.eval().to(hardware.device)
    compared = network.head_spec.compared
    videos = range(len(source))
    decoded = read_videos(source, videos, questions, size, workers)
    outputs: list[np.ndarray] = []
    owner: list[int] = []
    sums = np.zeros((len(source), len(classes))) if whole_videos else None
    for clips, owners in in_batches(decoded, _BATCH, hardware.device):
        with hardware.autocast():
            logits = network(pixels.center(clips, crop))
        found = logits.softmax(1).double().cpu().numpy()
        asked = owners[::compared]
        if sums is not None:
            np.add.at(sums, asked, found)
        else:
            outputs.append(found)
            owner += asked
        if told is not None:
            told(owners[-1] + 1, len(source))
    if sums is not None:
        owner, probabilities = list(videos), sums / sums.sum(1, keepdims=True)
    else:
        probabilities = np.concatenate(outputs)
    numbers = _count_within(owner)
    right = [questions.truth(video, number) for video, number in zip(owner, numbers, strict=True)]
    return Answers(
        ids=[name for _, name in right],
        video=np.array(owner, dtype=np.int64),
        truth=np.array([answer for answer, _ in right], dtype=np.int64),
        probabilities=probabilities,
        classes=classes,
    )


def _count_within(owner: Sequence[int]) -> list[int]:
    """How many of the same owner came before each."""
    seen: dict[int, int] = {}
    numbers = []
    for one in owner:
        numbers.append(seen.get(one, 0))
        seen[one] = numbers[-1] + 1
    return numbers


def augmentation(preset: TransferVideo, backbone: Backbone) -> ClipAugmentation:
    """The preset's augmentation, with the sizes of the network's input where it names none.

    Raises InputError where the network does not take clips of that size.
    """
    wanted, eats = preset.augment, backbone.input
    resize = wanted.resize or eats.resize
    settings: dict[str, Any] = wanted.model_dump() | {
        "resize": resize,
        "crop": wanted.crop or eats.crop,
    }
    try:
        found = ClipAugmentation(**settings)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"augment: {reason}", kind="augment") from error
    if found.crop != eats.crop:
        raise InputError(
            f"augment.crop: this {backbone.arch} was trained on crops of {eats.crop} pixels and is "
            f"tested on such; {found.crop} does not fit",
            kind="augment",
        )
    return found


def classifier(
    preset: TransferVideo,
    backbone: Backbone,
    outputs: int,
    compared: int,
    *,
    fresh: bool,
    seed: int,
) -> Classifier:
    """The network that is trained: `backbone`, partly frozen, with the head the preset asks for."""
    fresh = fresh or preset.start.reinit_head or preset.start.freeze == "conv"
    width = float(backbone.spec["width"])
    spec = HeadSpec(
        kind="fc" if fresh else "linear",
        outputs=outputs,
        hidden=[max(8, 8 * round(n * width / 8)) for n in preset.head.hidden] if fresh else [],
        compared=2 if compared == 2 else 1,
        pooling=preset.head.pooling,
        xavier=fresh or backbone.arch == "c3d",
    )
    network = Classifier(backbone, spec, generator=generator(seed, "head"))
    return network.freeze(preset.start.freeze)
