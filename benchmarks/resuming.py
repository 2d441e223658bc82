"""What it costs to go to a position in the middle of an epoch."""

from __future__ import annotations

import statistics
import time
from typing import Any

import measure
import torch
from torch.utils.data import Dataset

from selfsup_cli.data.loader import EpochLoader

SAMPLES, BATCH, ROUNDS = 240_000, 32, 7
GOAL = "≤ 0.1 s"
LIMITS: dict[str, str] = {}


class Nothing(Dataset[dict[str, Any]]):
    """As many samples as Kinetics has, which take a millisecond each to make."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        time.sleep(0.001)
        return {"clip": torch.zeros(1), "index": torch.tensor(key[1]), "bad": []}


def rows() -> list[measure.Row]:
    """Seconds to the first batch from the middle of an epoch, less those from its beginning."""
    found = []
    for workers in (0, 2):
        loader = EpochLoader(Nothing(), SAMPLES, batch_size=BATCH, seed=0, workers=workers)
        places = {"begin": 0, "middle": len(loader) // 2}
        spent: dict[str, list[float]] = {name: [] for name in places}
        for number in range(-1, ROUNDS):
            for name, place in places.items():
                start = time.perf_counter()
                batches = loader.epoch(0, place)
                next(batches)
                seconds = time.perf_counter() - start
                batches.close()
                if number >= 0:
                    spent[name].append(seconds)
        extra = statistics.median(spent["middle"]) - statistics.median(spent["begin"])
        name = f"seconds to batch {places['middle']} of an epoch, {workers} workers"
        found.append((name, "batch 0", max(extra, 0.0), GOAL))
    return found


if __name__ == "__main__":
    measure.main(rows, LIMITS)
