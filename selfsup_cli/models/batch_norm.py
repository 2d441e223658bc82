"""Which layer each batch norm of a network follows, and the network without them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from selfsup_cli.errors import InputError
from selfsup_cli.models.backbone import Backbone

_AFFINE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def strip(backbone: Backbone) -> None:
    """Take batch norm out of a network that was just made, and give its layers biases (0) instead.

    Raises InputError where a batch norm does not follow one layer that could absorb it.
    """
    training = backbone.training
    for norm, layer in followed(backbone.arch, backbone.eval()).items():
        affine: Any = backbone.get_submodule(layer)
        if affine.bias is None:
            affine.bias = nn.Parameter(affine.weight.new_zeros(affine.weight.shape[0]))
        parent, _, name = norm.rpartition(".")
        setattr(backbone.get_submodule(parent), name, _rest(backbone.get_submodule(norm)))
    backbone.train(training)


def followed(what: str, network: Backbone) -> dict[str, str]:
    """The name of each batch norm, and of the layer whose output it takes, by running `network`.

    `network` is in evaluation mode; nothing is computed where it lies on `meta`. `what` it is
    called where it has to be refused: InputError, see `absorbed`.
    """
    makers: list[tuple[Tensor, str]] = []
    pairs: dict[str, str] = {}
    refused: list[str] = []

    def made(name: str) -> Any:
        return lambda _module, _inputs, output: makers.append((output, name))

    def taken(name: str) -> Any:
        def look(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            maker = next((who for output, who in makers if output is inputs[0]), None)
            if maker is None or maker in pairs.values() or name in pairs:
                refused.append(name)
            else:
                pairs[name] = maker

        return look

    norms = {name: one for name, one in network.named_modules() if isinstance(one, _BatchNorm)}
    handles = [one.register_forward_pre_hook(taken(name)) for name, one in norms.items()]
    for name, one in network.named_modules():
        if isinstance(one, _AFFINE):
            handles.append(one.register_forward_hook(made(name)))
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            network(torch.zeros(2, *network.input.shape, device=device))
    finally:
        for handle in handles:
            handle.remove()
    if not norms:
        raise InputError(
            f"absorb_bn: {what} has no batch norm that its layers could absorb; leave it out",
            kind="absorb",
        )
    refused += [name for name, one in norms.items() if getattr(one, "running_mean", None) is None]
    if refused:
        raise InputError(
            f"absorb_bn: batch norm {refused[0]} of {what} does not follow one convolution or "
            "linear layer, which could absorb it; leave absorb_bn out for this network",
            kind="absorb",
        )
    return pairs


def _rest(norm: nn.Module) -> nn.Module:
    """What a batch norm does besides: in some of timm's networks it holds the activation."""
    parts = [getattr(norm, name, None) for name in ("drop", "act")]
    there = [part for part in parts if part is not None]
    return nn.Sequential(*there) if there else nn.Identity()
