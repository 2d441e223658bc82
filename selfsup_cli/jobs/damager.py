"""A method that damages images, as a finished run left it, and the images that it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfsup_cli.data.framing import Crop, Plan
from selfsup_cli.data.source import ImageSource
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.jobs.method_weights import FILE, load_method
from selfsup_cli.methods.artifacts import Artifacts
from selfsup_cli.methods.artifacts_quality import Damaged
from selfsup_cli.randomness import derive, generator
from selfsup_cli.runs.run import Run, RunSummary, find_run, runs_dir
from selfsup_cli.transforms.damage import draw_kept


@dataclass(frozen=True)
class Damager:
    """A method and the run that it is of."""

    run: Run
    method: Artifacts

    @property
    def side(self) -> int:
        """Side of the images that it takes, in pixels."""
        return self.method.preset.framing.sides()[0]

    @property
    def shorter(self) -> int:
        """What the shorter side of an image is scaled to before that is cut out of its centre."""
        return self.method.preset.framing.sides()[1]

    @property
    def framing(self) -> Plan:
        """The centre of an image, as the network is tested."""
        return Crop((self.side, self.side), self.shorter)

    def kept(self, count: int, rate: float, seed: int) -> Tensor:
        """What is kept of the codes of `count` images, bool `[count, 1, S/16, S/16]`: at a higher
        rate the same are dropped that are at a lower one, and more."""
        cells = (self.side // 16, self.side // 16)
        return draw_kept(count, cells, rate, generator(seed, "sample artifacts"))

    def rates(self, asked: Sequence[float]) -> list[float]:
        """The drop rates `asked` for, each once, or the one that it learned at."""
        return list(dict.fromkeys(asked)) or [self.method.preset.drop_rate]

    def made(self, images: Tensor, kept: Tensor) -> Damaged:
        """Images uint8 `[B, 3, S, S]`, damaged but for what is `kept`, and repaired."""
        device = next(self.method.parameters()).device
        g = generator(0, "unused", device=str(device))
        with torch.no_grad():
            return self.method.examples(images.to(device), g, kept.to(device))

    def drawn(self, images: Tensor, rate: float, seed: int) -> Damaged:
        """The same, what is kept being drawn from the `seed`."""
        return self.made(images, self.kept(len(images), rate, seed))


def load_damager(reference: str) -> Damager:
    """The method of a finished run of pretrain artifacts. Raises InputError for any other."""
    run = find_run(reference, runs_dir(), needs=unfit)
    method = load_method(run)
    if not isinstance(method, Artifacts):
        raise InputError(f"{run.name} damages no images", kind="run-unfit")
    return Damager(run, method)


def unfit(summary: RunSummary) -> str | None:
    """Why a run damages nothing."""
    if summary.job != "pretrain/artifacts":
        return f"it is no run of pretrain artifacts but of {summary.job}"
    return None if (summary.path / FILE).is_file() else f"it has no {FILE}"


def some(source: ImageSource, framing: Plan, count: int, seed: int) -> tuple[list[str], Tensor]:
    """Names of up to `count` images, chosen by `seed`, and what is cut out of them: uint8
    `[n, 3, S, S]`. Those that cannot be read are passed over; InputError where none can."""
    return next(batches(source, framing, count, seed, count))


def batches(
    source: ImageSource, framing: Plan, count: int, seed: int, size: int
) -> Iterator[tuple[list[str], Tensor]]:
    """The same images, no more than `size` of them at a time."""
    order = sorted(range(len(source)), key=lambda i: derive(seed, source.ids[i], "sheet"))
    names: list[str] = []
    found: list[Tensor] = []
    given = 0
    unused = torch.Generator()
    for index in order:
        if given + len(found) == count:
            break
        try:
            found.append(source.read(index, lambda h, w: framing(h, w, unused)))
        except BadMediaError:
            continue
        names.append(source.ids[index])
        if len(found) == size:
            yield names, torch.stack(found)
            given += size
            names, found = [], []
    if found:
        yield names, torch.stack(found)
    elif not given:
        raise InputError(f"no image of {source.name} could be read", kind="bad-media")


@torch.no_grad()
def suspected(method: Artifacts, images: Tensor) -> Tensor | None:
    """How likely each cell of images float `[n, 3, S, S]` is damaged, 0 … 1 `[n, 1, M, N]`; None
    of a discriminator that does not locate."""
    masks = method.plain(images).masks
    return None if masks is None else (-masks.float()).sigmoid()
