"""The jobs that presets describe, by the name under which their presets are filed."""

from __future__ import annotations

from selfsup_cli.config.blocks import Preset
from selfsup_cli.config.evaluation import Probe, Retrieve
from selfsup_cli.config.temporal import PretrainTemporal

JOBS: dict[str, type[Preset]] = {
    "pretrain/temporal": PretrainTemporal,
    "probe": Probe,
    "retrieve": Retrieve,
}
