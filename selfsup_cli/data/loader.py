"""Batches whose content and order are a function of (seed, epoch) alone."""

from __future__ import annotations

import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from selfsup_cli.data.source import ClipSource
from selfsup_cli.errors import BadMediaError, InputError, MachineError, TrainingError
from selfsup_cli.randomness import derive, generator

Key = tuple[int, int]  # (epoch, position in the source)


@dataclass(frozen=True)
class ClipPlan:
    """Which frames of a video make its clips: int64 `[K, T]`, and one int64 `[K]` per label."""

    frames: np.ndarray
    labels: dict[str, np.ndarray] = field(default_factory=dict)


Plan = Callable[[int, torch.Generator], ClipPlan]


class Samples(Protocol):
    """What any source of samples has."""

    ids: Sequence[str]

    def __len__(self) -> int: ...


class SourceDataset(Dataset[dict[str, Any]]):
    """Samples of a source, indexed by (epoch, position).

    One that cannot be read is replaced by the next one that can; the sample names what was bad.
    """

    REPLACEMENTS = 32
    MANY = "samples"

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, position = key
        bad: list[tuple[str, str]] = []
        for step in range(min(self.REPLACEMENTS, len(self))):
            index = (position + step) % len(self)
            try:
                return {**self._sample(epoch, index), "bad": bad}
            except BadMediaError as error:
                bad.append((self._samples.ids[index], error.reason))
        raise TrainingError(
            f"{len(bad)} {self.MANY} in a row cannot be read, from {bad[0][0]} ({bad[0][1]}) on",
            kind="bad-samples",
            hint="check where the data lies; list the files to leave out with --quarantine",
        )

    def _sample(self, epoch: int, index: int) -> dict[str, Any]:
        """Sample `index` of the source in an epoch; raises `BadMediaError`."""
        raise NotImplementedError


class ClipDataset(SourceDataset):
    """The K clips that `plan` makes of each video, as uint8 `[K, 3, T, H, W]`.

    `size` (H, W) is the size frames are scaled to.
    """

    MANY = "videos"

    def __init__(self, source: ClipSource, plan: Plan, size: tuple[int, int], seed: int) -> None:
        super().__init__(source)
        self.source = source
        self.plan = plan
        self.size = size
        self.seed = seed

    def randomness(self, epoch: int, index: int) -> torch.Generator:
        """From what the clips of a video in an epoch are drawn."""
        return generator(self.seed, epoch, index, "plan")

    def _sample(self, epoch: int, index: int) -> dict[str, Any]:
        plan = self.plan(int(self.source.num_frames[index]), self.randomness(epoch, index))
        count, length = plan.frames.shape
        frames = self.source.read(index, plan.frames.reshape(-1), self.size)
        clips = frames.reshape(len(frames), count, length, *frames.shape[2:]).transpose(0, 1)
        labels = {name: torch.from_numpy(value) for name, value in plan.labels.items()}
        if self.source.labels is not None:
            labels["label"] = torch.full((count,), int(self.source.labels[index]))
        return {"clip": clips.contiguous(), "index": torch.tensor(index), **labels}


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join samples: clips and their labels end to end, so that the K clips of a video are adjacent.

    `clip` uint8 `[B·K, 3, T, H, W]`, labels int64 `[B·K]`, `index` int64 `[B]`, `bad` a list; of
    images `image` uint8 `[B, 3, H, W]`, labels int64 `[B]` or uint8 `[B, A]`, `id` a list.
    """
    batch: dict[str, Any] = {"bad": [entry for sample in samples for entry in sample["bad"]]}
    for name in samples[0]:
        if name == "index":
            batch[name] = torch.stack([sample[name] for sample in samples])
        elif name == "id":
            batch[name] = [sample[name] for sample in samples]
        elif name != "bad":
            batch[name] = torch.cat([sample[name] for sample in samples])
    return batch


class Batches(Protocol):
    """The keys of the batches of epoch `epoch` from `start` on, for this process."""

    epoch: int
    start: int

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[Key]]: ...


class EpochSampler(Sampler[list[Key]]):
    """The batches of one epoch from `start` on: a permutation drawn from (seed, epoch).

    A global batch is cut into equal slices, one for each of `world` processes; the incomplete last
    batch is left out, so that every process sees as many.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        rank: int,
        world: int,
        *,
        shuffle: bool = True,
    ) -> None:
        if batch_size % world:
            raise InputError(
                f"a batch of {batch_size} cannot be shared equally by {world} devices; "
                f"use --batch-size {batch_size // world * world or world}",
                kind="batch-size",
            )
        self.samples = samples
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.shuffle = shuffle
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return self.samples // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """The order of the samples in `epoch`, int64 `[samples]`."""
        if not self.shuffle:
            return torch.arange(self.samples)
        return torch.randperm(self.samples, generator=generator(self.seed, epoch, "order"))

    def __iter__(self) -> Iterator[list[Key]]:
        order = self.order(self.epoch).tolist()
        share = self.batch_size // self.world
        for batch in range(self.start, len(self)):
            first = batch * self.batch_size + self.rank * share
            yield [(self.epoch, position) for position in order[first : first + share]]


class EpochLoader:
    """Gives the batches of any epoch from any position on, with or without worker processes."""

    def __init__(
        self,
        dataset: Dataset[dict[str, Any]],
        samples: int,
        *,
        batch_size: int,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        pin: bool = False,
        join: Callable[[Sequence[dict[str, Any]]], dict[str, Any]] = collate,
        sampler: Batches | None = None,
    ) -> None:
        """`sampler` says which samples make the batches, instead of an `EpochSampler`."""
        if samples < batch_size:
            raise InputError(
                f"{samples} training samples do not fill one batch of {batch_size}; "
                f"use --batch-size {samples} or less",
                kind="batch-size",
            )
        self.sampler: Batches = sampler or EpochSampler(
            samples, batch_size, seed, rank, world, shuffle=shuffle
        )
        # The base seed of the workers comes from here, never from the global generator.
        own = torch.Generator().manual_seed(derive(seed, "loader"))
        self._loader: DataLoader[dict[str, Any]] = DataLoader(
            dataset,
            batch_sampler=self.sampler,
            num_workers=workers,
            collate_fn=join,
            pin_memory=pin,
            persistent_workers=workers > 0,
            generator=own,
            prefetch_factor=4 if workers else None,
            worker_init_fn=quiet_worker if workers else None,
        )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.sampler)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, Any]]:
        """The batches `start`, `start + 1`, … of `epoch`. Going to `start` costs nothing."""
        self.sampler.epoch, self.sampler.start = epoch, start
        try:
            yield from self._loader
        except RuntimeError as error:
            if (cause := killed_worker(error)) is not None:
                raise cause from error
            raise


def killed_worker(error: BaseException) -> MachineError | None:
    """What to tell the user if `error` is PyTorch's news of a dead loader process.

    It comes from a signal handler, and so out of any line of the main process, or from the queue.
    """
    said = str(error)
    if not isinstance(error, RuntimeError) or "DataLoader worker" not in said:
        return None
    if "exited unexpectedly" not in said and "killed by signal" not in said:
        return None
    return MachineError(
        "a loader process was killed, most likely for want of memory",
        kind="worker",
        hint="use fewer --workers, or give the machine more (shared) memory",
    )


class Loader(Protocol):
    """What the engine draws batches from."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, Any]]: ...


def quiet_worker(number: int) -> None:
    """Loader processes leave signals to their parent and keep to one thread each.

    A signal for the whole process group (Ctrl-C, `timeout`, a scheduler) must not take the batches
    away from under a parent that is about to save.
    """
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    torch.set_num_threads(1)


def digest(former: int, index: Tensor) -> int:
    """CRC-32 of the sample indices seen so far, continued: equal only for an equal data order."""
    return zlib.crc32(index.to(torch.int64).cpu().numpy().tobytes(), former)
