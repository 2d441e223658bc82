"""The thesis' number beside ours: what a comparison has to know of a network and its training."""

from __future__ import annotations

from typing import Unpack

from selfsup_cli.models import Backbone
from selfsup_cli.runs.published import OURS, SUPERVISED, Facts, published
from selfsup_cli.runs.report import Measurement

# The methods of its tables, by the names that presets have for them.
_METHODS = {"temporal": OURS, "supervised": SUPERVISED}


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
        "transformations": [str(kind) for kind in trained.get("kinds", [])],
        "speed_loss": "speed" in trained.get("questions", []),
        "pretraining_epochs": trained.get("epochs", 0),
        "split": row.split,
        **facts,
    }
    number = published(task, row.metric, row.dataset, method=method, **facts)
    return row.model_copy(update={"published": number})
