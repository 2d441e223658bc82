"""Is it learning to compare views? Checks on subjects that it has never seen."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.config.multiview import Pairs
from selfsup_cli.data.view_pairs import AnchorDataset, Anchors
from selfsup_cli.engine import processes
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.progress import Progress
from selfsup_cli.evaluation.monitor import Health, embedding_health
from selfsup_cli.evaluation.synchrony import (
    NAMES,
    Answers,
    PairScore,
    answers,
    bins_of,
    chosen_anchors,
)
from selfsup_cli.jobs.findings import said
from selfsup_cli.methods.multiview import Multiview
from selfsup_cli.models.siamese import Question
from selfsup_cli.randomness import generator
from selfsup_cli.runs.report import Curve, Finding, Measurement, ProtocolValue, above
from selfsup_cli.transforms.images import to_unit

log = logging.getLogger("selfsup")

_BATCH = 32
_EMBEDDED = 128
# Of a normal distribution, a value so many standard errors away is no accident.
CERTAIN = 4.0
_WITHOUT_SUBJECT = "empty scenes, no subject"


@dataclass(frozen=True)
class Recognition:
    """What one check found.

    `unseen` and `seen` are the answers about subjects held out and learned from, `scene` those
    about the unseen ones' backgrounds alone, where these stay in the images. `signs` is the share
    of features below zero.
    """

    unseen: Answers
    seen: Answers
    scene: Answers | None
    bins: Sequence[tuple[int, int]]
    health: Health
    signs: float
    settings: Pairs
    product: bool
    by_time: bool

    def metrics(self) -> dict[str, float]:
        """For `metrics.jsonl`, as shares 0 … 1."""
        out: dict[str, float] = {}
        for name in self.unseen.yes:
            out[f"heldout_{name}"] = self.unseen.score(name).value
            out[f"seen_{name}"] = self.seen.score(name).value
        for (first, last), score in self.by_gap(self.unseen):
            out[f"heldout_gap_{first}_{last}"] = score.value
        if self.scene is not None:
            for name in self.scene.yes:
                out[f"scene_{name}"] = self.scene.score(name).value
        return {**out, **self.health.metrics()}

    def chances(self) -> dict[str, float]:
        """Half of the pairs are of each kind."""
        return {name: 0.5 for name in self.metrics() if not name.startswith("embedding")}

    def by_gap(self, found: Answers) -> list[tuple[tuple[int, int], PairScore]]:
        """How well pairs are told apart whose images lie so many frames (at 50 Hz) apart."""
        if "sync" not in found.yes:
            return []
        out = []
        for first, last in self.bins:
            chosen = (found.gaps >= first - 0.5) & (found.gaps < last + 0.5)
            if chosen.any():
                name = f"{NAMES['sync']}, {first} to {last} frames apart"
                out.append(((first, last), found.score("sync", name, chosen)))
        return out

    @property
    def others(self) -> str:
        """Who is held out, in words."""
        return "later parts of the recordings" if self.by_time else "unseen subjects"

    def findings(self) -> list[Finding]:
        """Each in a sentence."""
        out = [self._learned(name) for name in self.unseen.yes]
        out += [*self._gaps(), *self._scene(), *self._signs(), self.health.finding()]
        return out

    def _learned(self, name: Question) -> Finding:
        score, seen = self.unseen.score(name), self.seen.score(name)
        row = _row(score)
        text = f"{NAMES[name]}, {self.others}: {said(row)}, chance 50 %"
        errors = score.errors_above
        if errors is None:
            return Finding(text=f"{text}: too few to say more", verdict="unclear")
        text += f", {errors:.1f} standard errors above; subjects learned from {said(_row(seen))}"
        if self.by_time:
            text = text.replace("subjects learned from", "earlier parts")
        if errors >= CERTAIN:
            return Finding(text=text, verdict="good")
        return Finding(
            text=f"{text}: not shown to be more than chance; train longer, or with a higher --lr",
            verdict="unclear",
        )

    def _gaps(self) -> list[Finding]:
        scores = self.by_gap(self.unseen)
        if len(scores) < 2:
            return []
        (near, low), (far, high) = scores[0], scores[-1]
        text = (
            f"synchronised or not by the time between: {said(_row(low))} at {near[0]} to {near[1]} "
            f"frames, {said(_row(high))} at {far[0]} to {far[1]}"
        )
        if above(_row(high), _row(low)):
            return [Finding(text=f"{text}: the longer the easier, as it should be", verdict="good")]
        errors = low.errors_above
        if errors is not None and errors >= CERTAIN:
            return [
                Finding(
                    text=f"{text}: recognised however short the time is; something else than the "
                    "pose may tell the moment (a clock in the picture, light, noise of the codec)",
                    verdict="unclear",
                )
            ]
        return [Finding(text=f"{text}: no difference is shown", verdict="unclear")]

    def _scene(self) -> list[Finding]:
        if self.scene is None:
            return []
        out = []
        for name in self.scene.yes:
            score = self.scene.score(name)
            errors = score.errors_above
            text = f"{NAMES[name]} by the background alone, without the subject: "
            text += said(_row(score))
            if errors is not None and errors >= CERTAIN:
                text += ": a shortcut (section 6.2.2); use --background remove"
                out.append(Finding(text=text, verdict="bad"))
            else:
                out.append(Finding(text=f"{text}: no shortcut is shown", verdict="good"))
        return out

    def _signs(self) -> list[Finding]:
        if self.signs > 0 or not self.product:
            return []
        return [
            Finding(
                text="no feature is ever below zero, so products cannot tell whether two features "
                "agree in sign (section 6.3.1); leave out --final-relu",
                verdict="note",
            )
        ]


def _row(score: PairScore) -> Measurement:
    return score.measurement(
        task="pretext", subject="learned", dataset="-", split="-", protocol={"-": 0}
    )


class MultiviewMonitoring:
    """The `check` of a run; the last verdict is kept for the report. The same anchors are looked
    at in every check, mirrored in the same way."""

    def __init__(
        self,
        method: Multiview,
        seen: Anchors,
        unseen: Anchors,
        hardware: Hardware,
        progress: Progress,
        *,
        by_time: bool,
    ) -> None:
        self.method = method
        self.parts = {"seen": seen, "unseen": unseen}
        self.hardware = hardware
        self.progress = progress
        self.by_time = by_time
        self.last: Recognition | None = None

    def __call__(self, epoch: int, step: int) -> dict[str, float]:
        if processes.rank() > 0:
            return {}
        self.progress.update(f"checking on unseen views after epoch {epoch}", force=True)
        self.last = self.judge()
        for finding in self.last.findings():
            if finding.verdict == "bad":
                log.warning(finding.text)
            else:
                self.progress.say(f"epoch {epoch}: {finding.text}")
        return self.last.metrics()

    def concluded(self) -> Recognition:
        """The last verdict. A run killed between its last checkpoint and its end has none."""
        if self.last is None:
            self.last = self.judge()
        return self.last

    @torch.no_grad()
    def judge(self) -> Recognition:
        """Look at the network as it is now."""
        self.method.eval()
        preset = self.method.preset
        pairs, seed, count = preset.pairs, preset.train.seed, preset.monitor.anchors
        found = {
            name: answers(self._judge, part, seed, count, batch=_BATCH)
            for name, part in self.parts.items()
        }
        features = self._features()
        return Recognition(
            unseen=found["unseen"],
            seen=found["seen"],
            scene=self._without_subject(),
            bins=bins_of(pairs.min_gap, pairs.max_gap),
            health=embedding_health(features, "images"),
            signs=float((features < 0).float().mean()),
            settings=pairs,
            product=preset.network.fusion == "mult",
            by_time=self.by_time,
        )

    def measurements(self) -> list[Measurement]:
        """The last verdict as numbers for the report."""
        last, preset = self.concluded(), self.method.preset
        pairs = preset.pairs
        protocol: dict[str, ProtocolValue] = {
            "gaps": f"{pairs.min_gap + 1} to {pairs.max_gap - 1} frames at 50 Hz",
            "background": pairs.background,
            "side": preset.data.side,
            "seed": preset.train.seed,
        }
        rows = []
        for name, part in self.parts.items():
            found = last.unseen if name == "unseen" else last.seen
            scores = [found.score(question) for question in found.yes]
            scores += [score for _, score in last.by_gap(found)]
            about = {"dataset": part.name, "split": self._split(name, part), "protocol": protocol}
            rows += [_measured(score, about) for score in scores]
            if name == "unseen" and last.scene is not None:
                rows += [
                    _measured(last.scene.score(question), about, control=_WITHOUT_SUBJECT)
                    for question in last.scene.yes
                ]
        return rows

    def curves(self) -> list[Curve]:
        """Accuracy by the time between, on seen and unseen subjects (figure 6.4)."""
        last = self.concluded()
        out = []
        for name, found in (("unseen", last.unseen), ("seen", last.seen)):
            points = [((a + b) / 2, 100 * one.value) for (a, b), one in last.by_gap(found)]
            if points:
                who = "later part" if self.by_time and name == "unseen" else f"{name} subjects"
                who = "earlier part" if self.by_time and name == "seen" else who
                out.append(
                    Curve(
                        name=who,
                        x_label="frames apart, at 50 Hz",
                        y_label="synchronised or not, accuracy in %",
                        points=points,
                        chance=50.0,
                    )
                )
        return out

    def _split(self, name: str, part: Anchors) -> str:
        return part.split_rule if name == "unseen" else f"learned from ({part.split_rule})"

    def _judge(self, batch: Mapping[str, Tensor], number: int) -> Mapping[Question, Tensor]:
        device = self.hardware.device
        g = generator(self.method.preset.train.seed, number, "monitor pairs", device=str(device))
        prepared = self.method.prepare({k: v.to(device) for k, v in batch.items()}, g)
        with self.hardware.autocast():
            return self.method.judge(prepared)

    def _without_subject(self) -> Answers | None:
        """Answers about the empty scenes behind unseen subjects, where these stay as they are."""
        preset, part = self.method.preset, self.parts["unseen"]
        if preset.pairs.background != "keep":
            return None
        first = part.stretches[0]
        if part.views.backgrounds(first.recording, 0, [first.first]) is None:
            return None
        seed = preset.train.seed
        dataset = _Scenes(part, seed, "monitor")
        return answers(
            self._judge, part, seed, preset.monitor.anchors, batch=_BATCH, dataset=dataset
        )

    def _features(self) -> Tensor:
        """Features float `[n, D]` of unseen subjects, on the CPU."""
        part, seed = self.parts["unseen"], self.method.preset.train.seed
        dataset = AnchorDataset(part, seed, "monitor")
        found = []
        for index in chosen_anchors(part, _EMBEDDED):
            sample = dataset[0, int(index)]
            batch = {k: v.to(self.hardware.device) for k, v in sample.items() if k in _READ}
            g = generator(seed, int(index), "embedded", device=str(self.hardware.device))
            found.append(self.method.prepare(batch, g).images[:, 0])
        images = torch.cat(found)
        parts = [
            self.method.backbone(to_unit(one)).float().cpu() for one in torch.split(images, 64)
        ]
        return torch.cat(parts)


_READ = ("views", "masks", "backgrounds")


class _Scenes(AnchorDataset):
    """Of the same anchors, what is behind the subject."""

    def _sample(self, epoch: int, index: int) -> dict[str, Any]:
        views = self.anchors.views
        one = self.anchors.anchor(self.seed, epoch, index, self.purpose)
        asked = ((one.first, [one.time]), (one.second, [one.time, one.later]))
        scenes = [views.backgrounds(one.recording, camera, times) for camera, times in asked]
        known = [scene for scene in scenes if scene is not None]
        return {
            "views": torch.from_numpy(np.concatenate(known))[None],
            "index": torch.tensor(index),
        }


def _measured(score: PairScore, about: dict[str, Any], control: str | None = None) -> Measurement:
    return score.measurement(task="pretext", subject="learned", control=control, **about)
