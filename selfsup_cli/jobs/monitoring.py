"""Is it learning? The checks on what is held out that a pretraining run makes on its way."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.data.source import ClipSource, ImageSource
from selfsup_cli.engine import processes
from selfsup_cli.engine.devices import Hardware, loader_workers
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.clips import ClipProtocol
from selfsup_cli.evaluation.features import embed
from selfsup_cli.evaluation.image_monitor import Judged, image_accuracy
from selfsup_cli.evaluation.monitor import (
    Health,
    KnnAccuracy,
    PretextAccuracy,
    Unit,
    embedding_health,
    knn_accuracy,
    pretext_accuracy,
)
from selfsup_cli.evaluation.views import ImageViews
from selfsup_cli.jobs import common, images
from selfsup_cli.methods.image_pretext import ImagePretext, Quality
from selfsup_cli.methods.image_pretext import initial_backbone as initial_image_backbone
from selfsup_cli.methods.pretext import VideoPretext, initial_backbone
from selfsup_cli.models import Backbone
from selfsup_cli.randomness import derive
from selfsup_cli.runs.report import Finding, Measurement, ProtocolValue, accuracy

log = logging.getLogger("selfsup")

TRAINING_SKIP = 4
"""Largest step between the frames of a clip that stands for a video (the thesis' speed 2)."""

FEWEST_EMBEDDINGS = 5
"""Held-out videos from which on it is judged whether embeddings collapsed."""


@dataclass
class Judgement:
    """What one check found."""

    pretext: PretextAccuracy
    health: Health | None
    knn: KnnAccuracy | None
    knn_before: KnnAccuracy | None
    quality: Sequence[Quality] = ()

    def metrics(self) -> dict[str, float]:
        """For `metrics.jsonl`, as shares 0 … 1."""
        out = self.pretext.metrics()
        if self.health is not None:
            out |= self.health.metrics()
        if self.knn is not None:
            out["knn_accuracy"] = self.knn.value
        if self.knn_before is not None:
            out["knn_accuracy_before"] = self.knn_before.value
        return out | {f"heldout_{one.name}": one.value for one in self.quality}

    def chances(self) -> dict[str, float]:
        """What needs no learning of those metrics, where it is the same all the time."""
        knn = {} if self.knn is None else {"knn_accuracy": self.knn.chance}
        return {**self.pretext.chances(), **knn}

    def findings(self) -> list[Finding]:
        """Each check in a sentence."""
        out = [*self.pretext.findings(), *(one.finding for one in self.quality)]
        if self.health is not None:
            out.append(self.health.finding())
        if self.knn is not None and self.knn_before is not None:
            gain = self.knn.interval.low > self.knn_before.interval.high
            loss = self.knn.interval.high < self.knn_before.interval.low
            verdict = (
                "better" if gain else "worse" if loss else "not told apart (intervals overlap)"
            )
            text = (
                f"{self.knn.k}-NN accuracy of the embedding {self.knn.value:.1%}, before training "
                f"{self.knn_before.value:.1%}: {verdict}"
            )
            out.append(Finding(text=text, verdict="good" if gain else "bad" if loss else "unclear"))
        return out


class Monitoring(ABC):
    """The `check` of a pretraining run; the last judgement is kept for the report.

    Labels, where the data has any, are read for the k-NN check alone. The same videos or images are
    looked at in every check. With several processes the first one checks while the others wait.
    """

    many: Unit

    def __init__(self, hardware: Hardware, progress: Progress, seed: int, workers: int) -> None:
        self.hardware = hardware
        self.progress = progress
        self.seed = seed
        self.workers = workers
        self.last: Judgement | None = None
        self._labelled: tuple[Any, Any] | None = None
        self._looked = False
        self._before: KnnAccuracy | None = None

    def __call__(self, epoch: int, step: int) -> dict[str, float]:
        if processes.rank() > 0:
            return {}
        self.progress.update(f"checking on held-out {self.many} after epoch {epoch}", force=True)
        self.last = self.judge()
        for finding in self.last.findings():
            if finding.verdict == "bad":
                log.warning(finding.text)
            else:
                self.progress.say(f"epoch {epoch}: {finding.text}")
        return self.last.metrics()

    def concluded(self) -> Judgement:
        """The last judgement. A run killed between its last checkpoint and its end has none."""
        if self.last is None:
            self.last = self.judge()
        return self.last

    @abstractmethod
    def judge(self) -> Judgement:
        """Look at the network as it is now."""

    @abstractmethod
    def measurements(self) -> list[Measurement]:
        """The last judgement as numbers for the report."""

    @abstractmethod
    def _embed(self, backbone: Backbone, source: Any) -> tuple[Tensor, np.ndarray]:
        """Embeddings float [n, D] of what can be read of the source, and its positions there."""

    @abstractmethod
    def _open_labelled(self) -> tuple[Any, Any]:
        """The training and the test part with labels. Raises InputError where there are none."""

    def _neighbours(
        self, backbone: Backbone, before: Callable[[], Backbone], heldout: Any, most: int, k: int
    ) -> tuple[Health | None, KnnAccuracy | None, KnnAccuracy | None]:
        """Whether embeddings collapsed, and the k-NN accuracy now and before training."""
        labelled = self._with_labels(most)
        if labelled is None:
            vectors = self._embed(backbone, self._sample(heldout, most))[0]
            return self._health(vectors), None, None
        if self._before is None:
            self._before, _ = self._knn(before(), labelled, k)
        knn, vectors = self._knn(backbone, labelled, k)
        return self._health(vectors), knn, self._before

    def _health(self, vectors: Tensor) -> Health | None:
        """Whether embeddings [n, D] collapsed; None for too few to say (two lie on a line)."""
        if len(vectors) < FEWEST_EMBEDDINGS:
            return None
        return embedding_health(vectors, self.many)

    def _with_labels(self, most: int) -> tuple[Any, Any] | None:
        if self._looked or most == 0:
            return self._labelled
        self._looked = True
        try:
            both = self._open_labelled()
        except InputError as error:
            log.debug("no labels for the k-NN check: %s", error)
            return None
        if all(source.classes is not None for source in both):
            train, test = (self._sample(source, most) for source in both)
            self._labelled = (train, test)
        return self._labelled

    def _sample(self, source: Any, most: int) -> Any:
        """At most `most` of a source (all if that is 0), chosen by the seed."""
        order = sorted(range(len(source)), key=lambda i: derive(self.seed, source.ids[i], "knn"))
        return source.subset(np.array(sorted(order[: most or len(order)])))

    def _knn(
        self, backbone: Backbone, labelled: tuple[Any, Any], k: int
    ) -> tuple[KnnAccuracy, Tensor]:
        parts = []
        for source in labelled:
            vectors, positions = self._embed(backbone, source)
            assert source.labels is not None  # noqa: S101 (they were asked for)
            parts.append((vectors, source.labels[positions]))
        (train, train_labels), (test, test_labels) = parts
        found = knn_accuracy(train, train_labels, test, test_labels, k, device=self.hardware.device)
        return found, test

    def _rows(
        self,
        heldout: ClipSource | ImageSource,
        backbone: Backbone,
        pretext: dict[str, ProtocolValue],
        knn: dict[str, ProtocolValue],
    ) -> list[Measurement]:
        """The last judgement: each answer, and the neighbours now and before."""
        if self.last is None:
            return []
        rows = [
            score.measurement(dataset=heldout.name, split=heldout.split_rule, protocol=pretext)
            for score in self.last.pretext.scores()
        ]
        for subject, found in (
            ("learned", self.last.knn),
            ("before training", self.last.knn_before),
        ):
            if found is not None:
                rows.append(
                    accuracy(
                        "k-NN",
                        found.hits,
                        found.n,
                        task="monitor",
                        subject=subject,
                        dataset=heldout.name,
                        split=heldout.split_rule,
                        layer=backbone.embedding,
                        chance=100 * found.chance,
                        chance_is="what the best constant answer gets",
                        protocol={"k": found.k, "similarity": "cosine", **knn},
                    )
                )
        return rows


class VideoMonitoring(Monitoring):
    """Checks on held-out videos."""

    many: Unit = "videos"

    def __init__(
        self, method: VideoPretext, heldout: ClipSource, hardware: Hardware, progress: Progress
    ) -> None:
        preset = method.preset
        workers = loader_workers(preset.machine.workers, preset.machine.devices)
        super().__init__(hardware, progress, preset.train.seed, workers)
        self.method = method
        self.preset = preset
        self.heldout = heldout

    def judge(self) -> Judgement:
        settings = self.preset.monitor
        self.method.eval()
        pretext = pretext_accuracy(
            self.method.predict,
            self.heldout,
            self.method.plan,
            questions=self.method.questions,
            size=self.method.backbone.input.resize,
            hardware=self.hardware,
            seed=self.seed,
            videos=settings.videos,
            draws=settings.draws,
            workers=self.workers,
        )
        found = self._neighbours(
            self.method.backbone,
            lambda: initial_backbone(self.preset),
            self.heldout,
            settings.knn_videos,
            settings.knn_k,
        )
        return Judgement(pretext, *found)

    def measurements(self) -> list[Measurement]:
        settings = self.preset.monitor
        pretext: dict[str, ProtocolValue] = {
            "kinds": list(self.method.kinds),
            "frames": self.preset.frames,
            "draws": settings.draws,
            "crop": self.method.backbone.input.pixels,
            "seed": self.seed,
        }
        knn: dict[str, ProtocolValue] = {
            "clips": 1,
            "largest_skip": TRAINING_SKIP,
            "videos": f"at most {settings.knn_videos} of each part",
        }
        return self._rows(self.heldout, self.method.backbone, pretext, knn)

    def _open_labelled(self) -> tuple[ClipSource, ClipSource]:
        train, test = common.open_labelled(
            self.preset.data, self.preset.machine, self.progress, self.preset.min_frames
        )
        return train.source, test.source

    def _embed(self, backbone: Backbone, source: ClipSource) -> tuple[Tensor, np.ndarray]:
        clips = ClipProtocol(backbone.input.frames, TRAINING_SKIP, 1)
        return embed(
            backbone, source, clips, hardware=self.hardware, workers=self.workers, bad=_passed_over
        )


class ImageMonitoring(Monitoring):
    """Checks on held-out images."""

    many: Unit = "images"

    def __init__(
        self, method: ImagePretext, heldout: ImageSource, hardware: Hardware, progress: Progress
    ) -> None:
        preset = method.preset
        workers = loader_workers(preset.machine.workers, preset.machine.devices)
        super().__init__(hardware, progress, preset.train.seed, workers)
        self.method = method
        self.preset = preset
        self.heldout = heldout

    def judge(self) -> Judgement:
        settings = self.preset.monitor
        self.method.eval()

        def asked(images: Tensor, g: torch.Generator) -> Judged:
            examples, logits, labels = self.method.judge(images, g)
            return logits, labels, self.method.quality(examples)

        pretext, quality = image_accuracy(
            asked,
            self.heldout,
            self.method.plan,
            questions=self.method.questions if self.method.asking else {},
            hardware=self.hardware,
            seed=self.seed,
            images=settings.images,
            workers=self.workers,
        )
        if not self.method.asking:  # nor has the backbone learned anything
            return Judgement(pretext, None, None, None, self.method.describe(quality))
        found = self._neighbours(
            self.method.backbone,
            lambda: initial_image_backbone(self.preset),
            self.heldout,
            settings.knn_images,
            settings.knn_k,
        )
        return Judgement(pretext, *found, quality=self.method.describe(quality))

    def measurements(self) -> list[Measurement]:
        settings = self.preset.monitor
        framing = self.preset.framing
        pretext: dict[str, ProtocolValue] = {
            "kinds": list(self.method.kinds),
            "canvas": framing.sides()[0],
            "crop": framing.crop,
            "seed": self.seed,
        }
        knn: dict[str, ProtocolValue] = {
            "crop": self.method.backbone.input.pixels,
            "images": f"at most {settings.knn_images} of each part",
        }
        return self._rows(self.heldout, self.method.backbone, pretext, knn)

    def _open_labelled(self) -> tuple[ImageSource, ImageSource]:
        train, test = images.open_labelled(self.preset.data, self.preset.machine, self.progress)
        return train.source, test.source

    def _embed(self, backbone: Backbone, source: ImageSource) -> tuple[Tensor, np.ndarray]:
        return embed(
            backbone,
            source,
            ImageViews(),
            hardware=self.hardware,
            workers=self.workers,
            bad=_passed_over,
        )


def _passed_over(identifier: str, reason: str) -> None:
    log.debug("left out: %s: %s", identifier, reason)
