"""Batch norm as part of the convolution or linear layer before it.

In evaluation mode a batch norm is a scale and a shift for each channel, which the weights and the
bias of the layer before it can take over: the network computes the same without it. The thesis
does so before it transfers to PASCAL VOC (sections 3.4.2 and 4.4.2).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from selfsup_cli.errors import InputError
from selfsup_cli.models.backbone import Backbone, Spec, construct
from selfsup_cli.models.layers import Scalable
from selfsup_cli.randomness import generator

if TYPE_CHECKING:
    from collections.abc import Mapping

_AFFINE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# Largest difference, as a share of the largest value, that is arithmetic: weights are rounded once
# more, and networks are up to a hundred layers deep.
_TOLERANCE = 1e-4


def absorbed(backbone: Backbone) -> Backbone:
    """A copy on the CPU without batch norm that computes what `backbone` does in evaluation mode.

    Its `spec` says so: saved and loaded it stays as it is. A network that has been through this is
    given back itself. Raises InputError for a network without batch norm, and for one in which a
    batch norm follows something else than a convolution or linear layer, or more than that sees it.
    """
    if backbone.spec.get("absorbed"):
        return backbone
    plain = copy.deepcopy(backbone).cpu().eval()
    pairs = followed(plain.arch, _spelled(plain))
    state = dict(plain.state_dict())
    for norm, layer in pairs.items():
        _fold(state, norm, layer, plain.get_submodule(norm))
    other = _spelled(plain, absorbed=True).allocate().eval()
    for name, module in other.named_modules():
        if isinstance(module, Scalable):
            state[f"{name}.scale"] = torch.ones(())
    other.load_state_dict({name: state[name] for name in other.state_dict()})
    _check(plain, other)
    other.trained_on = backbone.trained_on
    return other.train(backbone.training)


def strip(backbone: Backbone) -> None:
    """Take batch norm out of a network that was just made, and give its layers biases (0) instead.

    Raises InputError as `absorbed` does.
    """
    for norm, layer in followed(backbone.arch, _spelled(backbone, absorbed=None)).items():
        affine: Any = backbone.get_submodule(layer)
        if affine.bias is None:
            affine.bias = nn.Parameter(affine.weight.new_zeros(affine.weight.shape[0]))
        parent, _, name = norm.rpartition(".")
        setattr(backbone.get_submodule(parent), name, _rest(backbone.get_submodule(norm)))


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


def _spelled(backbone: Backbone, **changed: Any) -> Backbone:
    """The network that the spec says with something `changed`, without values."""
    spec = {**backbone.spec, "resize": backbone.input.resize, **changed}
    return construct(Spec.model_validate(spec)).eval()


def _rest(norm: nn.Module) -> nn.Module:
    """What a batch norm does besides: in some of timm's networks it holds the activation."""
    parts = [getattr(norm, name, None) for name in ("drop", "act")]
    there = [part for part in parts if part is not None]
    return nn.Sequential(*there) if there else nn.Identity()


def _fold(state: dict[str, Tensor], norm: str, layer: str, module: nn.Module) -> None:
    """W ← W·γ/√(σ² + ε), b ← (b − μ)·γ/√(σ² + ε) + β, in float64."""
    eps: Any = module.eps
    mean, variance = (state[f"{norm}.running_{name}"].double() for name in ("mean", "var"))
    scale = (variance + eps).rsqrt() * _or(state, f"{norm}.weight", 1.0)
    weight = state[f"{layer}.weight"]
    shaped = scale.reshape(-1, *(1,) * (weight.ndim - 1))
    bias = (_or(state, f"{layer}.bias", 0.0) - mean) * scale + _or(state, f"{norm}.bias", 0.0)
    state[f"{layer}.weight"] = (weight.double() * shaped).to(weight.dtype)
    state[f"{layer}.bias"] = bias.to(weight.dtype)


def _or(state: Mapping[str, Tensor], name: str, otherwise: float) -> Tensor | float:
    return state[name].double() if name in state else otherwise


@torch.no_grad()
def _check(plain: Backbone, other: Backbone) -> None:
    """Raise InputError where something else looks at what a batch norm had before it."""
    g = generator(0, "absorbed", plain.arch)
    x = torch.rand(2, *plain.input.shape, generator=g) * 2 - 1
    wanted, found = plain(x), other(x)
    difference = float((found - wanted).abs().max())
    if not difference <= _TOLERANCE * max(float(wanted.abs().max()), 1e-12):
        raise InputError(
            f"absorb_bn: {plain.arch} does not compute the same without its batch norm (its "
            f"outputs differ by {difference:.2g}); leave absorb_bn out for this network",
            kind="absorb",
        )
