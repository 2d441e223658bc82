"""Confident learning, the peer: networks that were not trained on the labels they judge."""

from __future__ import annotations

import io

import numpy as np

from selfsup_cli.config.blocks import Train
from selfsup_cli.config.transfer_images import Classifying
from selfsup_cli.config.weighing import WEIGHED
from selfsup_cli.data.loader import EpochLoader
from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine.devices import Hardware, loader_workers
from selfsup_cli.engine.fit import Fit
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.clip_task import Answers
from selfsup_cli.evaluation.suspects import confident_learning
from selfsup_cli.evaluation.tasks import create
from selfsup_cli.jobs.images import Images
from selfsup_cli.jobs.starting import load_start
from selfsup_cli.randomness import derive
from selfsup_cli.runs import atomic
from selfsup_cli.runs.run import Run


def judged(
    run: Run,
    preset: Classifying,
    part: Images,
    seed: int,
    hardware: Hardware,
    progress: Progress,
    stop: StopFlag | None,
) -> np.ndarray:
    """How suspicious each label is to a network that was trained, by plain SGD where the preset
    weights mini-batches, on the other `suspects.folds` − 1 parts: `[N]`.

    What the networks give is kept in the run part by part, so that a job that goes on trains only
    those that are not trained yet.
    """
    source = part.source
    given = np.asarray(source.labels)
    probabilities = np.zeros((len(given), len(source.classes or ())))
    for number, chosen in enumerate(_parts(source, given, preset.suspects.folds, seed), 1):
        path = run.path / "folds" / f"{number}.npy"
        if path.exists():
            probabilities[chosen] = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
            continue
        progress.update(f"confident learning: part {number} of {preset.suspects.folds}", force=True)
        found = _judge(preset, source, chosen, seed, run.name, hardware, progress, stop)
        probabilities[chosen] = found
        buffer = io.BytesIO()
        np.save(buffer, found, allow_pickle=False)
        path.parent.mkdir(exist_ok=True)
        atomic.write_bytes(path, buffer.getvalue())
    return confident_learning(probabilities, given)


def check(preset: Classifying, source: ImageSource) -> None:
    """Before hours of training: raise MachineError where cleanlab is not installed, InputError
    where the images have attributes or are too few to leave a part of them out."""
    confident_learning(np.full((2, 2), 0.5), np.arange(2))
    if source.attributes is not None:
        raise InputError(
            f"suspects.folds: images of {source.name} do not have one class each; leave out "
            "--suspect-folds",
            kind="labels",
        )
    parts, batch = preset.suspects.folds, preset.train.batch_size
    others = len(source) - -(-len(source) // parts)
    if others < batch:
        raise InputError(
            f"suspects.folds: without one of {parts} parts, {others} training images do not fill "
            f"one batch of {batch}; use more --suspect-folds, or --batch-size {max(others, 1)}",
            kind="batch-size",
        )


def _parts(source: ImageSource, given: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """Positions (ascending int64) of each part, of each given label as many as can be."""
    order = sorted(range(len(given)), key=lambda i: derive(seed, source.ids[i], "folds"))
    by_label = sorted(order, key=lambda i: int(given[i]))
    return [np.sort(np.array(by_label[number::folds], np.int64)) for number in range(folds)]


def _judge(
    preset: Classifying,
    source: ImageSource,
    chosen: np.ndarray,
    seed: int,
    name: str,
    hardware: Hardware,
    progress: Progress,
    stop: StopFlag | None,
) -> np.ndarray:
    optim = preset.optim
    if optim.name in WEIGHED:
        preset = preset.model_copy(update={"optim": optim.model_copy(update={"name": "sgd"})})
    start = load_start(preset, name, seed)
    others = source.subset(np.setdiff1d(np.arange(len(source)), chosen))
    task = create(preset, start.backbone, others, seed)
    workers = loader_workers(preset.machine.workers, preset.machine.devices)
    train = Train(**preset.train.model_dump(), seed=seed)
    loader = EpochLoader(
        task.samples(others),
        len(others),
        batch_size=train.batch_size,
        seed=seed,
        workers=workers,
        pin=hardware.device.type == "cuda",
        join=task.join,
    )
    Fit(task, loader, train, preset.optim, hardware, progress, stop=stop)()
    found = task.ask(source.subset(chosen), hardware, workers=workers)
    assert isinstance(found, Answers)  # noqa: S101 (labels are classes)
    return found.probabilities
