"""The thesis' number beside ours: what a comparison has to know of a network and its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from selfsup_cli.jobs.subject import RANDOM as RANDOM_WEIGHTS
from selfsup_cli.models import Backbone
from selfsup_cli.runs.published import OURS, RANDOM, SUPERVISED, Facts, published, tabled
from selfsup_cli.runs.published_artifacts import SIGNAL
from selfsup_cli.runs.report import Measurement

# The methods of its tables, by the names that presets have for them.
_METHODS = {
    "temporal": OURS,
    "supervised": SUPERVISED,
    "transformations": OURS,
    "artifacts": OURS,
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
