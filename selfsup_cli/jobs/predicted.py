"""Predictions as they are written and told."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.data.source import LeftOut
from selfsup_cli.errors import InputError
from selfsup_cli.runs import atomic

Answer = tuple[str, float]
"""A class or attribute and its probability (0 … 1)."""

Bad = Callable[[str, str], None]
"""Told of the id and the reason of what cannot be read."""

LISTED = 20
_CLASSES, _ATTRIBUTES = 3, 8


def target(path: Path, endings: Sequence[str], option: str, *, force: bool) -> Path:
    """A file that may be written. Raises InputError for another ending, no folder, or one that
    exists without `force`."""
    if path.suffix.lower() not in endings:
        known = " or ".join(endings)
        raise InputError(f"{option} {path}: give it a name that ends in {known}", kind="usage")
    if not path.absolute().parent.is_dir():
        raise InputError(
            f"{option} {path}: there is no folder {path.absolute().parent}", kind="usage"
        )
    if path.exists() and not force:
        raise InputError(f"{option} {path} exists; --force replaces it", kind="exists")
    return path


def make_folder(folder: Path) -> None:
    """Make the folder of `--pictures`. Raises InputError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--pictures {folder}: {error.strerror}", kind="usage") from error


def picture_names(ids: Sequence[str]) -> list[str]:
    """A file name for the picture of each id, with `_` for `/`; of equal ones, later are numbered.

    Names that differ in case alone count as equal, as they are one file on some systems.
    """
    taken: set[str] = set()
    names = []
    for identifier in ids:
        flat = identifier.replace("/", "_")
        name, number = f"{flat}.png", 1
        while name.casefold() in taken:
            number += 1
            name = f"{flat}-{number}.png"
        taken.add(name.casefold())
        names.append(name)
    return names


@dataclass(frozen=True)
class Prediction:
    """The classes, or attributes, of a video or image in falling order, or why there are none."""

    id: str
    ranked: tuple[Answer, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Predictions:
    """All predictions of a network: with `several`, each of `classes` is an attribute by itself."""

    rows: Sequence[Prediction]
    classes: Sequence[str]
    several: bool
    many: str

    @classmethod
    def of(
        cls,
        shares: np.ndarray,
        ids: Sequence[str],
        classes: Sequence[str],
        bad: Sequence[LeftOut],
        *,
        several: bool,
        many: str,
    ) -> Predictions:
        """The predictions for probabilities [N, C], by id; what was `bad` has none."""
        unread = {one.id for one in bad}
        rows = [Prediction(one.id, reason=one.reason) for one in bad]
        for identifier, own in zip(ids, shares, strict=True):
            if identifier not in unread:
                order = np.argsort(-own, kind="stable")
                ranked = tuple((classes[c], float(own[c])) for c in order)
                rows.append(Prediction(identifier, ranked))
        return cls(sorted(rows, key=lambda one: one.id), classes, several, many)

    def shown(self, one: Prediction) -> list[Answer]:
        """The answers that are told to a person: the likeliest classes, or attributes."""
        return list(one.ranked[: _ATTRIBUTES if self.several else _CLASSES])

    def as_data(self, one: Prediction, top: int) -> dict[str, Any]:
        """A prediction as JSON has it; of classes `top` are told."""
        if one.reason is not None:
            return {"id": one.id, "problem": one.reason}
        if self.several:
            scores = {name: round(share, 4) for name, share in one.ranked}
            return {
                "id": one.id,
                "has": [name for name, share in one.ranked if share >= 0.5],
                "scores": {name: scores[name] for name in self.classes},
            }
        best = one.ranked[:top]
        return {
            "id": one.id,
            "prediction": best[0][0],
            "confidence": round(best[0][1], 4),
            "top": {name: round(share, 4) for name, share in best},
        }

    def write(self, path: Path, name: str, top: int) -> None:
        """Write them as the ending says: .json, or else CSV."""
        if path.suffix.lower() == ".json":
            content = {
                "from": name,
                "attributes" if self.several else "classes": list(self.classes),
                "predictions": [self.as_data(one, top) for one in self.rows],
            }
            atomic.write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if self.several:
            writer.writerow(["id", "attribute", "score", "problem"])
            writer.writerows(row for one in self.rows for row in self._attributes(one))
        else:
            writer.writerow(["id", "prediction", "confidence", "problem"])
            for one in self.rows:
                best = one.ranked[0] if one.ranked else ("", None)
                sure = "" if best[1] is None else f"{best[1]:.4f}"
                writer.writerow([one.id, best[0], sure, one.reason or ""])
        atomic.write_text(path, text.getvalue())

    def _attributes(self, one: Prediction) -> list[list[str]]:
        """The rows of one image; of one that cannot be read a single one."""
        if one.reason is not None:
            return [[one.id, "", "", one.reason]]
        scores = dict(one.ranked)
        return [[one.id, name, f"{scores[name]:.4f}", ""] for name in self.classes]

    def said(self, bad: Sequence[LeftOut], target: Path) -> str:
        """The same for a terminal, the file last."""
        good = [one for one in self.rows if one.ranked]
        lines = [
            f"{one.id}: " + ", ".join(f"{name} {100 * s:.0f} %" for name, s in self.shown(one))
            for one in good[:LISTED]
        ]
        if len(good) > LISTED:
            lines.append(f"… and {len(good) - LISTED} more")
        lines += [f"cannot be read: {one.id}: {one.reason}" for one in bad]
        lines.append(f"{len(good)} {self.many} labelled, {len(bad)} not read")
        return "\n".join([*lines, str(target)])
