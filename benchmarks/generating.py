"""Samples a second of a generator, and an FID beside torch-fidelity's on the same images.

Inception has random weights in the layout of the real ones: arithmetic and time are compared.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import measure
import torch
from torch import Tensor

from selfsup_cli.evaluation.frechet import Moments, frechet_distance
from selfsup_cli.evaluation.gan_pixels import Samples
from selfsup_cli.evaluation.inception import inception_judge
from selfsup_cli.evaluation.judges import Judge, see
from selfsup_cli.models.gan import Generator
from selfsup_cli.models.gan_sampling import Latents, Sampler
from selfsup_cli.randomness import generator

COUNT, IMAGES = 1000, 32
SAMPLING = f"images/s: {COUNT} samples of 32×32, base 16, uint8"
DISTANCE = f"FID of {IMAGES} and {IMAGES} images, Inception with random weights"
LIMITS: dict[str, str] = {}


def rows() -> list[measure.Row]:
    """Speed of sampling over a bare loop; difference and time of an FID."""
    torch.set_num_threads(1)
    network = Generator(generator(0, "bench"), base=16)
    samples = Samples(Sampler(network), Latents(0, network.latent), COUNT, "bench")
    spent = measure.interleaved(
        {
            "ours": lambda: [len(part) for part in samples.read([(0, COUNT)], 100)],
            "bare": lambda: _bare(network.train()),
        }
    )
    found: list[measure.Row] = [(SAMPLING, "bare loop", spent["bare"] / spent["ours"], "≥ 0.95")]
    try:
        import torch_fidelity
    except ImportError:
        return [*found, (DISTANCE, "torch-fidelity", measure.ABSENT, "≤ 0.001")]
    with tempfile.TemporaryDirectory() as folder:
        return found + _distances(Path(folder), torch_fidelity)


@torch.no_grad()
def _bare(network: Generator) -> None:
    g = torch.Generator().manual_seed(0)
    for _ in range(COUNT // 100):
        images = network(torch.randn(100, network.latent, generator=g))
        images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def _distances(folder: Path, fidelity: Any) -> list[measure.Row]:
    path = _weights(folder)
    judge = inception_judge(path, torch.device("cpu"))
    drawn = torch.randint(256, (2 * IMAGES, 3, 32, 32), generator=generator(0, "bench"))
    sides = [drawn[:IMAGES].to(torch.uint8), (drawn[IMAGES:] // 2).to(torch.uint8)]
    values: dict[str, float] = {}

    def ours() -> None:
        found = [Moments.of(_features(judge, images)) for images in sides]
        values["ours"] = frechet_distance(*found)

    def theirs() -> None:
        told = fidelity.calculate_metrics(
            input1=_Images(sides[0]), input2=_Images(sides[1]), fid=True, cuda=False,
            verbose=False, batch_size=16, feature_extractor_weights_path=str(path),
            save_cpu_ram=True,
        )  # fmt: skip
        values["theirs"] = told["frechet_inception_distance"]

    spent = measure.interleaved({"ours": ours, "theirs": theirs}, rounds=1)
    apart = abs(values["ours"] - values["theirs"])
    return [
        (f"{DISTANCE}: difference", "torch-fidelity", apart, "≤ 0.001"),
        (f"{DISTANCE}: time", "torch-fidelity", spent["ours"] / spent["theirs"], "≤ 1.1"),
    ]


def _features(judge: Judge, images: Tensor) -> Tensor:
    with tempfile.TemporaryDirectory() as folder:
        return see(judge, _Pixels(images), batch=16, folder=Path(folder)).features


class _Pixels:
    fingerprint = "bench"

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def read(self, spans: Any, batch: int) -> Any:
        for first, last in spans:
            yield from torch.split(self.images[first:last], batch)


class _Images(torch.utils.data.Dataset[Tensor]):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


def _weights(folder: Path) -> Path:
    """Random weights in the layout of torch-fidelity's file."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    class Untouched(theirs.FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *arguments: object, **settings: object) -> None:
            """Keep what was drawn."""

    path = folder / "weights.pth"
    torch.save({}, path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Untouched("inception-v3-compat", ["2048"], feature_extractor_weights_path=path)
        for name, value in network.named_parameters():
            if name.endswith("conv.weight"):  # else features are all but zero
                torch.nn.init.kaiming_normal_(value)
    torch.save(network.state_dict(), path)
    return path


if __name__ == "__main__":
    measure.main(rows, LIMITS)
