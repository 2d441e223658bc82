"""`selfsup predict`: what a transferred network takes videos for."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.config.transfer import ActionClips
from selfsup_cli.data.files import open_listing
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.listing import SUFFIXES, Listing
from selfsup_cli.data.source import ClipSource, LeftOut, open_source
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import Hardware, choose, loader_workers, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.clips import ClipProtocol, ProtocolPlan, in_batches, read_videos
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.subject import is_weights
from selfsup_cli.jobs.transferred import MODEL
from selfsup_cli.models.classifier import Trained, load_classifier
from selfsup_cli.runs import atomic
from selfsup_cli.runs.run import RunSummary, find_run, runs_dir
from selfsup_cli.transforms import clips as pixels
from selfsup_cli.visualization import predictions

log = logging.getLogger("selfsup")

_BATCH = 32
_SHOWN = 4
_CLASSES = 3
_FORMATS = (".csv", ".json")


@dataclass(frozen=True)
class Prediction:
    """A video's classes in falling order of probability (0 … 1), or why there are none."""

    id: str
    ranked: tuple[tuple[str, float], ...] = ()
    reason: str | None = None


def predict(
    path: str,
    subject: str = "latest",
    *,
    out: Path | None = None,
    pictures: Path | None = None,
    clips: int | None = None,
    top: int = 5,
    device: str = "auto",
    workers: int | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Label the video `path`, or all videos of a folder or dataset, with a network of `transfer`.

    `clips` of each video are averaged (by default as many as when the network was tested).
    Writes `out` (.csv or .json) and, into the folder `pictures`, a picture of every video.
    What cannot be read is named with its reason. Raises InputError and MachineError.
    """
    target = _target(out or Path("predictions.csv"), force=force)
    trained, name = load_subject(subject)
    hardware = choose(device)
    tune_allocator()
    taken = ActionClips.model_validate({k: trained.clips[k] for k in ("max_skip", "test")})
    count = clips if clips is not None else (None if taken.test == "all" else taken.test)
    if pictures is not None:
        _make(pictures)
    with signals.catching() as stop, Progress(quiet=quiet) as progress:
        loaders = loader_workers("auto" if workers is None else workers, 1)
        source = _open(path, loaders, progress)
        plan = ProtocolPlan(
            source, ClipProtocol(trained.network.backbone.input.frames, taken.max_skip, count)
        )
        told = progress.counting("videos")
        bad = [LeftOut(one.id, one.reason) for one in source.left_out]
        found = _sums(trained, source, plan, hardware, loaders, bad, lambda n: told(n, len(source)))
        rows = _ranked(found, source.ids, trained.classes, bad)
        if stop:
            raise stop.stopped("nothing")
        _write(target, rows, trained.classes, name, top)
        if pictures is not None:
            _draw(pictures, source, rows)
    return Outcome(
        text=_said(rows, bad, target, top),
        data={
            "from": name,
            "weights": trained.weights,
            "out": str(target),
            "videos": len(rows) - len(bad),
            "bad": [{"id": one.id, "reason": one.reason} for one in bad],
            "predictions": [_as_data(one, top) for one in rows],
        },
    )


def load_subject(subject: str) -> tuple[Trained, str]:
    """The network of a run of `transfer action`, or of its `model.safetensors`, and its name."""
    path = Path(subject)
    if is_weights(path):
        name = path.stem
    else:
        run = find_run(subject, runs_dir(), needs=_unfit)
        path, name = run.path / MODEL, run.name
    trained = load_classifier(path)
    if trained.task != "action":
        raise InputError(
            f"{name} was transferred to {trained.task}, whose answers label no video; predict "
            "needs a run of 'selfsup transfer action'",
            kind="run-unfit",
        )
    return trained, name


def _unfit(summary: RunSummary) -> str | None:
    if summary.job != "transfer/action":
        return f"it is no run of 'selfsup transfer action' but of {summary.job}"
    if not (summary.path / MODEL).is_file():
        return "it trained several times; name one of its runs"
    return None


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


def _open(path: str, workers: int, progress: Progress) -> ClipSource:
    counting = progress.counting("looking at files")
    file = Path(path).expanduser()
    data = VideoData(source=path)
    if file.is_file() and file.suffix.lower() in SUFFIXES:
        listing = Listing(file.name, file.absolute().parent, PackedIds([file.name]), "one file")
        return open_listing(listing, data, "all", workers=0, progress=counting)
    return open_source(data, "all", labels=False, workers=workers, progress=counting)


@torch.no_grad()
def _sums(
    trained: Trained,
    source: ClipSource,
    plan: ProtocolPlan,
    hardware: Hardware,
    workers: int,
    bad: list[LeftOut],
    told: Any,
) -> np.ndarray:
    """Softmax outputs summed over the clips of each video, float64 [N, C]; 0 for unreadable."""
    network = trained.network.eval().to(hardware.device)
    size = (int(trained.clips["resize"][0]), int(trained.clips["resize"][1]))
    crop = int(trained.clips["crop"])

    def note(identifier: str, reason: str) -> None:
        bad.append(LeftOut(identifier, reason))
        log.warning("cannot read %s: %s", identifier, reason)

    sums = np.zeros((len(source), len(trained.classes)))
    decoded = read_videos(source, range(len(source)), plan, size, workers, bad=note)
    for clips, owners in in_batches(decoded, _BATCH, hardware.device):
        with hardware.autocast():
            logits: Tensor = network(pixels.center(clips, crop))
        np.add.at(sums, owners, logits.softmax(1).double().cpu().numpy())
        told(owners[-1] + 1)
    return sums


def _ranked(
    sums: np.ndarray, ids: Sequence[str], classes: Sequence[str], bad: Sequence[LeftOut]
) -> list[Prediction]:
    reasons = {one.id: one.reason for one in bad}
    rows = [Prediction(one.id, reason=one.reason) for one in bad]
    for identifier, own in zip(ids, sums, strict=True):
        if identifier not in reasons:
            shares = own / own.sum()
            order = np.argsort(-shares, kind="stable")
            ranked = tuple((classes[c], float(shares[c])) for c in order)
            rows.append(Prediction(identifier, ranked))
    return sorted(rows, key=lambda one: one.id)


def _write(
    path: Path, rows: Sequence[Prediction], classes: Sequence[str], name: str, top: int
) -> None:
    if path.suffix.lower() == ".json":
        content = {
            "from": name,
            "classes": list(classes),
            "predictions": [_as_data(one, top) for one in rows],
        }
        atomic.write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "prediction", "confidence", "problem"])
    for one in rows:
        best = one.ranked[0] if one.ranked else ("", None)
        sure = "" if best[1] is None else f"{best[1]:.4f}"
        writer.writerow([one.id, best[0], sure, one.reason or ""])
    atomic.write_text(path, text.getvalue())


def _as_data(one: Prediction, top: int) -> dict[str, Any]:
    if one.reason is not None:
        return {"id": one.id, "problem": one.reason}
    best = one.ranked[:top]
    return {
        "id": one.id,
        "prediction": best[0][0],
        "confidence": round(best[0][1], 4),
        "top": {name: round(share, 4) for name, share in best},
    }


def _said(rows: Sequence[Prediction], bad: Sequence[LeftOut], target: Path, top: int) -> str:
    good = [one for one in rows if one.ranked]
    lines = [
        f"{one.id}: " + ", ".join(f"{name} {100 * s:.0f} %" for name, s in one.ranked[:_CLASSES])
        for one in good[:20]
    ]
    if len(good) > 20:
        lines.append(f"… and {len(good) - 20} more")
    lines += [f"cannot be read: {one.id}: {one.reason}" for one in bad]
    lines.append(f"{len(good)} videos labelled, {len(bad)} not read")
    return "\n".join([*lines, str(target)])


def _draw(folder: Path, source: ClipSource, rows: Sequence[Prediction]) -> None:
    found = {one.id: one for one in rows}
    for video, identifier in enumerate(source.ids):
        one = found[identifier]
        if not one.ranked:
            continue
        n = int(source.num_frames[video])
        numbers = np.unique(np.linspace(0, n - 1, _SHOWN + 2)[1:-1].round().astype(np.int64))
        frames = source.read(video, numbers, None)
        name = identifier.replace("/", "_") + ".png"
        predictions.annotated(
            folder / name, frames, numbers.tolist(), one.ranked[:_CLASSES], name=identifier
        )
