"""`selfsup predict`: what a transferred network takes videos or images for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from selfsup_cli.data.check_images import is_images
from selfsup_cli.data.source import LeftOut
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose, loader_workers, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.views import Crops
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.predict_clips import Clips
from selfsup_cli.jobs.predict_images import Pictures
from selfsup_cli.jobs.predicted import Predictions, picture_names
from selfsup_cli.jobs.subject import is_weights
from selfsup_cli.jobs.transferred import MODEL
from selfsup_cli.models.classifier import Trained, load_classifier
from selfsup_cli.runs.run import RunSummary, find_run, runs_dir

if TYPE_CHECKING:
    from selfsup_cli.config.registry import Kind

log = logging.getLogger("selfsup")

TASK: dict[Kind, str] = {"video": "action", "image": "classify"}
"""The task whose answers label a video, or an image."""

_FORMATS = (".csv", ".json")


def predict(
    path: str,
    subject: str = "latest",
    *,
    out: Path | None = None,
    pictures: Path | None = None,
    clips: int | None = None,
    crops: Crops | None = None,
    top: int = 5,
    device: str = "auto",
    workers: int | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Label the video or image `path`, or all of a folder or dataset, by a network of `transfer`.

    `clips` of each video, or `crops` of each image, are averaged (by default as many as when the
    network was tested). Writes `out` (.csv or .json) and, into the folder `pictures`, a picture of
    each. What cannot be read is named with its reason. Raises InputError and MachineError.
    """
    target = _target(out or Path("predictions.csv"), force=force)
    trained, name = load_subject(subject, "image" if is_images(path) else "video")
    asked = _asked(trained, name, clips, crops)
    hardware = choose(device)
    tune_allocator()
    if pictures is not None:
        _make(pictures)
    with signals.catching() as stop, Progress(quiet=quiet) as progress:
        loaders = loader_workers("auto" if workers is None else workers, 1)
        source = asked.open(path, loaders, progress)
        bad = [LeftOut(one.id, one.reason) for one in source.left_out]

        def note(identifier: str, reason: str) -> None:
            bad.append(LeftOut(identifier, reason))
            log.warning("cannot read %s: %s", identifier, reason)

        shares = asked.ask(hardware, loaders, note, progress)
        several = trained.clips.get("labels") == "attributes"
        found = Predictions.of(
            shares, source.ids, trained.classes, bad, several=several, many=asked.many
        )
        if stop:
            raise stop.stopped("nothing")
        found.write(target, name, top)
        if pictures is not None:
            rows = {one.id: one for one in found.rows}
            names = picture_names(source.ids)
            for position, identifier in enumerate(source.ids):
                if rows[identifier].ranked:
                    asked.draw(position, pictures / names[position], found.shown(rows[identifier]))
    return Outcome(
        text=found.said(bad, target),
        data={
            "from": name,
            "weights": trained.weights,
            "out": str(target),
            asked.many: len(found.rows) - len(bad),
            "bad": [{"id": one.id, "reason": one.reason} for one in bad],
            "predictions": [found.as_data(one, top) for one in found.rows],
        },
    )


def load_subject(subject: str, wanted: Kind) -> tuple[Trained, str]:
    """The network of a run of `transfer`, or of its `model.safetensors`, and its name.

    `latest` is the newest finished run whose answers label what is `wanted`.
    """
    path = Path(subject)
    if is_weights(path):
        name = path.stem
    else:
        tasks = [TASK[wanted]] if subject == "latest" else list(TASK.values())
        run = find_run(subject, runs_dir(), needs=lambda summary: _unfit(summary, tasks))
        path, name = run.path / MODEL, run.name
    trained = load_classifier(path)
    if trained.task not in TASK.values():
        raise InputError(
            f"{name} was transferred to {trained.task}, whose answers label no {wanted}; predict "
            f"needs a run of 'selfsup transfer {TASK[wanted]}' for {wanted}s",
            kind="run-unfit",
        )
    return trained, name


def _unfit(summary: RunSummary, tasks: list[str]) -> str | None:
    if summary.job not in [f"transfer/{task}" for task in tasks]:
        wanted = " or ".join(f"'selfsup transfer {task}'" for task in tasks)
        return f"it is no run of {wanted} but of {summary.job}"
    if not (summary.path / MODEL).is_file():
        return "it trained several times; name one of its runs"
    return None


def _asked(trained: Trained, name: str, clips: int | None, crops: Crops | None) -> Clips | Pictures:
    """How the network looks at what it eats. Raises InputError for an option of another kind."""
    if trained.task == TASK["image"]:
        if clips is not None:
            raise InputError(
                f"--clips is for videos, and {name} labels images: --test-crops center|ten says "
                "how these are looked at",
                kind="usage",
            )
        return Pictures(trained, crops)
    if crops is not None:
        raise InputError(
            f"--test-crops is for images, and {name} labels videos: --clips N says how these are "
            "looked at",
            kind="usage",
        )
    return Clips(trained, clips)


def _target(path: Path, *, force: bool) -> Path:
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"--out {path}: give it a name that ends in .csv or .json", kind="usage")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.absolute().parent}", kind="usage")
    if path.exists() and not force:
        raise InputError(f"--out {path} exists; --force replaces it", kind="exists")
    return path


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--pictures {folder}: {error.strerror}", kind="usage") from error
