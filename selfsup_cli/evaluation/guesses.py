"""What a network takes images for with its dropout left on: realistic wrong labels (8.4.3)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.evaluation.reading import in_batches
from selfsup_cli.evaluation.task import Told
from selfsup_cli.evaluation.views import ImageViews, read_images
from selfsup_cli.models.classifier import Classifier
from selfsup_cli.randomness import derive, lent
from selfsup_cli.transforms.images import to_unit

_BATCH = 64
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@torch.no_grad()
def guesses(
    network: Classifier,
    source: ImageSource,
    hardware: Hardware,
    *,
    seed: int,
    workers: int,
    told: Told | None = None,
) -> np.ndarray:
    """The likeliest class of each image by one pass over its middle, int64 `[N]`.

    What is dropped is a function of (seed, batch). A file that cannot be read raises InputError.
    """
    network.eval().to(hardware.device)
    for module in network.modules():
        if isinstance(module, _DROPOUTS):
            module.train()
    found = np.zeros(len(source), np.int64)
    items = read_images(source, range(len(source)), ImageViews(), network.backbone.input, workers)
    for number, (images, owners) in enumerate(in_batches(items, _BATCH, hardware.device)):
        with lent(torch.Generator().manual_seed(derive(seed, number, "guesses"))):
            if hardware.device.type == "cuda":
                torch.cuda.manual_seed(derive(seed, number, "guesses"))
            with hardware.autocast():
                logits = network(to_unit(images))
        found[owners] = logits.argmax(1).cpu().numpy()
        if told is not None:
            told(owners[-1] + 1, len(source))
    network.eval()
    return found


def has_dropout(network: nn.Module) -> bool:
    """Whether anything of it is dropped in training."""
    return any(isinstance(one, _DROPOUTS) and one.p > 0 for one in network.modules())
