"""What a transfer leaves in its run: the network, its predictions, numbers and pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.config.blocks import Optim
from selfsup_cli.config.transfer_images import Classifying, ImageStart
from selfsup_cli.config.weighing import LabelNoise, WeighedOptim
from selfsup_cli.data.boxes import BoxedImages
from selfsup_cli.data.masked_images import MaskedImages
from selfsup_cli.data.pose_images import PoseImages
from selfsup_cli.data.source import UNKNOWN, ClipSource, ImageSource, LeftOut
from selfsup_cli.evaluation.classify import Marks, chances, precisions
from selfsup_cli.evaluation.clip_task import Answers
from selfsup_cli.evaluation.detect_scores import FoundBoxes
from selfsup_cli.evaluation.fresh import LOOKED_AT
from selfsup_cli.evaluation.pose import Pose
from selfsup_cli.evaluation.pose_scores import FoundPoses
from selfsup_cli.evaluation.segment_scores import Segmentations
from selfsup_cli.evaluation.task import Task
from selfsup_cli.jobs import findings, posed, transferred_masks, transferred_poses
from selfsup_cli.jobs.common import Part
from selfsup_cli.jobs.starting import Start
from selfsup_cli.jobs.thesis import beside, beside_pose
from selfsup_cli.jobs.training_curves import training_curves
from selfsup_cli.jobs.transferred_boxes import draw_boxes, write_boxes
from selfsup_cli.models import save_backbone
from selfsup_cli.models.classifier import Classifier
from selfsup_cli.runs import atomic
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.published import Facts
from selfsup_cli.runs.report import Finding, Measurement, Picture, ProtocolValue, Report
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import bars, confusion, curves

MODEL = "model.safetensors"


def keep(run: Run, task: Task, start: Start, train: Part, steps: int) -> str:
    """Write the network with its head, and its backbone alone; gives the former's SHA-256."""
    network = task.plain.eval()
    trained_on = {
        "method": f"transfer/{task.name}",
        "data": train.source.name,
        "split": train.source.split_rule,
        "fingerprint": train.source.fingerprint,
        "from": start.run,
        "before": start.backbone.trained_on,
        "frozen": list(network.frozen),
        "steps": steps,
        "run": run.name,
    }
    save_backbone(run.path / "backbone.safetensors", network.backbone, trained_on)
    return task.save(run.path / MODEL, trained_on)


def write_predictions(
    path: Path, found: Answers | Marks | Segmentations | FoundBoxes | FoundPoses
) -> None:
    """CSV with the columns id, label, prediction, confidence (0 … 1), in the order of the data.

    Of attributes: id, attribute, label (1, 0, or nothing where it is not known), score (0 … 1), a
    row for each image and attribute. Of masks, boxes and poses see `transferred_masks.write`,
    `transferred_boxes.write_boxes` and `transferred_poses.write`.
    """
    if isinstance(found, FoundBoxes):
        write_boxes(path, found)
        return
    if isinstance(found, FoundPoses):
        transferred_poses.write(path, found)
        return
    if isinstance(found, Segmentations):
        transferred_masks.write(path, found)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if isinstance(found, Marks):
        writer.writerow(["id", "attribute", "label", "score"])
        for identifier, truth, scores in zip(found.ids, found.truth, found.scores, strict=True):
            for name, has, score in zip(found.attributes, truth, scores, strict=True):
                label = "" if has == UNKNOWN else int(has)
                writer.writerow([identifier, name, label, f"{score:.4f}"])
        atomic.write_text(path, text.getvalue())
        return
    writer.writerow(["id", "label", "prediction", "confidence"])
    given = found.predictions
    confidence = found.probabilities[np.arange(len(given)), given]
    for identifier, label, answer, sure in zip(
        found.ids, found.truth, given, confidence, strict=True
    ):
        row = [identifier, found.classes[label], found.classes[answer], f"{sure:.4f}"]
        writer.writerow(row)
    atomic.write_text(path, text.getvalue())


def measure(
    task: Task,
    start: Start,
    train: Part,
    heldout: Part,
    found: Any,
    weights: str,
) -> list[Measurement]:
    """The task's numbers with their protocol, and those of the thesis beside them."""
    preset, network = task.preset, task.plain
    optim, numerics = preset.optim, preset.train
    protocol: dict[str, ProtocolValue] = {
        "start": f"{start.subject} ({start.run})" if start.parents else start.subject,
        "network": network.backbone.arch,
        **network.describe(),
        "frozen": ", ".join(network.frozen) or "nothing",
        **_prepared(task),
        f"training_{task.many}": len(train.source),
        "fraction": preset.fraction,
        "epochs": numerics.epochs,
        "batch_size": numerics.batch_size,
        "optimiser": f"{optim.name}, {_falling(optim)}",
        **_weighed(task),
        "lr": optim.lr,
        "weight_decay": optim.weight_decay,
        **task.seen,
        "seed": task.seed,
        "weights": weights[:16],
    }
    if numerics.max_steps is not None:
        protocol["updates"] = numerics.max_steps
    about = {
        "subject": start.subject,
        "dataset": heldout.source.name,
        "split": train.source.split_rule,
        "layer": task.layer,
    }
    rows = task.measurements(found, about, protocol)
    return [_published(task, start, row) for row in rows]


def _falling(optim: Optim) -> str:
    """How the learning rate falls, in a phrase."""
    if optim.schedule == "staircase":
        return f"{optim.each_epoch:g} times the rate after each epoch"
    return f"{optim.schedule} to {optim.final_factor:g} of the rate"


def _weighed(task: Task) -> dict[str, ProtocolValue]:
    """How mini-batches were weighted, and what else was done against learning labels by heart."""
    how, preset = task.weighing, task.preset
    found: dict[str, ProtocolValue] = {}
    if how is not None:
        found["mini_batches"] = how.count
        if isinstance(preset.optim, WeighedOptim) and preset.optim.name == "bilevel":
            normal = "" if how.normalize else ", not normalised"
            layers = " of each layer" if how.per_layer else ""
            found["weights_of_mini_batches"] = (
                f"{how.solver}{layers}{normal}, λ̂ {how.lam:g}, μ̂ {how.mu:g}"
            )
        found["labels_of_mini_batches"] = "the same" if how.matched else "any"
        found["dropout_masks"] = how.masks
        if how.validation:
            found["only_for_validation"] = how.validation
        if how.skip_disagreeing:
            found["steps"] = "skipped where all weights are below zero"
    if isinstance(preset, Classifying):
        regularize = preset.regularize
        named = {
            "label_smoothing": regularize.smoothing,
            "mixup": regularize.mixup,
            "dropout_in_blocks": regularize.inside,
        }
        found |= {name: value for name, value in named.items() if value}
        if preset.data.noise.on:
            found["label_noise"] = _noise(preset.data.noise)
        if preset.data.permute_pixels:
            found["pixels"] = "of each image in an order of its own"
    return found


def _noise(noise: LabelNoise) -> str:
    share = f" {noise.share:g}" if noise.share else ""
    return f"{noise.kind}{share}, seed {noise.seed}"


def _prepared(task: Task) -> dict[str, ProtocolValue]:
    """What was done to the weights before training, where it was asked for."""
    start = task.preset.start
    if not isinstance(start, ImageStart):
        return {}
    which = "all layers" if start.init == "random" else "fresh layers"
    return {
        **({"batch_norm": "absorbed by the layers before it"} if start.absorb_bn else {}),
        **({"rescaled": f"{which}, on up to {LOOKED_AT} training images"} if start.rescale else {}),
    }


def _published(task: Task, start: Start, row: Measurement) -> Measurement:
    epochs, network, backbone = task.preset.train.epochs, task.plain, start.backbone
    if task.name == "action":
        if network.frozen and task.layer is not None:
            said = f"three fully connected layers trained for {epochs} epochs"
            return beside("frozen", row, backbone, layer=backbone.embedding, classifier=said)
        said = f"all layers fine-tuned for {epochs} epochs"
        return row if network.frozen else beside("finetune", row, backbone, classifier=said)
    if task.name in ("classify", "detect", "segment"):
        facts: Facts = {"classifier": _learner(task)}
        if "test_crops" in row.protocol:
            facts["crops"] = str(row.protocol["test_crops"])
        if task.layer is not None:
            facts["layer"] = task.layer
        return beside(task.name, row, backbone, **facts)
    if isinstance(task, Pose):
        return beside_pose(
            row,
            backbone,
            frozen=bool(network.frozen),
            subjects=task.preset.subjects,
            updates=task.preset.train.max_steps or 0,
        )
    if task.name == "sync":
        said = str(row.protocol["offsets"])
        return beside("sync", row, backbone, layer=backbone.embedding, offsets=said)
    return beside("order", row, backbone, frames=str(row.protocol["frames"]))


def _learner(task: Task) -> str:
    """What was trained on the backbone, and whether that was as well, as the thesis says it."""
    epochs, network = task.preset.train.epochs, task.plain
    head = ""
    if isinstance(network, Classifier) and network.head_spec.kind == "fc":
        count = len(network.head_spec.hidden) + 1
        names = {1: "one linear layer", 3: "three fully connected layers"}
        head = names.get(count, f"{count} fully connected layers")
    if network.backbone.embedding in network.frozen:
        return f"{head or 'one linear layer'} trained for {epochs} epochs"
    what = "all layers" if not network.frozen else f"layers above {network.frozen[-1]}"
    return f"{head + ', ' if head else ''}{what} fine-tuned for {epochs} epochs"


def draw(
    run: Run,
    task: Task,
    found: Answers | Marks | FoundBoxes | Segmentations | FoundPoses,
    dataset: str,
) -> list[Picture]:
    """Curves, the confusion matrix, and how far delays were off; of attributes, their precision."""
    curves.draw(run.picture("curves.png"), training_curves(run.metrics()))
    pictures = [Picture(file="pictures/curves.png", caption="Training, and accuracy on the way.")]
    if isinstance(found, FoundPoses):
        assert isinstance(task, Pose)  # noqa: S101 (no other finds any)
        scale, title = task.targets.scale, f"{task.name}, {dataset}"
        return [*transferred_poses.draw(run, found, scale, title), *pictures]
    if isinstance(found, FoundBoxes):
        return [*draw_boxes(run, found, f"{task.name}, {dataset}"), *pictures]
    if isinstance(found, Segmentations):
        return [*transferred_masks.draw(run, found, f"{task.name}, {dataset}"), *pictures]
    if isinstance(found, Marks):
        path = run.picture("attributes.png")
        bars.attributes(path, precisions(found), chances(found), title=f"{task.name}, {dataset}")
        caption = "Average precision of each attribute; the line is what a random order gets on "
        caption += "average."
        return [*pictures, Picture(file="pictures/attributes.png", caption=caption)]
    counts = np.zeros((len(found.classes),) * 2, dtype=np.int64)
    np.add.at(counts, (found.truth, found.predictions), 1)
    title = f"{task.name}, {dataset}"
    confusion.matrix(run.picture("confusion.png"), counts, found.classes, title=title)
    caption = "Which answer was taken for which; each row sums to 100 %."
    pictures.append(Picture(file="pictures/confusion.png", caption=caption))
    if task.name == "sync":
        off_by = found.predictions - found.truth
        path, most = run.picture("offsets.png"), len(found.classes) - 1
        confusion.errors(path, off_by, most=most, unit="frames", title=title)
        pictures.append(
            Picture(file="pictures/offsets.png", caption="By how many frames answers were off.")
        )
    return pictures


def notes(task: Task, start: Start, train: Part, heldout: Part) -> list[Finding]:
    """What a reader of the numbers has to know besides."""
    learned, source = train.source, heldout.source
    if isinstance(source, PoseImages) and isinstance(learned, PoseImages):
        return posed.notes(start.backbone.trained_on, learned, source)
    assert not isinstance(source, PoseImages)  # noqa: S101 (both are of a kind)
    found = findings.seen_before(start.backbone.trained_on, source)
    if isinstance(source, ClipSource) and isinstance(learned, ClipSource):
        return [*found, *findings.shared_recordings(learned, source)]
    assert isinstance(source, ImageSource)  # noqa: S101 (there are two kinds)
    assert isinstance(learned, ImageSource)  # noqa: S101
    if isinstance(source, MaskedImages) and isinstance(learned, MaskedImages):
        return [*found, *transferred_masks.notes(learned, source)]
    texts = [f"{source.name}: {note}" for note in source.notes]
    if isinstance(source, BoxedImages):
        return [*found, *(Finding(text=text, verdict="note") for text in texts)]
    size = task.plain.backbone.input.crop
    shorter = np.concatenate([learned.sizes.min(1), source.sizes.min(1)])
    if (small := int((shorter < size).sum())) > 0:
        texts.append(
            f"{small} of {len(shorter)} images are smaller than the crop of {size} pixels and are "
            f"scaled up; a crop of {int(shorter.min())} fits into all of them"
        )
    return [*found, *(Finding(text=text, verdict="note") for text in texts)]


def reported(
    run: Run,
    task: Task,
    rows: list[Measurement],
    pictures: list[Picture],
    *,
    notes: Sequence[Finding],
    weights: str,
    cost: dict[str, float],
    command: str,
    data: dict[str, Any],
    left_out: Sequence[LeftOut],
) -> Report:
    """The report of one training."""
    first = (
        transferred_poses.finding(rows)
        if isinstance(task, Pose)
        else findings.against_chance(f"{task.name}, {rows[0].metric}", rows[0])
    )
    return Report(
        job=run.info.job,
        run=run.name,
        command=command,
        created=reports.now(),
        findings=[*([first] if first else []), *notes],
        measurements=rows,
        curves=training_curves(run.metrics()),
        pictures=pictures,
        data=data,
        weights=weights,
        cost={name: round(value, 1) for name, value in cost.items()},
        **reports.left_out(left_out),
    )
