"""The picture of the weights that mini-batches got."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfsup_cli.visualization import weights


@pytest.mark.parametrize(("count", "names"), [
    ([1, 1, 1, 1, 1, 1, 1], ["all mini-batches"]),
    ([1, 1, 1, 2, 1, 1, 1], ["fewer wrong labels", "more wrong labels"]),
])  # fmt: skip
def test_mini_batches_are_apart_where_their_wrong_labels_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: list[int], names: list[str]
) -> None:
    drawn: list[str] = []
    band = weights._band

    def noted(left: Any, right: Any, name: str, *rest: Any) -> None:
        drawn.append(name)
        band(left, right, name, *rest)

    monkeypatch.setattr(weights, "_band", noted)
    # Of seven shares of 1/3 the mean in float32 is another number than 1/3.
    wrong = np.array([count, count], np.float32) / np.float32(3)
    weights.over_time(
        tmp_path / "weights.png", np.arange(2), np.full((2, 7), 1 / 7), wrong, title="w"
    )
    assert drawn == names
