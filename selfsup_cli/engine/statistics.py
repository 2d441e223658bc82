"""Running statistics of batch norm that do not remember the values they were made with."""

from __future__ import annotations

from torch import nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class WarmStatistics:
    """Lets running averages begin as plain averages: the t-th batch counts 1 / t, and no less than
    the momentum.

    They begin at 0 and 1 otherwise. With a momentum of 0.025 a twentieth of that is left after 120
    updates; in layer upon layer of small weights it is enough for a network that has learned to
    give one answer to everything when it is tested. What was averaged before (a network that was
    trained already) goes on as it was.
    """

    def __init__(self, model: nn.Module) -> None:
        found = (module for module in model.modules() if isinstance(module, _NORMS))
        self._young = {
            module: float(module.momentum)
            for module in found
            if module.track_running_stats and module.momentum
        }

    def __call__(self) -> None:
        """Before each pass in training: set the momenta of those that are young still."""
        for module, momentum in list(self._young.items()):
            seen = module.num_batches_tracked
            share = 0.0 if seen is None else 1 / (int(seen) + 1)
            module.momentum = max(momentum, share)
            if share <= momentum:
                del self._young[module]
