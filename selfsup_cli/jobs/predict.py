"""`selfsup predict`: what a transferred network takes videos or images for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup_cli.data.check_images import is_images
from selfsup_cli.data.source import LeftOut
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose, loader_workers, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.views import Crops
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.predict_boxes import predict_boxes
from selfsup_cli.jobs.predict_clips import Clips
from selfsup_cli.jobs.predict_images import Pictures
from selfsup_cli.jobs.predict_masks import predict_masks
from selfsup_cli.jobs.predicted import Predictions, make_folder, picture_names, target
from selfsup_cli.jobs.subject import is_weights
from selfsup_cli.jobs.transferred import MODEL
from selfsup_cli.models.classifier import Trained, load_classifier
from selfsup_cli.models.detector_weights import is_detector, load_detector
from selfsup_cli.models.fcn import is_segmenter, load_segmenter
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
    wanted = target(out or Path("predictions.csv"), _FORMATS, "--out", force=force)
    if (weights := _of_whole_images(subject)) is not None:
        _only_whole(clips, crops)
        name = Path(subject).stem if is_weights(Path(subject)) else weights.parent.name
        asked_for: dict[str, Any] = {
            "target": wanted,
            "pictures": pictures,
            "top": top,
            "device": device,
            "workers": workers,
            "quiet": quiet,
        }
        if is_detector(weights):
            return predict_boxes(path, load_detector(weights), name, **asked_for)
        return predict_masks(path, load_segmenter(weights), name, force=force, **asked_for)
    trained, name = load_subject(subject, "image" if is_images(path) else "video")
    asked = _asked(trained, name, clips, crops)
    hardware = choose(device)
    tune_allocator()
    if pictures is not None:
        make_folder(pictures)
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
        found.write(wanted, name, top)
        if pictures is not None:
            rows = {one.id: one for one in found.rows}
            names = picture_names(source.ids)
            for position, identifier in enumerate(source.ids):
                if rows[identifier].ranked:
                    asked.draw(position, pictures / names[position], found.shown(rows[identifier]))
    return Outcome(
        text=found.said(bad, wanted),
        data={
            "from": name,
            "weights": trained.weights,
            "out": str(wanted),
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


def _of_whole_images(subject: str) -> Path | None:
    """The weights that `subject` names, if they are those of a network that segments or detects."""
    path = Path(subject)
    if subject == "latest":
        return None
    if not is_weights(path):
        path = find_run(subject, runs_dir()).path / MODEL
    return path if is_segmenter(path) or is_detector(path) else None


def _only_whole(clips: int | None, crops: Crops | None) -> None:
    for flag, given in (("--clips", clips), ("--test-crops", crops)):
        if given is not None:
            raise InputError(
                f"{flag}: a network of 'selfsup transfer segment' or 'detect' looks at whole "
                "images; leave it out",
                kind="usage",
            )


def _unfit(summary: RunSummary, tasks: list[str]) -> str | None:
    known = [f"transfer/{task}" for task in tasks]
    if TASK["image"] in tasks:
        known.append("pretrain/bilevel")
    if summary.job not in known:
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
