"""What an evaluation looks at side by side: a run, random weights, and what --against names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfsup_cli.config.evaluation import Subject as Settings
from selfsup_cli.jobs.findings import said
from selfsup_cli.jobs.subject import LEARNED, RANDOM, Subject, load_subject
from selfsup_cli.models import Backbone
from selfsup_cli.runs.report import Finding, Measurement, above

if TYPE_CHECKING:
    from selfsup_cli.config.registry import Kind
    from selfsup_cli.config.retrieval_images import ComparedSubject

SUPERVISED = "supervised"


@dataclass
class Compared:
    """`subject` is what is asked about, `beside` the networks named with it, by subject's name."""

    subject: Subject
    beside: list[tuple[str, Backbone]]
    parents: list[dict[str, Any]]

    def networks(self) -> list[tuple[str, Backbone]]:
        """Name and network of all that is measured: learned, beside it, random weights last."""
        found = [(LEARNED, self.subject.learned), *self.beside]
        return found if self.subject.random is None else [*found, (RANDOM, self.subject.random)]


def load_compared(settings: ComparedSubject, kind: Kind | None) -> Compared:
    """Find all that `--from` and `--against` name. Raises InputError as `load_subject` does.

    A network that learned from labels is called supervised, any other by its run; a network that
    is named twice, or is the one asked about, counts once.
    """
    subject = load_subject(settings, kind)
    seen = {subject.weights}
    beside: list[tuple[str, Backbone]] = []
    parents = list(subject.parents)
    for reference in settings.against:
        other = load_subject(Settings(run=reference, baseline="none"), kind)
        if other.weights in seen:
            continue
        seen.add(other.weights)
        parents += other.parents
        taken = {LEARNED, RANDOM, *(name for name, _ in beside)}
        name = SUPERVISED if learned_from_labels(other.learned) else other.run
        beside.append((other.run if name in taken else name, other.learned))
    return Compared(subject, beside, parents)


def learned_from_labels(backbone: Backbone) -> bool:
    """Whether a network was trained on labels and on nothing else, as its file says."""
    method = str(backbone.trained_on.get("method"))
    from_nothing = not backbone.trained_on.get("before")
    return method == SUPERVISED or (method.startswith("transfer/") and from_nothing)


def beside(what: str, learned: Measurement, other: Measurement) -> Finding:
    """Learned features beside another network's, without a verdict: either may be the better."""
    text = f"{what}: learned {said(learned)}, {other.subject} {said(other)}: "
    if above(learned, other):
        text += "learned is better by more than both intervals"
    elif above(other, learned):
        text += f"{other.subject} is better by more than both intervals"
    else:
        text += "the intervals overlap, no difference is shown"
    return Finding(text=text, verdict="note")
