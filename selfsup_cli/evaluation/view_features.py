"""Features of single views, each computed once, and how well pairs of them are synchronised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.engine.devices import Hardware
from selfsup_cli.errors import InputError
from selfsup_cli.models.siamese import Siamese
from selfsup_cli.transforms.images import to_unit
from selfsup_cli.transforms.views import remove_background

if TYPE_CHECKING:
    from selfsup_cli.data.multiview import Views

Moment = tuple[int, int, int]
"""Recording, camera, frame."""

Counted = Callable[[int, int], None]

_BATCH = 64
_SCORED = 1 << 22


class Viewer:
    """What a network sees in views: `background` says whether it is removed or kept.

    The network must be in evaluation mode; it is moved to the device. Raises InputError where a
    background is to be removed that is not known.
    """

    def __init__(
        self, network: Siamese, views: Views, hardware: Hardware, *, background: str = "remove"
    ) -> None:
        self.network = network.to(hardware.device)
        self.views = views
        self.hardware = hardware
        self.background = background
        self._known: dict[Moment, Tensor] = {}

    def images(self, recording: int, camera: int, frames: Sequence[int]) -> Tensor:
        """What the network is shown of some frames, uint8 `[N, 3, S, S]`."""
        crops = torch.from_numpy(np.ascontiguousarray(self.views.crops(recording, camera, frames)))
        if self.background == "keep":
            return crops
        masks = self.views.masks(recording, camera, frames)
        if masks is None:
            raise InputError(
                f"the background of {self.views.recordings[recording].id} is not known, so it "
                "cannot be removed; use --background keep",
                kind="no-background",
            )
        return remove_background(crops, torch.from_numpy(np.ascontiguousarray(masks)))

    @torch.no_grad()
    def features(self, moments: Iterable[Moment], counted: Counted | None = None) -> Tensor:
        """Features float32 `[N, D]` of moments, on the CPU; each is computed the first time."""
        wanted = list(moments)
        new = sorted(set(wanted) - self._known.keys())
        done = 0
        for group in _batches(new):
            recording, camera, _ = group[0]
            images = self.images(recording, camera, [one[2] for one in group])
            with self.hardware.autocast():
                found = self.network.backbone(to_unit(images.to(self.hardware.device)))
            self._known.update(zip(group, found.float().cpu(), strict=True))
            done += len(group)
            if counted is not None:
                counted(done, len(new))
        return torch.stack([self._known[one] for one in wanted])

    @torch.no_grad()
    def paired(self, first: Tensor, second: Tensor) -> Tensor:
        """Logits float `[N]`: how well features `[N, D]` go with `[N, D]`, one by one."""
        device = self.hardware.device
        return self.network.score("sync", first.to(device), second.to(device)).float().cpu()

    @torch.no_grad()
    def scores(self, first: Tensor, second: Tensor) -> Tensor:
        """Logits float `[N, M]`: how well each of features `[N, D]` goes with each of `[M, D]`."""
        device = self.hardware.device
        wide = second.to(device)
        rows = max(1, _SCORED // max(1, wide.numel()))
        return torch.cat(
            [
                self.network.score("sync", part.to(device)[:, None], wide[None]).float().cpu()
                for part in torch.split(first, rows)
            ]
        )


def _batches(moments: Sequence[Moment]) -> Iterable[list[Moment]]:
    """Moments in order, of one recording and camera at a time, and not too many."""
    group: list[Moment] = []
    for one in moments:
        if group and (one[:2] != group[0][:2] or len(group) == _BATCH):
            yield group
            group = []
        group.append(one)
    if group:
        yield group
