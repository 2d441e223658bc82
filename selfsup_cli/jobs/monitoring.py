"""Is it learning? The checks on held-out videos that a pretraining run makes on its way."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from selfsup_cli.data.source import ClipSource
from selfsup_cli.engine import processes
from selfsup_cli.engine.devices import Hardware, loader_workers
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.clips import ClipProtocol
from selfsup_cli.evaluation.features import embed
from selfsup_cli.evaluation.monitor import (
    Health,
    KnnAccuracy,
    PretextAccuracy,
    embedding_health,
    knn_accuracy,
    pretext_accuracy,
)
from selfsup_cli.jobs import common
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

    def metrics(self) -> dict[str, float]:
        """For `metrics.jsonl`, as shares 0 … 1."""
        out = self.pretext.metrics()
        if self.health is not None:
            out |= self.health.metrics()
        if self.knn is not None:
            out["knn_accuracy"] = self.knn.value
        if self.knn_before is not None:
            out["knn_accuracy_before"] = self.knn_before.value
        return out

    def chances(self) -> dict[str, float]:
        """What needs no learning of those metrics, where it is the same all the time."""
        knn = {} if self.knn is None else {"knn_accuracy": self.knn.chance}
        return {**self.pretext.chances(), **knn}

    def findings(self) -> list[Finding]:
        """Each check in a sentence."""
        out = self.pretext.findings()
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


class Monitoring:
    """The `check` of a pretraining run; the last judgement is kept for the report.

    Labels, where the data has any, are read for the k-NN check alone. The same clips are looked at
    in every check. With several processes the first one checks while the others wait.
    """

    def __init__(
        self,
        method: VideoPretext,
        heldout: ClipSource,
        hardware: Hardware,
        progress: Progress,
    ) -> None:
        self.method = method
        self.preset = preset = method.preset
        self.heldout = heldout
        self.hardware = hardware
        self.progress = progress
        self.workers = loader_workers(preset.machine.workers, preset.machine.devices)
        self.last: Judgement | None = None
        self._labelled: tuple[ClipSource, ClipSource] | None = None
        self._looked = False
        self._before: KnnAccuracy | None = None

    def __call__(self, epoch: int, step: int) -> dict[str, float]:
        if processes.rank() > 0:
            return {}
        self.progress.update(f"checking on held-out videos after epoch {epoch}", force=True)
        self.last = self.judge()
        for finding in self.last.findings():
            if finding.verdict == "bad":
                log.warning(finding.text)
            else:
                self.progress.say(f"epoch {epoch}: {finding.text}")
        return self.last.metrics()

    def judge(self) -> Judgement:
        """Look at the network as it is now."""
        settings = self.preset.monitor
        self.method.eval()
        pretext = pretext_accuracy(
            self.method.predict,
            self.heldout,
            self.method.plan,
            questions=self.method.questions,
            size=self.method.backbone.input.resize,
            hardware=self.hardware,
            seed=self.preset.train.seed,
            videos=settings.videos,
            draws=settings.draws,
            workers=self.workers,
        )
        labelled = self._with_labels()
        if labelled is None:
            sample = self._sample(self.heldout)
            vectors = self._embed(self.method.backbone, sample)[0]
            return Judgement(pretext, _health(vectors), None, None)
        if self._before is None:
            self._before, _ = self._knn(initial_backbone(self.preset), labelled)
        knn, vectors = self._knn(self.method.backbone, labelled)
        return Judgement(pretext, _health(vectors), knn, self._before)

    def measurements(self) -> list[Measurement]:
        """The last judgement as numbers for the report."""
        if self.last is None:
            return []
        settings = self.preset.monitor
        protocol: dict[str, ProtocolValue] = {
            "kinds": list(self.method.kinds),
            "frames": self.preset.frames,
            "draws": settings.draws,
            "crop": self.method.backbone.input.pixels,
            "seed": self.preset.train.seed,
        }
        rows = [
            score.measurement(
                dataset=self.heldout.name, split=self.heldout.split_rule, protocol=protocol
            )
            for score in self.last.pretext.scores()
        ]
        for subject, knn in (
            ("learned", self.last.knn),
            ("before training", self.last.knn_before),
        ):
            if knn is not None:
                rows.append(self._knn_row(subject, knn))
        return rows

    def _knn_row(self, subject: str, knn: KnnAccuracy) -> Measurement:
        backbone = self.method.backbone
        return accuracy(
            "k-NN",
            knn.hits,
            knn.n,
            task="monitor",
            subject=subject,
            dataset=self.heldout.name,
            split=self.heldout.split_rule,
            layer=backbone.embedding,
            chance=100 * knn.chance,
            chance_is="what the best constant answer gets",
            protocol={
                "k": knn.k,
                "similarity": "cosine",
                "clips": 1,
                "largest_skip": TRAINING_SKIP,
                "videos": f"at most {self.preset.monitor.knn_videos} of each part",
            },
        )

    def _with_labels(self) -> tuple[ClipSource, ClipSource] | None:
        if self._looked or self.preset.monitor.knn_videos == 0:
            return self._labelled
        self._looked = True
        try:
            both = common.open_labelled(
                self.preset.data, self.preset.machine, self.progress, self.preset.min_frames
            )
        except InputError as error:
            log.debug("no labels for the k-NN check: %s", error)
            return None
        train, test = (self._sample(videos.source) for videos in both)
        self._labelled = (train, test)
        return self._labelled

    def _sample(self, source: ClipSource) -> ClipSource:
        """At most `monitor.knn_videos` videos, chosen by the seed."""
        seed = self.preset.train.seed
        order = sorted(range(len(source)), key=lambda i: derive(seed, source.ids[i], "knn"))
        most = self.preset.monitor.knn_videos or len(order)
        return source.subset(np.array(sorted(order[:most])))

    def _embed(self, backbone: Backbone, source: ClipSource) -> tuple[Tensor, np.ndarray]:
        clips = ClipProtocol(backbone.input.frames, TRAINING_SKIP, 1)
        return embed(
            backbone,
            source,
            clips,
            hardware=self.hardware,
            workers=self.workers,
            bad=lambda identifier, reason: log.debug("left out: %s: %s", identifier, reason),
        )

    def _knn(
        self, backbone: Backbone, labelled: tuple[ClipSource, ClipSource]
    ) -> tuple[KnnAccuracy, Tensor]:
        parts = []
        for source in labelled:
            vectors, videos = self._embed(backbone, source)
            assert source.labels is not None  # noqa: S101 (open_labelled has seen to it)
            parts.append((vectors, source.labels[videos]))
        (train, train_labels), (test, test_labels) = parts
        found = knn_accuracy(
            train,
            train_labels,
            test,
            test_labels,
            self.preset.monitor.knn_k,
            device=self.hardware.device,
        )
        return found, test


def _health(vectors: Tensor) -> Health | None:
    """Whether embeddings [n, D] collapsed; None for too few to say: two always lie on a line."""
    return embedding_health(vectors) if len(vectors) >= FEWEST_EMBEDDINGS else None
