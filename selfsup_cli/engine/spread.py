"""Batch norm where the mini-batches of a step are spread over several processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SpreadStatistics:
    """Keeps the running statistics of `module` as if all mini-batches had passed through one
    process, those of the first process first.

    Each mini-batch is normalised by itself wherever it is; only the averages would differ. Norms
    without momentum, which average over everything they ever saw, are left to themselves.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._norms: list[nn.Module] = []
        self._shares: list[float] = []
        self._before: list[Tensor] = []

    @torch.no_grad()
    def begin(self) -> None:
        """Before the mini-batches of a step: note the averages, and the momenta of this step."""
        self._norms, self._shares = [], []
        for module in self._module.modules():
            if not (isinstance(module, _NORMS) and module.training and module.momentum):
                continue
            if module.track_running_stats:
                self._norms.append(module)
                self._shares += [1 - float(module.momentum)] * 2
        self._before = [average.clone() for average in self._averages()]

    @torch.no_grad()
    def merge(self, earlier: int, own: int, later: int) -> None:
        """After them: `own` mini-batches were here, `earlier` in processes before, `later` after.

        An average r that sees s_1 … s_n with momentum m ends as (1 − m)ⁿ r + Σ m (1 − m)ⁿ⁻ⁱ s_i.
        """
        averages = self._averages()
        if not averages:
            return
        known = list(zip(averages, self._before, self._shares, strict=True))
        seen = [(now - share**own * before) * share**later for now, before, share in known]
        together = torch.cat(seen)
        dist.all_reduce(together)
        place = 0
        for average, before, share in known:
            part = together[place : place + len(average)]
            average.copy_(share ** (earlier + own + later) * before + part)
            place += len(average)
        for norm in self._norms:
            norm.get_buffer("num_batches_tracked").add_(earlier + later)

    def _averages(self) -> list[Tensor]:
        names = ("running_mean", "running_var")
        return [norm.get_buffer(name) for norm in self._norms for name in names]
