"""Which device a job runs on, in which precision, and how many processes share the work."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from selfsup_cli.errors import InputError, MachineError

log = logging.getLogger("selfsup")


@dataclass(frozen=True)
class Hardware:
    """A device and the precision of its forward passes (`None`: float32 throughout)."""

    device: torch.device
    dtype: torch.dtype | None

    def autocast(self) -> AbstractContextManager[object]:
        """Autocast in the chosen precision, or nothing for float32."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler | None:
        """Loss scaling, which float16 alone needs."""
        return torch.amp.GradScaler(self.device.type) if self.dtype is torch.float16 else None

    @property
    def precision(self) -> str:
        """`32`, `bf16` or `fp16`."""
        return {None: "32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]

    def peak_memory_mb(self) -> float:
        """Peak memory so far in MB: of the device for CUDA, of this process otherwise."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def choose(
    device: str = "auto", precision: str = "auto", *, deterministic: bool = False
) -> Hardware:
    """Resolve `--device` and `--precision` on this machine.

    Raises InputError for a name that is no device, MachineError where CUDA is asked for and absent.
    """
    chosen = _device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    return Hardware(chosen, _dtype(chosen, precision))


def _device(name: str) -> torch.device:
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        return torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(
            f"--device {name}: no such device; use auto, cpu, cuda or cuda:N", kind="device"
        ) from None
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise InputError(f"--device {name}: only cpu and cuda are supported", kind="device")
    if not torch.cuda.is_available():
        raise MachineError(f"--device {name}: PyTorch finds no CUDA device here", kind="device")
    index = rank if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise MachineError(
            f"--device {name}: there are {torch.cuda.device_count()} CUDA devices here, "
            "counted from 0",
            kind="device",
        )
    return torch.device("cuda", index)


def _dtype(device: torch.device, precision: str) -> torch.dtype | None:
    fast_bf16 = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if device.type == "cuda"
        else bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and fast_bf16 else None
    if precision == "bf16" and not fast_bf16:
        log.warning("this device has no bf16 arithmetic: bf16 will be many times slower than 32")
    if precision == "fp16" and device.type == "cpu":
        raise InputError("--precision fp16 needs a CUDA device; use 32 here", kind="precision")
    return {"32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def tune_allocator() -> None:
    """Keep glibc from returning the memory of large tensors to the system after every step.

    Page faults otherwise take a tenth to a third of a training step on the CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        for parameter, value in ((-4, 0), (-1, 1 << 30), (-2, 64 << 20)):  # MMAP_MAX, TRIM, TOP_PAD
            libc.mallopt(parameter, value)
    except (OSError, AttributeError):
        log.debug("the C library here has no mallopt")


def loader_workers(asked: int | str, devices: int = 1) -> int:
    """Loader processes for one device: what was asked, or the cores that are left, at most 8."""
    if isinstance(asked, int):
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(0, min(8, (cores or 1) // max(devices, 1) - 1))
