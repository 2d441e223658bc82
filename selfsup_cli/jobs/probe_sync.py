"""`selfsup probe sync`: are views synchronised? By the time between them (figure 6.4)."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from selfsup_cli.config.multiview import RATE
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.synchrony import GapProbe, ProbeSync
from selfsup_cli.data.view_pairs import Anchor, Stretch, at_rate, in_frames
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.synchrony import STRETCH, PairScore
from selfsup_cli.evaluation.view_features import Viewer
from selfsup_cli.jobs import common, findings
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.multiview import (
    Compared,
    Division,
    background_for,
    data_for,
    divide,
    find_comparing,
    name_of,
    open_views,
    require_unseen,
)
from selfsup_cli.jobs.multiview_monitoring import CERTAIN
from selfsup_cli.randomness import generator
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import Curve, Finding, Measurement, Picture, Report, above
from selfsup_cli.runs.run import Run
from selfsup_cli.runs.statistics import t_quantile
from selfsup_cli.visualization import curves
from selfsup_cli.visualization.pairs import Pair, pair_sheet

if TYPE_CHECKING:
    from selfsup_cli.data.multiview import Views

BEFORE, AFTER = 7, 8
"""Times between are drawn evenly from Δ - 7 to Δ + 8 frames at 50 Hz."""

UNSEEN, SEEN = "unseen", "seen"


@dataclass(frozen=True)
class Group:
    """A subject and its stretches of recordings; whether it was held out."""

    name: str
    held_out: bool
    stretches: tuple[Stretch, ...]

    @property
    def shown(self) -> str:
        """For curves and tables."""
        return f"{self.name} ({UNSEEN if self.held_out else SEEN})"


@dataclass(frozen=True)
class Judged:
    """The pairs of a group and their logits.

    `anchors[Δ]` are those whose `later` image is about Δ frames away, int64 `kept[Δ]` their places
    among all moments of the group; `together` float `[n]` and `apart[Δ]` are the logits of
    synchronised pairs and of the others; `stretches` int64 `[n]` number the stretches of time.
    """

    group: Group
    anchors: dict[int, list[Anchor]]
    kept: dict[int, np.ndarray]
    together: np.ndarray
    apart: dict[int, np.ndarray]
    stretches: np.ndarray

    def right(self, gap: int) -> np.ndarray:
        """Share of right answers about each moment at a time between, float `[m]`."""
        yes = self.together[self.kept[gap]] > 0
        both: np.ndarray = (yes.astype(np.float64) + (self.apart[gap] < 0)) / 2
        return both


def probe_sync(
    resolved: Resolved,
    *,
    run: str | None = None,
    command: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Judge synchronised pairs and others, of unseen and of seen subjects.

    Raises InputError, MachineError and Stopped, each a sentence for the user.
    """
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, ProbeSync)  # noqa: S101 (the command and the preset belong together)
    compared = find_comparing(preset.subject.run)
    compared.require("sync")
    data = data_for(preset.data, compared)
    hardware = choose(preset.machine.device)
    with signals.catching() as stop, Progress(quiet=quiet) as progress:
        views = open_views(data, preset.machine, progress)
        division = divide(views, data)
        require_unseen(compared, views, division, data)
        groups = groups_of(views, division, preset.probe.seen)
        if dry_run:
            return _rehearse(preset, compared, groups)
        name = name_of(data)
        record = common.started_run(
            resolved,
            run,
            arch=compared.network.backbone.arch,
            data=name,
            seed=preset.probe.seed,
            command=command,
            dataset=describe_views(views, name, division.rule),
            parents=list(compared.parents),
        )
        if record.complete:
            return Outcome(record.path, record.report())
        with common.ending(record):
            record.set_status("running")
            began = time.monotonic()
            background = background_for(preset.subject.background, compared)
            viewer = Viewer(compared.network, views, hardware, background=background)
            judged = []
            for group in groups:
                if stop:
                    raise stop.stopped(f"subject {group.name}")
                counted = progress.counting(f"views of {group.shown}")
                judged.append(judge(viewer, group, preset.probe, counted))
            rows = measured(judged, preset.probe, name, division.rule, background, data.side)
            drawn = _curves(rows)
            curves.draw(record.picture("gaps.png"), drawn)
            caption = "Accuracy by the time between images that are not synchronised (figure 6.4)."
            pictures = [Picture(file="pictures/gaps.png", caption=caption)]
            pictures += _sheet(record, viewer, judged, preset.probe)
            report = Report(
                job="probe-sync",
                run=record.name,
                command=shlex.join(record.info.command),
                created=reports.now(),
                findings=found(rows, preset.probe.gaps, by_time=division.by_time),
                measurements=rows,
                curves=drawn,
                pictures=pictures,
                data=describe_views(views, name, division.rule),
                weights=compared.weights,
                cost={"seconds": round(time.monotonic() - began, 1)},
            )
            record.write_report(report)
            record.finish()
            return Outcome(record.path, report)


def describe_views(views: Views, name: str, rule: str) -> dict[str, Any]:
    """What provenance keeps of views."""
    return {
        "name": name,
        "split_rule": rule,
        "recordings": len(views.recordings),
        "subjects": len({one.subject for one in views.recordings}),
        "frames": sum(one.frames for one in views.recordings),
        "fingerprint": views.fingerprint,
    }


def groups_of(views: Views, division: Division, seen: int) -> list[Group]:
    """Subjects held out, and the first `seen` of the others."""
    out = []
    for held_out, part in ((True, division.test), (False, division.train)):
        names = list(dict.fromkeys(views.recordings[one.recording].subject for one in part))
        for name in names if held_out else names[:seen]:
            own = tuple(one for one in part if views.recordings[one.recording].subject == name)
            out.append(Group(name, held_out, own))
    return out


def drawn(
    views: Views, group: Group, settings: GapProbe
) -> tuple[list[Anchor], dict[int, list[Anchor]], dict[int, np.ndarray]]:
    """Moments of a group with two cameras each, and with them images about Δ away from each.

    Any frame may be drawn. Where Δ leads out of a recording in both directions, that moment is left
    out; InputError where this leaves none.
    """
    lengths = np.array([len(one) for one in group.stretches])
    ends = np.cumsum(lengths)
    moments: list[Anchor] = []
    later: dict[int, list[Anchor]] = {gap: [] for gap in settings.gaps}
    kept: dict[int, list[int]] = {gap: [] for gap in settings.gaps}
    for number in range(settings.pairs):
        g = generator(settings.seed, group.name, int(group.held_out), number, "moment")

        def draw(count: int, g: torch.Generator = g) -> int:
            return int(torch.randint(count, (), generator=g))

        place = draw(int(ends[-1]))
        which = int(np.searchsorted(ends, place, side="right"))
        stretch = group.stretches[which]
        time = stretch.first + place - int(ends[which] - lengths[which])
        recording = views.recordings[stretch.recording]
        cameras = len(recording.cameras)
        if cameras < 2:
            raise InputError(
                f"{recording.id} was seen by one camera, and pairs take two", kind="one-camera"
            )
        one = draw(cameras)
        two = (one + 1 + draw(cameras - 1)) % cameras
        moments.append(Anchor(stretch.recording, one, two, time, time))
        for gap in settings.gaps:
            apart = in_frames(gap - BEFORE + draw(BEFORE + AFTER + 1), recording.rate)
            apart = -apart if draw(2) else apart
            for other in (time + apart, time - apart):
                if stretch.first <= other < stretch.last:
                    later[gap].append(Anchor(stretch.recording, one, two, time, other))
                    kept[gap].append(number)
                    break
    for gap in settings.gaps:
        if not kept[gap]:
            raise InputError(
                f"--gaps: no two frames of {group.name} are {gap} frames at {RATE} Hz apart; its "
                f"longest recording has {int(lengths.max())} frames here",
                kind="too-short",
            )
    return moments, later, {gap: np.array(places) for gap, places in kept.items()}


def judge(viewer: Viewer, group: Group, settings: GapProbe, counted: Any = None) -> Judged:
    """Ask the network about the pairs of a group."""
    moments, later, kept = drawn(viewer.views, group, settings)
    wanted = [(a.recording, a.first, a.time) for a in moments]
    wanted += [(a.recording, a.second, a.time) for a in moments]
    wanted += [(a.recording, a.second, a.later) for gap in settings.gaps for a in later[gap]]
    features = viewer.features(wanted, counted)
    count = len(moments)
    first, second = features[:count], features[count : 2 * count]
    together = viewer.paired(first, second).numpy()
    apart, at = {}, 2 * count
    for gap in settings.gaps:
        own = features[at : at + len(later[gap])]
        apart[gap] = viewer.paired(first[torch.from_numpy(kept[gap])], own).numpy()
        at += len(own)
    rates = [viewer.views.recordings[a.recording].rate for a in moments]
    places = [
        (a.recording, int(at_rate(a.time, rate)) // STRETCH)
        for a, rate in zip(moments, rates, strict=True)
    ]
    stretches = np.unique(np.array(places), axis=0, return_inverse=True)[1].reshape(-1)
    return Judged(group, later, kept, together, apart, stretches)


def measured(
    judged: Sequence[Judged],
    settings: GapProbe,
    dataset: str,
    rule: str,
    background: str,
    side: int,
) -> list[Measurement]:
    """Accuracy at each time between: of each subject, and of all held out and all seen together."""
    rows = []
    for held_out in (True, False):
        own = [one for one in judged if one.group.held_out == held_out]
        sets = [(one.group.shown, [one]) for one in own]
        if len(own) > 1:
            sets.insert(0, (f"all {UNSEEN if held_out else SEEN}", own))
        for who, some in sets:
            for gap in settings.gaps:
                score = _pooled(some, gap)
                rows.append(
                    score.measurement(
                        task="probe-sync",
                        subject="learned",
                        dataset=dataset,
                        split=f"{who}; {rule}",
                        protocol={
                            "who": who,
                            "gap": gap,
                            "drawn": f"{gap - BEFORE} to {gap + AFTER} frames at {RATE} Hz",
                            "background": background,
                            "side": side,
                            "seed": settings.seed,
                        },
                    )
                )
    return rows


def _pooled(judged: Sequence[Judged], gap: int) -> PairScore:
    right = np.concatenate([one.right(gap) for one in judged])
    stretches, base = [], 0
    for one in judged:
        stretches.append(one.stretches[one.kept[gap]] + base)
        base += int(one.stretches.max()) + 1
    return PairScore.of(f"synchronised or not, Δ = {gap}", right, np.concatenate(stretches))


def found(rows: Sequence[Measurement], gaps: Sequence[int], *, by_time: bool) -> list[Finding]:
    """Whether unseen subjects are told apart, whether more easily after longer times, and whether
    as well as those that were learned from."""
    unseen = _of(rows, UNSEEN)
    seen = _of(rows, SEEN)
    out = []
    near, far = min(gaps), max(gaps)
    who = "later parts of the recordings" if by_time else "unseen subjects"
    if far in unseen:
        row = unseen[far]
        text = f"{who}, Δ = {far}: {findings.said(row)}, chance 50 %"
        errors = _errors_above(row)
        good = errors is not None and errors >= CERTAIN
        if errors is not None:
            text += f", {errors:.1f} standard errors above"
        out.append(Finding(text=text, verdict="good" if good else "unclear"))
    if near in unseen and near != far:
        low, high = unseen[near], unseen[far]
        text = f"{who}: {findings.said(low)} at Δ = {near}, {findings.said(high)} at Δ = {far}: "
        if above(high, low):
            text += "the longer the time between, the easier"
            out.append(Finding(text=text, verdict="good"))
        else:
            out.append(Finding(text=text + "no rise is shown", verdict="unclear"))
    if far in unseen and far in seen:
        text = f"Δ = {far}: seen {findings.said(seen[far])}, unseen {findings.said(unseen[far])}: "
        worse = above(seen[far], unseen[far])
        text += "it knows the seen ones better" if worse else "no difference is shown"
        out.append(Finding(text=text, verdict="note"))
    return out


def _errors_above(row: Measurement) -> float | None:
    """Standard errors above chance, of a mean with a t interval that has not been cut."""
    interval = row.interval
    if interval is None or not interval.method.startswith("Student") or interval.high >= 100:
        return None
    return (row.value - 50) / (interval.high - row.value) * t_quantile(0.975, row.n - 1)


def _of(rows: Sequence[Measurement], kind: str) -> dict[int, Measurement]:
    """The rows of all subjects of a kind, by Δ; of the only one where there is one."""
    pooled = [row for row in rows if row.protocol["who"] == f"all {kind}"]
    chosen = pooled or [row for row in rows if str(row.protocol["who"]).endswith(f"({kind})")]
    return {int(str(row.protocol["gap"])): row for row in chosen}


def _curves(rows: Sequence[Measurement]) -> list[Curve]:
    found: dict[str, list[tuple[float, Measurement]]] = {}
    for row in rows:
        points = found.setdefault(str(row.protocol["who"]), [])
        points.append((float(str(row.protocol["gap"])), row))
    return [
        Curve.measured(
            points,
            name=who,
            x_label=f"Δ, frames at {RATE} Hz",
            y_label="synchronised or not, accuracy in %",
            chance=50.0,
        )
        for who, points in found.items()
    ]


def _sheet(run: Run, viewer: Viewer, judged: Sequence[Judged], settings: GapProbe) -> list[Picture]:
    """Moments of the first subject that is held out, each with its pairs and the answers."""
    if not settings.sheet:
        return []
    one = judged[0]
    spread = np.linspace(0, len(settings.gaps) - 1, min(4, len(settings.gaps)))
    gaps = [settings.gaps[round(place)] for place in spread.tolist()]
    complete = [n for n in range(settings.pairs) if all(n in one.kept[gap] for gap in gaps)]
    rows = []
    for number in complete[: settings.sheet]:
        anchors = {gap: one.anchors[gap][list(one.kept[gap]).index(number)] for gap in gaps}
        first = anchors[gaps[0]]
        recording = viewer.views.recordings[first.recording]
        a = viewer.images(first.recording, first.first, [first.time])[0]
        b = viewer.images(first.recording, first.second, [first.time])[0]
        names = [recording.cameras[k].name for k in (first.first, first.second)]
        row = [
            Pair(
                a,
                b,
                "synchronised",
                f"{recording.id}, frame {first.time}: {names[0]} and {names[1]}",
                _probability(one.together[number]),
            )
        ]
        for gap, anchor in anchors.items():
            other = viewer.images(anchor.recording, anchor.second, [anchor.later])[0]
            apart = at_rate(anchor.later - anchor.time, recording.rate)
            place = int(np.flatnonzero(one.kept[gap] == number)[0])
            said = _probability(one.apart[gap][place])
            row.append(Pair(a, other, f"Δ = {gap}", f"{apart:+.0f} frames", said))
        rows.append(row)
    caption = f"Pairs of {one.group.shown} and how sure the network is that they are synchronised."
    pair_sheet(run.picture("pairs.png"), rows, title="Synchronised?", note=caption)
    return [Picture(file="pictures/pairs.png", caption=caption)]


def _probability(logit: float) -> str:
    return f"synchronised {1 / (1 + np.exp(-float(logit))):.0%}"


def _rehearse(preset: ProbeSync, compared: Compared, groups: Sequence[Group]) -> Outcome:
    count = preset.probe.pairs * (2 + len(preset.probe.gaps))
    text = (
        f"from: {compared.run} ({compared.network.backbone.arch})\n"
        f"subjects: {', '.join(group.shown for group in groups)}\n"
        f"work: at most {count * len(groups)} images through the network"
    )
    facts: dict[str, Any] = {
        "from": compared.run,
        "weights": compared.weights,
        "subjects": [group.shown for group in groups],
        "images": count * len(groups),
    }
    return Outcome(text=text, data=facts)
