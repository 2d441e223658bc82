"""Features of images by a network, on disk as far as they were made, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from selfsup_cli.errors import InputError, Stopped
from selfsup_cli.evaluation import inception, judges
from selfsup_cli.evaluation.frechet import INCEPTION, Moments, frechet_distance
from selfsup_cli.evaluation.inception import SHA256, inception_judge
from selfsup_cli.evaluation.judges import FEATURES, LOGITS, Judge, Span, backbone_judge, see
from selfsup_cli.models import build

CPU = torch.device("cpu")


@dataclass
class Some:
    """Random images, and which of them were read."""

    images: Tensor
    fingerprint: str = "some"
    read_: list[Span] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, spans: Sequence[Span], batch: int) -> Iterator[Tensor]:
        for first, last in spans:
            self.read_.append((first, last))
            yield from torch.split(self.images[first:last], batch)


def some(count: int, side: int = 4, seed: int = 0) -> Some:
    g = torch.Generator().manual_seed(seed)
    return Some(torch.randint(256, (count, 3, side, side), generator=g, dtype=torch.uint8))


def plain(images: Tensor) -> dict[str, Tensor]:
    flat = images.flatten(1).float()
    return {FEATURES: flat[:, :5], LOGITS: flat[:, 5:8]}


JUDGE = Judge("plain", plain, {FEATURES: 5, LOGITS: 3}, "0" * 64, "as they are")


def test_features_are_kept_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "_SHARD_IMAGES", 8)
    pixels = some(20)
    found = see(JUDGE, pixels, batch=3)
    wanted = plain(pixels.images)
    assert torch.equal(found.features, wanted[FEATURES])
    assert found.logits is not None
    assert torch.equal(found.logits, wanted[LOGITS])
    assert pixels.read_ == [(0, 8), (8, 16), (16, 20)]
    again = some(20)
    assert torch.equal(see(JUDGE, again, batch=3).features, found.features)
    assert again.read_ == []
    # What decides the features decides where they lie.
    other = some(20, seed=1)
    other.fingerprint = "other"
    assert not torch.equal(see(JUDGE, other, batch=3).features, found.features)
    changed = Judge("plain", plain, JUDGE.dims, "1" * 64, "as they are")
    fresh = some(20)
    see(changed, fresh, batch=3)
    assert fresh.read_


def test_extraction_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "_SHARD_IMAGES", 8)

    def stop(done: int, total: int) -> None:
        if done > 10:
            raise Stopped("now", 143)

    first, second = some(20), some(20)
    with pytest.raises(Stopped):
        see(JUDGE, first, batch=4, folder=tmp_path / "here", progress=stop)
    found = see(JUDGE, second, batch=4, folder=tmp_path / "here")
    assert second.read_ == [(8, 16), (16, 20)]
    assert torch.equal(found.features, plain(first.images)[FEATURES])


def test_unusable_weights_are_told() -> None:
    def broken(images: Tensor) -> dict[str, Tensor]:
        return {name: value * torch.nan for name, value in plain(images).items()}

    judge = Judge("broken", broken, JUDGE.dims, "2" * 64, "")
    with pytest.raises(InputError, match="broken gives features that are not finite"):
        see(judge, some(3))


@pytest.mark.parametrize("side", [32, 96, 120])
def test_a_backbone_judges_by_its_embedding(side: int) -> None:
    backbone = build("alexnet", width=0.0625)  # centre 64 of images scaled to 96
    judge = backbone_judge(backbone, "alexnet", CPU)
    images = some(2, side).images
    scaled = images
    if side != 96:
        found = interpolate(images.float(), (96, 96), mode="bilinear", antialias=True)
        scaled = found.round().clamp(0, 255).to(torch.uint8)
        by_bytes = interpolate(images, (96, 96), mode="bilinear", antialias=True)
        assert (scaled.int() - by_bytes.int()).abs().max() <= 1
    middle = scaled[:, :, 16:80, 16:80].float() / 127.5 - 1
    with torch.no_grad():
        wanted = backbone.embed(middle)
    torch.testing.assert_close(judge.look(images)[FEATURES], wanted, atol=1e-5, rtol=1e-4)
    assert judge.dims == {FEATURES: wanted.shape[1]}
    assert judge.resize.startswith("shorter side to 96 pixels")


# Inception


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the layout of the Inception network of 2015, with random values."""
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path_factory.mktemp("inception") / "weights.pth"

    class Untouched(theirs.FeatureExtractorInceptionV3):  # type: ignore[misc, name-defined]
        def load_state_dict(self, *args: object, **more: object) -> None:
            """Keep what was drawn."""

    empty = path.with_name("empty.pth")
    torch.save({}, empty)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Untouched("inception-v3-compat", ["2048"], feature_extractor_weights_path=empty)
        for name, value in network.named_parameters():
            if name.endswith("conv.weight"):  # else features are all but zero
                torch.nn.init.kaiming_normal_(value)
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def judge(weights: Path) -> Judge:
    return inception_judge(weights, CPU)


def test_inception_is_torch_fidelitys(weights: Path, judge: Judge) -> None:
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    images = some(2, 32).images
    found = judge.look(images)
    network = theirs.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"],
        feature_extractor_weights_path=str(weights),
    )  # fmt: skip
    features, logits = network(images)
    assert torch.equal(found[FEATURES], features)
    assert torch.equal(found[LOGITS], logits)
    assert judge.dims == {FEATURES: features.shape[1], LOGITS: logits.shape[1]}


def test_other_weights_never_make_an_fid(judge: Judge) -> None:
    assert judge.name == f"inception-{judge.weights[:8]}"
    assert judge.name != INCEPTION
    assert judge.said is not None
    assert f"not with {SHA256}" in judge.said


def test_the_right_content_makes_an_fid(
    weights: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inception, "SHA256", judge.weights[:8])
    monkeypatch.setattr(inception, "_network", lambda path, tensors: torch.nn.Identity())
    again = inception_judge(weights, CPU)
    assert (again.name, again.said) == (INCEPTION, None)


def test_files_that_are_not_it_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file; it is torch-fidelity's"):
        inception_judge(tmp_path / "none.pth", CPU)
    other = tmp_path / "other.pth"
    torch.save(build("alexnet", width=0.0625).state_dict(), other)
    with pytest.raises(InputError, match="this is not the Inception network of 2015"):
        inception_judge(other, CPU)
    torch.save([1, 2], other)
    with pytest.raises(InputError, match="this is no file of weights"):
        inception_judge(other, CPU)
    other.write_bytes(b"no weights at all")
    with pytest.raises(InputError, match=r"--inception .*other\.pth"):
        inception_judge(other, CPU)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(InputError, match="--inception"):
        inception_judge(cut, CPU)


@pytest.mark.slow
def test_the_distance_is_torch_fidelitys_on_the_same_images(weights: Path, judge: Judge) -> None:
    fidelity = pytest.importorskip("torch_fidelity")
    ours, theirs = some(24, 32), some(20, 32, seed=1)
    theirs.images //= 2
    theirs.fingerprint = "theirs"
    found = [Moments.of(see(judge, side, batch=8).features) for side in (ours, theirs)]
    told = fidelity.calculate_metrics(
        input1=_set(ours.images), input2=_set(theirs.images), fid=True, cuda=False, verbose=False,
        batch_size=8, feature_extractor_weights_path=str(weights), save_cpu_ram=True,
    )  # fmt: skip
    wanted = told["frechet_inception_distance"]
    assert wanted > 1
    assert frechet_distance(*found) == pytest.approx(wanted, abs=1e-3)


def _set(images: Tensor) -> torch.utils.data.Dataset[Tensor]:
    class Images(torch.utils.data.Dataset[Tensor]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, i: int) -> Tensor:
            return images[i]

    return Images()


def test_scores_are_made_in_float32() -> None:
    flags: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [flag.allow_tf32 for flag in flags]
    with judges.exact():
        assert not any(flag.allow_tf32 for flag in flags)
    assert [flag.allow_tf32 for flag in flags] == before
