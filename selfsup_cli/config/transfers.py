"""All presets of `selfsup transfer TASK`."""

from __future__ import annotations

from selfsup_cli.config.pose import TransferPose
from selfsup_cli.config.transfer import TransferVideo
from selfsup_cli.config.transfer_images import TransferImages

Transfer = TransferVideo | TransferImages | TransferPose
"""A preset of transfer, whatever it is trained on."""
