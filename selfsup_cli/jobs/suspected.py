"""Which labels are wrong? What a job on labels leaves of it in its run, and how well it tells."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from selfsup_cli.config.weighing import Suspects
from selfsup_cli.data.label_noise import NoisyLabels
from selfsup_cli.evaluation.suspects import (
    RANKINGS,
    Suspect,
    Suspicion,
    auroc,
    named,
    precision_at,
    suspects,
)
from selfsup_cli.jobs.images import Images
from selfsup_cli.runs import atomic
from selfsup_cli.runs.report import Finding, Measurement, Picture, ProtocolValue
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import suspect_sheet
from selfsup_cli.visualization.suspect_sheet import Suspicious

FILE = "suspects.csv"

_SAID = {
    "agreement": "agreement of a sample's gradient with those of other mini-batches",
    "loss": "loss in training (small-loss ranking)",
    "both": "mean of the ranks by agreement and by loss",
    "confident": "confident learning (cleanlab)",
}

Left = tuple[list[Measurement], list[Picture], list[Finding]]


def leave(
    run: Run,
    train: Images,
    suspicion: Suspicion,
    settings: Suspects,
    noisy: NoisyLabels | None,
    test: Measurement,
    confident: np.ndarray | None,
) -> Left:
    """Write `suspects.csv` and a contact sheet; and say how well each ranking tells, where labels
    are wrong on purpose. `confident` is what confident learning makes of the samples."""
    source = train.source
    given, classes = np.asarray(source.labels), source.classes
    assert classes is not None  # noqa: S101 (a classifier was trained on them)
    found = suspects(suspicion.scores(settings.ranking), given, suspicion.proposed)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(named(found, source.ids, classes))
    atomic.write_text(run.path / FILE, text.getvalue())
    pictures = _sheet(run, train, found[: settings.shown], classes, noisy)
    if noisy is None or not noisy.wrong.any():
        note = f"the labels most likely to be wrong stand first in {FILE}"
        return [], pictures, [Finding(text=note, verdict="note")]
    rows: list[Measurement] = []
    scores: dict[str, np.ndarray] = {name: suspicion.scores(name) for name in RANKINGS}
    if confident is not None:
        scores["confident"] = confident
    seen = np.isfinite(np.stack(list(scores.values()))).all(0)
    if len(set(noisy.wrong[seen].tolist())) < 2:
        note = (
            f"how well wrong labels are told from right ones is not known: the {int(seen.sum())} "
            "training images that came up are not of both kinds"
        )
        return [], pictures, [Finding(text=note, verdict="note")]
    for name, own in scores.items():
        rows += _told(name, own[seen], noisy.wrong[seen], settings, test)
    chosen = next(r for r in rows if r.protocol["ranking"] == _SAID[settings.ranking])
    said = ", ".join(
        f"{row.protocol['ranking']} {row.value:.1f} %" for row in rows if row.name == chosen.name
    )
    text_ = f"wrong labels are told from right ones (area under the ROC curve): {said}"
    good = chosen.interval is not None and chosen.interval.low > 50
    return rows, pictures, [Finding(text=text_, verdict="good" if good else "unclear")]


def _told(
    name: str, scores: np.ndarray, wrong: np.ndarray, settings: Suspects, test: Measurement
) -> list[Measurement]:
    about: dict[str, Any] = {
        "task": "suspects",
        "subject": test.subject,
        "dataset": f"{test.dataset}, training images",
        "split": test.split,
    }
    kept = {key: value for key, value in test.protocol.items() if key != "per_class"}
    protocol: dict[str, ProtocolValue] = {**kept, "ranking": _SAID[name]}
    area, interval = auroc(scores, wrong)
    rows = [
        Measurement(
            **about,
            name=f"AUROC, {name}",
            metric="area under the ROC curve of wrong labels",
            unit="%",
            value=100 * area,
            interval=interval.scaled(100, 0, 100),
            n=len(scores),
            chance=50.0,
            chance_is="what a random order gets",
            protocol=protocol,
        )
    ]
    for share in settings.at:
        k = max(1, round(share * len(scores)))
        hits, interval = precision_at(scores, wrong, k)
        rows.append(
            Measurement(
                **about,
                name=f"precision at {100 * share:g} %, {name}",
                metric=f"share of wrong labels among the {100 * share:g} % most suspicious",
                unit="%",
                value=100 * hits,
                interval=interval.scaled(100, 0, 100),
                n=k,
                chance=100 * float(wrong.mean()),
                chance_is="the share of wrong labels",
                protocol=protocol,
            )
        )
    return rows


def _sheet(
    run: Run,
    train: Images,
    found: list[Suspect],
    classes: tuple[str, ...],
    noisy: NoisyLabels | None,
) -> list[Picture]:
    if not found:
        return []
    shown = []
    for one in found:
        image = train.source.read(one.index)
        proposed = classes[one.proposed] if one.proposed >= 0 else "?"
        wrong = None if noisy is None else bool(noisy.wrong[one.index])
        shown.append(Suspicious(image, classes[one.given], proposed, one.score, wrong))
    title = f"The {len(shown)} most suspicious labels of {train.source.name}"
    suspect_sheet.sheet(run.picture("suspects.png"), shown, title=title)
    return [Picture(file="pictures/suspects.png", caption=f"{title}; all of them in {FILE}.")]
