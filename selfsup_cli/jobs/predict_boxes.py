"""`selfsup predict` with a network of `transfer detect`: the objects in images."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.data.proposals import SelectiveSearch, opencv
from selfsup_cli.data.source import LeftOut
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose, loader_workers, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import BadMediaError
from selfsup_cli.evaluation.detect import found_in
from selfsup_cli.evaluation.detect_images import Scaling
from selfsup_cli.evaluation.detection import Detections
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.predict_images import opened
from selfsup_cli.jobs.predicted import make_folder, picture_names
from selfsup_cli.models.detector_weights import TrainedDetector
from selfsup_cli.runs import atomic
from selfsup_cli.visualization.boxes import Drawn, annotated

log = logging.getLogger("selfsup")

_LISTED = 20
_SHORTER = 720
_SURE = 0.5


def predict_boxes(
    path: str,
    trained: TrainedDetector,
    name: str,
    *,
    target: Path,
    pictures: Path | None = None,
    top: int = 5,
    device: str = "auto",
    workers: int | None = None,
    quiet: bool = False,
) -> Outcome:
    """Find objects in the image `path`, or in all of a folder or dataset.

    Writes `target` (.csv or .json) with all boxes that were found, and into the folder `pictures`
    the images with those whose score is ½ or more, at most `top` of each. Fast R-CNN is given what
    selective search finds. What cannot be read is named with its reason. Raises InputError and
    MachineError.
    """
    hardware = choose(device)
    tune_allocator()
    search = None
    if trained.network.rpn is None:
        opencv()
        search = SelectiveSearch(**trained.images["search"])
    if pictures is not None:
        make_folder(pictures)
    scaling = Scaling(**trained.images["scaling"])
    network = trained.network.eval().to(hardware.device)
    found: dict[str, Detections] = {}
    with signals.catching() as stop, Progress(quiet=quiet) as progress:
        source = opened(path, loader_workers("auto" if workers is None else workers, 1), progress)
        bad = [LeftOut(one.id, one.reason) for one in source.left_out]
        names = picture_names(source.ids)
        told = progress.counting("images")
        for place, identifier in enumerate(source.ids):
            if stop:
                raise stop.stopped("nothing")
            was = source.sizes[place].tolist()
            try:
                image = source.read(place, scaling.region)
                regions = None if search is None else search(source.read(place))
            except BadMediaError as error:
                bad.append(LeftOut(identifier, error.reason))
                log.warning("cannot read %s: %s", identifier, error.reason)
                continue
            one = found_in(network, image, was, regions, scaling.fixed, hardware)
            found[identifier] = one
            if pictures is not None:
                shown = source.read(place, min(_SHORTER, *was))
                annotated(pictures / names[place], shown, _drawn(one, was, trained.classes, top))
            told(place + 1, len(source))
    rows = [_as_data(identifier, one, trained.classes) for identifier, one in found.items()]
    _write(target, name, trained.classes, rows, bad)
    return Outcome(
        text=_said(rows, bad, target, top),
        data={
            "from": name,
            "weights": trained.weights,
            "out": str(target),
            "images": len(found),
            "bad": [{"id": one.id, "reason": one.reason} for one in bad],
            "predictions": rows,
        },
    )


def _drawn(one: Detections, was: Sequence[int], classes: Sequence[str], top: int) -> list[Drawn]:
    """The surest boxes, in shares of the image."""
    sure = [k for k in np.argsort(-one.scores, kind="stable")[:top] if one.scores[k] >= _SURE]
    out = []
    for k in sure:
        left, upper, right, lower = (one.boxes[k] / [was[1], was[0], was[1], was[0]]).tolist()
        corners = (left, upper, right, lower)
        out.append(Drawn(corners, classes[one.labels[k]], float(one.scores[k]), right=True))
    return out


def _as_data(identifier: str, one: Detections, classes: Sequence[str]) -> dict[str, Any]:
    """What was found in an image, the surest first, as JSON has it."""
    return {
        "id": identifier,
        "boxes": [
            {
                "class": classes[one.labels[k]],
                "score": round(float(one.scores[k]), 4),
                "box": [round(float(edge), 1) for edge in one.boxes[k]],
            }
            for k in np.argsort(-one.scores, kind="stable")
        ],
    }


def _write(
    target: Path,
    name: str,
    classes: Sequence[str],
    rows: Sequence[dict[str, Any]],
    bad: Sequence[LeftOut],
) -> None:
    if target.suffix.lower() == ".json":
        unread = [{"id": one.id, "problem": one.reason} for one in bad]
        content = {"from": name, "classes": list(classes), "predictions": [*rows, *unread]}
        atomic.write_text(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "class", "score", "left", "top", "right", "bottom", "problem"])
    for row in rows:
        for box in row["boxes"]:
            writer.writerow([row["id"], box["class"], f"{box['score']:.4f}", *box["box"], ""])
    for one in bad:
        writer.writerow([one.id, "", "", "", "", "", "", one.reason])
    atomic.write_text(target, text.getvalue())


def _said(rows: Sequence[dict[str, Any]], bad: Sequence[LeftOut], target: Path, top: int) -> str:
    """The same for a terminal, the file last."""
    lines = []
    for row in rows[:_LISTED]:
        sure = [f"{b['class']} {100 * b['score']:.0f} %" for b in row["boxes"][:top]]
        lines.append(f"{row['id']}: {', '.join(sure) or 'nothing'}")
    if len(rows) > _LISTED:
        lines.append(f"… and {len(rows) - _LISTED} more")
    lines += [f"cannot be read: {one.id}: {one.reason}" for one in bad]
    lines.append(f"{len(rows)} images looked at, {len(bad)} not read")
    return "\n".join([*lines, str(target)])
