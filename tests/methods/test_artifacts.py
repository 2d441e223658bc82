"""Chapter 3: who moves when, whom gradients reach, what is remembered, what is refused."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup_cli.config.artifacts import PretrainArtifacts
from selfsup_cli.config.presets import resolve
from selfsup_cli.config.problems import PresetError
from selfsup_cli.data.framing import Region, framed
from selfsup_cli.engine import schedule
from selfsup_cli.engine.devices import Hardware, choose
from selfsup_cli.engine.trainable import Update
from selfsup_cli.errors import InputError, TrainingError
from selfsup_cli.methods.artifacts import Artifacts
from selfsup_cli.methods.artifacts_quality import Damaged, average_precision, described
from selfsup_cli.models.alexnet_artifacts import Verdicts
from selfsup_cli.randomness import generator
from selfsup_cli.transforms.images import to_unit

SMALL = {
    "network.width": 0.0625,
    "framing.crop": 32,
    "autoencoder.base": 4,
    "autoencoder.epochs": 2,
    "autoencoder.max_error": 4.0,
    "train.batch_size": 8,
    "data.source": "scenes",
}
EPOCH, TURN, TOTAL = 3, 6, 20


def settings(**changed: Any) -> PretrainArtifacts:
    options = {**SMALL, **{name.replace("__", "."): value for name, value in changed.items()}}
    found = resolve("pretrain/artifacts", preset="artifacts/base", options=options).preset
    assert isinstance(found, PretrainArtifacts)
    return found


def method(**changed: Any) -> Artifacts:
    return Artifacts(settings(**changed))


def images(count: int = 8, seed: int = 0) -> Tensor:
    """Smooth random images uint8 `[count, 3, 32, 32]`."""
    small = torch.rand(count, 3, 5, 5, generator=generator(seed, "images"))
    large = F.interpolate(small, (32, 32), mode="bicubic")
    return (255 * large.clamp(0, 1)).to(torch.uint8)


def update_of(model: Artifacts) -> Update:
    """As the engine makes it, for `TOTAL` steps of which the autoencoder has the first."""
    periods = model.periods(EPOCH, TOTAL)
    later = {name: schedule.within(model.preset.optim, *period) for name, period in periods.items()}
    return Update(
        model.optimizers(), lambda step: 1.0, choose("cpu"), 0, periods=periods, later=later
    )


def take(model: Artifacts, update: Update, step: int) -> dict[str, Tensor]:
    """One step in training mode, dropout and all addressable as in the engine."""
    model.train()
    update.begin(step)
    torch.default_generator.manual_seed(step)
    return model.step({"image": images(seed=step)}, update)


def moved(model: Artifacts, before: dict[str, Tensor]) -> set[str]:
    """The networks of which anything, batch statistics included, is not as it was."""
    return {
        name.partition(".")[0]
        for name, value in model.state_dict().items()
        if not name.endswith("_extra_state") and not torch.equal(value, before[name])
    }


def copied(model: Artifacts) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("objective", ["flipped", "as_released"])
def test_the_autoencoder_moves_first_and_then_never_again(objective: str) -> None:
    model = method(repair__objective=objective)
    update = update_of(model)
    before = copied(model)
    out = take(model, update, 0)
    assert set(out) == {"loss_autoencoder", "autoencoder_error"}
    assert out["loss_autoencoder"].item() == pytest.approx(30 * out["autoencoder_error"].item())
    assert moved(model, before) == {"autoencoder"}
    assert set(update.lr) == {"autoencoder"}
    assert model.stage.startswith("stage 1 of 2")
    assert not model.asking
    before = copied(model)
    for step in (TURN, TURN + 1, TOTAL - 1):
        out = take(model, update, step)
    assert moved(model, before) == {"recogniser", "repair"}
    assert set(update.lr) == {"main", "repair"}
    assert model.stage.startswith("stage 2 of 2")
    assert model.asking
    assert out["acc_artifact"] == (out["acc_real"] + out["acc_corrupt"]) / 2


def test_each_stage_has_a_schedule_of_its_own() -> None:
    """Linear to a hundredth over nine tenths of a stage, constant after that."""
    model = method(train__max_steps=None)
    assert model.periods(EPOCH, TOTAL) == {
        "autoencoder": (0, TURN), "repair": (TURN, TOTAL), "main": (TURN, TOTAL)
    }  # fmt: skip
    later = update_of(model).later
    falling = 0.9 * (TOTAL - TURN)
    assert later["autoencoder"](0) == later["main"](TURN) == 1
    assert later["main"](TURN + 3) == pytest.approx(0.99 * (1 - 3 / falling) + 0.01)
    assert later["autoencoder"](3) == pytest.approx(0.99 * (1 - 3 / (0.9 * TURN)) + 0.01)
    assert later["repair"](TOTAL - 1) == later["main"](TOTAL - 1) == pytest.approx(0.01)


def test_optimisers_are_those_of_the_author() -> None:
    optimizers = method().optimizers()
    for name, optimizer in optimizers.items():
        assert type(optimizer) is torch.optim.Adam, name
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"], group["eps"]) == (3e-4, (0.5, 0.999), 1e-5)
        assert group["weight_decay"] == 5e-5


def test_training_that_ends_within_the_first_stage_is_refused() -> None:
    with pytest.raises(InputError, match=r"takes 6 updates \(2 epochs\).*ends after 6"):
        method().periods(EPOCH, TURN)


def gradients(model: Artifacts, **changed: Any) -> dict[str, list[Tensor]]:
    """What a step of the second stage hands to the optimisers of C and R."""
    update = update_of(model)
    take(model, update, TURN)
    return {
        name: [p.grad.clone() for group in optimizer.param_groups for p in group["params"]]
        for name, optimizer in update.optimizers.items()
        if name != "autoencoder"
    }


def test_each_loss_reaches_only_whom_it_is_of() -> None:
    """C's gradient is that of its own loss alone, whatever R wants, and the other way round."""
    plain = gradients(method())
    other = gradients(method(repair__kept_recon_weight=3.0))
    assert all(map(torch.equal, plain["main"], other["main"]))
    assert not all(map(torch.equal, plain["repair"], other["repair"]))
    unlocated = gradients(method(locate_weight=0.0))
    assert not all(map(torch.equal, plain["main"], unlocated["main"]))
    assert all(map(torch.equal, plain["repair"], unlocated["repair"]))
    # The author's code has R minimise C's loss along with its own.
    leaking = gradients(method(repair__objective="as_released"))
    unlocated = gradients(method(repair__objective="as_released", locate_weight=0.0))
    assert all(map(torch.equal, plain["main"], leaking["main"]))
    assert not all(map(torch.equal, leaking["repair"], unlocated["repair"]))


def test_examples_are_what_the_equations_say() -> None:
    model = method(drop_rate=0.5).eval()
    pixels = images()
    found = model.examples(pixels, generator(0, "x"))
    x = to_unit(pixels)
    assert torch.equal(found.canvases, x)
    assert torch.equal(found.replicas, model.replicator(x))
    assert torch.equal(found.crops, torch.cat([found.repaired, found.replicas]))
    assert found.labels.tolist() == [0] * 8 + [1] * 8
    assert found.kept.shape == (8, 1, 2, 2)
    assert 0 < found.kept.float().mean() < 1
    whole = model.examples(pixels, generator(0, "x"), torch.ones_like(found.kept))
    assert torch.equal(whole.repaired, whole.replicas)
    assert torch.equal(whole.unrepaired, whole.replicas)
    raw = method(real="images").eval().examples(pixels, generator(0, "x"))
    assert torch.equal(raw.crops[8:], x)


def test_the_share_of_what_is_dropped_is_the_drop_rate() -> None:
    model = method(drop_rate=0.9)
    kept = model.draw_kept(torch.zeros(500, 1, 4, 4), generator(0, "x"))
    assert kept.float().mean().item() == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 8000))


def test_pixels_are_mirrored_and_recoloured_or_left() -> None:
    pixels = images(64)
    plain = method(framing__flip=False, framing__color=False)
    assert torch.equal(plain.augmented(pixels, generator(0, "a")), to_unit(pixels))
    mirrored = method(framing__color=False).augmented(pixels, generator(0, "a"))
    same = (mirrored == to_unit(pixels)).flatten(1).all(1)
    turned = (mirrored == to_unit(pixels).flip(-1)).flatten(1).all(1)
    assert bool((same | turned).all())
    assert 16 < int(turned.sum()) < 48
    coloured = method(framing__flip=False).augmented(pixels, generator(0, "a"))
    assert coloured.min() >= -1 <= 1 <= coloured.max() + 1
    # None becomes grey.
    spread = (coloured.amax(1) - coloured.amin(1)).flatten(1).amax(1)
    assert bool((spread > 0.05).all())


def test_a_history_makes_half_of_a_full_batch_and_is_remembered() -> None:
    model = method(history=8)
    update = update_of(model)
    for step in (TURN, TURN + 1):
        take(model, update, step)
    memory = {name: value.clone() for name, value in model.memory().items()}
    assert memory["images"].shape == (8, 3, 32, 32)
    assert memory["kept"].shape == (8, 1, 2, 2)
    state = copied(model)
    moments = {
        name: torch.utils._pytree.tree_map(
            lambda v: v.clone() if isinstance(v, Tensor) else v, optimizer.state_dict()
        )
        for name, optimizer in update.optimizers.items()
    }
    take(model, update, TURN + 2)
    again = method(history=8)
    later = update_of(again)
    again.load_state_dict(state)
    assert again.asking
    again.remember(memory)
    for name, optimizer in later.optimizers.items():
        optimizer.load_state_dict(moments[name])
    take(again, later, TURN + 2)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert torch.equal(model.memory()["images"], again.memory()["images"])
    assert not torch.equal(model.memory()["images"], memory["images"])
    forgetful = method(history=8)
    later = update_of(forgetful)
    forgetful.load_state_dict(state)
    take(forgetful, later, TURN + 2)
    assert len(forgetful.memory()["images"]) == 4


def test_a_poor_autoencoder_is_told_with_its_error() -> None:
    model = method(autoencoder__max_error=0.01)
    with pytest.raises(TrainingError, match=r"replicas is 0\.\d+, more than 0\.01"):
        take(model, update_of(model), TURN)
    named = method(autoencoder__max_error=0.01, autoencoder__source="other")
    with pytest.raises(TrainingError, match=r"autoencoder of other is too poor") as caught:
        take(named, update_of(named), 0)
    assert "take another one" in str(caught.value.hint)


def test_with_an_autoencoder_of_another_run_the_second_stage_is_all() -> None:
    model = method(autoencoder__source="other")
    assert model.preset.training.epochs == model.preset.train.epochs
    assert model.periods(EPOCH, TOTAL)["main"] == (0, TOTAL)
    assert "loss_repair" in take(model, update_of(model), 0)


def test_quality_by_hand() -> None:
    model = method(drop_rate=0.5).eval()
    model.replicator.freeze()
    pixels = images()
    found, answers, labels = model.judge(pixels, generator(0, "x"))
    assert labels["artifact"].tolist() == [0] * 8 + [1] * 8
    assert isinstance(found, Damaged)
    said = model.quality(found)
    right = (answers["artifact"].argmax(1) == labels["artifact"]).float().mean()
    assert torch.allclose(said["discriminator_accuracy"], right)
    x, kept = to_unit(pixels), found.kept.repeat_interleave(16, 2).repeat_interleave(16, 3)
    error = (found.repaired - x).square()
    assert torch.allclose(said["kept_error"], error[kept.expand_as(error)].mean())
    assert torch.allclose(said["repaired_error"], error[~kept.expand_as(error)].mean())
    assert found.verdicts is not None
    from sklearn.metrics import average_precision_score

    masks = found.verdicts.masks
    assert masks is not None
    expected = average_precision_score(
        ~found.kept.flatten().numpy(), -masks[:8].flatten().detach().numpy()
    )
    assert said["mask_precision"].item() == pytest.approx(expected)
    alone = method(locate=False).eval()
    alone.replicator.freeze()
    assert "mask_precision" not in alone.quality(alone.judge(pixels, generator(0, "x"))[0])


def test_before_the_second_stage_only_the_autoencoder_is_judged() -> None:
    model = method().eval()
    found, answers, labels = model.judge(images(), generator(0, "x"))
    assert (answers, labels) == ({}, {})
    assert set(model.quality(found)) == {"autoencoder_error"}


def test_average_precision_of_everything_and_nothing() -> None:
    assert average_precision(torch.tensor([3.0, 2, 1]), torch.tensor([True, True, False])) == 1
    found = average_precision(torch.tensor([3.0, 2, 1]), torch.tensor([False, False, True]))
    assert found.item() == pytest.approx(1 / 3)
    assert average_precision(torch.zeros(3), torch.zeros(3, dtype=torch.bool)) == 0


@pytest.mark.parametrize(("name", "value", "real", "verdict", "said"), [
    ("discriminator_accuracy", 0.995, "replicas", "bad", "wins outright"),
    ("discriminator_accuracy", 0.5, "replicas", "bad", "loses to the repair network"),
    ("discriminator_accuracy", 0.8, "replicas", "good", "neither side has won"),
    ("mask_precision", 0.72, "replicas", "unclear", "does not know so far"),
    ("mask_precision", 0.9, "replicas", "good", "finds the dropped cells"),
    ("others_real", 0.1, "images", "bad", "gives itself away"),
    ("others_real", 0.1, "replicas", "note", "as they are, not replicated"),
    ("autoencoder_error", 5.0, "replicas", "bad", "more than the 4 up to which it serves"),
    ("autoencoder_error", 0.04, "replicas", "unclear", "replicas are blurred"),
    ("autoencoder_error", 0.02, "replicas", "note", "PSNR 23.0 dB"),
    ("autoencoder_error", 0.004, "replicas", "good", "(PSNR 30.0 dB)"),
])  # fmt: skip
def test_what_is_said_of_it(name: str, value: float, real: str, verdict: str, said: str) -> None:
    (found,) = described({name: value}, settings(real=real))
    assert (found.name, found.value, found.finding.verdict) == (name, value, verdict)
    assert said in found.finding.text


@pytest.mark.parametrize(("changed", "said"), [
    ({"framing.crop": 100}, "the nearest to 100 is 96"),
    ({"framing.crop": 16}, "the nearest to 16 is 32"),
    ({"drop_rate": 0.0}, "drop_rate"),
    ({"drop_rate": 1.0}, "drop_rate"),
    ({"network.arch": "resnet18"}, "the discriminator of this method is alexnet_lrn"),
    ({"network.padding": "valid"}, "network.padding"),
    ({"history": 3}, "half of what passes through the networks at a time, 4 images"),
    ({"history": 8, "machine.devices": 2}, "each of several processes would keep another one"),
    ({"framing.area": [0.9, 0.4]}, "from 0.9 to 0.4 is no range"),
    ({"autoencoder.kernel": 4}, "autoencoder.kernel"),
])  # fmt: skip
def test_what_cannot_be_is_told(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(PresetError) as caught:
        settings(**{name.replace(".", "__"): value for name, value in changed.items()})
    assert said in str(caught.value)


def test_without_a_mask_head_nothing_is_located() -> None:
    model = method(locate=False)
    out = take(model, update_of(model), TURN)
    verdicts: Verdicts = model.plain(to_unit(images()))
    assert verdicts.masks is None
    assert out["loss"].isfinite()


def test_what_is_cut_out_has_the_area_and_form_that_are_asked_for() -> None:
    plan = method(framing__cubic=0.3).plan
    g = generator(0, "plan")
    found = [plan(120, 160, g) for _ in range(600)]
    areas = [region.height * region.width / (120 * 160) for region in found]
    assert 0.33 < min(areas) < 0.4
    assert max(areas) > 0.9
    forms = [region.width / region.height for region in found]
    assert 0.74 < min(forms) < 0.8
    assert 1.25 < max(forms) < 1.34
    assert sum(region.cubic for region in found) / 600 == pytest.approx(0.3, abs=0.08)
    assert {region.size for region in found} == {(32, 32)}
    image = images(1)[0]
    for region in (Region(3, 5, 20, 24, (32, 32), cubic) for cubic in (False, True)):
        mode = "bicubic" if region.cubic else "bilinear"
        cut = image[None, :, 3:23, 5:29]
        expected = F.interpolate(cut, (32, 32), mode=mode, antialias=True)[0]
        assert torch.equal(framed(image, region), expected)
    # In an image where nothing of that form fits there is no draw, but the kernel is drawn.
    slim = [method(framing__cubic=1.0).plan(32, 400, g) for _ in range(3)]
    assert all(region.cubic for region in slim)


def test_in_bf16_both_stages_learn() -> None:
    model = method(history=8)
    update = update_of(model)
    update.hardware = Hardware(torch.device("cpu"), torch.bfloat16)
    before = copied(model)
    for step in (0, TURN, TURN + 1, TURN + 2):
        out = take(model, update, step)
        assert all(bool(value.isfinite()) for value in out.values())
    assert moved(model, before) == {"autoencoder", "recogniser", "repair"}
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.slow
def test_two_processes_move_as_one(tmp_path: Path) -> None:
    """Whatever images each of them sees, all of their weights stay the same."""
    import artifact_pair

    script = Path(artifact_pair.__file__)
    path = os.pathsep.join([str(script.parent), *sys.path])
    other = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env={**os.environ, "PYTHONPATH": path}
    )
    try:
        artifact_pair.join(0, str(tmp_path))
        mine = {name: artifact_pair.trained(0, name) for name in ("flipped", "as_released")}
        assert other.wait(60) == 0
    finally:
        torch.distributed.destroy_process_group()
        other.kill()
    theirs = torch.load(tmp_path / "second.pt", weights_only=True)  # noqa: TID251
    for objective, state in mine.items():
        assert len(state) > 30
        for name, value in state.items():
            assert torch.equal(value, theirs[objective][name]), (objective, name)
