"""The thesis' number beside ours: what a comparison has to know of a network and its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from selfsup_cli.jobs.subject import RANDOM as RANDOM_WEIGHTS
from selfsup_cli.models import Backbone
from selfsup_cli.runs.published import OURS, RANDOM, SUPERVISED, Facts, published, tabled
from selfsup_cli.runs.published_artifacts import SIGNAL
from selfsup_cli.runs.published_views import BASELINE, FROZEN, POSE, POSE_S1
from selfsup_cli.runs.report import Measurement

# The methods of its tables, by the names that presets have for them.
_METHODS = {
    "temporal": OURS,
    "supervised": SUPERVISED,
    "transformations": OURS,
    "artifacts": OURS,
    "multiview": OURS,
}


def beside(task: str, row: Measurement, backbone: Backbone, **facts: Unpack[Facts]) -> Measurement:
    """`row` with the number that the thesis printed for it, if its method trained `backbone`.

    `task` is one of `published`; `facts` are those of the evaluation, which are joined by those of
    the pretraining.
    """
    trained = backbone.trained_on
    method = _METHODS.get(str(trained.get("method")))
    if method is None:
        return row
    facts = {
        "network": backbone.arch,
        "trained_on": str(trained.get("data", "")),
        "transformations": _learned_from(trained),
        "speed_loss": "speed" in trained.get("questions", []),
        "pretraining_epochs": trained.get("epochs", 0),
        "split": row.split,
        **facts,
    }
    if trained.get("method") == "artifacts":
        facts["ablation"] = _ablation(trained)
    number = published(task, row.metric, row.dataset, method=method, **facts)
    return row.model_copy(update={"published": number})


# What table 3.1 changes of its baseline: a fact of the pretraining, its value there, and what the
# row of another value is called.
_ABLATIONS: tuple[tuple[str, Any, str], ...] = (
    ("real", "replicas", "input image as real"),
    ("locate", True, "without mask prediction"),
    ("repair", "distributed", "local repair network"),
    ("kernel", 2, "3×3 encoder convolutions"),
    ("gated", True, "no gating in repair layers"),
    ("drop_rate", 0.5, "dropping rate {}"),
)


def _ablation(trained: Mapping[str, Any]) -> str:
    """The row of table 3.1 that a network of chapter 3 belongs to; of several, joined by plus."""
    found = [
        said.format(trained.get(fact))
        for fact, usual, said in _ABLATIONS
        if trained.get(fact) != usual
    ]
    if not trained.get("history"):
        found.append("no history of corrupted examples")
    return " + ".join(found) or "baseline"


def _learned_from(trained: Mapping[str, Any]) -> list[str]:
    """What a network learned to recognise, as the tables say it."""
    if trained.get("method") == "artifacts":
        return [SIGNAL]
    return [str(kind) for kind in trained.get("kinds", [])]


# What table 6.1 changes of its last row, likewise.
_OF_VIEWS: tuple[tuple[str, Any, Mapping[Any, str]], ...] = (
    ("fusion", "mult", {name: f"fusion {name}" for name in ("add", "diff", "concat")}),
    ("views", "multi", {"single": "single-view SSL"}),
    ("background", "remove", {"keep": "SSL with background"}),
)


def beside_pose(
    row: Measurement, backbone: Backbone, *, frozen: bool, subjects: Sequence[str], updates: int
) -> Measurement:
    """The same for a mean error of 3D poses, random weights included.

    `subjects` are those whose poses were learned from, none for all of the training part; `frozen`
    says whether blocks below the last one stayed as they were. The error of single joints and
    actions, which the thesis does not print, stays without a number.
    """
    if row.name != row.metric:
        return row
    trained, random = backbone.trained_on, row.subject == RANDOM_WEIGHTS
    if not random and trained.get("method") != "multiview":
        return row
    task = POSE_S1 if list(subjects) == ["S1"] else POSE
    facts: Facts = {
        "network": backbone.arch,
        "trained_on": "" if random else str(trained.get("data", "")),
        "split": row.split.split(";")[0],
        "labelled_subjects": str(row.protocol.get("labelled_subjects", "")),
        "background": str(row.protocol.get("background", "")),
        "crop": backbone.input.crop,
        "frozen": FROZEN if frozen else "nothing",
        "updates": updates,
        "test_frames": str(row.protocol.get("test_frames", "")),
    }
    if random:
        kept = facts["background"] == "kept"
        facts["ablation"] = f"random {'with' if kept else 'without'} background"
    else:
        facts |= {
            "ablation": _ablation_of_views(trained),
            "init": str(trained.get("init", "")),
            "pretraining_updates": int(trained.get("steps", 0)),
        }
    method = RANDOM if random else OURS
    number = published(task, row.metric, row.dataset, method=method, **facts)
    return row.model_copy(update={"published": number})


def _ablation_of_views(trained: Mapping[str, Any]) -> str:
    """The row of table 6.1 that a network of chapter 6 belongs to; of several, joined by plus."""
    found = [
        names.get(trained.get(fact), f"{fact} {trained.get(fact)}")
        for fact, usual, names in _OF_VIEWS
        if trained.get(fact) != usual
    ]
    questions = list(trained.get("questions", []))
    if len(questions) == 1:
        found.append(f"only {questions[0]}")
    return " + ".join(found) or BASELINE


def beside_layer(row: Measurement, backbone: Backbone, **facts: Unpack[Facts]) -> Measurement:
    """The same for a linear probe of a layer of an image network, random weights included.

    A layer of which the thesis prints nothing stays without a number.
    """
    layer = row.layer or ""
    if layer not in tabled("probe", row.metric, row.dataset, "layer"):
        return row
    facts = {"network": backbone.arch, "split": row.split, **facts, "layer": layer}
    if row.subject != RANDOM_WEIGHTS:
        return beside("probe", row, backbone, **facts)
    facts["trained_on"] = ""
    number = published("probe", row.metric, row.dataset, method=RANDOM, **facts)
    return row.model_copy(update={"published": number})
