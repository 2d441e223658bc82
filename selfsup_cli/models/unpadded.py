"""An AlexNet without padding, which is looked at on larger crops (sections 3.4.1 and 4.4.1)."""

from __future__ import annotations

from selfsup_cli.config.registry import PADDED
from selfsup_cli.errors import InputError
from selfsup_cli.models.backbone import Backbone, Spec
from selfsup_cli.models.building import construct


def unpadded(backbone: Backbone, crop: int = 227, resize: int | None = None) -> Backbone:
    """A copy of an AlexNet's convolutions without padding, for larger crops, on the CPU.

    They are cut out of images of `resize` pixels (default: as many as the crop has). Raises
    InputError for another network.
    """
    if backbone.arch not in PADDED:
        raise InputError(
            f"{backbone.arch} has only its own padding and cannot do without it, as views.unpadded "
            "asks: use --set views.unpadded=null",
            kind="network",
        )
    size = {"padding": "valid", "crop": crop, "resize": (resize or crop, resize or crop)}
    other = construct(Spec.model_validate({**backbone.spec, **size})).allocate()
    state = backbone.state_dict()
    other.load_state_dict({name: state[name] for name in other.state_dict()})
    other.trained_on = backbone.trained_on
    return other.train(backbone.training)
