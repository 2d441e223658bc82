"""Chapter 6 as a run: from views to a report, killed and gone on, and looked at afterwards."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from tiny_views import TinyViews

from selfsup_cli.config.blocks import Machine
from selfsup_cli.config.figures import SUBJECTS
from selfsup_cli.config.multiview import MultiviewData, ViewSource
from selfsup_cli.config.presets import Resolved, resolve
from selfsup_cli.data import figures
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.jobs import multiview, pretraining_multiview, probe_sync, retrieve_sync
from selfsup_cli.jobs.multiview import divide, find_comparing
from selfsup_cli.jobs.pretrain import pretrain
from selfsup_cli.methods.multiview import Multiview
from selfsup_cli.models import load_backbone
from selfsup_cli.runs.report import Report
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import curves

STEPS = 6
VIEWS = TinyViews(frames=160, cameras=3)


class Killed(BaseException):
    """Stands for a kill."""


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (pretraining_multiview, probe_sync, retrieve_sync):
        monkeypatch.setattr(module, "open_views", lambda *_: VIEWS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def asked(**more: Any) -> Resolved:
    options = {
        "data.source": "figures",
        "data.side": 32,
        "data.test_subjects": ["S9"],
        "network.arch": "timm/test_resnet",
        "train.max_steps": STEPS,
        "train.batch_size": 4,
        "train.checkpoint_steps": 2,
        "monitor.anchors": 24,
        "machine.device": "cpu",
        "machine.workers": 0,
        **more,
    }
    return resolve("pretrain/multiview", preset="multiview/base", options=options, env={})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def whole(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run as it comes out when nobody disturbs it; made once."""
    monkeypatch.setenv("SELFSUP_RUNS", str(runs))
    pretrain(asked(), run="whole", quiet=True)
    return Run.open(runs / "whole")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures, which take most of the time of a short run."""
    monkeypatch.setattr(pretraining_multiview, "pair_sheets", lambda *_: [])
    monkeypatch.setattr(curves, "draw", lambda *_, **__: None)


def report_of(run: Run) -> Report:
    report = run.report()
    assert report is not None
    return report


def test_a_run_says_what_it_learned_of_whom(whole: Run) -> None:
    assert whole.complete
    assert whole.problems() == []
    report = report_of(whole)
    held = [row for row in report.measurements if row.split == "subjects S9 held out"]
    names = {row.name for row in held}
    assert {"synchronised or not", "mirrored or not"} <= names
    assert "synchronised or not, 5 to 12 frames apart" in names
    assert all(row.chance == 50 for row in held)
    assert any("learned from" in row.split for row in report.measurements)
    text = " ".join(finding.text for finding in report.findings)
    assert "unseen subjects" in text
    assert "by the time between" in text
    for name in ("pretext", "answers", "gaps", "curves"):
        assert (whole.path / "pictures" / f"{name}.png").stat().st_size > 5000
    facts = load_backbone(whole.path / "backbone.safetensors").trained_on
    assert (facts["method"], facts["fusion"], facts["steps"]) == ("multiview", "mult", STEPS)
    rows = [json.loads(line) for line in (whole.path / "metrics.jsonl").open()]
    assert {"loss_sync", "loss_flip", "acc_sync", "acc_flip", "lr"} <= set(rows[0])
    assert {"heldout_sync", "heldout_flip", "seen_sync", "heldout_gap_5_12"} <= set(rows[-1])


@pytest.mark.usefixtures("undrawn")
def test_killed_it_ends_as_if_nothing_had_been(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path))
    step = Multiview.step
    calls: list[None] = []

    def mortal(self: Multiview, *given: Any) -> Any:
        calls.append(None)
        if len(calls) in (4, 8):
            raise Killed
        return step(self, *given)

    monkeypatch.setattr(Multiview, "step", mortal)
    for _ in range(2):
        with pytest.raises(Killed):
            pretrain(asked(), run="killed", quiet=True)
    pretrain(asked(), run="killed", quiet=True)
    for name in ("metrics.jsonl", "backbone.safetensors", "method.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (whole.path / name).read_bytes(), name


@pytest.mark.usefixtures("undrawn")
def test_a_kept_background_is_looked_at_without_the_subject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path))
    more = {"train.max_steps": 1, "pairs.background": "keep", "pairs.signals": "flip"}
    report = pretrain(asked(**more, **{"network.final_relu": True}), run="flip", quiet=True).report
    assert report is not None
    assert {row.name for row in report.measurements} == {"mirrored or not"}
    assert [row.control for row in report.measurements if row.control] == [
        "empty scenes, no subject"
    ]
    text = " ".join(finding.text for finding in report.findings)
    assert "by the background alone, without the subject" in text
    assert "no feature is ever below zero" in text
    # A network that knows nothing of synchronised views is not asked about them.
    with pytest.raises(InputError, match="has not learned to tell synchronised views"):
        find_comparing("flip").require("sync")


def test_probe_sync_draws_accuracy_by_the_time_between(whole: Run) -> None:
    options = {"subject.run": "whole", "probe.gaps": [8, 40, 104], "probe.pairs": 12}
    resolved = resolve("probe-sync", options=options, env={})
    outcome = probe_sync.probe_sync(resolved, run="probe", quiet=True)
    report = outcome.report
    assert report is not None
    who = {str(row.protocol["who"]) for row in report.measurements}
    assert who == {"S9 (unseen)", "all seen", "S1 (seen)", "S5 (seen)"}
    assert len(report.measurements) == 4 * 3
    assert {curve.name for curve in report.curves} == who
    assert [point[0] for point in report.curves[0].points] == [8, 40, 104]
    assert (whole.path.parent / "probe" / "pictures" / "pairs.png").is_file()
    rehearsed = probe_sync.probe_sync(resolved, dry_run=True, quiet=True)
    assert rehearsed.data["subjects"] == ["S9 (unseen)", "S1 (seen)", "S5 (seen)"]


def test_pairs_of_the_probe_are_as_far_apart_as_they_say() -> None:
    division = divide(VIEWS, MultiviewData(source="figures", test_subjects=["S9"]))
    groups = probe_sync.groups_of(VIEWS, division, 1)
    assert [(one.name, one.held_out) for one in groups] == [("S9", True), ("S1", False)]
    settings = resolve("probe-sync", env={}).preset.probe  # type: ignore[attr-defined]
    moments, later, kept = probe_sync.drawn(VIEWS, groups[0], settings)
    assert all(one.time == one.later for one in moments)
    for gap, anchors in later.items():
        apart = [abs(one.later - one.time) for one in anchors]
        assert set(apart) <= set(range(gap - 7, gap + 9))
        assert len(anchors) == len(kept[gap])
        for place, one in zip(kept[gap].tolist(), anchors, strict=True):
            assert (moments[place].time, moments[place].first) == (one.time, one.first)
    # Where the recordings are too short for it, that is said.
    with pytest.raises(InputError, match="no two frames of S9 are 400 frames"):
        probe_sync.drawn(VIEWS, groups[0], settings.model_copy(update={"gaps": [400]}))


def test_retrieve_sync_looks_among_people_and_cameras(whole: Run) -> None:
    options = {"subject.run": "whole", "search.queries": 5, "search.gallery": 30}
    resolved = resolve("retrieve-sync", options={**options, "search.step": 4}, env={})
    report = retrieve_sync.retrieve_sync(resolved, run="retrieve", quiet=True).report
    assert report is not None
    share, error = report.measurements
    assert (share.name, error.name) == ("time found within 4 frames", "error in time")
    assert error.unit == "frames at 50 Hz"
    assert error.chance is not None
    assert error.chance > 20
    for name in ("subjects", "cameras"):
        assert (whole.path.parent / "retrieve" / "pictures" / f"{name}.png").is_file()


def test_subjects_are_divided_as_asked() -> None:
    def parts(**settings: Any) -> tuple[set[str], set[str], str]:
        found = divide(VIEWS, MultiviewData(**settings))
        names = [
            {VIEWS.recordings[one.recording].subject for one in part}
            for part in (found.train, found.test)
        ]
        return names[0], names[1], found.rule

    assert parts(source="figures") == ({"S1", "S5"}, {"S9"}, "official, subjects S9 held out")
    assert parts(source="mine")[:2] == ({"S1", "S5"}, {"S9"})
    assert parts(source="mine", train_subjects=["S5"])[:2] == ({"S5"}, {"S1", "S9"})
    assert parts(source="mine", test_subjects=["S1"])[:2] == ({"S5", "S9"}, {"S1"})
    with pytest.raises(InputError, match=r"no subject 'S2'.*there are S1, S5, S9"):
        parts(source="mine", train_subjects=["S2"])
    with pytest.raises(InputError, match="all subjects of mine"):
        parts(source="mine", test_subjects=["S1", "S5", "S9"])
    with pytest.raises(ValueError, match="held out and learned from at once"):
        parts(train_subjects=["S1"], test_subjects=["S1"])


@pytest.mark.parametrize(
    ("named", "opened"),
    [
        ({"train_subjects": ["S1"]}, {"S1", "S9", "S11"}),
        ({"train_subjects": ["S1", "S9"]}, {"S1", "S9", "S11"}),
        ({"train_subjects": ["S1"], "test_subjects": ["S5"]}, {"S1", "S5"}),
        ({"test_subjects": ["S5"]}, set(SUBJECTS)),
        ({"train_subjects": ["S9", "S11"]}, set(SUBJECTS)),
    ],
)
def test_who_is_not_named_is_opened_where_the_other_part_needs_them(
    monkeypatch: pytest.MonkeyPatch, named: dict[str, list[str]], opened: set[str]
) -> None:
    asked: list[set[str]] = []

    def note(*_: Any, subjects: Sequence[str], **__: Any) -> TinyViews:
        asked.append(set(subjects))
        return VIEWS

    monkeypatch.setattr(figures, "open_figures", note)
    with Progress(quiet=True) as progress:
        multiview.open_views(MultiviewData(source="figures", **named), Machine(), progress)  # type: ignore[arg-type]
    assert asked == [opened]


def test_what_a_dataset_tests_on_is_not_learned_from_unasked() -> None:
    views = TinyViews(subjects=("S1", "S5", "S9", "S11"), frames=2)
    found = divide(views, MultiviewData(source="figures", test_subjects=["S9"]))
    assert {views.recordings[one.recording].subject for one in found.train} == {"S1", "S5"}


def test_who_was_learned_from_is_not_judged_as_unseen(
    whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = find_comparing(str(whole.path))
    for job, run in (
        ("probe-sync", probe_sync.probe_sync),
        ("retrieve-sync", retrieve_sync.retrieve_sync),
    ):
        options = {"subject.run": str(whole.path), "data.test_subjects": ["S5", "S9"]}
        with pytest.raises(InputError, match=r"S5 cannot be judged as unseen: whole has learned"):
            run(resolve(job, options=options, env={}), run=job, quiet=True)
    asked = ViewSource(train_subjects=["S9"])
    with pytest.raises(InputError, match="S9 cannot be held out and learned from at once"):
        multiview.data_for(asked, compared)


def test_of_a_single_subject_the_end_is_held_out() -> None:
    views = TinyViews(subjects=("me",), frames=100)
    found = divide(views, MultiviewData(source="mine"))
    assert found.by_time
    assert (found.train[0].last, found.test[0].first, found.test[0].last) == (80, 80, 100)
