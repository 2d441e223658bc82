"""Scales for the layers of a task that start from fresh weights (thesis, section 3.4.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from selfsup_cli.config.registry import PADDED
from selfsup_cli.data.loader import SourceDataset, collate
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.models.classifier import Classifier
from selfsup_cli.models.layers import Scalable
from selfsup_cli.models.rescale import affine, between, within
from selfsup_cli.randomness import generator

LOOKED_AT = 128
"""Training samples, at most, on which scales are found."""

_CHUNK = 32


def first_samples(dataset: SourceDataset, seed: int, count: int = LOOKED_AT) -> dict[str, Any]:
    """A batch of `count` samples (or all), chosen by `seed`, as training would take them."""
    order = torch.randperm(len(dataset), generator=generator(seed, "rescale", "samples"))
    return collate([dataset[0, int(i)] for i in order[:count]])


def layers_of(parts: Iterable[nn.Module]) -> list[nn.Module]:
    """The convolutions and linear layers of modules, and what is told of their scales, in the order
    in which they were made."""
    kinds = (nn.Conv2d, nn.Conv3d, nn.Linear, Scalable)
    return [one for part in parts for one in part.modules() if isinstance(one, kinds)]


def rescale_classifier(
    network: Classifier, x: Tensor, hardware: Hardware, *, everything: bool, seed: int
) -> None:
    """Scale the fresh layers of a classifier on the inputs `x`, float in [-1, 1].

    Its head gets unit variance, or `everything` where the backbone has random weights as well. Then
    all layers that are trained are balanced against each other, learned ones too: what they compute
    stays the same. In a backbone that is no chain of layers without batch norm, they are left as
    they are.
    """
    training = network.training
    network.to(hardware.device).eval()
    x = x.to(hardware.device)
    backbone = network.backbone
    head = layers_of([network.hidden, network.last])
    upto = backbone.embedding if network.head_spec.kind == "fc" else backbone.layers[-1]
    below = layers_of(backbone.parts(upto)[0])
    g = generator(seed, "rescale")
    if everything:
        within(affine([*below, *head]), lambda: network(x))
    else:
        within(head, _above(network, x))
    if backbone.spec.get("absorbed") and backbone.arch in PADDED:
        still = len(layers_of(backbone.parts(network.frozen[-1])[0])) if network.frozen else 0
        between([*below[still:], *head], lambda: network(x), g)
    else:
        between(head, _above(network, x), g)
    network.train(training)


def _above(network: Classifier, x: Tensor) -> Any:
    """What computes the head on features that were computed once."""
    with torch.no_grad():
        fed = torch.cat([network.fed(part) for part in torch.split(x, _CHUNK)])
    return lambda: network.judged(fed)
