"""The jobs that presets describe, by the name under which their presets are filed."""

from __future__ import annotations

from typing import Any, get_args

from selfsup_cli.config.artifacts import PretrainArtifacts
from selfsup_cli.config.bilevel import PretrainBilevel
from selfsup_cli.config.blocks import Preset
from selfsup_cli.config.controls import (
    PretrainRotnet3d,
    PretrainShuffleLearn,
    PretrainSupervised,
)
from selfsup_cli.config.detect import TransferDetect
from selfsup_cli.config.evaluation import Probe, Retrieve
from selfsup_cli.config.export import ExportEmbeddings
from selfsup_cli.config.export_images import ExportImageEmbeddings
from selfsup_cli.config.gan import PretrainGan
from selfsup_cli.config.generated import SampleDfgan, Score
from selfsup_cli.config.image_evaluation import ProbeImages
from selfsup_cli.config.image_pictures import MeanImage, SampleTransformations
from selfsup_cli.config.looks import (
    VisualizeActivations,
    VisualizeFilters,
    VisualizeGradcam,
    VisualizeNeighbours,
)
from selfsup_cli.config.multiview import PretrainMultiview
from selfsup_cli.config.pictures import GuidedBackprop
from selfsup_cli.config.pose import TransferPose
from selfsup_cli.config.retrieval_images import RetrieveImages
from selfsup_cli.config.segment import TransferSegment
from selfsup_cli.config.shortcuts import DetectShortcuts
from selfsup_cli.config.spotting import SampleArtifacts
from selfsup_cli.config.synchrony import ProbeSync, RetrieveSync
from selfsup_cli.config.temporal import PretrainTemporal
from selfsup_cli.config.tiles import ProbeTiles
from selfsup_cli.config.transfer import TransferAction, TransferOrder, TransferSync
from selfsup_cli.config.transfer_images import TransferClassify
from selfsup_cli.config.transformations import PretrainTransformations

JOBS: dict[str, type[Preset]] = {
    "pretrain/temporal": PretrainTemporal,
    "pretrain/shuffle-learn": PretrainShuffleLearn,
    "pretrain/rotnet3d": PretrainRotnet3d,
    "pretrain/supervised": PretrainSupervised,
    "pretrain/artifacts": PretrainArtifacts,
    "pretrain/transformations": PretrainTransformations,
    "pretrain/multiview": PretrainMultiview,
    "pretrain/dfgan": PretrainGan,
    "pretrain/bilevel": PretrainBilevel,
    "transfer/action": TransferAction,
    "transfer/sync": TransferSync,
    "transfer/order": TransferOrder,
    "transfer/classify": TransferClassify,
    "transfer/segment": TransferSegment,
    "transfer/detect": TransferDetect,
    "transfer/pose": TransferPose,
    "probe": Probe,
    "probe-images": ProbeImages,
    "probe-tiles": ProbeTiles,
    "probe-sync": ProbeSync,
    "retrieve": Retrieve,
    "retrieve-images": RetrieveImages,
    "retrieve-sync": RetrieveSync,
    "export/embeddings": ExportEmbeddings,
    "export/image-embeddings": ExportImageEmbeddings,
    "visualize/guided-backprop": GuidedBackprop,
    "visualize/mean-image": MeanImage,
    "visualize/filters": VisualizeFilters,
    "visualize/activations": VisualizeActivations,
    "visualize/gradcam": VisualizeGradcam,
    "visualize/neighbours": VisualizeNeighbours,
    "sample/transformations": SampleTransformations,
    "sample/artifacts": SampleArtifacts,
    "sample/dfgan": SampleDfgan,
    "score": Score,
    "shortcuts": DetectShortcuts,
}


def discriminator(job: str) -> tuple[str, str]:
    """The key and value by which a preset says that it is for `job`: `("method", "temporal")`."""
    fields = JOBS[job].model_fields
    key = "method" if "method" in fields else "task"
    return key, get_args(fields[key].annotation)[0]


def job_in(data: Any) -> str | None:
    """The job that a preset's plain data says it is for; None if it says none that is known."""
    if isinstance(data, dict):
        for job in JOBS:
            key, value = discriminator(job)
            if data.get(key) == value:
                return job
    return None
