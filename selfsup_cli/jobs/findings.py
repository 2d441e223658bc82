"""What numbers say, in sentences that claim no more than their intervals carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from selfsup_cli.data.source import ClipSource, ImageSource
from selfsup_cli.evaluation.labelled import recording_of
from selfsup_cli.jobs.subject import LEARNED, RANDOM
from selfsup_cli.runs.report import Finding, Measurement, above, at_chance


class Chosen(Protocol):
    """A probe; `validation` is how good it was on training data held out, None without any."""

    @property
    def validation(self) -> float | None: ...


_RENDERED = ("test images rendered apart", "test videos rendered apart")

Probed = tuple[Chosen, Measurement]


def said(row: Measurement) -> str:
    """`71.2 % (66.1 … 75.8)`."""
    interval = row.interval
    spread = "" if interval is None else f" ({interval.low:.1f} … {interval.high:.1f})"
    return f"{row.value:.1f} %{spread}"


def compare(what: str, learned: Measurement, random: Measurement) -> Finding:
    """Learned features beside random weights."""
    text = f"{what}: learned {said(learned)}, random weights {said(random)}: "
    if above(learned, random):
        return Finding(text=text + "learned is better by more than both intervals", verdict="good")
    if above(random, learned):
        return Finding(text=text + "random weights are better", verdict="bad")
    return Finding(text=text + "the intervals overlap, no difference is shown", verdict="unclear")


def against_chance(what: str, row: Measurement) -> Finding | None:
    """A number beside the best constant answer."""
    if row.chance is None or row.interval is None:
        return None
    text = f"{what}: {said(row)}, chance {row.chance:.1f} %: "
    if at_chance(row):
        return Finding(text=text + "at chance", verdict="unclear")
    better = row.value > row.chance
    return Finding(
        text=text + ("above chance" if better else "below chance"),
        verdict="good" if better else "bad",
    )


def best(found: Sequence[Probed], subject: str, control: str | None = None) -> Probed | None:
    """The layer that is best on held-out training data: what is tested on does not choose.

    Where there were too few to hold any out, it is the deepest one.
    """
    own = [(r, m) for r, m in found if m.subject == subject and m.control == control]
    if any(r.validation is None for r, _ in own):
        return own[-1]
    return max(own, key=lambda one: one[0].validation or 0.0, default=None)


def seen_before(trained_on: Mapping[str, Any], source: ClipSource | ImageSource) -> list[Finding]:
    """A word of warning where the pretraining may have seen what is tested on, without labels."""
    split, rule = trained_on.get("split"), source.split_rule
    if trained_on.get("data") != source.name or split in (None, rule):
        return []
    if all(one.startswith(_RENDERED) for one in (str(split), rule)):
        return []  # whatever the seeds, no image of the training part is one of the test part
    many = "videos" if hasattr(source, "num_frames") else "images"
    if many == "images" and all(str(one).startswith("official") for one in (split, rule)):
        return []  # folds and parts of a dataset of images have one test part
    text = (
        f"pretrained on {source.name} by another split ({split}) than tested here "
        f"({rule}): test {many} may have been seen, without their labels"
    )
    return [Finding(text=text, verdict="note")]


def shared_recordings(train: ClipSource, test: ClipSource) -> list[Finding]:
    """A word of warning where names say that both parts have clips of the same recordings."""
    known = {recording_of(identifier) for identifier in train.ids}
    shared = sum(recording_of(identifier) in known for identifier in test.ids)
    if not shared:
        return []
    text = (
        f"{shared} of {len(test)} test videos were cut from recordings that the training part has "
        "too, as their names say (…_g07_c02): the numbers say little about new recordings"
    )
    return [Finding(text=text, verdict="note")]


def of_probe(found: Sequence[Probed]) -> list[Finding]:
    """Learned beside random and beside chance at the layers that validation chose; still videos."""
    out: list[Finding] = []
    learned, random = best(found, LEARNED), best(found, RANDOM)
    if learned is None:
        return out
    name = f"linear probe of {learned[1].layer}"
    if random is not None:
        how = "the deepest one" if learned[0].validation is None else "each its best on validation"
        where = f"{name} (random weights: {random[1].layer}, {how})"
        out.append(compare(where, learned[1], random[1]))
    out += filter(None, [against_chance(name, learned[1])])
    still = [m for _, m in found if m.control == "still" and m.layer == learned[1].layer]
    return [*out, *(on_still(row, learned[1]) for row in still)]


def on_still(row: Measurement, moving: Measurement) -> Finding:
    """What is left of a layer's accuracy when one frame of each clip is repeated."""
    text = f"on still videos, {row.layer}: {said(row)}, chance {row.chance:.1f} %: "
    if row.chance is not None and row.value > row.chance and not at_chance(row):
        text += "above chance, appearance helps to tell classes"
    elif above(moving, row):
        text += "at chance, and below moving videos: what is told is told by motion"
    else:
        text += "at chance, and not told apart from moving videos"
    return Finding(text=text, verdict="note")


def of_retrieval(rows: Sequence[Measurement]) -> list[Finding]:
    """Top-1 of learned features beside random weights, chance, and queries without their order."""
    first = [row for row in rows if row.metric == rows[0].metric]
    learned = [row for row in first if row.subject == LEARNED and row.control is None]
    if not learned:
        return []
    out: list[Finding] = []
    what = f"nearest neighbours, {learned[0].metric}"
    out += [compare(what, learned[0], row) for row in first if row.subject == RANDOM]
    out += filter(None, [against_chance(what, learned[0])])
    for row in first:
        if row.control is not None:
            text = f"{row.control} queries: {said(row)} beside {said(learned[0])} in order: "
            lost = above(learned[0], row)
            text += "the order of time matters" if lost else "no difference is shown"
            out.append(Finding(text=text, verdict="note"))
    return out
