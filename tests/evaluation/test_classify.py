"""Classification of images: what is trained, what is seen, what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup_cli.config.images import ImageData, Rendered
from selfsup_cli.config.presets import resolve
from selfsup_cli.config.transfer_images import ImageAugmentation, TransferClassify
from selfsup_cli.data.framing import region_of
from selfsup_cli.data.images import open_images
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.trainable import Batch
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.classify import Classify, Marks, answers_of, attribute_loss
from selfsup_cli.evaluation.clip_task import Answers
from selfsup_cli.evaluation.image_task import augmented, described
from selfsup_cli.evaluation.tasks import create
from selfsup_cli.evaluation.views import shorter_side
from selfsup_cli.models import Backbone, build
from selfsup_cli.randomness import generator
from selfsup_cli.transforms.images import ten_crops, to_unit

SMALL = Rendered(images=16, test_images=12, side=40)
DATA = {
    name: ImageData.model_validate({"source": name, name: SMALL}) for name in ("scenes", "facelike")
}


def source(name: str, split: str = "train") -> Any:
    return open_images(DATA[name], split, labels=True, workers=1)  # type: ignore[arg-type]


def preset(*sets: str) -> TransferClassify:
    found = resolve("transfer/classify", preset="base", sets=sets, env={}).preset
    assert isinstance(found, TransferClassify)
    return found


def alexnet(crop: int = 32, resize: int = 36) -> Backbone:
    return build("alexnet", width=0.125, crop=crop, resize=(resize, resize), seed=0)


def task(name: str, *sets: str, backbone: Backbone | None = None) -> Classify:
    found = create(preset(*sets), backbone or alexnet(), source(name), seed=0)
    assert isinstance(found, Classify)
    return found


@dataclass
class FakeUpdate:
    """Takes the loss of a step and does nothing with it."""

    loss: torch.Tensor | None = None

    def autocast(self) -> Any:
        return torch.autocast("cpu", enabled=False)

    def generator(self, purpose: str) -> torch.Generator:
        return generator(0, purpose)

    def __call__(self, loss: torch.Tensor) -> None:
        self.loss = loss


def batch(one: Classify, name: str) -> Batch:
    samples = one.samples(source(name))
    found = [samples[0, k] for k in range(4)]
    return {key: torch.cat([each[key] for each in found]) for key in ("image", "label")}


# What is trained


@pytest.mark.parametrize("name", ["scenes", "facelike"])
@pytest.mark.parametrize("head", ["linear", "fc"])
def test_a_step_reaches_what_is_not_frozen_and_nothing_else(name: str, head: str) -> None:
    fresh = "start.reinit_head=true" if head == "fc" else "start.freeze=conv3"
    one = task(name, fresh, "start.freeze=conv3", "head.hidden=[64, 32]")
    update = FakeUpdate()
    row = one.step(batch(one, name), update)  # type: ignore[arg-type]
    assert update.loss is not None
    update.loss.backward()  # type: ignore[no-untyped-call]
    moved = {n for n, p in one.network.named_parameters() if p.grad is not None}
    assert not any(n.startswith(f"backbone.conv{k}") for n in moved for k in (1, 2, 3))
    assert "backbone.conv4.conv.weight" in moved
    assert "last.weight" in moved
    assert ("backbone.fc1.linear.weight" in moved) == (head == "linear")
    assert row["loss"] == update.loss
    assert 0 <= float(row["acc"]) <= 1


def test_a_fresh_head_is_that_of_alexnet() -> None:
    network = task("scenes", "start.reinit_head=true").plain
    names = [type(module).__name__ for module in network.hidden]
    assert names == ["FullyConnected", "Dropout"] * 2
    weight = network.state_dict()["hidden.0.linear.weight"]
    assert weight.shape == (512, 4 * 32)  # an eighth of 4096 and 256; 2×2 cells are not pooled
    assert float(weight.std()) == pytest.approx(0.005 * 0.88, rel=0.05)
    assert "dropout 0.5" in str(network.describe())


def test_a_fresh_head_pools_as_alexnets_own() -> None:
    network = task("scenes", "start.reinit_head=true", backbone=alexnet(64, 64)).plain
    assert (
        network.state_dict()["hidden.0.linear.weight"].shape[1] == 32
    )  # 4×4 cells, maxima of 3×3: one
    every = task(
        "scenes", "start.reinit_head=true", "head.pooling=none", backbone=alexnet(64, 64)
    ).plain
    assert every.state_dict()["hidden.0.linear.weight"].shape[1] == 16 * 32


def test_the_loss_of_attributes_is_that_of_those_known() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=g)
    target = torch.randint(0, 2, (6, 4), generator=g).to(torch.uint8)
    target[0, :3] = 255
    known = target != 255
    loss, right = attribute_loss(logits, target)
    expected = F.binary_cross_entropy_with_logits(logits[known], target[known].float())
    assert torch.allclose(loss, expected)
    assert float(right) == pytest.approx(
        float(((logits > 0) == (target == 1))[known].float().mean())
    )
    nothing, _ = attribute_loss(logits, torch.full_like(target, 255))
    assert float(nothing) == 0


# What is seen


def test_training_crops_are_cut_out_of_images_of_the_size_of_pretraining() -> None:
    one = task("scenes")
    size = shorter_side(one.input)
    assert (one.input.crop, size) == (32, 36)
    corners = set()
    for k in range(40):
        region = one.framing(72, 90, generator(0, k))
        assert (region.height, region.width, region.size) == (64, 64, (32, 32))
        corners.add((region.top, region.left))
    assert len(corners) > 20
    resized = task("scenes", "augment.framing=resized", "augment.scale=[0.2, 0.5]")
    for k in range(40):
        region = resized.framing(72, 90, generator(0, k))
        assert region.size == (32, 32)
        assert 0.15 <= region.height * region.width / (72 * 90) <= 0.55
    centre = task("scenes", "augment.framing=center").framing(72, 90, generator(0, 0))
    assert (centre.top, centre.left) == (4, 13)


@pytest.mark.parametrize("how", [
    {"flip": False}, {"flip": True}, {"color": True}, {"affine": 1.0}, {"cutout": 1.0},
    {"color": True, "affine": 0.5, "cutout": 0.5},
])  # fmt: skip
def test_augmented_images_stay_in_range_and_are_a_function_of_the_generator(
    how: dict[str, Any],
) -> None:
    images = torch.randint(0, 256, (8, 3, 32, 32), generator=generator(1)).to(torch.uint8)
    settings = ImageAugmentation(**how)
    found = augmented(images, settings, generator(0, "a"))
    assert found.dtype == torch.float32
    assert float(found.min()) >= -1
    assert float(found.max()) <= 1
    assert torch.equal(found, augmented(images, settings, generator(0, "a")))
    same = torch.equal(found, to_unit(images))
    assert same == (how == {"flip": False})
    assert described(settings).startswith("random crops")


@pytest.mark.parametrize("name", ["scenes", "facelike"])
def test_ten_crops_are_averaged(name: str) -> None:
    """The answers are the mean of those for each crop by itself."""
    one = task(name, "test.crops=ten")
    tested = source(name, "test")
    hardware = choose("cpu", "32")
    found = one.ask(tested, hardware, workers=0)
    network = one.plain.eval()
    outputs = torch.sigmoid if name == "facelike" else lambda x: x.softmax(1)
    with torch.no_grad():
        for k in (0, 7):
            crops = ten_crops(tested.read(k, 36)[None], 32)[0]
            expected = outputs(network(to_unit(crops))).mean(0).numpy()
            scores = found.scores if isinstance(found, Marks) else found.probabilities
            assert scores[k] == pytest.approx(expected, abs=1e-5)
    if isinstance(found, Answers):
        assert found.probabilities.sum(1) == pytest.approx(1)
        assert np.array_equal(found.truth, tested.labels)
    assert one.facts["labels"] == ("attributes" if name == "facelike" else "class")
    assert len(one.measurements(found, {
        "subject": "learned", "dataset": name, "split": "s", "layer": None,
    }, {"x": 1})) == (1 if name == "facelike" else 3)  # fmt: skip


def test_a_quick_look_is_at_one_crop_of_few_images() -> None:
    one = task("scenes", "test.crops=ten")
    few, views = one.asked(source("scenes", "test"), quick=True)
    assert (len(few), len(views)) == (12, 1)


# Sizes


def test_a_network_of_convolutions_is_fine_tuned_on_crops_of_another_size() -> None:
    backbone = build("resnet18", crop=32, resize=(36, 36), seed=0)
    one = task("scenes", "augment.crop=48", "augment.shorter=56", backbone=backbone)
    assert (one.input.crop, shorter_side(one.input)) == (48, 56)
    for name, value in one.plain.backbone.state_dict().items():
        assert torch.equal(value, backbone.state_dict()[name]), name


def test_fully_connected_layers_take_one_size_unless_they_are_replaced() -> None:
    with pytest.raises(InputError, match=r"fc1.*crops of 32 pixels, and 64 does not fit"):
        task("scenes", "augment.crop=64")
    one = task("scenes", "augment.crop=64", "start.reinit_head=true")
    before = alexnet().state_dict()
    assert one.input.crop == 64
    for name, value in one.plain.backbone.state_dict().items():
        assert torch.equal(value, before[name]) or name.startswith("fc1"), name


def test_a_crop_that_does_not_fit_names_the_one_that_does() -> None:
    with pytest.raises(InputError, match="48 does not fit into images whose shorter side is 40"):
        task("scenes", "augment.crop=48", "augment.shorter=40")


def test_small_images_are_scaled_up() -> None:
    region = region_of(lambda h, w: task("scenes").framing(h, w, generator(0)), 20, 30)
    assert region.size == (32, 32)
    assert region.height <= 20


# Labels


def test_labels_in_another_format_are_refused() -> None:
    scenes, faces = source("scenes"), source("facelike")
    assert answers_of(scenes).names == scenes.classes
    assert answers_of(faces).several
    with pytest.raises(InputError, match=r"8 attributes.*--labels attributes"):
        answers_of(faces, "class")
    with pytest.raises(InputError, match=r"one of 8 classes.*--labels class"):
        answers_of(scenes, "attributes")
    unlabelled = open_images(DATA["scenes"], "train", labels=False, workers=1)
    with pytest.raises(InputError, match="needs labels of at least two classes"):
        answers_of(unlabelled)
