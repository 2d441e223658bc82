"""How transfer to poses opens its images: which subjects, which frames, in crops of which side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selfsup_cli.config.pose import TransferPose
from selfsup_cli.config.registry import nearest
from selfsup_cli.data.pose_images import PoseImages, frames_of
from selfsup_cli.data.source import LeftOut
from selfsup_cli.data.view_pairs import Stretch
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.multiview import divide, name_of, open_views
from selfsup_cli.jobs.starting import Start
from selfsup_cli.runs.report import Finding


@dataclass
class Posed:
    """Images with poses, and what was left out of them."""

    source: PoseImages
    left_out: list[LeftOut] = field(default_factory=list)


def open_parts(preset: TransferPose, start: Start, progress: Progress) -> tuple[Posed, Posed]:
    """The training and the test part.

    Raises InputError for what the user has to mend, and MachineError where the cache cannot be
    written.
    """
    side = preset.data.side or start.backbone.input.crop
    data = preset.data.model_copy(update={"side": side})
    views = open_views(data, preset.machine, progress, least_cameras=1)
    divided = divide(views, data)
    learned = _of_subjects(
        divided.train, [one.subject for one in views.recordings], preset, name_of(data)
    )
    how, name = preset.images, name_of(data)
    rule = divided.rule
    masks = how.background == "remove"
    if preset.subjects:
        rule += f"; poses of {', '.join(preset.subjects)} learned from"
    train = frames_of(views, learned, how.every, how.still)
    test = frames_of(views, divided.test, how.test_every)
    return (
        Posed(PoseImages(views, train, name=name, split="train", split_rule=rule, masks=masks)),
        Posed(PoseImages(views, test, name=name, split="test", split_rule=rule, masks=masks)),
    )


def _of_subjects(
    stretches: Sequence[Stretch], subjects: Sequence[str], preset: TransferPose, name: str
) -> list[Stretch]:
    """The stretches of the subjects that are named, or all of them."""
    if not preset.subjects:
        return list(stretches)
    known = list(dict.fromkeys(subjects[one.recording] for one in stretches))
    for subject in preset.subjects:
        if subject in known:
            continue
        if subject in subjects:
            raise InputError(
                f"subject {subject} of {name} is tested on, and so not learned from; learn from "
                f"{', '.join(known)}",
                kind="subjects",
            )
        raise InputError(
            f"there is no subject '{subject}' in {name}{nearest(subject, known)}; there are "
            f"{', '.join(known)} to learn from",
            kind="unknown-subject",
        )
    return [one for one in stretches if subjects[one.recording] in preset.subjects]


def notes(trained_on: Mapping[str, Any], train: PoseImages, test: PoseImages) -> list[Finding]:
    """What of the data a reader of the numbers has to know. `trained_on` is about the backbone."""
    found = []
    before = str(trained_on.get("split", ""))
    if trained_on.get("data") == test.name and before not in ("", test.split_rule.split(";")[0]):
        text = (
            f"pretrained on {test.name} by another split ({before}) than tested here "
            f"({test.split_rule}): test images may have been seen, without their joints"
        )
        found.append(Finding(text=text, verdict="note"))
    for part in (train, test):
        if part.rootless:
            text = (
                f"{part.rootless} frames of the {part.split} part of {part.name} are left out: "
                "their root joint is not known"
            )
            found.append(Finding(text=text, verdict="note"))
    here = {part.split: {part.views.recordings[n].subject for n in part.places[:, 0].tolist()}
            for part in (train, test)}  # fmt: skip
    both = sorted(here[train.split] & here[test.split])
    if both:
        text = (
            f"{', '.join(both)} of {test.name} are in the training and in the test part: the "
            "numbers say nothing about other people"
        )
        found.append(Finding(text=text, verdict="note"))
    return found
