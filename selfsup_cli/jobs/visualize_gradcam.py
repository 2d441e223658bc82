"""`selfsup visualize gradcam`: where in images the evidence for an answer lies (figure 3.9)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfsup_cli.config.images import ImageData
from selfsup_cli.config.looks import VisualizeGradcam
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.registry import METHODS, unknown
from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.evaluation.retrieval import pick_queries
from selfsup_cli.evaluation.views import shorter_side
from selfsup_cli.jobs import common
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.images import Images, open_images
from selfsup_cli.jobs.method_weights import FILE, load_method
from selfsup_cli.jobs.shortcuts import data_of, machine
from selfsup_cli.jobs.subject import is_weights
from selfsup_cli.jobs.transferred import MODEL
from selfsup_cli.jobs.visualize_images import some_canvases
from selfsup_cli.jobs.visualize_page import chosen, page
from selfsup_cli.methods.artifacts import Artifacts
from selfsup_cli.methods.image_pretext import ImagePretext
from selfsup_cli.models import Backbone
from selfsup_cli.models.classifier import load_classifier
from selfsup_cli.models.weights import sidecar_path
from selfsup_cli.randomness import generator
from selfsup_cli.runs.atomic import file_sha256
from selfsup_cli.runs.report import Finding
from selfsup_cli.runs.run import RunSummary, find_run, runs_dir
from selfsup_cli.transforms.images import center_crop, to_unit
from selfsup_cli.visualization import gradcam as drawing

log = logging.getLogger("selfsup")

_PICTURE = "gradcam.png"
_TASK = "classify"
_LABELLED = "pretrain/bilevel"  # the same job from random weights
_OTHERS = {"selfsup.segmenter": "segment", "selfsup.detector": "detect"}


@dataclass
class Answering:
    """A network that answers: `answer` gives logits of `classes`, through `backbone`.

    `method` is the pretraining that it is of, None for one that was transferred; `several` says
    that each class is an attribute by itself.
    """

    name: str
    answer: drawing.Answer
    backbone: Backbone
    classes: tuple[str, ...]
    weights: str
    method: ImagePretext | None = None
    several: bool = False
    module: torch.nn.Module | None = None


def gradcam(
    resolved: Resolved,
    *,
    run: str | None = None,
    out: Path | None = None,
    command: Sequence[str] = (),
    quiet: bool = False,
) -> Outcome:
    """Draw where in images the evidence for the answers of a network lies.

    Into a run with its report, or into the file `out`. Raises InputError.
    """
    chosen(run, out)
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, VisualizeGradcam)  # noqa: S101 (command and preset belong together)
    asked = _answering(preset.subject.run)
    wanted = _wanted(preset.cam.answer, asked)
    if preset.cam.layer is not None and preset.cam.layer not in asked.backbone.layers:
        raise unknown("layer", preset.cam.layer, list(asked.backbone.layers))
    device = choose(preset.machine.device).device
    assert asked.module is not None  # noqa: S101 (see _answering)
    asked.module.to(device).eval()
    with Progress(quiet=quiet) as progress:
        images = _open(preset, asked, progress)
        with page(
            resolved,
            run=run,
            out=out,
            command=command,
            arch=asked.backbone.arch,
            data=images.source.name,
            seed=preset.shown.seed,
            dataset=common.describe(images.source),
            parents=[{"run": asked.name, "arch": asked.backbone.arch, "sha256": asked.weights}],
        ) as made:
            if (done := made.outcome) is not None:
                return done
            looker = _Looker(preset, asked, wanted, device)
            if asked.method is None:
                rows = list(looker.at_images(images.source))
            else:
                rows = list(looker.at_examples(images.source, asked.method))
            caption = looker.caption(images.source)
            drawing.sheet(
                made.picture(_PICTURE),
                rows,
                title=f"Grad-CAM: {asked.name}",
                note=caption,
                legend=looker.legend,
            )
            said = [Finding(text=looker.told(), verdict="note")]
            facts = {"layer": looker.layer, "classes": list(asked.classes), "looks": looker.facts}
            return made.conclude(
                _PICTURE, caption, said, facts=facts, left_out=images.source.left_out
            )


class _Looker:
    """Looks at images and collects what is told of them."""

    def __init__(
        self,
        preset: VisualizeGradcam,
        asked: Answering,
        wanted: int | None,
        device: torch.device,
    ) -> None:
        self.preset = preset
        self.asked = asked
        self.wanted = wanted
        self.device = device
        self.layer = preset.cam.layer
        self.facts: list[dict[str, Any]] = []
        self.right: list[bool] = []

    @property
    def legend(self) -> tuple[str, str] | None:
        """The words for a green and a red border, where there are any."""
        if isinstance(self.asked.method, Artifacts):
            return "real", "with artifacts"
        return ("answered rightly", "answered wrongly") if self.right else None

    def look(self, images: Tensor, wanted: Tensor | None) -> drawing.Evidence:
        """Evidence in images float `[B, 3, S, S]`, at the layer asked for."""
        asked = self.asked
        images = images.to(self.device)
        if self.layer is None:
            self.layer = drawing.deepest(asked.answer, asked.backbone, images[:1])
        if wanted is None and self.wanted is not None:
            wanted = torch.full((len(images),), self.wanted, dtype=torch.int64)
        if wanted is not None:
            wanted = wanted.to(self.device)
        found = drawing.gradcam(asked.answer, asked.backbone, images, wanted, self.layer)
        return drawing.Evidence(found.logits.cpu(), found.maps.cpu())

    def at_images(self, source: ImageSource) -> Iterator[tuple[str, list[drawing.Look]]]:
        """A transferred network, image by image: what is answered and, where it is another, what
        is true."""
        asked = self.asked
        # Of images with several labels none is the true class.
        labels = source.labels if source.classes == asked.classes else None
        shown = 0
        for i in pick_queries(len(source), self.preset.shown.seed, source.ids, labels).tolist():
            if shown == self.preset.shown.count:
                break
            try:
                image = source.read(i, shorter_side(asked.backbone.input))
            except BadMediaError as error:
                log.warning("%s cannot be read and is left out: %s", source.ids[i], error.reason)
                continue
            shown += 1
            crop = center_crop(image[None], asked.backbone.input.crop)
            truth = None if labels is None else int(labels[i])
            yield source.ids[i], self._answered(source.ids[i], crop, truth)
        if not shown:
            raise InputError(f"no image of {source.name} could be read", kind="bad-media")

    def _answered(self, name: str, crop: Tensor, truth: int | None) -> list[drawing.Look]:
        found = self.look(to_unit(crop), None)
        logits = found.logits[0]
        shares = logits.sigmoid() if self.asked.several else logits.softmax(0)
        given = int(logits.argmax())
        shown = given if self.wanted is None else self.wanted
        good = None if truth is None else given == truth
        if good is not None:
            self.right.append(good)
        classes = self.asked.classes
        looks = [
            drawing.Look(crop[0], None, "image" if truth is None else classes[truth]),
            drawing.Look(
                crop[0],
                found.maps[0],
                f"for {classes[shown]}",
                f"{100 * float(shares[shown]):.0f} %"
                + ("" if shown == given else f"; answered {classes[given]}"),
                good,
            ),
        ]
        if self.wanted is None and truth is not None and truth != given:
            true = self.look(to_unit(crop), torch.tensor([truth]))
            looks.append(
                drawing.Look(
                    crop[0],
                    true.maps[0],
                    f"for {classes[truth]}",
                    f"{100 * float(shares[truth]):.0f} %",
                )
            )
        self.facts.append(
            {
                "image": name,
                "answered": classes[given],
                "shown": classes[shown],
                "share": round(float(shares[shown]), 4),
                **({} if truth is None else {"true": classes[truth]}),
            }
        )
        return looks

    def at_examples(
        self, source: ImageSource, method: ImagePretext
    ) -> Iterator[tuple[str, list[drawing.Look]]]:
        """A pretraining: each image as it is transformed, with the evidence for what was done."""
        seed, count = self.preset.shown.seed, self.preset.shown.count
        names, canvases = some_canvases(method, source, max(count, 2), seed)
        with torch.no_grad():
            g = generator(seed, "sheet", device=str(self.device))
            examples = method.examples(canvases.to(self.device), g)
        crops, labels = examples.crops.float(), examples.labels
        found = self.look(crops, labels if self.wanted is None else None)
        kinds = [self.asked.classes[label] for label in labels.tolist()]
        shares, given = found.logits.softmax(1), found.logits.argmax(1).tolist()
        artifacts = isinstance(method, Artifacts)
        # Of artifacts, what is real is shown first, as in the thesis.
        order = list(range(len(method.kinds)))[:: -1 if artifacts else 1]
        for i, name in enumerate(names[:count]):
            looks = []
            for k in order:
                at = k * len(names) + i
                true, shown = int(labels[at]), self.wanted
                shown = true if shown is None else shown
                right = given[at] == true
                self.right.append(right)
                good = kinds[at] == "real" if artifacts else right
                image = crops[at].cpu()
                said = f"{self.asked.classes[shown]}: {100 * float(shares[at, shown]):.0f} %"
                if artifacts:
                    looks.append(drawing.Look(image, None, kinds[at], "", good))
                looks.append(drawing.Look(image, found.maps[at], kinds[at], said, good))
                self.facts.append(
                    {"image": name, "kind": kinds[at], "shown": self.asked.classes[shown],
                     "answered": self.asked.classes[given[at]],
                     "share": round(float(shares[at, shown]), 4)}
                )  # fmt: skip
            yield name, looks

    def caption(self, source: ImageSource) -> str:
        """What stands below the picture."""
        preset, asked = self.preset, self.asked
        if self.wanted is not None:
            what = f"what speaks for {asked.classes[self.wanted]}"
        elif asked.method is None:
            what = "what speaks for the class that is answered and, if it is another, the true one"
        else:
            what = "what speaks for that which was done to the image"
        return (
            f"Where in images of the test part of {source.name} {asked.name} sees {what}, by cells "
            f"of {self.layer}: red is the most in that image; one that is as it was has none. The "
            f"images were chosen by seed {preset.shown.seed}."
        )

    def told(self) -> str:
        """A sentence on what is seen."""
        text = f"{len(self.facts)} looks at {self.layer} of {self.asked.name}"
        if self.right:
            text += f"; {sum(self.right)} of {len(self.right)} answers are right"
        return text


# What answers


def _answering(reference: str) -> Answering:
    path = Path(reference)
    if is_weights(path):
        return _transferred(path, path.stem)
    found = find_run(reference, runs_dir(), needs=_unfit)
    if found.info.job.startswith("transfer/") or found.info.job == _LABELLED:
        return _transferred(found.path / MODEL, found.name)
    method = load_method(found)
    (question,) = method.questions
    plain = method.plain

    def answer(images: Tensor) -> Tensor:
        told = plain(images)
        logits: Tensor = told[question] if isinstance(told, dict) else told.classes
        return logits

    return Answering(
        found.name,
        answer,
        method.backbone,
        tuple(method.questions[question]),
        file_sha256(found.path / "backbone.safetensors"),
        method,
        module=method,
    )


def _transferred(path: Path, name: str) -> Answering:
    kind = _format_of(path).partition("/")[0]
    if kind == "selfsup.backbone":
        raise InputError(
            f"{path} holds a backbone, which answers nothing; give a run of 'selfsup transfer "
            f"{_TASK}' or of a pretraining on images",
            kind="weights",
        )
    if kind in _OTHERS:
        raise InputError(
            f"{path} holds a network of 'selfsup transfer {_OTHERS[kind]}', which gives no class "
            f"of an image; give a run of 'selfsup transfer {_TASK}' or of a pretraining on images",
            kind="weights",
        )
    trained = load_classifier(path)
    if trained.task != _TASK:
        raise InputError(
            f"{name} was transferred to {trained.task}, which gives no class of an image; Grad-CAM "
            f"needs a run of 'selfsup transfer {_TASK}' or of a pretraining on images",
            kind="run-unfit",
        )
    network = trained.network
    return Answering(
        name,
        network,
        network.backbone,
        trained.classes,
        trained.weights,
        several=trained.clips.get("labels") == "attributes",
        module=network,
    )


def _format_of(path: Path) -> str:
    """What the sidecar of weights says that they are; nothing where it cannot be read."""
    try:
        told = json.loads(sidecar_path(path).read_bytes())
    except (OSError, ValueError):
        return ""  # which is told where it is loaded
    return str(told.get("format")) if isinstance(told, dict) else ""


def _unfit(summary: RunSummary) -> str | None:
    kind, _, name = summary.job.partition("/")
    if summary.job in (f"transfer/{_TASK}", _LABELLED):
        several = not (summary.path / MODEL).is_file()
        return "it trained several times; name one of its runs" if several else None
    if kind != "pretrain" or name not in METHODS or METHODS[name].kind != "image":
        return f"it gives no class of an image: it is a run of {summary.job}"
    return None if (summary.path / FILE).is_file() else f"it has no {FILE}, which holds its head"


def _wanted(answer: str | None, asked: Answering) -> int | None:
    if answer is None:
        return None
    if answer not in asked.classes:
        raise unknown("class", answer, list(asked.classes))
    return asked.classes.index(answer)


def _open(preset: VisualizeGradcam, asked: Answering, progress: Progress) -> Images:
    """The test part, with labels where they name the classes of the network."""
    where = machine(preset.machine)
    if asked.method is not None:
        data = data_of(preset.data, asked.method.preset)
        return open_images(data, "test", labels=False, machine=where, progress=progress)

    def opened(data: ImageData, labels: bool) -> Images:
        return open_images(data, "test", labels=labels, machine=where, progress=progress)

    try:
        return opened(preset.data, True)
    except InputError as error:
        if error.kind != "unlabelled":
            raise
    return opened(preset.data, False)
