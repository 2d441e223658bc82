"""How evaluations read media: in loader processes, in order, and without leaving anything out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from selfsup_cli.data.loader import killed_worker, quiet_worker
from selfsup_cli.errors import InputError


class Item(Protocol):
    """A video or image that has been read, and what of it goes through the network."""

    @property
    def position(self) -> int:
        """Its position in the source."""
        ...

    def inputs(self, device: torch.device) -> Iterable[Tensor]:
        """Clips uint8 [3, T, H, W], or views of an image uint8 [3, S, S], on the device."""
        ...


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read. Travels as a value: some errors do not survive a worker."""

    position: int
    reason: str


class Named(Protocol):
    """A source, as far as it takes to say which of its files is meant."""

    @property
    def name(self) -> str: ...

    @property
    def ids(self) -> Sequence[str]: ...


Read = TypeVar("Read", bound=Item)


def read_items(
    files: Dataset[Read | Unreadable],
    source: Named,
    positions: Sequence[int],
    workers: int,
    bad: Callable[[str, str], None] | None = None,
) -> Iterator[Read]:
    """Items of `files`, of the `positions` in `source`, in that order, from `workers` processes.

    Evaluation never skips: a file that cannot be read raises InputError, which names it. Only where
    `bad` is given (a check inside a long training) is it called with id and reason instead, and the
    file passed over.
    """
    loader: DataLoader[Read | Unreadable] = DataLoader(
        files,
        batch_size=None,
        sampler=list(positions),
        num_workers=workers,
        worker_init_fn=quiet_worker if workers else None,
        generator=torch.Generator().manual_seed(0),
    )
    try:
        for item in loader:
            if isinstance(item, Unreadable):
                name = source.ids[item.position]
                if bad is None:
                    raise InputError(
                        f"{name} of {source.name} cannot be read: {item.reason}; an evaluation "
                        "leaves nothing out by itself: mend or remove the file, or list it with "
                        "--quarantine",
                        kind="bad-media",
                    )
                bad(name, item.reason)
                continue
            yield item
    except RuntimeError as error:
        if (cause := killed_worker(error)) is not None:
            raise cause from error
        raise


def in_batches(
    items: Iterator[Read], size: int, device: torch.device
) -> Iterator[tuple[Tensor, list[int]]]:
    """Inputs uint8 [b, 3, …] with b ≤ size, across files, and the position of each one's file."""
    pending: list[Tensor] = []
    owners: list[int] = []
    for item in items:
        for one in item.inputs(device):
            pending.append(one)
            owners.append(item.position)
            if len(pending) == size:
                yield torch.stack(pending), owners
                pending, owners = [], []
    if pending:
        yield torch.stack(pending), owners
