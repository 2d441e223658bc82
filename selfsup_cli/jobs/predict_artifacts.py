"""`selfsup predict artifacts`: what of images looks damaged to a discriminator of chapter 3."""

from __future__ import annotations

import csv
import io
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup_cli.data.source import ImageSource, LeftOut
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose, loader_workers, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.evaluation.reading import Unreadable, read_items
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.damager import load_damager
from selfsup_cli.jobs.predict_images import opened
from selfsup_cli.jobs.predicted import LISTED, make_folder, picture_names, target
from selfsup_cli.methods.artifacts import Artifacts
from selfsup_cli.methods.artifacts_losses import CORRUPT
from selfsup_cli.models.alexnet_artifacts import Verdicts
from selfsup_cli.runs import atomic
from selfsup_cli.runs.atomic import file_sha256
from selfsup_cli.transforms.images import to_unit
from selfsup_cli.visualization import suspicion

log = logging.getLogger("selfsup")

THRESHOLD = 0.5
_TOGETHER = 64
# Squares begin a half of their side apart, or less.
_OVERLAP = 2
_SHORTER = 480
_MAPS = (".npz", ".h5")
_HEAD = ("id", "score", "highest", "area", "top", "left", "problem")


@dataclass(frozen=True)
class Suspected:
    """What of an image looks damaged: how likely the whole does, `score`, on average over squares
    that cover it, and `likely`, each pixel, float32 [H, W] at the scale that was looked at; 0 … 1.

    `size` is the image's own (height, width).
    """

    score: float
    likely: np.ndarray
    size: tuple[int, int]

    def area(self, threshold: float) -> float:
        """The share of the image that looks damaged."""
        return float((self.likely >= threshold).mean())

    @property
    def worst(self) -> tuple[int, int]:
        """The pixel (row, column) of the image itself in the middle of what looks worst."""
        hot = np.argwhere(self.likely >= self.likely.max() - 1e-6)
        row = hot[len(hot) // 2, 0]
        along = hot[hot[:, 0] == row]
        middle = (along[len(along) // 2] + 0.5) / self.likely.shape * self.size
        return int(middle[0]), int(middle[1])


def artifacts(
    path: str,
    subject: str = "latest",
    *,
    out: Path | None = None,
    pictures: Path | None = None,
    maps: Path | None = None,
    threshold: float = THRESHOLD,
    replicate: bool | None = None,
    device: str = "auto",
    workers: int | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Say of an image, or all of a folder or data set, what looks damaged to a run's discriminator.

    Writes a CSV with a row for each image and, into the folder `pictures`, a picture of each;
    `maps` (.npz, .h5) holds how likely each pixel is damaged. Images go through the autoencoder
    first, with `replicate` or where the discriminator has only seen such. What cannot be read is
    named with its reason. Raises InputError and MachineError.
    """
    wanted = target(out or Path("artifacts.csv"), (".csv",), "--out", force=force)
    if maps is not None:
        target(maps, _MAPS, "--maps", force=force)
    if not 0 < threshold < 1:
        raise InputError(f"--threshold {threshold:g} is not between 0 and 1", kind="usage")
    damager = load_damager(subject)
    method = damager.method
    if not method.preset.locate:
        raise InputError(
            f"{damager.run.name} was trained without saying where the damage is (locate: false), "
            "and draws no map",
            kind="run-unfit",
        )
    if replicate is None:
        replicate = method.preset.real == "replicas"
    hardware = choose(device)
    tune_allocator()
    method.to(hardware.device).eval()
    if pictures is not None:
        make_folder(pictures)
    with signals.catching() as stop, Progress(quiet=quiet) as progress:
        loaders = loader_workers("auto" if workers is None else workers, 1)
        source = opened(path, loaders, progress)
        bad = [LeftOut(one.id, one.reason) for one in source.left_out]

        def note(identifier: str, reason: str) -> None:
            bad.append(LeftOut(identifier, reason))
            log.warning("cannot read %s: %s", identifier, reason)

        files = _Whole(source, damager.shorter)
        names = picture_names(source.ids)
        counter = progress.counting("images")
        found: dict[str, dict[str, Any]] = {}
        kept = None if maps is None else _Maps(maps)
        for item in read_items(files, source, range(len(source)), loaders, note):
            if stop:
                raise stop.stopped("nothing")
            high, wide = (int(side) for side in source.sizes[item.position])
            image = item.image.to(hardware.device)
            one = look(method, image, (high, wide), replicate=replicate)
            name = source.ids[item.position]
            # Of the maps nothing is kept that was not asked for: there may be very many.
            found[name] = _as_data(name, one, threshold)
            if pictures is not None:
                said = _said(found[name], threshold)
                shown = source.read(item.position, min(high, wide, _SHORTER))
                likely = torch.from_numpy(one.likely)[None, None]
                likely = F.interpolate(likely, shown.shape[1:], mode="nearest")[0, 0]
                suspicion.sheet(
                    pictures / names[item.position], shown, likely, name=name, said=said
                )
            if kept is not None:
                kept.add(name, one.likely)
            counter(item.position + 1, len(source))
        atomic.write_text(wanted, _table(found, bad))
        if kept is not None:
            kept.save()
    return Outcome(
        text=_told(found, bad, threshold, wanted),
        data={
            "from": damager.run.name,
            "weights": file_sha256(damager.run.path / "backbone.safetensors"),
            "out": str(wanted),
            "replicated": replicate,
            "threshold": threshold,
            "images": len(found),
            "bad": [{"id": one.id, "reason": one.reason} for one in bad],
            "suspicions": list(found.values()),
        },
    )


# Looking


@dataclass(frozen=True)
class _Read:
    position: int
    image: Tensor

    def inputs(self, device: torch.device) -> list[Tensor]:
        return [self.image.to(device)]


class _Whole(torch.utils.data.Dataset["_Read | Unreadable"]):
    """Images with their shorter side scaled to that at which the network is tested."""

    def __init__(self, source: ImageSource, shorter: int) -> None:
        self.source = source
        self.shorter = shorter

    def __getitem__(self, position: int) -> _Read | Unreadable:
        try:
            return _Read(position, self.source.read(position, self.shorter))
        except BadMediaError as error:
            return Unreadable(position, error.reason)


@torch.no_grad()
def look(method: Artifacts, image: Tensor, size: tuple[int, int], *, replicate: bool) -> Suspected:
    """Look at an image uint8 `[3, H, W]`, which was of another `size`, through squares of the side
    that the discriminator takes. They cover it and overlap by half or more; what several say of a
    pixel is averaged."""
    side = method.preset.framing.sides()[0]
    height, width = image.shape[1:]
    corners = [(y, x) for y in starts(height, side) for x in starts(width, side)]
    total = torch.zeros(height, width, dtype=torch.float64)
    count = torch.zeros_like(total)
    shares: list[Tensor] = []
    for first in range(0, len(corners), _TOGETHER):
        part = corners[first : first + _TOGETHER]
        squares = to_unit(torch.stack([image[:, y : y + side, x : x + side] for y, x in part]))
        if replicate:
            squares = method.replicator(squares)
        verdicts: Verdicts = method.plain(squares)
        assert verdicts.masks is not None  # noqa: S101 (it locates)
        shares.append(verdicts.classes.float().softmax(1)[:, CORRUPT].cpu())
        likely = F.interpolate((-verdicts.masks.float()).sigmoid(), (side, side), mode="nearest")
        for (y, x), one in zip(part, likely[:, 0].double().cpu(), strict=True):
            total[y : y + side, x : x + side] += one
            count[y : y + side, x : x + side] += 1
    return Suspected(float(torch.cat(shares).mean()), (total / count).float().numpy(), size)


def starts(length: int, side: int) -> list[int]:
    """Where squares of `side` begin that cover `length` pixels: at most half of `side` apart.

    Raises ValueError where there is no room for one.
    """
    room = length - side
    if room < 0:
        raise ValueError(f"{length} pixels hold no square of {side}")
    if not room:
        return [0]
    steps = -(-_OVERLAP * room // side)
    return [round(k * room / steps) for k in range(steps + 1)]


# Telling


def _said(told: Mapping[str, Any], threshold: float) -> str:
    return (
        f"looks damaged: {100 * told['score']:.0f} %; {100 * told['area']:.0f} % of it above "
        f"{threshold:g}"
    )


def _as_data(name: str, one: Suspected, threshold: float) -> dict[str, Any]:
    row, column = one.worst
    return {
        "id": name,
        "score": round(one.score, 4),
        "highest": round(float(one.likely.max()), 4),
        "area": round(one.area(threshold), 4),
        "worst": [row, column],
    }


def _table(found: Mapping[str, Mapping[str, Any]], bad: Sequence[LeftOut]) -> str:
    rows: list[list[Any]] = [[one.id, "", "", "", "", "", one.reason] for one in bad]
    for name, told in found.items():
        scores = [told[key] for key in ("score", "highest", "area")]
        rows.append([name, *scores, *told["worst"], ""])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEAD)
    rows.sort(key=lambda row: str(row[0]))
    writer.writerows(rows)
    return text.getvalue()


def _told(
    found: Mapping[str, Mapping[str, Any]],
    bad: Sequence[LeftOut],
    threshold: float,
    where: Path,
) -> str:
    order = sorted(found, key=lambda name: -found[name]["score"])
    told = [f"{name}: {_said(found[name], threshold)}" for name in order[:LISTED]]
    if len(order) > LISTED:
        told.append(f"… and {len(order) - LISTED} more")
    told += [f"cannot be read: {one.id}: {one.reason}" for one in bad]
    told.append(f"{len(found)} images looked at, {len(bad)} not read")
    return "\n".join([*told, str(where)])


class _Maps:
    """Maps by the ids of their images, gathered in a file without a name: there may be many."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids: list[str] = []
        try:
            self._file = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 (until it is saved)
        except OSError as error:
            raise atomic.cannot_write(path, error) from error
        self._open: zipfile.ZipFile | h5py.File
        if path.suffix.lower() == ".npz":
            self._open = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED)
        else:
            self._open = h5py.File(self._file, "w")

    def add(self, name: str, likely: np.ndarray) -> None:
        """Keep the map of an image, float16. Raises MachineError where the disk takes no more."""
        number = f"{len(self._ids):06d}"
        self._ids.append(name)
        half = likely.astype(np.float16)
        try:
            if isinstance(self._open, zipfile.ZipFile):
                self._member(self._open, f"map_{number}", half)
            else:
                self._open.create_dataset(f"maps/{number}", data=half, compression="gzip")
        except OSError as error:
            raise atomic.cannot_write(self._path, error) from error

    def save(self) -> None:
        """Write the file. Raises MachineError and InputError."""
        try:
            if isinstance(self._open, zipfile.ZipFile):
                self._member(self._open, "ids", np.array(self._ids, dtype=np.str_))
            else:
                self._open.create_dataset("ids", data=[name.encode() for name in self._ids])
            self._open.close()
        except OSError as error:
            raise atomic.cannot_write(self._path, error) from error
        self._file.seek(0)
        with atomic.writing(self._path) as file:
            shutil.copyfileobj(self._file, file, 1 << 20)

    @staticmethod
    def _member(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
