"""Networks, and the contract that all of them keep."""

from selfsup_cli.models.backbone import Backbone, InputSpec
from selfsup_cli.models.building import build
from selfsup_cli.models.heads import LinearHead
from selfsup_cli.models.weights import load_backbone, save_backbone, sidecar_path

__all__ = [
    "Backbone",
    "InputSpec",
    "LinearHead",
    "build",
    "load_backbone",
    "save_backbone",
    "sidecar_path",
]
