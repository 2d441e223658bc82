"""Chapter 4: examples and their labels, gradient paths, losses by hand, what is refused."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from selfsup_cli.config.presets import resolve
from selfsup_cli.config.problems import PresetError
from selfsup_cli.config.transformations import PretrainTransformations
from selfsup_cli.engine import schedule
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.trainable import Update
from selfsup_cli.errors import InputError
from selfsup_cli.methods.transformations import (
    Transformations,
    against,
    autoencode_loss,
    border_loss,
    discriminator_loss,
    seen,
)
from selfsup_cli.randomness import generator
from selfsup_cli.transforms.images import to_unit
from selfsup_cli.transforms.inpainting import Inpainted

SMALL = {
    "network.width": 0.0625,
    "framing.shorter": None,
    "framing.canvas": 40,
    "framing.crop": 32,
    "framing.jitter": 4,
    "lci.patch": 16,
    "lci.layers": 3,
    "lci.width": 0.1,
    "train.batch_size": 8,
    "data.source": "scenes",
}


def method(**settings: Any) -> Transformations:
    options = {**SMALL, **{name.replace("__", "."): value for name, value in settings.items()}}
    preset = resolve("pretrain/transformations", preset="transformations/base", options=options)
    assert isinstance(preset.preset, PretrainTransformations)
    return Transformations(preset.preset)


def photos(count: int = 8, side: int = 40) -> Tensor:
    """Smooth random images uint8, so that warps and turns show."""
    small = torch.rand(count, 3, 5, 5, generator=generator(0, "photos"))
    large = torch.nn.functional.interpolate(small, (side, side), mode="bicubic")
    return (255 * large.clamp(0, 1)).to(torch.uint8)


def update_of(model: Transformations) -> Update:
    return Update(model.optimizers(), lambda step: 0.5, choose("cpu"), 0, constant=model.constant)


def test_examples_are_kind_major_and_turned_counter_clockwise() -> None:
    model = method()
    found = model.examples(photos(), generator(0, "x"))
    assert found.crops.shape == (48, 3, 32, 32)
    assert found.labels.tolist() == [k for k in range(6) for _ in range(8)]
    plain = found.crops[:8]
    for quarters, kind in ((1, "rotate90"), (2, "rotate180"), (3, "rotate270")):
        own = found.crops[found.labels == model.kinds.index(kind)]
        assert torch.equal(own, torch.rot90(plain, quarters, (2, 3)))


def test_only_patches_differ_from_the_canvas() -> None:
    model = method()
    found = model.examples(photos(), generator(0, "x"))
    assert found.inpainted is not None
    for image, (row, column) in enumerate(found.inpainted.corners.tolist()):
        for painted in (found.inpainted.inpainted, found.inpainted.autoencoded):
            same = painted[image] == found.canvases[image]
            same[:, row : row + 16, column : column + 16] = True
            assert bool(same.all())
    assert not torch.equal(found.inpainted.inpainted, found.canvases)


def test_hidden_negatives_are_independent_of_small_turns() -> None:
    """The author's code turns exactly those images that show no autoencoded patch (2.5 g)."""
    model = method(kinds=["identity", "lci"], framing__flip=False, train__batch_size=256)
    images = photos(256)
    g = generator(3, "independent")
    found = model.examples(images, g)
    assert found.inpainted is not None
    same = generator(3, "independent")
    model._painted(to_unit(images), same)
    hidden = torch.rand(256, generator=same) < 0.5
    torch.rand(256, 2, generator=same, dtype=torch.float64)
    torch.rand(256, generator=same)
    turned = torch.rand(256, generator=same) < 0.5
    shares = [
        float((hidden & turned).float().mean()),
        float((hidden & ~turned).float().mean()),
        float((~hidden & turned).float().mean()),
        float((~hidden & ~turned).float().mean()),
    ]
    assert min(shares) > 0.15
    crops = found.crops[:256][~turned & ~hidden]
    untouched = to_unit(images)[~turned & ~hidden]
    for crop, whole in zip(crops, untouched, strict=True):
        assert any(
            torch.allclose(crop, whole[:, y : y + 32, x : x + 32], atol=1e-4)
            for y in range(9)
            for x in range(9)
        )


def test_a_share_of_negatives_is_autoencoded() -> None:
    none = method(lci__hidden_negatives=0.0, framing__rotate_share=0.0, kinds=["identity", "lci"])
    every = method(lci__hidden_negatives=1.0, framing__rotate_share=0.0, kinds=["identity", "lci"])
    images = photos()
    a = none.examples(images, generator(1, "x"))
    b = every.examples(images, generator(1, "x"))
    assert not torch.equal(a.crops[:8], b.crops[:8])
    assert a.inpainted is not None
    crops = b.crops[:8]
    for crop, whole in zip(crops, a.inpainted.autoencoded, strict=True):
        assert any(
            torch.allclose(crop, whole[:, y : y + 32, x : x + 32], atol=1e-5)
            for y in range(9)
            for x in range(9)
        )


def test_losses_by_hand() -> None:
    g = generator(0, "losses")
    original = torch.rand(2, 3, 8, 8, generator=g)
    inpainted = torch.rand(2, 3, 8, 8, generator=g)
    autoencoded = torch.rand(2, 3, 8, 8, generator=g)
    blank = torch.empty(0)
    painted = Inpainted(blank, original, blank, autoencoded, inpainted, blank, blank)
    total, count = 0.0, 0
    for image in range(2):
        for channel in range(3):
            for y in range(8):
                for x in range(8):
                    if min(y, x, 7 - y, 7 - x) < 2:
                        error = inpainted[image, channel, y, x] - original[image, channel, y, x]
                        total, count = total + float(error) ** 2, count + 1
    assert float(border_loss(painted, 2)) == pytest.approx(total / count, rel=1e-5)
    by_hand = ((autoencoded - original) ** 2).sum() / (2 * 3 * 64)
    assert float(autoencode_loss(painted)) == pytest.approx(float(by_hand), rel=1e-5)
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    assert float(discriminator_loss(real, fake)) == pytest.approx(
        (0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3
    )


def test_against_turns_the_gradient_round() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    (against(x) * torch.tensor([3.0, 5.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-3.0, -5.0]


def gradients(model: Transformations) -> dict[str, dict[str, Tensor]]:
    """The gradients that one step leaves, by network."""
    model.train()
    model.step({"image": photos()}, update_of(model))
    return {
        name: {
            key: value.grad.clone()
            for key, value in getattr(model, name).named_parameters()
            if value.grad is not None
        }
        for name in model.networks
    }


def test_gradient_paths() -> None:
    """F gets minus the classifier's gradient besides its own losses; nobody else does."""
    model = method()
    found = gradients(model)
    twin = method()
    twin.train()
    g = update_of(twin).generator("transformations")
    images = photos()
    examples = twin.examples(images, g)
    assert examples.inpainted is not None
    assert twin.inpainter is not None
    assert twin.discriminator is not None
    entropy = torch.nn.functional.cross_entropy(
        twin.recogniser(examples.crops)["transformation"], examples.labels
    )
    fakes = examples.inpainted.inpainted_patches
    reconstruction = 50 * border_loss(examples.inpainted, 2) + 50 * autoencode_loss(
        examples.inpainted
    )
    game = reconstruction - twin.discriminator(fakes).mean() - entropy
    own = list(twin.inpainter.named_parameters())
    expected = torch.autograd.grad(game, [value for _, value in own], retain_graph=True)
    for (name, _), value in zip(own, expected, strict=True):
        scale = float(value.abs().max()) + 1e-6
        torch.testing.assert_close(
            found["inpainter"][name], value, atol=1e-3 * scale, rtol=1e-3, msg=name
        )
    classifier = list(twin.recogniser.named_parameters())
    expected = torch.autograd.grad(entropy, [value for _, value in classifier])
    for (name, _), value in zip(classifier, expected, strict=True):
        scale = float(value.abs().max()) + 1e-6
        torch.testing.assert_close(
            found["recogniser"][name], value, atol=1e-3 * scale, rtol=1e-3, msg=name
        )


def test_without_feedback_the_classifier_does_not_reach_the_inpainter() -> None:
    quiet = method(lci__against_classifier=False, lci__against_discriminator=False)
    assert quiet.networks == ("recogniser", "inpainter")
    found = gradients(quiet)
    twin = method(lci__against_classifier=False, lci__against_discriminator=False)
    twin.train()
    examples = twin.examples(photos(), update_of(twin).generator("transformations"))
    assert examples.inpainted is not None
    assert twin.inpainter is not None
    loss = 50 * border_loss(examples.inpainted, 2) + 50 * autoencode_loss(examples.inpainted)
    own = list(twin.inpainter.named_parameters())
    for (name, _), value in zip(
        own, torch.autograd.grad(loss, [value for _, value in own]), strict=True
    ):
        torch.testing.assert_close(found["inpainter"][name], value, atol=1e-5, rtol=1e-4)


def test_an_inpainter_trained_beforehand_stays_as_it_is() -> None:
    model = method(lci__beforehand_steps=1, lci__against_discriminator=False)
    model.train()
    update = update_of(model)
    assert model.inpainter is not None
    before = {name: value.clone() for name, value in model.state_dict().items()}
    out = model.step({"image": photos()}, update)
    assert "acc_transformation" not in out
    moved = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert moved
    assert all(name.startswith("inpainter.") for name in moved)
    middle = {name: value.clone() for name, value in model.state_dict().items()}
    update.step = 1
    out = model.step({"image": photos()}, update)
    assert "acc_lci" in out
    moved = {n for n, v in model.state_dict().items() if not torch.equal(v, middle[n])}
    assert moved
    assert all(name.startswith("recogniser.") for name in moved)


def test_the_classifier_begins_its_schedule_where_the_inpainter_ends() -> None:
    model = method(lci__beforehand_steps=3, lci__against_discriminator=False)
    assert model.begins == {"main": 3}
    later = schedule.within(model.preset.optim, 3, 8)
    whole = schedule.factor(model.preset.optim, 5)
    assert [later(step) for step in (3, 5, 8)] == [whole(0), whole(2), whole(5)]
    assert later(0) == 1
    update = update_of(model)
    update.later = {"main": later}
    model.train()
    for step in (0, 3):
        update.begin(step)
        model.step({"image": photos()}, update)
    assert update.lr == {"main": pytest.approx(3e-4)}


def test_uniform_images_have_no_infinite_errors() -> None:
    model = method()
    flat = torch.full((4, 3, 40, 40), 90, dtype=torch.uint8)
    found = model.quality(model.examples(flat, generator(0, "flat")))
    assert all(bool(value.isfinite()) for value in found.values())


def test_a_batch_that_the_discriminator_cannot_pack_is_told() -> None:
    model = method()
    model.train()
    with pytest.raises(InputError, match="multiple of 2 for each process"):
        model.step({"image": photos(7)}, update_of(model))


def test_rates_of_the_game_are_constant_and_that_of_the_classifier_is_not() -> None:
    model = method()
    model.train()
    update = update_of(model)
    model.step({"image": photos()}, update)
    assert update.lr["main"] == pytest.approx(0.5 * 3e-4)
    assert update.lr["inpainter"] == pytest.approx(2e-4)
    assert update.lr["discriminator"] == pytest.approx(8e-4)


def test_rates_of_the_game_may_fall_with_the_classifiers() -> None:
    model = method(lci__schedule="classifier")
    model.train()
    update = update_of(model)
    model.step({"image": photos()}, update)
    assert update.lr["inpainter"] == pytest.approx(0.5 * 2e-4)


def test_packs_hold_patches_of_one_kind() -> None:
    """The discriminator's decisions on a mixed batch are those on real and on inpainted apart."""
    from selfsup_cli.methods.transformations import _both

    model = method()
    assert model.discriminator is not None
    judge = model.discriminator.eval()
    g = generator(0, "packs")
    real, fake = torch.rand(2, 8, 3, 16, 16, generator=g).unbind(0)
    first, second = _both(judge, real, fake, 2)
    torch.testing.assert_close(first, judge(real))
    torch.testing.assert_close(second, judge(fake))


def test_without_inpainting_there_is_no_inpainter() -> None:
    model = method(kinds=["identity", "rotate90", "rotate180", "rotate270"], framing__jitter="null")
    assert model.networks == ("recogniser",)
    assert list(model.optimizers()) == ["main"]
    model.train()
    out = model.step({"image": photos(7)}, update_of(model))
    assert set(out) == {"loss", "acc_transformation", *(f"acc_{kind}" for kind in model.kinds)}


def test_seen_stays_near_the_centre() -> None:
    framing = method().preset.framing.model_copy(update={"rotate_share": 0.0})
    canvas = torch.arange(40.0).expand(200, 3, 40, 40)
    found = seen(canvas, framing, generator(0, "seen"))
    assert sorted(set(found[:, 0, 0, 0].tolist())) == list(range(0, 9))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lci__patch": 48}, "lci.patch"),
        ({"lci__border": 8}, "lci.border"),
        ({"lci__patch": 18}, "multiple of 4"),
        ({"train__batch_size": 7}, "lci.pack"),
        ({"train__batch_size": 6, "machine__devices": 2}, "--batch-size 8"),
        ({"train__batch_size": 10, "train__accumulate": 5, "machine__devices": 2}, "--batch-size"),
        ({"framing__crop": 48}, "crop"),
        ({"framing__jitter": 5}, "jitter"),
        ({"kinds": ["identity", "identity"]}, "twice"),
        ({"kinds": ["identity", "rotate91"]}, "rotate90"),
        ({"kinds": ["identity"]}, "kinds"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PresetError) as caught:
        method(**changes)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "kinds", [["identity", "mirror"], ["rotate180", "flip"], ["identity", "rotate180", "flip"]]
)
def test_transformations_that_coincide_are_refused(kinds: list[str]) -> None:
    with pytest.raises(InputError, match="cannot be told apart"):
        method(kinds=kinds)
    if "identity" in kinds and len(kinds) == 2:
        assert method(kinds=kinds, framing__flip=False).kinds == tuple(kinds)


def test_a_warp_that_folds_is_told_with_its_share(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="selfsup"):
        method(kinds=["identity", "warp"])
        assert not caplog.records
        method(kinds=["identity", "warp"], warp__points=8)
    assert "fold" in caplog.text
    assert "100%" in caplog.text
