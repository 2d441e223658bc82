"""`selfsup predict` with a network of `transfer segment`: the class of every pixel of images."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.data.masks import Color
from selfsup_cli.data.source import ImageSource, LeftOut
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose, loader_workers, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.evaluation.segment import drawn, segmented, whole
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.predict_images import opened
from selfsup_cli.jobs.predicted import picture_names
from selfsup_cli.models.fcn import TrainedSegmenter
from selfsup_cli.runs import atomic
from selfsup_cli.visualization.masks import Legend, annotated_mask

log = logging.getLogger("selfsup")

MASKS, OVERLAYS = "masks", "overlays"

_SHORTER = 720
_LISTED = 20


def predict_masks(
    path: str,
    trained: TrainedSegmenter,
    name: str,
    *,
    target: Path,
    pictures: Path | None = None,
    top: int = 5,
    device: str = "auto",
    workers: int | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Segment the image `path`, or all of a folder or dataset.

    Writes `target` (.csv or .json) with the share of pixels of each class, and into the folder
    `pictures` (by default one named as `target`, without its ending) `masks`, PNG files whose
    numbers and colours are those of the masks that the network learned from, and `overlays`, the
    same drawn over the images. What cannot be read is named with its reason. Raises InputError and
    MachineError.
    """
    folder = pictures or target.with_suffix("")
    _check(folder, force=force)
    hardware = choose(device)
    tune_allocator()
    facts = trained.facts
    label_of = tuple(int(label) for label in facts["labels"])
    palette = tuple(_color(color) for color in facts["palette"])
    legend = Legend(trained.classes, [palette[label] for label in label_of])
    network = trained.network.eval().to(hardware.device)
    with signals.catching() as stop, Progress(quiet=quiet) as progress:
        source = opened(path, loader_workers("auto" if workers is None else workers, 1), progress)
        _make(folder)
        names = picture_names(source.ids)
        bad = [LeftOut(one.id, one.reason) for one in source.left_out]
        shares: dict[str, np.ndarray] = {}
        told = progress.counting("images")
        for place, identifier in enumerate(source.ids):
            if stop:
                raise stop.stopped(f"the masks of {place} images")
            try:
                image = source.read(place, lambda h, w: whole(facts["shorter"], h, w))
                shown = source.read(place, min(_SHORTER, int(source.sizes[place].min())))
            except BadMediaError as error:
                bad.append(LeftOut(identifier, error.reason))
                log.warning("cannot read %s: %s", identifier, error.reason)
                continue
            height, width = (int(side) for side in source.sizes[place])
            found = segmented(network, image, (height, width), hardware).cpu()
            counts = np.bincount(found.numpy().ravel(), minlength=len(trained.classes))
            shares[identifier] = counts / counts.sum()
            mask = drawn(found, label_of, palette)
            atomic.write_bytes(folder / MASKS / names[place], mask)
            annotated_mask(
                folder / OVERLAYS / names[place], shown, found.numpy(), legend, name=identifier
            )
            told(place + 1, len(source))
    _write(target, name, trained.classes, source, names, shares, bad)
    return Outcome(
        text=_said(trained.classes, shares, bad, folder, target, top),
        data={
            "from": name,
            "weights": trained.weights,
            "out": str(target),
            "folder": str(folder),
            "images": len(shares),
            "bad": [{"id": one.id, "reason": one.reason} for one in bad],
            "predictions": _rows(trained.classes, source, names, shares),
        },
    )


def _color(values: Sequence[int]) -> Color:
    red, green, blue = values
    return red, green, blue


def _check(folder: Path, *, force: bool) -> None:
    """Raise InputError where masks would come among other files, unless forced."""
    try:
        if folder.is_dir() and any(folder.iterdir()) and not force:
            raise InputError(
                f"the folder {folder}, where masks go, is not empty; --force writes into it, "
                "--pictures DIR names another one",
                kind="exists",
            )
    except OSError as error:
        raise InputError(f"the folder {folder}: {error.strerror}", kind="usage") from error


def _make(folder: Path) -> None:
    try:
        for name in (MASKS, OVERLAYS):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder}: {error.strerror}", kind="usage") from error


def _rows(
    classes: Sequence[str],
    source: ImageSource,
    names: Sequence[str],
    shares: dict[str, np.ndarray],
) -> list[dict[str, Any]]:
    """Of each image that could be read, its mask and the share (0 … 1) of each class in it."""
    return [
        {
            "id": identifier,
            "mask": f"{MASKS}/{name}",
            "shares": {
                label: round(float(share), 4)
                for label, share in zip(classes, shares[identifier], strict=True)
                if share
            },
        }
        for identifier, name in zip(source.ids, names, strict=True)
        if identifier in shares
    ]


def _write(
    target: Path,
    name: str,
    classes: Sequence[str],
    source: ImageSource,
    names: Sequence[str],
    shares: dict[str, np.ndarray],
    bad: Sequence[LeftOut],
) -> None:
    rows = _rows(classes, source, names, shares)
    if target.suffix.lower() == ".json":
        unread = [{"id": one.id, "problem": one.reason} for one in bad]
        content = {"from": name, "classes": list(classes), "predictions": [*rows, *unread]}
        atomic.write_text(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "mask", "class", "share", "problem"])
    for row in rows:
        for label, share in row["shares"].items():
            writer.writerow([row["id"], row["mask"], label, f"{share:.4f}", ""])
    for one in bad:
        writer.writerow([one.id, "", "", "", one.reason])
    atomic.write_text(target, text.getvalue())


def _said(
    classes: Sequence[str],
    shares: dict[str, np.ndarray],
    bad: Sequence[LeftOut],
    folder: Path,
    target: Path,
    top: int,
) -> str:
    """The same for a terminal, the file last."""
    lines = []
    for identifier, own in list(shares.items())[:_LISTED]:
        order = [c for c in np.argsort(-own, kind="stable")[:top] if own[c] > 0]
        said = ", ".join(f"{classes[c]} {100 * own[c]:.0f} %" for c in order)
        lines.append(f"{identifier}: {said}")
    if len(shares) > _LISTED:
        lines.append(f"… and {len(shares) - _LISTED} more")
    lines += [f"cannot be read: {one.id}: {one.reason}" for one in bad]
    lines.append(f"{len(shares)} images segmented, {len(bad)} not read")
    lines.append(f"masks and overlays: {folder}")
    return "\n".join([*lines, str(target)])
