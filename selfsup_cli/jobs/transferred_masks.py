"""What a transfer to segmentation leaves in its run: masks, their scores, and pictures of them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from selfsup_cli.data.masked_images import MaskedImages
from selfsup_cli.data.masks import VOID, decode_mask
from selfsup_cli.evaluation.segment_scores import Segmentations
from selfsup_cli.jobs.predicted import picture_names
from selfsup_cli.randomness import derive
from selfsup_cli.runs import atomic
from selfsup_cli.runs.report import Finding, Picture
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import confusion
from selfsup_cli.visualization.masks import Legend, Shown, mask_sheet

FOLDER = "predictions"

_ROWS = 6
_SHORTER = 360
_MOST_CLASSES = 40


def write(path: Path, found: Segmentations) -> None:
    """CSV with the columns id, mask, pixels, accuracy, mean_iou (0 … 1), in the order of the data.

    The masks themselves go into the folder `predictions` beside it, as PNG files with the labels
    and colours of the data's own.
    """
    names = picture_names(found.ids)
    folder = path.parent / FOLDER
    folder.mkdir(exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "mask", "pixels", "accuracy", "mean_iou"])
    for identifier, name, mask, own in zip(
        found.ids, names, found.masks, found.each(), strict=True
    ):
        atomic.write_bytes(folder / name, mask)
        scores = [f"{own.accuracy:.4f}", f"{own.mean_iou:.4f}"] if own.pixels else ["", ""]
        writer.writerow([identifier, f"{FOLDER}/{name}", own.pixels, *scores])
    atomic.write_text(path, text.getvalue())


def draw(run: Run, found: Segmentations, title: str) -> list[Picture]:
    """Some test images with their masks, true and found; which class was taken for which."""
    source = found.source
    legend = Legend(found.classes, [source.palette[label] for label in source.label_of])
    class_of = np.full(256, VOID, np.uint8)
    class_of[list(source.label_of)] = np.arange(len(source.label_of))
    order = sorted(range(len(source)), key=lambda i: derive(0, source.ids[i], "shown"))
    each = list(found.each())
    rows = []
    for i in sorted(order[:_ROWS]):
        shorter = min(_SHORTER, int(source.sizes[i].min()))
        said = f"{100 * each[i].accuracy:.1f} % of the pixels right" if each[i].pixels else ""
        masks = [source.mask(i).numpy(), class_of[decode_mask(found.masks[i])]]
        rows.append(Shown(source.ids[i], source.read(i, shorter), masks, said))
    note = f"{len(rows)} of {len(source)} test images, chosen by a hash of their names"
    columns = ("image", "truth", "found")
    mask_sheet(run.picture("masks.png"), rows, columns, legend, title=title, note=note)
    caption = "Test images, their true masks, and what was found. Unpainted pixels do not count."
    pictures = [Picture(file="pictures/masks.png", caption=caption)]
    if len(found.classes) <= _MOST_CLASSES:
        counts = found.together.confusion
        total = np.maximum(counts.sum(1, keepdims=True), 1)
        shares = np.rint(100 * counts / total).astype(np.int64)
        confusion.matrix(run.picture("confusion.png"), shares, found.classes, title=title)
        caption = "Which class pixels were taken for, in % of those of the true class."
        pictures.append(Picture(file="pictures/confusion.png", caption=caption))
    return pictures


def notes(learned: MaskedImages, source: MaskedImages) -> list[Finding]:
    """Classes that the numbers cannot say much of, and what the data says of itself."""
    classes = source.classes or ()
    trained, tested = (np.asarray(one.present.any(0)) for one in (learned, source))
    texts = [f"{source.name}: {note}" for note in source.notes]
    told = (
        (~trained & tested, "in no training mask, and so never found: 0 in the mean"),
        (trained & ~tested, "in no test mask: counted only if found somewhere, as 0 in the mean"),
        (~trained & ~tested, "in no mask, and left out"),
    )
    for chosen, said in told:
        names = [name for name, is_so in zip(classes, chosen, strict=True) if is_so]
        if names:
            texts.append(f"{source.name}: {_listed(names)}: {said}")
    return [Finding(text=text, verdict="note") for text in texts]


def _listed(names: list[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    plural = "classes" if len(names) > 1 else "the class"
    return f"{plural} {', '.join(names[:most])}{more}"
