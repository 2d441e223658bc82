"""Wrong labels in the training part of a job, as its preset asks for them."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

import numpy as np

from selfsup_cli.config.transfer_images import Classifying
from selfsup_cli.config.weighing import LabelNoise
from selfsup_cli.data import label_noise
from selfsup_cli.data.label_noise import NoisyLabels
from selfsup_cli.data.relabelled import Relabelled
from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine.devices import Hardware, loader_workers
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.guesses import guesses, has_dropout
from selfsup_cli.jobs.images import Images
from selfsup_cli.jobs.subject import is_weights
from selfsup_cli.jobs.transferred import MODEL
from selfsup_cli.models.classifier import load_classifier
from selfsup_cli.runs import atomic
from selfsup_cli.runs.report import Finding
from selfsup_cli.runs.run import Run, find_run, runs_dir

log = logging.getLogger("selfsup")

FILE = "noise.csv"


def with_noise(
    preset: Classifying,
    train: Images,
    test: Images,
    hardware: Hardware,
    progress: Progress,
    run: str | None,
) -> tuple[Images, Images]:
    """Both parts as they are trained and tested on: wrong labels for the former alone.

    Labels that a network predicted for the run called `run` are read from what that wrote, if it
    goes on. Raises InputError for noise that the labels cannot have.
    """
    data = preset.data
    permuted = data.noise.seed if data.permute_pixels else None
    noisy = None
    if data.noise.on:
        noisy = _noisy(preset, data.noise, train.source, hardware, progress, run)
    if noisy is None and permuted is None:
        return train, test
    train = Images(Relabelled(train.source, noisy, permuted), train.left_out)
    if permuted is not None:
        test = Images(Relabelled(test.source, None, permuted), test.left_out)
    return train, test


def noise_in(source: object) -> NoisyLabels | None:
    """The labels that were changed in a source; None if none were."""
    return source.noisy if isinstance(source, Relabelled) else None


def write_noise(run: Run, source: object) -> None:
    """Write the labels that were changed into the run: path, label, true."""
    noisy = noise_in(source)
    path = run.path / FILE
    if noisy is None or path.exists():
        return
    assert isinstance(source, Relabelled)  # noqa: S101 (`noise_in` has looked)
    assert source.classes is not None  # noqa: S101 (labels that are changed have names)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "true"])
    writer.writerows(noisy.rows(source.ids, source.classes))
    atomic.write_text(path, text.getvalue())


def noted(source: object) -> list[Finding]:
    """What a reader of the numbers has to know of the labels that were trained on."""
    if not isinstance(source, Relabelled):
        return []
    found = [f"training images: {phrase}" for phrase in source.changes]
    if (noisy := source.noisy) is not None:
        wrong = int(noisy.wrong.sum())
        share = 100 * wrong / len(source)
        found[0] += f": {wrong} of {len(source)} labels ({share:.1f} %) are wrong; see {FILE}"
    return [Finding(text=text, verdict="note") for text in found]


def _noisy(
    preset: Classifying,
    noise: LabelNoise,
    source: ImageSource,
    hardware: Hardware,
    progress: Progress,
    run: str | None,
) -> NoisyLabels:
    labels, classes = source.labels, source.classes
    if labels is None or classes is None or source.attributes is not None:
        raise InputError(
            f"label noise: images of {source.name} do not have one class each", kind="label-noise"
        )
    if noise.kind == "uniform":
        return label_noise.uniform(labels, classes, noise.share, noise.seed)
    if noise.kind == "pairs":
        return label_noise.pair_flip(labels, classes, noise.share, noise.seed)
    if noise.kind == "predicted":
        return _predicted(preset, noise, source, labels, classes, hardware, progress, run)
    path = Path(str(noise.file)).expanduser()
    if not path.is_file():
        raise InputError(f"data.noise.file: there is no file {path}", kind="label-noise")
    if noise.kind == "stated":
        return label_noise.stated(labels, source.ids, classes, path)
    matrix = label_noise.read_matrix(path, classes)
    return label_noise.confuse(labels, classes, matrix, noise.seed)


def _predicted(
    preset: Classifying,
    noise: LabelNoise,
    source: ImageSource,
    labels: np.ndarray,
    classes: tuple[str, ...],
    hardware: Hardware,
    progress: Progress,
    run: str | None,
) -> NoisyLabels:
    known = None if run is None else runs_dir() / run / FILE
    if known is not None and known.is_file():
        if len(known.read_bytes().splitlines()) > 1:
            labels = label_noise.stated(labels, source.ids, classes, known).given
        assert source.labels is not None  # noqa: S101 (`_noisy` has looked)
        return label_noise.predicted(source.labels, labels)
    reference = str(noise.network)
    path = Path(reference)
    if not is_weights(path):
        path = find_run(reference, runs_dir()).path / MODEL
    trained = load_classifier(path)
    if trained.task != "classify" or trained.clips.get("labels") == "attributes":
        raise InputError(
            f"data.noise.network: {reference} does not give images one class each",
            kind="label-noise",
        )
    if set(trained.classes) != set(classes):
        raise InputError(
            f"data.noise.network: the {len(trained.classes)} classes of {reference} are not the "
            f"{len(classes)} of {source.name}",
            kind="label-noise",
        )
    if not has_dropout(trained.network):
        log.warning("%s has no dropout that could be left on; its predictions are its best", path)
    found = guesses(
        trained.network,
        source,
        hardware,
        seed=noise.seed,
        workers=loader_workers(preset.machine.workers, preset.machine.devices),
        told=progress.counting("images that get predicted labels"),
    )
    order = np.array([classes.index(name) for name in trained.classes])
    return label_noise.predicted(labels, order[found])
