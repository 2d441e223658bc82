"""Which images make units of a network most active, and where (thesis, figure 3.7).

Found in one pass over any number of images, in memory that depends on the number of units alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.evaluation.reading import in_batches
from selfsup_cli.evaluation.views import ImageViews, read_images
from selfsup_cli.models import Backbone
from selfsup_cli.transforms.images import to_unit


@dataclass
class Top:
    """For each of C units the k strongest of the images seen: `values` float32, `images` and
    `places` (of the flattened map) int64, `[k, C]` each, strongest first.

    Of equals, what came first. `images` are -1 where fewer than k were seen.
    """

    values: Tensor
    images: Tensor
    places: Tensor

    @classmethod
    def empty(cls, k: int, units: int, device: torch.device) -> Top:
        """Nothing seen yet."""
        return cls(
            torch.full((k, units), -torch.inf, device=device),
            torch.full((k, units), -1, dtype=torch.int64, device=device),
            torch.zeros(k, units, dtype=torch.int64, device=device),
        )

    def update(self, active: Tensor, images: Tensor) -> None:
        """See activations `[B, C, …]` of the images int64 `[B]`. Each counts once for a unit: where
        the unit is most active in it."""
        flat = active.detach().flatten(2) if active.ndim > 2 else active.detach()[..., None]
        strongest = flat.amax(2).float()
        # After a while few images are among the strongest of a unit: the others cost no more.
        units = (strongest > self.values[-1]).any(0).nonzero().flatten()
        if not len(units):
            return
        k, new = len(self.values), strongest[:, units]
        values = torch.cat([self.values[:, units], new])
        order = values.argsort(dim=0, descending=True, stable=True)[:k]
        self.values[:, units] = values.gather(0, order)
        among = torch.cat([self.images[:, units], images[:, None].expand(-1, len(units))])
        self.images[:, units] = among.gather(0, order)
        row, column = (order >= k).nonzero(as_tuple=True)
        places = self.places[:, units].gather(0, order.clamp(max=k - 1))
        places[row, column] = flat[order[row, column] - k, units[column]].argmax(1)
        self.places[:, units] = places

    def cpu(self) -> Top:
        """The same in main memory."""
        return Top(self.values.cpu(), self.images.cpu(), self.places.cpu())


@dataclass
class Search:
    """A search that can be put aside and gone on with: how many of the images were looked at, and
    what was found, by layer. `bad` maps the ids of those that cannot be read to the reasons."""

    k: int
    done: int = 0
    found: dict[str, Top] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)

    def state(self) -> dict[str, Tensor]:
        """What was found, as tensors by name."""
        return {
            f"{part}.{layer}": getattr(top, part).cpu().contiguous()
            for layer, top in self.found.items()
            for part in ("values", "images", "places")
        }

    @classmethod
    def of(cls, k: int, done: int, state: Mapping[str, Tensor], bad: Mapping[str, str]) -> Search:
        """What `state` was taken of. Raises KeyError where something is missing."""
        layers = [name.removeprefix("values.") for name in state if name.startswith("values.")]
        found = {
            layer: Top(*(state[f"{part}.{layer}"] for part in ("values", "images", "places")))
            for layer in layers
        }
        return cls(k, done, found, dict(bad))


@torch.no_grad()
def search(
    network: Backbone,
    source: ImageSource,
    images: Sequence[int],
    layers: Sequence[str],
    found: Search,
    hardware: Hardware,
    *,
    workers: int,
    batch_size: int = 64,
    told: Callable[[Search], None] | None = None,
) -> None:
    """Go on with `found` until all `images` of `source` have been looked at, each at its centre.

    `told` is called after each batch, and may raise. Leaves the network in evaluation mode on the
    device.
    """
    network.eval().to(hardware.device)
    for layer, top in found.found.items():
        found.found[layer] = Top(*(one.to(hardware.device) for one in vars(top).values()))
    order = {position: number for number, position in enumerate(images)}
    rest = images[found.done :]
    items = read_images(source, rest, ImageViews(), network.input, workers, found.bad.__setitem__)
    for crops, owners in in_batches(items, batch_size, hardware.device):
        with hardware.autocast():
            active = network.features(to_unit(crops), layers)
        seen = torch.tensor(owners, device=hardware.device)
        for layer, one in active.items():
            if layer not in found.found:
                found.found[layer] = Top.empty(found.k, one.shape[1], hardware.device)
            found.found[layer].update(one, seen)
        del active, one  # or they would stay while the next are computed
        found.done = order[owners[-1]] + 1
        if told is not None:
            told(found)
    found.done = len(images)
