"""How long training stands still for a checkpoint of 400 MB, against `torch.save` in its place."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time

import measure
import torch
from torch import nn
from toy import OPTIM, Classifier, Timed, open_run

from selfsup_cli.config.blocks import Train
from selfsup_cli.engine.devices import choose, tune_allocator
from selfsup_cli.engine.fit import Fit
from selfsup_cli.engine.progress import Progress

SIDE, LAYERS = 2048, 8  # 33.5 M parameters, and AdamW's two means: 403 MB
BATCH, CYCLE, ROUNDS = 8, 16, 5
STALL = "≤ 0.4"
LIMITS: dict[str, str] = {}


class Taking(Fit):
    """Saves by turns as the engine does, by `torch.save`, and not at all."""

    kinds = ("ours", "torch.save", "none")
    turn = 0

    def save(self) -> None:
        self._saver.wait()  # type: ignore[union-attr]
        kind = self.kinds[self.turn % 3]
        self.turn += 1
        start = time.perf_counter()
        if kind == "ours":
            super().save()
        elif kind == "torch.save":
            torch.save(self.state(), self.run.path / "peer.pt")  # type: ignore[union-attr]
        self.stalls.setdefault(kind, []).append(time.perf_counter() - start)


def rows() -> list[measure.Row]:
    """Our seconds over those of `torch.save`: of the call alone, and with the steps after it."""
    tune_allocator()
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(SIDE, SIDE) for _ in range(LAYERS)))
    loader = Timed(torch.randn(BATCH, SIDE), CYCLE * 3 * (ROUNDS + 1) + 1, time.perf_counter)
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(folder)
        train = Train(epochs=1, batch_size=BATCH, checkpoint_steps=CYCLE, keep=1)
        fit = Taking(
            Classifier(net), loader, train, OPTIM, choose("cpu"), Progress(quiet=True), run=run
        )
        fit.stalls = {}  # type: ignore[attr-defined]
        fit()
        run.close()
    stall = {kind: statistics.median(found[1 : ROUNDS + 1]) for kind, found in fit.stalls.items()}
    # The save after step n·CYCLE falls between the times at which two batches were asked for.
    marks = [loader.times[n * CYCLE - 1] for n in range(1, 3 * (ROUNDS + 1) + 1)]
    spans = [after - before for before, after in itertools.pairwise(marks)]
    whole = {kind: statistics.median(spans[at + 3 :: 3]) for at, kind in enumerate(Taking.kinds)}
    slowed = (whole["ours"] - whole["none"]) / (whole["torch.save"] - whole["none"])
    return [
        (
            "stall for a checkpoint of 400 MB",
            "torch.save",
            stall["ours"] / stall["torch.save"],
            STALL,
        ),
        ("the same, with what it slows later steps", "torch.save", slowed, ""),
    ]


if __name__ == "__main__":
    measure.main(rows, LIMITS)
