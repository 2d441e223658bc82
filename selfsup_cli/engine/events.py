"""TensorBoard event files, written beside `metrics.jsonl`."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class Events:
    """Writes scalars into `folder`; going on from `step` hides what a lost attempt wrote later."""

    def __init__(self, folder: Path, step: int) -> None:
        if step == 0:
            shutil.rmtree(folder, ignore_errors=True)
        purge = step + 1 if step else None
        self._writer = SummaryWriter(str(folder), purge_step=purge, flush_secs=30)

    def write(self, step: int, row: dict[str, float]) -> None:
        """Add one scalar per entry of `row`."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()
