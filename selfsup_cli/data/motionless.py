"""Frames in which nothing moves: pairs of them say nothing about time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHARE = 0.25
_WINDOW = 0.5
_FLOOR = 0.02


def moving(motion: NDArray[Any], rate: float) -> NDArray[np.bool_]:
    """In which frames of a recording something moves, bool `[T]`, by its `motion` `[T]`.

    The rule: around them (half a second), the mean motion lies above the recording's quietest
    (its 2nd percentile, which is noise) by at least a quarter of what its median does. A recording
    that moves evenly all the time loses nothing by it.
    """
    signal = np.asarray(motion, np.float64).copy()
    if len(signal) < 3:
        return np.ones(len(signal), bool)
    signal[0] = signal[1]
    half = min(len(signal) - 1, max(1, round(_WINDOW * rate / 2)))
    padded = np.pad(signal, half, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    smooth = windows.mean(-1)
    floor, usual = float(np.quantile(signal, _FLOOR)), float(np.median(smooth))
    return np.asarray(smooth >= floor + _SHARE * (usual - floor))
