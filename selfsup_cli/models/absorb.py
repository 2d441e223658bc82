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

from selfsup_cli.errors import InputError
from selfsup_cli.models.backbone import Backbone, Spec
from selfsup_cli.models.batch_norm import followed
from selfsup_cli.models.building import construct
from selfsup_cli.models.layers import Scalable
from selfsup_cli.randomness import generator

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def _spelled(backbone: Backbone, **changed: Any) -> Backbone:
    """The network that the spec says with something `changed`, without values."""
    spec = {**backbone.spec, "resize": backbone.input.resize, **changed}
    return construct(Spec.model_validate(spec)).eval()


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
