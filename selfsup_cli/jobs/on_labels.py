"""What a job that is about labels adds to its report: fit, suspects, weights of mini-batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from selfsup_cli.config.transfer_images import Classifying
from selfsup_cli.evaluation.clip_task import Answers
from selfsup_cli.evaluation.looking import Looking
from selfsup_cli.evaluation.task import Task
from selfsup_cli.jobs import fitted, labels, suspected
from selfsup_cli.jobs.common import Part
from selfsup_cli.jobs.images import Images
from selfsup_cli.jobs.suspected import Left
from selfsup_cli.models.classifier import Classifier
from selfsup_cli.runs.report import Finding, Measurement, Picture
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import weights


def look(task: Task, train: Part) -> None:
    """Watch the last layer while `task` is trained, where its preset is about labels."""
    preset, network = task.preset, task.plain
    source = train.source
    if not isinstance(preset, Classifying) or not preset.about_labels:
        return
    if not isinstance(network, Classifier) or getattr(source, "attributes", None) is not None:
        return
    noisy = labels.noise_in(source)
    task.looking = Looking(len(source), None if noisy is None else noisy.wrong)
    task.looking.attend(network.last)


@dataclass(frozen=True)
class Seen:
    """What was seen besides the test part: what was answered of the training part (None: nobody
    asked), the steps of an epoch, and what confident learning makes of the labels (None: nobody
    asked)."""

    trained: Any
    per_epoch: int
    confident: np.ndarray | None = None


def leave(run: Run, task: Task, train: Part, rows: list[Measurement], seen: Seen) -> Left:
    """Write what there is to see of labels into the run; gives numbers, pictures, findings.

    `rows` are those of the test part.
    """
    looking = task.looking
    noisy = labels.noise_in(train.source)
    found: Left = ([], [], labels.noted(train.source))
    if isinstance(seen.trained, Answers):
        more, said = fitted.rows_of(seen.trained, rows[0], noisy)
        found = (more, [], [*found[2], *said])
    numbers, pictures, findings = found
    preset = task.preset
    if looking is None:
        if isinstance(preset, Classifying) and preset.suspects.on:
            text = "which labels are suspicious is told of images that have one class each"
            findings = [*findings, Finding(text=text, verdict="note")]
        return numbers, pictures, findings
    if len(looking.history):
        pictures = [*pictures, _weights(run, looking, train.source.name, seen.per_epoch)]
    if isinstance(preset, Classifying) and preset.suspects.on and isinstance(train, Images):
        left = suspected.leave(
            run, train, looking.suspicion, preset.suspects, noisy, rows[0], seen.confident
        )
        numbers, pictures = [*numbers, *left[0]], [*pictures, *left[1]]
        findings = [*findings, *left[2]]
    return numbers, pictures, findings


def _weights(run: Run, looking: Looking, name: str, per_epoch: int) -> Picture:
    steps, found, wrong = looking.history.arrays()
    weights.over_time(
        run.picture("weights.png"),
        steps / per_epoch,
        found,
        wrong,
        title=f"Weights of mini-batches: {name}",
    )
    caption = (
        "How mini-batches were weighted: those with more wrong labels than the mean of their "
        "step beside those with fewer, and how often their weight was below zero."
        if np.isfinite(wrong).all()
        else "How mini-batches were weighted, and how often their weight was below zero."
    )
    return Picture(file="pictures/weights.png", caption=caption)
