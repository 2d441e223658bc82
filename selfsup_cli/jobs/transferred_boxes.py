"""What `selfsup transfer detect` leaves in its run besides numbers: boxes, drawn and listed."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from selfsup_cli.evaluation.detect_scores import FoundBoxes
from selfsup_cli.evaluation.detection import Detections, detected
from selfsup_cli.randomness import derive
from selfsup_cli.runs import atomic
from selfsup_cli.runs.report import Picture
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import bars, boxes

_SHOWN = 12
_LEAST = 0.05
_SHORTER = 240


def write_boxes(path: Path, found: FoundBoxes) -> None:
    """CSV with the columns id, class, score (0 … 1), left, top, right, bottom (pixels).

    In the order of the data, those of an image by falling score.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "class", "score", "left", "top", "right", "bottom"])
    for identifier, one in zip(found.source.ids, found.found, strict=True):
        for k in np.argsort(-one.scores, kind="stable"):
            edges = [f"{edge:.1f}" for edge in one.boxes[k].tolist()]
            writer.writerow(
                [identifier, found.classes[one.labels[k]], f"{one.scores[k]:.4f}", *edges]
            )
    atomic.write_text(path, text.getvalue())


def draw_boxes(run: Run, found: FoundBoxes, title: str) -> list[Picture]:
    """Some test images with their boxes, precision over recall, and the classes side by side."""
    source = found.source
    order = sorted(range(len(source)), key=lambda i: derive(0, source.ids[i], "shown"))
    chosen = sorted(order[:_SHOWN])
    shown = [_drawn(found, place) for place in chosen]
    which = "All" if len(chosen) == len(source) else f"{len(chosen)} of {len(source)}"
    note = (
        f"of each image two boxes more than it has objects, the surest, from a score of {_LEAST:g}"
    )
    boxes.sheet(run.picture("boxes.png"), shown, title=title, note=note)
    caption = f"{which} test images: objects dashed, what was found solid, with its score."
    pictures = [Picture(file="pictures/boxes.png", caption=caption)]
    per_class = found.per_class()
    known = {name: one for name, one in zip(found.classes, per_class, strict=True) if one.objects}
    curves = {name: (one.recall, one.precision) for name, one in known.items()}
    boxes.recall_curves(run.picture("recall.png"), curves, title=title)
    caption = "Precision over recall, at an overlap of one half."
    pictures.append(Picture(file="pictures/recall.png", caption=caption))
    if len(known) > 1:
        each = {name: one.average_precision() for name, one in known.items()}
        bars.attributes(run.picture("classes.png"), each, dict.fromkeys(each, 0.0), title=title)
        caption = "Average precision (area) of each class."
        pictures.append(Picture(file="pictures/classes.png", caption=caption))
    return pictures


def _drawn(found: FoundBoxes, place: int) -> boxes.Boxed:
    """An image with its objects and the surest of what was found."""
    source, truth, one = found.source, found.truth[place], found.found[place]
    image = source.read(place, min(_SHORTER, int(source.sizes[place].min())))
    height, width = source.sizes[place].tolist()
    most = len(truth.boxes) + 2
    best = [k for k in np.argsort(-one.scores, kind="stable")[:most] if one.scores[k] >= _LEAST]
    kept = Detections(one.boxes[best], one.scores[best], one.labels[best])
    right = _right(kept, found, place)

    def drawn(box: np.ndarray, label: int, score: float | None, hit: bool) -> boxes.Drawn:
        left, top, beyond, below = (box / [width, height, width, height]).tolist()
        return boxes.Drawn((left, top, beyond, below), found.classes[label], score, hit)

    return boxes.Boxed(
        image,
        source.ids[place],
        [
            drawn(box, int(label), None, False)
            for box, label in zip(truth.boxes, truth.labels, strict=True)
        ],
        [
            drawn(kept.boxes[k], int(kept.labels[k]), float(kept.scores[k]), bool(right[k]))
            for k in range(len(best))
        ],
    )


def _right(kept: Detections, found: FoundBoxes, place: int) -> np.ndarray:
    """Which detections are right, bool [D]; those of difficult objects are."""
    right = np.ones(len(kept.boxes), bool)
    for label, one in enumerate(detected([kept], [found.truth[place]], len(found.classes))):
        own = np.flatnonzero(kept.labels == label)
        if len(own) == len(one.right):
            right[own[np.argsort(-kept.scores[own], kind="stable")]] = one.right
    return right
