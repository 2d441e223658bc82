"""The shortcut detector finds what was planted, says where, and is quiet where there is nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest
import shortcut_toys as toys
import torch

from selfsup_cli.config.shortcuts import LocalProbes, Shortcuts
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.errors import InputError, Stopped
from selfsup_cli.evaluation.cues import blockiness, local_probes
from selfsup_cli.evaluation.shortcut_scores import NETWORK, Score, ShortcutReport, scores_of
from selfsup_cli.evaluation.shortcuts import detect

CPU = Hardware(torch.device("cpu"), None)
QUICK = LocalProbes(steps=40, images=128, heldout=400)
PATCH, FRAME, RESIDUAL, GRID = (
    "a 16×16 patch",
    "a frame 3 pixels wide",
    "the high-frequency residual",
    "the JPEG grid",
)


def look(method: toys.Method, settings: LocalProbes = QUICK, **pictures: object) -> ShortcutReport:
    sides = {"side": 32, **pictures}
    train = toys.Pictures(200, **sides)  # type: ignore[arg-type]
    heldout = toys.Pictures(400, first=1000, split="test", **sides)  # type: ignore[arg-type]
    return detect(method, train, heldout, CPU, settings, Progress(quiet=True))


# What is found


def test_a_faint_checkerboard_is_found_and_reported() -> None:
    ways = {"identity": toys.identity, "checkerboard": toys.checkerboard}
    found = look(toys.Method(ways))
    given_away = found.shortcuts()["checkerboard"]
    assert {FRAME, RESIDUAL} <= {one.subject for one in given_away}
    assert [one.value for one in given_away] == sorted(
        (one.value for one in given_away), reverse=True
    )
    assert found.score(RESIDUAL, "checkerboard").value > 0.95
    (finding,) = found.findings()
    assert finding.verdict == "bad"
    assert finding.text.startswith("shortcuts: checkerboard: ")
    assert f"from {given_away[0].subject}, against identity (chance 0.50)" in finding.text
    assert "it away (the whole network reaches 0.50)" in finding.text


def test_mirror_images_of_noise_without_a_direction_are_left_alone() -> None:
    found = look(toys.Method({"identity": toys.identity, "mirror": toys.mirror}))
    assert found.shortcuts() == {}
    (finding,) = found.findings()
    assert finding.verdict == "good"
    assert "tells mirror from identity in more than 60% of cases" in finding.text
    for cue in found.cues:
        score = found.score(cue, "mirror")
        assert score.interval is not None
        assert score.value == pytest.approx(0.5, abs=0.12)


def test_the_blocks_of_jpegs_give_a_half_turn_away_and_nothing_does_without_them() -> None:
    ways = {"identity": toys.identity, "rotate180": toys.half_turn}
    off_the_grid = toys.Method(ways, canvas=48, side=40, offset=3)
    with_blocks = look(off_the_grid, side=48, draw=toys.compressed)
    grid = next(one for one in with_blocks.shortcuts()["rotate180"] if one.subject == GRID)
    assert grid.value > 0.9
    without = look(off_the_grid, side=48)
    assert without.score(GRID, "rotate180").exceeds(0.1) is False


def test_a_darker_edge_is_found_in_the_frame() -> None:
    ways = {"identity": toys.identity, "darker": toys.darker_edge}
    found = look(toys.Method(ways))
    assert found.shortcuts()["darker"][0].subject == FRAME
    assert found.score(FRAME, "darker").value > 0.9
    assert found.score(GRID, "darker").value < 0.6
    # A single patch seldom lies at that edge.
    assert found.score(PATCH, "darker").value < 0.75


def test_only_what_is_given_away_is_called_so() -> None:
    ways = {
        "identity": toys.identity,
        "mirror": toys.mirror,
        "checkerboard": toys.checkerboard,
    }
    found = look(toys.Method(ways))
    assert list(found.shortcuts()) == ["checkerboard"]
    assert [one.verdict for one in found.findings()] == ["bad", "good"]
    assert "mirror from identity" in found.findings()[1].text


def test_it_is_a_function_of_the_seed_and_leaves_the_method_as_it_was() -> None:
    method = toys.Method({"identity": toys.identity, "checkerboard": toys.checkerboard})
    short = LocalProbes(steps=5, images=32, heldout=32)
    before = torch.get_rng_state()
    first, second = (look(method, short).scores for _ in range(2))
    assert first == second
    assert look(method, short.model_copy(update={"seed": 1})).scores != first
    assert method.training
    assert torch.equal(torch.get_rng_state(), before)


def test_images_that_cannot_be_read_are_counted_and_others_take_their_place() -> None:
    method = toys.Method({"identity": toys.identity, "mirror": toys.mirror})
    settings = LocalProbes(steps=1, images=20, heldout=20)
    train = toys.Pictures(20, 32, broken=frozenset({3, 4}))
    heldout = toys.Pictures(40, 32, first=500, broken=frozenset(range(0, 40, 2)))
    found = detect(method, train, heldout, CPU, settings, Progress(quiet=True))
    assert found.unreadable > 2
    assert {len(score.shares) for score in found.scores} == {20}
    broken = toys.Pictures(4, 32, broken=frozenset(range(4)))
    with pytest.raises(InputError, match="no image of pictures could be read"):
        detect(method, broken, heldout, CPU, settings, Progress(quiet=True))


def test_it_stops_when_asked_to() -> None:
    method = toys.Method({"identity": toys.identity, "mirror": toys.mirror})
    pictures = toys.Pictures(8, 32)
    with pytest.raises(Stopped):
        detect(method, pictures, pictures, CPU, QUICK, Progress(quiet=True), StopFlag(15))
    assert method.training


def test_the_network_is_judged_on_the_same_crops() -> None:
    """One that knows the answer gets everything right, and one that is always wrong nothing."""
    seen: list[torch.Tensor] = []

    def right(crops: torch.Tensor, kinds: int) -> torch.Tensor:
        seen.append(crops)
        truth = torch.arange(kinds).repeat_interleave(len(crops) // kinds)
        return 5 * torch.nn.functional.one_hot(truth, kinds).float()

    ways = {"identity": toys.identity, "mirror": toys.mirror}
    short = LocalProbes(steps=1, images=8, heldout=10)
    found = look(toys.Method(ways, answer=right), short)
    assert found.score(NETWORK).value == 1
    assert found.score(NETWORK, "mirror").value == 1
    assert sum(map(len, seen)) == 20
    wrong = look(toys.Method(ways, answer=lambda crops, kinds: -right(crops, kinds)), short)
    assert wrong.score(NETWORK, "mirror").value == 0


# Scores


def brute_force(answers: np.ndarray, kinds: list[str]) -> Mapping[str | None, list[float]]:
    """The shares of right answers, one question at a time."""
    views, count, images, _ = answers.shape
    found: dict[str | None, list[float]] = {}
    for image in range(images):
        hits = [
            answers[view, k, image].argmax() == k
            for view, k in itertools.product(range(views), range(count))
        ]
        found.setdefault(None, []).append(sum(hits) / len(hits))
        for k, kind in enumerate(kinds):
            if kind == "identity":
                continue
            others = [j for j in range(count) if j != k]
            compared = [kinds.index("identity")] if "identity" in kinds else others

            def says(given: np.ndarray, k: int = k, compared: list[int] = compared) -> bool:
                rest = sum(math.exp(given[j]) for j in compared) / len(compared)
                return math.exp(given[k]) > rest

            own = [says(answers[view, k, image]) for view in range(views)]
            rest = [not says(answers[view, j, image]) for view in range(views) for j in compared]
            found.setdefault(kind, []).append((np.mean(own) + np.mean(rest)) / 2)
    return found


@pytest.mark.parametrize("kinds", [["a", "identity", "b"], ["a", "b", "c"], ["identity", "a"]])
def test_scores_are_shares_of_right_answers(kinds: list[str]) -> None:
    logits = torch.randn(2, len(kinds), 7, len(kinds), generator=torch.Generator().manual_seed(1))
    answers = logits.double().log_softmax(3).numpy()
    scores = scores_of("cue", answers, kinds)
    expected = brute_force(answers, kinds)
    assert [score.kind for score in scores] == [None, *(k for k in kinds if k != "identity")]
    for score in scores:
        assert score.shares == pytest.approx(expected[score.kind])
        assert score.chance == (1 / len(kinds) if score.kind is None else 0.5)


def test_an_answer_that_does_not_look_is_right_half_of_the_time() -> None:
    constant = np.log(np.broadcast_to([0.1, 0.6, 0.3], (1, 3, 5, 3)))
    for score in scores_of("cue", constant, ["identity", "a", "b"])[1:]:
        assert score.value == 0.5
    undecided = np.log(np.full((1, 3, 5, 3), 1 / 3))
    for score in scores_of("cue", undecided, ["x", "a", "b"])[1:]:
        assert score.value == 0.5


def score(*shares: float) -> Score:
    return Score("cue", "lci", "identity", shares, 0.5)


def test_a_cue_exceeds_the_margin_with_its_whole_interval() -> None:
    assert score(*[1.0] * 40).exceeds(0.1) is True
    assert score(*[0.5] * 400).exceeds(0.1) is False
    assert score(0.0, 1.0).exceeds(0.1) is None  # two images show nothing
    assert score(*[0.5, 1.0] * 40).exceeds(0.1) is True
    assert score(0.5, 1.0, 0.5, 1.0).exceeds(0.1) is None
    assert score(1.0).exceeds(0.1) is None


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    g = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        shares = (g.random((40, 2)) < 0.8).mean(1)
        interval = score(*shares.tolist()).interval
        assert interval is not None
        covered += interval.low <= 0.8 <= interval.high
    assert covered / 300 == pytest.approx(0.95, abs=0.04)


def test_measurements_say_what_of_whom_against_what() -> None:
    ways = {"identity": toys.identity, "mirror": toys.mirror}
    found = look(toys.Method(ways), LocalProbes(steps=1, images=8, heldout=8))
    rows = found.measurements(dataset="pictures", split="drawn")
    assert len(rows) == 10
    assert [row.name for row in rows[:5]] == ["all transformations"] * 5
    assert rows[4].subject == NETWORK
    row = rows[5]
    assert (row.task, row.name, row.subject) == ("shortcuts", "mirror", PATCH)
    assert (row.metric, row.unit, row.chance, row.n) == ("told from identity", "%", 50.0, 8)
    assert row.protocol["steps"] == 1
    assert row.protocol["training_images"] == 8


# Cues


def test_cues_stay_local_in_small_crops() -> None:
    titles = [probe.title for probe in local_probes(2, 16, LocalProbes(patch=64, border=9))]
    assert titles[:2] == ["an 8×8 patch", "a frame 2 pixels wide"]


def test_a_patch_knows_nothing_of_what_is_elsewhere() -> None:
    probe = local_probes(2, 32, LocalProbes())[0]
    crops = torch.rand(4, 3, 32, 32)
    patches = probe.see(crops, torch.Generator().manual_seed(0))
    assert patches.shape == (8, 3, 16, 16)
    for number, patch in enumerate(patches):
        windows = crops[number % 4].unfold(1, 16, 1).unfold(2, 16, 1)
        equal = (windows == patch[:, None, None]).all(-1).all(-1).all(0)
        assert int(equal.sum()) == 1


def test_the_frame_is_all_that_its_probe_sees() -> None:
    probe = local_probes(2, 32, LocalProbes(border=3))[1]
    crops = torch.rand(2, 3, 32, 32)
    seen = probe.see(crops, torch.Generator())
    inside = crops.clone()
    inside[..., 3:-3, 3:-3] = 7
    assert torch.equal(probe.see(inside, torch.Generator()), seen)
    for row, column in itertools.product(range(32), range(32)):
        if min(row, column, 31 - row, 31 - column) < 3:
            other = crops.clone()
            other[0, :, row, column] += 1
            assert not torch.equal(probe.see(other, torch.Generator()), seen)


def test_the_residual_is_what_a_blur_leaves_and_each_answer_sees_nine_pixels() -> None:
    probe = local_probes(2, 48, LocalProbes())[2].eval()
    flat = torch.full((1, 3, 48, 48), 0.3)
    assert probe.see(flat, torch.Generator()).abs().max() < 1e-5
    ramp = torch.linspace(-1, 1, 48).expand(1, 3, 48, 48)
    assert probe.see(ramp, torch.Generator()).abs().max() < 1e-5
    crops = torch.rand(1, 3, 48, 48, requires_grad=True)
    maps = probe.network(probe.see(crops, torch.Generator()))  # type: ignore[operator]
    maps[0, :, 10, 10].sum().backward()
    assert crops.grad is not None
    rows, columns = crops.grad.abs().sum((0, 1)).nonzero(as_tuple=True)
    assert int(rows.max() - rows.min()) < 9
    assert int(columns.max() - columns.min()) < 9


def test_blockiness_finds_the_phase_of_blocks_and_not_their_strength() -> None:
    columns = torch.arange(40)
    steps = ((columns + 2) // 8).float().expand(2, 3, 40, 40) * torch.tensor([0.1, 0.3])[
        :, None, None, None
    ]  # an edge between columns 5 and 6, 13 and 14 …
    found = blockiness(steps)
    assert found.shape == (2, 32)
    assert found[0, :8].argmax() == found[1, :8].argmax() == 5
    assert torch.equal(found[:, 8:16], found[:, :8].sort(1, descending=True).values)
    assert found[:, 16:].abs().max() < 1e-5
    turned = blockiness(steps.transpose(2, 3))
    assert torch.allclose(turned, found.roll(16, 1), atol=1e-5)


def test_pretraining_looks_for_shortcuts_unless_told_not_to() -> None:
    assert Shortcuts().on
    assert not Shortcuts(on=False).on
