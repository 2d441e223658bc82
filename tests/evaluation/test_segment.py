"""Segmentation: scores with intervals, the loss, what is done to image and mask, whole images."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, jaccard_score

from selfsup_cli.config.presets import resolve
from selfsup_cli.config.segment import SegmentAugmentation, TransferSegment
from selfsup_cli.data.mask_source import open_masked
from selfsup_cli.data.masked_images import MaskedImages
from selfsup_cli.data.masks import decode_mask
from selfsup_cli.engine.devices import choose
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.segment import (
    MOST_PIXELS,
    Segment,
    augmented,
    pixel_loss,
    segmented,
    starts,
    whole,
)
from selfsup_cli.evaluation.segment_scores import Segmentations, interval, measured, spread
from selfsup_cli.models import build
from selfsup_cli.models.fcn import FcnSpec, Segmenter

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from masked_folders import folders, write_mask

ABOUT = {"task": "segment", "subject": "learned", "dataset": "d", "split": "s"}
NAMES = [f"p{i}" for i in range(6)]


class Named:
    """As much of a source as scores need."""

    def __init__(self, count: int, classes: tuple[str, ...]) -> None:
        self.ids = [f"i{k}" for k in range(count)]
        self.classes = classes


def scored(confusions: np.ndarray, classes: tuple[str, ...], trained: list[bool]) -> Any:
    source: Any = Named(len(confusions), classes)
    found = Segmentations(source, confusions)
    return {row.name: row for row in measured(found, ABOUT, {"p": 1}, trained)}


def test_scores_are_those_of_all_pixels_together() -> None:
    rng = np.random.default_rng(0)
    truths = [rng.integers(0, 3, 50 + 10 * k) for k in range(5)]
    founds = [np.where(rng.random(len(t)) < 0.6, t, rng.integers(0, 3, len(t))) for t in truths]
    confusions = np.zeros((5, 3, 3), np.int64)
    for k, (truth, found) in enumerate(zip(truths, founds, strict=True)):
        np.add.at(confusions[k], (truth, found), 1)
    rows = scored(confusions, ("a", "b", "c"), [True] * 3)
    truth, found = np.concatenate(truths), np.concatenate(founds)
    each = jaccard_score(truth, found, average=None)
    assert rows["mIoU"].value == pytest.approx(100 * each.mean())
    assert rows["pixel accuracy"].value == pytest.approx(100 * accuracy_score(truth, found))
    balanced = balanced_accuracy_score(truth, found)
    assert rows["mean class accuracy"].value == pytest.approx(100 * balanced)
    for name, iou in zip("abc", each, strict=True):
        assert rows[f"IoU {name}"].value == pytest.approx(100 * iou)
    most = np.bincount(truth).argmax()
    constant = np.full(len(truth), most)
    chance = jaccard_score(truth, constant, average="macro", zero_division=0)
    assert rows["mIoU"].chance == pytest.approx(100 * chance)
    assert rows["mIoU"].n == 5


def test_intervals_are_those_of_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(1)
    confusions = rng.integers(0, 40, (12, 3, 3)) + 30 * np.eye(3, dtype=np.int64)
    varied = spread(confusions)
    assert varied is not None
    again = []
    for _ in range(3000):
        counts = confusions[rng.integers(0, 12, 12)].sum(0)
        right = np.diag(counts)
        again.append(np.mean(right / (counts.sum(0) + counts.sum(1) - right)))
    expected = np.quantile(again, [0.025, 0.975])
    value = float(np.mean(again))
    found = interval(value, varied.mean_iou)
    assert found is not None
    width = expected[1] - expected[0]
    assert abs(found.low - expected[0]) < 0.15 * width
    assert abs(found.high - expected[1]) < 0.15 * width
    again_ = spread(confusions)
    assert again_ is not None
    np.testing.assert_array_equal(varied.mean_iou, again_.mean_iou)
    assert spread(confusions[:1]) is None
    assert interval(0.5, np.array([np.nan])) is None


def test_classes_that_cannot_be_judged_are_named() -> None:
    confusion = np.array([[8, 0, 2, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])[None]
    rows = scored(confusion, ("a", "b", "phantom", "absent"), [True, False, True, True])
    protocol = rows["mIoU"].protocol
    assert protocol["not_in_test"] == ["phantom", "absent"]
    assert protocol["found_though_not_in_test"] == ["phantom"]
    assert protocol["never_trained"] == ["b"]
    assert rows["mIoU"].value == pytest.approx(100 * (8 / 11 + 1 / 2 + 0) / 3)
    assert rows["mean class accuracy"].value == pytest.approx(100 * (0.8 + 0.5) / 2)
    assert "IoU absent" not in rows
    assert rows["IoU phantom"].value == 0
    assert rows["mIoU"].interval is None


def test_the_loss_leaves_out_what_does_not_count() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=g, requires_grad=True)
    masks = torch.randint(3, (2, 4, 5), generator=g).to(torch.uint8)
    masks[:, 0] = 255
    loss, right = pixel_loss(logits, masks)
    each = [
        (-logits[b, :, y, x].log_softmax(0)[int(masks[b, y, x])],
         float(logits[b, :, y, x].argmax() == masks[b, y, x]))
        for b in range(2) for y in range(1, 4) for x in range(5)
    ]  # fmt: skip
    torch.testing.assert_close(loss, torch.stack([one for one, _ in each]).mean())
    assert float(right) == pytest.approx(np.mean([one for _, one in each]))
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[:, :, 0] == 0).all()
    nothing, none = pixel_loss(logits, torch.full_like(masks, 255))
    assert float(nothing.detach()) == float(none) == 0


def test_image_and_mask_are_mirrored_together() -> None:
    masks = torch.arange(16 * 64 * 64).reshape(16, 64, 64).remainder(251).to(torch.uint8)
    images = masks[:, None].expand(-1, 3, -1, -1)
    g = torch.Generator().manual_seed(0)
    x, m = augmented(images, masks, SegmentAugmentation(), g)
    mirrored = [not torch.equal(m[k], masks[k]) for k in range(16)]
    assert 2 < sum(mirrored) < 14
    torch.testing.assert_close((x[:, 0] + 1) * 127.5, m.float(), atol=1e-3, rtol=0)
    x, m = augmented(images, masks, SegmentAugmentation(flip=False, color=True), g)
    assert torch.equal(m, masks)
    assert float(x.min()) >= -1


@pytest.mark.parametrize(("length", "side"), [(64, 64), (65, 64), (100, 64), (300, 64)])
def test_squares_cover_everything(length: int, side: int) -> None:
    found = starts(length, side)
    assert (found[0], found[-1]) == (0, length - side)
    assert all(0 < b - a <= side / 2 for a, b in pairwise(found))


def test_large_images_are_scaled_down() -> None:
    assert whole(None, 300, 400).size == (300, 400)
    assert whole(150, 300, 400).size == (150, 200)
    rows, columns = whole(None, 4000, 6000).size
    assert rows * columns <= MOST_PIXELS * 1.01
    assert columns / rows == pytest.approx(1.5, abs=0.01)


def test_networks_of_one_size_see_squares() -> None:
    backbone = build("timm/vit_tiny_patch16_224", crop=32, seed=0)
    network = Segmenter(backbone, FcnSpec(outputs=3, finest="16s"))
    torch.nn.init.normal_(network.score.weight)
    network.eval()
    image = torch.randint(256, (3, 40, 70), dtype=torch.uint8)
    hardware = choose("cpu")
    found = segmented(network, image, (40, 70), hardware)
    x = image.float()[None] / 127.5 - 1
    sums = torch.zeros(1, 3, 40, 70)
    with torch.no_grad():
        for top in starts(40, 32):
            for left in starts(70, 32):
                part = (..., slice(top, top + 32), slice(left, left + 32))
                sums[part] += network(x[part]).softmax(1)
    assert (found == sums[0].argmax(0)).float().mean() > 0.999
    tiny = segmented(network, image[:, :10, :20], (10, 20), hardware)
    assert tiny.shape == (10, 20)


def preset_of(*sets: str) -> TransferSegment:
    found = resolve("transfer/segment", preset="base", sets=list(sets), env={}).preset
    assert isinstance(found, TransferSegment)
    return found


def opened(root: Path, split: Any = "all") -> MaskedImages:
    preset = preset_of(f"data.source={root}")
    return open_masked(preset.data, split, workers=0)


SMALL = ("head.hidden=[16]", "head.kernel=3", "augment.crop=32", "head.finest=8s")


def task_on(source: MaskedImages, *more: str, arch: str = "alexnet", **how: Any) -> Segment:
    sets = {one.partition("=")[0]: one for one in (*SMALL, *more)}
    preset = preset_of(*sets.values())
    width = {"width": 0.125} if arch == "alexnet" else {}
    backbone = build(arch, seed=0, **{**width, **how})
    return Segment(preset, backbone, Segment.answers(preset, source), 0)


def test_what_is_asked_is_what_the_network_says(tmp_path: Path) -> None:
    source = opened(folders(tmp_path, NAMES))
    task = task_on(source)
    torch.nn.init.normal_(task.plain.score.weight)
    hardware = choose("cpu")
    found = task.ask(source, hardware, workers=0)
    name, share = task.grade(found)
    truths, founds = [], []
    for i in range(len(source)):
        x = source.read(i).float()[None] / 127.5 - 1
        with torch.no_grad():
            given = task.plain.eval()(x)[0].argmax(0).numpy()
        np.testing.assert_array_equal(decode_mask(found.masks[i]), given)
        known = source.mask(i).numpy() != 255
        truths.append(source.mask(i).numpy()[known])
        founds.append(given[known])
    truth, said = np.concatenate(truths), np.concatenate(founds)
    expected = jaccard_score(truth, said, average="macro", labels=[0, 1, 2], zero_division=0)
    assert (name, share) == ("test_mean_iou", pytest.approx(expected))
    quick = task.ask(source, hardware, workers=0, quick=True)
    assert quick.masks == []
    np.testing.assert_array_equal(quick.confusions, found.confusions)


def test_fresh_layers_are_rescaled_to_the_data(tmp_path: Path) -> None:
    source = opened(folders(tmp_path, NAMES))
    task = task_on(source)
    before = {n: p.clone() for n, p in task.plain.backbone.named_parameters()}
    task.rescale(source, choose("cpu"))
    dataset = task.samples(source)
    x = torch.cat([dataset[0, i]["image"] for i in range(6)]).float() / 127.5 - 1
    with torch.no_grad():
        score = task.plain.eval().coarse(task.plain.seen(x)[0])
    assert float(score.var(dim=(0, 2, 3)).mean()) == pytest.approx(1, rel=0.5)
    for name, weight in task.plain.backbone.named_parameters():
        assert torch.equal(weight, before[name]), name


def test_what_does_not_suit_the_network_or_the_data_is_refused(tmp_path: Path) -> None:
    source = opened(folders(tmp_path, NAMES))
    with pytest.raises(InputError, match="takes squares of 64 pixels only; use --crop 64"):
        task_on(source, "head.finest=16s", arch="timm/vit_tiny_patch16_224", crop=64)
    with pytest.raises(InputError, match="unknown layer 'layer9'"):
        task_on(source, "start.freeze=layer9")
    for name in NAMES[:2]:
        write_mask(tmp_path / f"masks/{name}.png", np.zeros((40, 48), np.uint8))
    plain = opened(tmp_path).subset(np.array([0, 1]))
    with pytest.raises(InputError, match="of the 2 training images have no two classes"):
        task_on(plain)


def test_it_learns_what_a_pixel_is_of(tmp_path: Path) -> None:
    """Within a few updates, far above the best constant answer."""
    source = opened(folders(tmp_path, NAMES))
    task = task_on(source, "head.hidden=[]", "augment.scale=[1.0, 1.0]", width=0.25)
    optimizer = torch.optim.Adam([p for p in task.plain.parameters() if p.requires_grad], 3e-3)
    dataset = task.samples(source)
    task.plain.eval()  # so few batches make no statistics
    for epoch in range(15):
        samples = [dataset[epoch, i] for i in range(6)]
        x = torch.cat([one["image"] for one in samples]).float() / 127.5 - 1
        loss, _ = pixel_loss(task.plain(x), torch.cat([one["mask"] for one in samples]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = task.ask(source, choose("cpu"), workers=0)
    row = measured(found, ABOUT, {"p": 1}, [True] * 3)[0]
    assert row.chance is not None
    assert row.value > row.chance + 15, row.value
