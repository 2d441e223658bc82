"""Features with labels: drawn in shuffled batches, and divided by videos or images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.evaluation.features import Features
from selfsup_cli.randomness import derive, generator

# Rows of one layer are held in memory up to this size, and read from the cache as needed beyond it.
IN_MEMORY_BYTES = 1 << 30
_WINDOW_BYTES = 128 << 20
_RUN_ROWS = 256
_RECORDING = re.compile(r"(.*_g\d+)_c\d+(?:\.\w+)?", re.DOTALL)


@dataclass(frozen=True)
class Labelled:
    """Features with the class of each video or image: int64 [N], and the names of the classes.

    Where an image has several attributes, labels are uint8 [N, A] (1, 0, or `source.UNKNOWN`), and
    `classes` names the attributes.
    """

    features: Features
    labels: np.ndarray
    classes: tuple[str, ...]
    ids: Sequence[str]

    def row_labels(self) -> np.ndarray:
        """The class of each row (clip or view), int64 [R], or its attributes, uint8 [R, A]."""
        return np.take(self.labels, self.features.video, axis=0)

    def rows_of(self, videos: np.ndarray) -> np.ndarray:
        """The rows of these videos or images, ascending, int64."""
        chosen = np.zeros(len(self.labels), dtype=bool)
        chosen[videos] = True
        return np.flatnonzero(chosen[self.features.video])


class RowLoader:
    """Shuffled batches of labelled rows, in an order that is a function of (seed, epoch).

    Rows that fit into `IN_MEMORY_BYTES` are held; of more, runs of neighbouring rows are read in
    random order and shuffled inside a window, so that memory stays bounded.
    """

    def __init__(
        self,
        data: Labelled,
        layer: str,
        rows: np.ndarray,
        batch_size: int,
        seed: int,
        in_memory: int = IN_MEMORY_BYTES,
    ) -> None:
        self.data = data
        self.layer = layer
        self.rows = rows
        self.labels = torch.from_numpy(data.row_labels()[rows])
        self.batch_size = min(batch_size, len(rows))
        self.seed = seed
        row_bytes = 4 * data.features.dims[layer]
        self._held: Tensor | None = None
        self._run, window = 1, len(rows)
        if len(rows) * row_bytes <= in_memory:
            self._held = data.features.take(layer, rows)
        else:
            self._run, window = _RUN_ROWS, min(_WINDOW_BYTES, in_memory) // row_bytes
        self._window = max(1, -(-window // self.batch_size)) * self.batch_size

    def __len__(self) -> int:
        """Batches in an epoch; the incomplete last one is left out."""
        return len(self.rows) // self.batch_size

    def order(self, epoch: int) -> np.ndarray:
        """Positions in `rows` in the order of `epoch`, int64."""
        g = generator(self.seed, "probe", epoch, "order")
        if self._run == 1:
            return torch.randperm(len(self.rows), generator=g).numpy()
        runs = torch.split(torch.arange(len(self.rows)), self._run)
        order = torch.cat([runs[i] for i in torch.randperm(len(runs), generator=g).tolist()])
        windows = [w[torch.randperm(len(w), generator=g)] for w in torch.split(order, self._window)]
        return torch.cat(windows).numpy()

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, Any]]:
        """The batches of `epoch`: `feature` float32 [B, D], `label` and `index` int64 [B].

        Of attributes, `label` is uint8 [B, A].
        """
        order = self.order(epoch)[: len(self) * self.batch_size]
        for first in range(0, len(order), self._window):
            chosen = order[first : first + self._window]
            if first + len(chosen) <= start * self.batch_size:
                continue
            if self._held is not None:
                held, where = self._held, chosen
            else:
                ascending = np.sort(chosen)
                held = self.data.features.take(self.layer, self.rows[ascending])
                where = np.searchsorted(ascending, chosen)
            skip = max(0, start * self.batch_size - first)
            for at in range(skip, len(chosen), self.batch_size):
                index = torch.from_numpy(chosen[at : at + self.batch_size])
                rows = torch.from_numpy(where[at : at + self.batch_size])
                yield {"feature": held[rows], "label": self.labels[index], "index": index}


def hold_out(
    data: Labelled, share: float, seed: int, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Divide videos into (kept, held out), int64 each: about `share` of every class is held out.

    Only those `among` (int64, ascending; default: all) are divided. What has attributes instead of
    a class counts as one class. Chosen by a seeded hash of the id. Clips that were cut from one
    recording, as their names say in the manner of UCF101 (`…_g07_c02`), go together: near copies on
    both sides would choose a classifier that recognises recordings. A class keeps at least one
    video, and gives one if it has two.
    """
    everything = np.arange(len(data.labels)) if among is None else among
    labels = data.labels[everything]
    if labels.ndim == 2:
        labels = np.zeros(len(labels), np.int64)
    held: list[int] = []
    for c in range(len(data.classes)):
        own = everything[labels == c].tolist()
        groups: dict[str, list[int]] = {}
        for video in own:
            groups.setdefault(recording_of(data.ids[video]), []).append(video)
        if len(groups) == 1:
            groups = {data.ids[video]: [video] for video in own}
        order = sorted(groups, key=lambda name: derive(seed, name, "probe validation"))
        given = 0
        for name in order[:-1]:
            if given == 0 or given + len(groups[name]) / 2 <= share * len(own):
                held += groups[name]
                given += len(groups[name])
    kept = np.setdiff1d(everything, held)
    return kept, np.array(sorted(held), dtype=np.int64)


def recording_of(identifier: str) -> str:
    """`Walk/v_Walk_g07` for `Walk/v_Walk_g07_c02.avi`; an id that is not named so stays whole."""
    match = _RECORDING.fullmatch(identifier)
    return match[1] if match else identifier
