"""Addressable randomness: every random choice is a pure function of a seed and an address.

What happens to sample *i* in epoch *e* is drawn from `(seed, e, i, purpose)`, what happens on the
device in step *s* from `(seed, s, rank, purpose)`. Nothing reads or advances global random state,
so the number of workers changes nothing and a resumed run continues bit for bit.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch


def derive(seed: int, *address: int | str) -> int:
    """A 63-bit seed for `address`, statistically independent of that of any other address."""
    text = "/".join(f"{type(part).__name__[0]}{part}" for part in (seed, *address))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *address: int | str, device: str = "cpu") -> torch.Generator:
    """A fresh `torch.Generator` on `device`, seeded for `address`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *address))


@contextmanager
def lent(g: torch.Generator) -> Iterator[None]:
    """PyTorch's default generator on the CPU, seeded from `g` (on the CPU) for code that draws from
    no other; afterwards it is as it was before."""
    import torch

    default = torch.default_generator
    state = default.get_state()
    try:
        default.manual_seed(int(torch.randint(2**63 - 1, (), generator=g)))
        yield
    finally:
        default.set_state(state)
