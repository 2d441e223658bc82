from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from evaluation_toys import CPU, ToySource, small_backbone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from selfsup_cli.engine.devices import Hardware
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation import cache as caches
from selfsup_cli.evaluation import features as feats
from selfsup_cli.evaluation.clips import ClipProtocol, Control
from selfsup_cli.evaluation.features import (
    EMBEDDING,
    Features,
    embed,
    extract,
    pool,
    standard,
    weights_sha256,
)
from selfsup_cli.models import Backbone
from selfsup_cli.transforms.clips import center

LENGTHS = [30, 12, 50, 8, 20]
CLIPS = ClipProtocol(8, 2, 3)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards for a handful of videos."""
    cut = caches.plan_shards
    monkeypatch.setattr(caches, "plan_shards", lambda rows, size, limit: cut(rows, size, 9000))


def by_hand(backbone: Backbone, source: ToySource, clips: ClipProtocol, layer: str) -> torch.Tensor:
    """Activations of one clip at a time, unpooled."""
    backbone.eval()
    rows = []
    for i in range(len(source)):
        for frames in clips(int(source.num_frames[i]), source.ids[i]):
            clip = source.read(i, frames, backbone.input.resize)[None]
            with torch.no_grad():
                rows.append(backbone.features(center(clip, backbone.input.crop), [layer])[layer])
    return torch.cat(rows)


def files(root: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.suffix in (".h5", ".json")
    }


@pytest.mark.parametrize("control", [None, "still", "shuffled", "reversed"])
@pytest.mark.parametrize("workers", [0, 2])
def test_all_layers_in_one_pass_equal_one_clip_at_a_time(
    control: Control | None, workers: int
) -> None:
    backbone, source = small_backbone(), ToySource(LENGTHS)
    clips = ClipProtocol(8, 2, 3, control, 1)
    found = extract(backbone, source, clips, hardware=CPU, grid=2, batch=4, workers=workers)
    assert list(found.dims) == [*backbone.layers, EMBEDDING]
    assert found.video.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 4, 4]
    for layer in ("conv2", "conv5", "fc2"):
        whole = by_hand(backbone, source, clips, layer)
        if whole.ndim == 5:
            cells = [min(2, length) for length in whole.shape[2:]]
            whole = F.adaptive_avg_pool3d(whole, cells).flatten(1)
        torch.testing.assert_close(found.read(layer), whole, atol=1e-5, rtol=1e-5)
    last = by_hand(backbone, source, clips, "conv5").mean((2, 3, 4))
    torch.testing.assert_close(found.read(EMBEDDING), last, atol=1e-5, rtol=1e-5)


def test_pooling_averages_to_cells_and_leaves_vectors() -> None:
    x = torch.arange(2 * 3 * 4 * 6 * 1, dtype=torch.float32).reshape(2, 3, 4, 6, 1)
    pooled = pool(x, 2)
    assert pooled.shape == (2, 3 * 2 * 2 * 1)
    assert pooled[1, 0] == x[1, 0, :2, :3].mean()
    assert pooled[1, 3] == x[1, 0, 2:, 3:].mean()
    assert torch.equal(pool(x, 1), x.mean((2, 3, 4)))
    vector = torch.randn(2, 5)
    assert torch.equal(pool(vector, 2), vector)


def test_the_second_time_nothing_is_read(tmp_path: Path) -> None:
    backbone, source = small_backbone(), ToySource(LENGTHS)
    first = extract(backbone, source, CLIPS, hardware=CPU, root=tmp_path)
    assert sorted(set(source.reads)) == [0, 1, 2, 3, 4]
    assert len(files(tmp_path)) > 2
    source.reads.clear()
    again = extract(backbone, source, CLIPS, hardware=CPU, root=tmp_path)
    assert source.reads == []
    assert torch.equal(first.read("conv3"), again.read("conv3"))


def test_what_decides_the_features_decides_the_key(tmp_path: Path) -> None:
    bf16 = Hardware(torch.device("cpu"), torch.bfloat16)
    source = ToySource(LENGTHS[:2])
    runs = [
        lambda: extract(small_backbone(), source, CLIPS, hardware=CPU, root=tmp_path),
        lambda: extract(small_backbone(1), source, CLIPS, hardware=CPU, root=tmp_path),
        lambda: extract(
            small_backbone(), ToySource(LENGTHS[:2], salt="x"), CLIPS, hardware=CPU, root=tmp_path
        ),
        lambda: extract(
            small_backbone(), source, ClipProtocol(8, 2, 3, "still"), hardware=CPU, root=tmp_path
        ),
        lambda: extract(
            small_backbone(), source, CLIPS, layers=["conv2"], hardware=CPU, root=tmp_path
        ),
        lambda: extract(small_backbone(), source, CLIPS, grid=2, hardware=CPU, root=tmp_path),
        lambda: extract(small_backbone(), source, CLIPS, hardware=bf16, root=tmp_path),
    ]
    for count, run in enumerate(runs, 1):
        run()
        assert len(list((tmp_path / "features").iterdir())) == count
    for run in runs:
        run()
    assert len(list((tmp_path / "features").iterdir())) == len(runs)


def test_stopped_in_the_middle_it_goes_on_and_ends_bit_identical(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    backbone, source = small_backbone(), ToySource(LENGTHS)
    told: list[tuple[int, int]] = []
    extract(
        backbone, source, CLIPS, hardware=CPU, batch=2, root=tmp_path / "whole",
        progress=lambda *at: told.append(at),
    )  # fmt: skip
    assert told[-1] == (5, 5)
    assert told == sorted(told)

    def stop(done: int, total: int) -> None:
        if done >= 3:
            raise StopError

    part = tmp_path / "part"
    with pytest.raises(StopError):
        extract(backbone, source, CLIPS, hardware=CPU, batch=2, root=part, progress=stop)
    assert 0 < len(list(part.rglob("*.h5"))) < len(list((tmp_path / "whole").rglob("*.h5")))
    source.reads.clear()
    extract(backbone, source, CLIPS, hardware=CPU, batch=2, root=part)
    assert 0 not in source.reads
    assert files(part) == files(tmp_path / "whole")


def test_a_damaged_shard_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backbone, source = small_backbone(), ToySource(LENGTHS)
    good = extract(backbone, source, CLIPS, hardware=CPU, root=tmp_path).read("conv4")
    before = files(tmp_path)
    path = min(tmp_path.rglob("*.h5"))
    path.write_bytes(path.read_bytes()[:-7])
    with caplog.at_level(logging.WARNING, "selfsup"):
        again = extract(backbone, source, CLIPS, hardware=CPU, root=tmp_path)
    assert "made again" in caplog.text
    assert torch.equal(again.read("conv4"), good)
    assert files(tmp_path) == before


def test_a_video_that_cannot_be_read_ends_an_evaluation() -> None:
    source = ToySource(LENGTHS, broken=("toy/002.avi",))
    with pytest.raises(InputError, match=r"toy/002.avi of toy cannot be read.*--quarantine"):
        extract(small_backbone(), source, CLIPS, hardware=CPU)


def test_an_unknown_layer_is_named_with_its_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown layer 'conv6' \(did you mean 'conv"):
        extract(small_backbone(), ToySource([20]), CLIPS, layers=["conv6"], hardware=CPU)
    with pytest.raises(InputError, match="unknown layer 'fc1'"):
        Features.of({"conv1": np.zeros((2, 3), np.float32)}, np.arange(2)).read("fc1")


def test_weights_that_give_no_numbers_are_refused() -> None:
    backbone = small_backbone()
    with torch.no_grad():
        next(backbone.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match=r"layer conv1 gives values that are not finite .*toy/000"):
        extract(backbone, ToySource(LENGTHS), CLIPS, hardware=CPU)


def test_the_network_is_left_in_its_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = small_backbone().train()
    norm = next(module for module in backbone.modules() if isinstance(module, nn.BatchNorm3d))
    norm.eval()
    before = weights_sha256(backbone)
    extract(backbone, ToySource([20]), CLIPS, hardware=CPU)
    assert backbone.training
    assert not norm.training
    assert weights_sha256(backbone) == before  # no running statistics were moved
    monkeypatch.setattr(feats, "check_finite", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        extract(backbone, ToySource([21]), CLIPS, hardware=CPU)
    assert backbone.training


def test_the_hash_of_weights_sees_names_types_and_every_value() -> None:
    class Net(nn.Module):
        def __init__(self, name: str, value: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer(name, value)

    zero = torch.zeros(4)
    one = zero.clone()
    one[3] = 1e-30
    several = [
        Net("a", zero), Net("b", zero), Net("a", one), Net("a", zero.half()),
        Net("a", zero.reshape(2, 2)), Net("a", torch.zeros((), dtype=torch.int64)),
    ]  # fmt: skip
    assert len({weights_sha256(net) for net in several}) == len(several)
    assert weights_sha256(Net("a", zero)) == weights_sha256(Net("a", torch.zeros(8)[::2]))


def test_embeddings_of_videos_without_a_cache(tmp_path: Path) -> None:
    backbone, source = small_backbone(), ToySource(LENGTHS)
    cached = extract(backbone, source, CLIPS, hardware=CPU, root=tmp_path)
    found, videos = embed(backbone, source, CLIPS, hardware=CPU, batch=4)
    assert videos.tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(found, cached.video_means(EMBEDDING, 5), atol=1e-5, rtol=1e-5)
    told: list[str] = []
    broken = ToySource(LENGTHS, broken=("toy/001.avi",))
    some, videos = embed(
        backbone, broken, CLIPS, hardware=CPU, bad=lambda name, reason: told.append(name)
    )
    assert videos.tolist() == [0, 2, 3, 4]
    assert told == ["toy/001.avi"]
    torch.testing.assert_close(some, found[[0, 2, 3, 4]], atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="no video of toy could be read"):
        embed(
            backbone, ToySource([9], broken=("toy/000.avi",)), CLIPS,
            hardware=CPU, bad=lambda *about: None,
        )  # fmt: skip


class _Parts:
    """Rows in parts of the given lengths, as the cache has them."""

    def __init__(self, whole: np.ndarray, lengths: Sequence[int]) -> None:
        self.whole = whole
        self.ends = np.cumsum([0, *lengths]).tolist()

    def bounds(self) -> list[tuple[int, int]]:
        return list(zip(self.ends[:-1], self.ends[1:], strict=True))

    def read(self, part: int, layer: str, start: int, stop: int) -> np.ndarray:
        first, last = self.bounds()[part]
        assert 0 <= start < stop <= last - first
        return self.whole[first + start : first + stop]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), data=st.data())
@pytest.mark.parametrize("gap", [1, 3, 256])
def test_rows_are_found_whatever_part_they_lie_in(
    gap: int, lengths: list[int], data: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feats, "_GAP", gap)
    total = sum(lengths)
    whole = np.random.default_rng(0).normal(size=(total, 3)).astype(np.float32)
    video = np.sort(np.random.default_rng(1).integers(0, 4, total))
    found = Features(_Parts(whole, lengths), {"a": 3}, video, {})
    assert np.array_equal(found.read("a"), whole)
    blocks = list(found.blocks("a", rows=data.draw(st.integers(1, 5))))
    assert np.array_equal(torch.cat([block for _, block in blocks]), whole)
    sizes = [len(block) for _, block in blocks]
    assert [first for first, _ in blocks] == np.cumsum([0, *sizes[:-1]]).tolist()
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, total - 1)))), dtype=np.int64)
    assert np.array_equal(found.take("a", chosen), whole[chosen])
    means = found.video_means("a", 4)
    for v in range(4):
        expected = whole[video == v].mean(0) if (video == v).any() else np.zeros(3)
        np.testing.assert_allclose(means[v], expected, atol=1e-6)


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 30), max_size=4), scale=st.sampled_from([1e-4, 1.0, 1e4]))
def test_statistics_in_one_pass_equal_those_of_the_whole(cuts: list[int], scale: float) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(30, 5)) * [1, 2, 3, 4, 0] + [0, 1000, -5, 1, 7]) * scale
    rows = torch.from_numpy(x).float()
    bounds = [0, *sorted(cuts), 30]
    found = standard(rows[a:b] for a, b in pairwise(bounds))
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-5, atol=1e-5 * scale)
    variance = rows.double().numpy().var(0)
    expected = 1 / np.sqrt(variance + 1e-3 * variance.mean())
    np.testing.assert_allclose(found.scale, expected, rtol=1e-4)
    out = found(rows)
    assert out[:, 4].abs().max() < 1e-2  # what does not vary says nothing
    np.testing.assert_allclose(out.std(0, correction=0)[:4], 1, atol=0.02)


def test_statistics_of_constants_are_harmless() -> None:
    constant = torch.full((4, 3), 2.5)
    assert torch.equal(standard(iter([constant]))(constant), torch.zeros(4, 3))
    with pytest.raises(InputError, match="no features"):
        standard(iter([torch.zeros(0, 3)]))
