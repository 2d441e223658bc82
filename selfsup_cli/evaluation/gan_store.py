"""Samples on disk: a PNG each, or thousands in one file that all commands read as data."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from torch import Tensor

from selfsup_cli.errors import MachineError
from selfsup_cli.runs import atomic

KEY = "x"
"""Under which samples lie in a file: undivided images, as `selfsup` and others read them."""


def write_pngs(folder: Path, batches: Iterable[Tensor]) -> int:
    """Write uint8 images `[B, 3, S, S]` as 000000.png and so on; gives how many there were."""
    folder.mkdir(exist_ok=True)
    count = 0
    for batch in batches:
        for image in batch.cpu().permute(0, 2, 3, 1).numpy():
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            atomic.write_bytes(folder / f"{count:06d}.png", buffer.getvalue())
            count += 1
    return count


def write_array(
    path: Path, batches: Iterable[Tensor], shape: tuple[int, ...], facts: dict[str, Any]
) -> None:
    """Write samples as the array `KEY` of an `.h5`, with `facts` as attributes, or of an `.npz`.

    `shape` is that of all together: uint8 `[N, S, S, 3]` of images `[B, 3, S, S]`, or float32
    `[N, D]` of points. They lie in memory until the file is written. Facts that are themselves
    mappings are left out. Raises MachineError where there is too little memory.
    """
    image = len(shape) == 4
    size = int(np.prod(shape)) * (1 if image else 4)
    _require_room(size)
    dtype = np.uint8 if image else np.float32
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        whole: Any
        if path.suffix == ".npz":
            whole = np.empty(shape, dtype)
        else:
            whole = file.create_dataset(KEY, shape, dtype, track_times=False)
            for name, value in facts.items():
                if not isinstance(value, dict):
                    file.attrs[name] = "" if value is None else value
        start = 0
        for batch in batches:
            found = batch.cpu().permute(0, 2, 3, 1) if image else batch.cpu()
            whole[start : start + len(found)] = found.numpy()
            start += len(found)
        if path.suffix == ".npz":
            buffer = io.BytesIO()
            np.savez(buffer, **{KEY: whole})
            content: bytes | memoryview = buffer.getbuffer()
        else:
            file.flush()
            content = file.id.get_file_image()
    atomic.write_bytes(path, bytes(content))


def counting(
    batches: Iterable[Tensor], total: int, told: Callable[[int, int], None]
) -> Iterable[Tensor]:
    """The same batches; `told(done, total)` counts what is in them."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        told(done, total)


def _require_room(size: int) -> None:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 3 * size > free:
        raise MachineError(
            f"the samples take {size / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of memory are "
            "free, of which writing them takes three times as much",
            kind="memory",
            hint="draw fewer at a time (--n), each time with another --seed",
        )
