"""The Inception network of 2015, whose features make an FID, from a file that the user has.

It is torch-fidelity's conversion of TensorFlow's graph: bilinear scaling to 299 pixels as
TensorFlow 1 did it, pool3 for distances, logits without their bias for the Inception Score.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from selfsup_cli.engine.checkpoints import read_tensors
from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.evaluation.frechet import INCEPTION
from selfsup_cli.evaluation.judges import FEATURES, LOGITS, Judge
from selfsup_cli.runs.atomic import file_sha256

FILE = "weights-inception-2015-12-05-6726825d.pth"
"""What torch-fidelity calls the weights; the last part begins their SHA-256."""
SHA256 = "6726825d"

_LAYERS = {FEATURES: "2048", LOGITS: "logits_unbiased"}


def inception_judge(path: Path, device: torch.device) -> Judge:
    """The network with the weights of a file in the layout of torch-fidelity's `FILE`.

    A file of other content that fits the network is taken under a name of its own, so that its
    numbers are no FID. Raises InputError for a file that is not there, cannot be read or does not
    fit, MachineError without torch-fidelity.
    """
    network = _network(path, _tensors(path)).to(device)
    digest = file_sha256(path)
    name, said = INCEPTION, None
    if not digest.startswith(SHA256):
        name = f"inception-{digest[:8]}"
        said = (
            f"{path.name} has the layout of the Inception network of 2015 but not its content (its "
            f"SHA-256 begins with {digest[:8]}, not with {SHA256}): its numbers are named after "
            f"{name}, and are no FID, IS or KID"
        )

    @torch.no_grad()
    def look(images: Tensor) -> dict[str, Tensor]:
        return dict(zip(_LAYERS, network(images.to(device)), strict=True))

    dims = {FEATURES: 2048, LOGITS: 1008}
    return Judge(name, look, dims, digest, "to 299×299, bilinear as TensorFlow 1 did it", said)


def _network(path: Path, tensors: Mapping[str, Tensor]) -> nn.Module:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise MachineError(
            "--inception needs torch-fidelity, which is not installed",
            kind="missing-package",
            hint="pip install 'selfsup[fid]'",
        ) from error
    # Given a path it would unpickle whatever lies there; what it gets has been read as tensors.
    clean = io.BytesIO()
    torch.save(dict(tensors), clean)
    clean.seek(0)
    try:
        network: nn.Module = FeatureExtractorInceptionV3(
            "inception-v3-compat", list(_LAYERS.values()), feature_extractor_weights_path=clean
        )
    except RuntimeError as error:
        said = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        raise InputError(
            f"--inception {path}: this is not the Inception network of 2015 "
            f"({(said or ['its tensors do not fit'])[0][:100]} …); torchvision's Inception is "
            f"another network; the file is torch-fidelity's {FILE}",
            kind="inception",
        ) from error
    return network


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(
            f"--inception {path}: there is no such file; it is torch-fidelity's {FILE} (its "
            "release v0.2.0), which does not come along and is never fetched",
            kind="inception",
        )
    try:
        found = read_tensors(path)
    except InputError as error:
        raise InputError(f"--inception {error}", kind="inception") from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise InputError(f"--inception {path}: this is no file of weights", kind="inception")
    return found
