"""What a transfer leaves in its run: the network, its predictions, numbers and pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.data.source import LeftOut
from selfsup_cli.evaluation.clip_task import Answers, ClipTask
from selfsup_cli.jobs import findings
from selfsup_cli.jobs.common import Videos
from selfsup_cli.jobs.pretrain import training_curves
from selfsup_cli.jobs.starting import Start
from selfsup_cli.jobs.thesis import beside
from selfsup_cli.models import save_backbone
from selfsup_cli.models.classifier import Trained, save_classifier
from selfsup_cli.runs import atomic
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import Finding, Measurement, Picture, ProtocolValue, Report
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import confusion, curves

MODEL = "model.safetensors"


def keep(run: Run, task: ClipTask, start: Start, videos: Videos, steps: int) -> str:
    """Write the network with its head, and its backbone alone; gives the former's SHA-256."""
    network = task.plain.eval()
    trained_on = {
        "method": f"transfer/{task.name}",
        "data": videos.source.name,
        "split": videos.source.split_rule,
        "fingerprint": videos.source.fingerprint,
        "from": start.run,
        "before": start.backbone.trained_on,
        "frozen": list(network.frozen),
        "steps": steps,
        "run": run.name,
    }
    save_backbone(run.path / "backbone.safetensors", network.backbone, trained_on)
    clips = {"resize": list(task.augment.resize_to_evaluate), "crop": task.augment.crop}
    trained = Trained(
        network, task.name, task.classes, clips | task.taken.model_dump(mode="json"), ""
    )
    return save_classifier(run.path / MODEL, trained, trained_on)


def write_predictions(path: Path, found: Answers) -> None:
    """CSV with the columns id, label, prediction, confidence (0 … 1), in the order of the data."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
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
    task: ClipTask,
    start: Start,
    videos: Videos,
    heldout: Videos,
    found: Answers,
    weights: str,
) -> list[Measurement]:
    """The task's numbers with their protocol, and those of the thesis beside them."""
    preset, network = task.preset, task.plain
    optim, train = preset.optim, preset.train
    layer = network.backbone.embedding if network.head_spec.kind == "fc" else None
    protocol: dict[str, ProtocolValue] = {
        "start": f"{start.subject} ({start.run})" if start.parents else start.subject,
        "network": network.backbone.arch,
        **network.describe(),
        "frozen": ", ".join(network.frozen) or "nothing",
        "training_videos": len(videos.source),
        "fraction": preset.fraction,
        "epochs": train.epochs,
        "batch_size": train.batch_size,
        "optimiser": f"{optim.name}, {optim.schedule} to {optim.final_factor:g} of the rate",
        "lr": optim.lr,
        "weight_decay": optim.weight_decay,
        "frames": network.backbone.input.frames,
        "crop": f"centre {task.augment.crop} of "
        f"{'×'.join(str(side) for side in task.augment.resize_to_evaluate)}",
        "seed": task.seed,
        "weights": weights[:16],
    }
    if train.max_steps is not None:
        protocol["updates"] = train.max_steps
    about = {
        "subject": start.subject,
        "dataset": heldout.source.name,
        "split": heldout.source.split_rule,
        "layer": layer,
    }
    rows = task.measurements(found, about, protocol)
    return [_published(task, start, row) for row in rows]


def _published(task: ClipTask, start: Start, row: Measurement) -> Measurement:
    epochs, network, backbone = task.preset.train.epochs, task.plain, start.backbone
    if task.name == "action":
        if network.frozen and network.head_spec.kind == "fc":
            said = f"three fully connected layers trained for {epochs} epochs"
            return beside("frozen", row, backbone, layer=backbone.embedding, classifier=said)
        said = f"all layers fine-tuned for {epochs} epochs"
        return row if network.frozen else beside("finetune", row, backbone, classifier=said)
    if task.name == "sync":
        said = str(row.protocol["offsets"])
        return beside("sync", row, backbone, layer=backbone.embedding, offsets=said)
    return beside("order", row, backbone, frames=str(row.protocol["frames"]))


def draw(run: Run, task: ClipTask, found: Answers, dataset: str) -> list[Picture]:
    """Curves, the confusion matrix, and how far delays were off."""
    curves.draw(run.picture("curves.png"), training_curves(run.metrics()))
    pictures = [Picture(file="pictures/curves.png", caption="Training, and accuracy on the way.")]
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


def reported(
    run: Run,
    task: ClipTask,
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
    first = findings.against_chance(f"{task.name}, {rows[0].metric}", rows[0])
    return Report(
        job=f"transfer/{task.name}",
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
