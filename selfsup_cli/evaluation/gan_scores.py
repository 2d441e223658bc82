"""All that one network says of one generator's samples beside real images (section 7.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from selfsup_cli.config.generated import Measures
from selfsup_cli.evaluation.frechet import (
    Moments,
    distance_name,
    expected_bias,
    frechet_interval,
    too_few,
)
from selfsup_cli.evaluation.inception_score import inception_score, score_name
from selfsup_cli.evaluation.judges import Judge, Seen
from selfsup_cli.evaluation.kernel_distance import kernel_distance, kernel_name
from selfsup_cli.evaluation.precision_recall import precision_recall, reach
from selfsup_cli.randomness import generator
from selfsup_cli.runs.report import Measurement, ProtocolValue
from selfsup_cli.runs.statistics import Interval, t_quantile, wilson

TASK = "score"
_SIGNED = "kernel distance"  # an unbiased estimate, below 0 by chance
_GROUPS = 10
_BIASED = 0.05


class Number(BaseModel):
    """One value, in `unit`: `what` it is, the `name` that says by which network, and what its
    protocol adds."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    what: str
    name: str
    value: float
    unit: str = ""
    interval: Interval | None = None
    protocol: dict[str, bool | int | float | str]


class Scores(BaseModel):
    """The numbers of one judge for one generator: the `run` that trained it and its `step`, None
    for images of no generator."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    judge: str
    run: str | None = None
    step: int | None
    images: int
    numbers: list[Number]


@dataclass
class Reference:
    """Real images as a judge sees them, and what of them is the same for all generators."""

    seen: Seen
    moments: Moments
    radii: Tensor | None

    @classmethod
    def of(cls, seen: Seen, measures: Measures, device: torch.device) -> Reference:
        """All of it; without radii where there are too few images for them."""
        found = seen.features.to(device)
        enough = len(found) > measures.neighbours
        radii = reach(found, measures.neighbours) if enough else None
        return cls(Seen(found, None), Moments.of(seen.features), radii)


def score_all(
    judge: Judge,
    seen: Seen,
    reference: Reference,
    measures: Measures,
    *,
    step: int | None,
    run: str | None = None,
    seed: int = 0,
) -> Scores:
    """Distances, precision and recall, and where the judge has classes their score.

    The interval of the Fréchet distance is over ten random parts of the samples, that of the kernel
    distance over disjoint subsets. Raises InputError for fewer than two images.
    """
    ours = seen.features.to(reference.seen.features.device)
    theirs = reference.seen.features
    dims = reference.moments.dims
    # Every so-many-th, since images of a folder may be sorted.
    parts = [seen.features[k::_GROUPS] for k in range(_GROUPS)] if len(ours) >= 50 else None
    groups = [Moments.of(part) for part in parts or [seen.features]]
    value, interval = frechet_interval(groups, reference.moments)
    bias = expected_bias(reference.moments, len(ours))
    numbers = [
        Number(
            what="Fréchet distance",
            name=distance_name(judge.name),
            value=value,
            interval=interval,
            protocol={"features": dims, "expected_bias": _short(bias)},
        )
    ]
    if seen.logits is not None:
        found = inception_score(
            _shuffled(seen.logits, measures.splits, seed).double().softmax(1),
            splits=measures.splits,
            seed=seed,
        )
        numbers.append(
            Number(
                what="Inception Score",
                name=score_name(judge.name),
                value=found.mean,
                interval=found.interval,
                protocol={"splits": found.splits, "deviation_of_splits": round(found.deviation, 4)},
            )
        )
    fewest = min(len(ours), len(theirs))
    size = min(measures.subset_size, fewest)
    kernel = kernel_distance(ours, theirs, subsets=measures.subsets, subset_size=size, seed=seed)
    numbers.append(
        Number(
            what=_SIGNED,
            name=kernel_name(judge.name),
            value=kernel.mean,
            interval=_around(kernel.mean, kernel.interval),
            protocol={
                "features": dims,
                "subsets": kernel.subsets,
                "subset_size": kernel.subset_size,
                "deviation_of_subsets": _short(kernel.deviation),
            },
        )
    )
    if fewest > measures.neighbours:
        both = precision_recall(ours, theirs, neighbours=measures.neighbours, radii=reference.radii)
        of = "" if distance_name(judge.name) == "FID" else f"-{judge.name}"
        for name, hits, n in (
            ("precision", both.precise, both.samples),
            ("recall", both.recalled, both.reals),
        ):
            numbers.append(
                Number(
                    what=name,
                    name=f"{name}{of}",
                    value=100 * hits / n,
                    unit="%",
                    interval=wilson(hits, n).scaled(100, 0, 100),
                    protocol={"neighbour": measures.neighbours},
                )
            )
    return Scores(judge=judge.name, run=run, step=step, images=len(ours), numbers=numbers)


def measurement(
    several: Sequence[Scores],
    which: int,
    *,
    subject: str,
    dataset: str,
    split: str,
    protocol: dict[str, ProtocolValue],
) -> Measurement:
    """Number `which` of one generator, or the mean of it over several checkpoints of a run.

    Of several runs (trainings by other seeds), it is the mean over them of each one's mean over its
    checkpoints, with Student's t interval over the runs.
    """
    numbers = [scores.numbers[which] for scores in several]
    first, values = numbers[0], [number.value for number in numbers]
    runs = by_run(several)
    interval, over = first.interval, "checkpoints"
    own = dict(first.protocol)
    steps = list(dict.fromkeys(scores.step for scores in several if scores.step is not None))
    if steps:
        protocol = {**protocol, "checkpoints": [*steps]}
    if len(runs) > 1:
        each = [[scores.numbers[which].value for scores in part] for part in runs]
        values, over = [fmean(part) for part in each], "trainings"
        protocol = {**protocol, "runs": len(runs)}
        if len(steps) > 1:
            within = fmean(stdev(part) if len(part) > 1 else 0.0 for part in each)
            protocol["deviation_over_checkpoints"] = _short(within)
    mean = fmean(values)
    if len(values) > 1:
        spread = stdev(values)
        half = t_quantile(0.975, len(values) - 1) * spread / len(values) ** 0.5
        low, high = mean - half, mean + half
        if first.what != _SIGNED:
            low = max(0.0, low)
        if first.unit == "%":
            high = min(100.0, high)
        interval = Interval(low=low, high=high, method=f"Student t over {len(values)} {over}")
        own = {key: v for key, v in own.items() if all(n.protocol[key] == v for n in numbers)}
        protocol = {
            **protocol,
            "values": [_short(value) for value in values],
            "standard_deviation": _short(spread),
        }
    return Measurement(
        task=TASK,
        name=first.what,
        subject=subject,
        dataset=dataset,
        split=split,
        metric=first.name,
        unit=first.unit,
        value=mean,
        interval=interval,
        n=several[0].images,
        protocol={**own, **protocol},
    )


def by_run(several: Sequence[Scores]) -> list[list[Scores]]:
    """The scores of each run apart, in their order."""
    names = dict.fromkeys(scores.run for scores in several)
    return [[scores for scores in several if scores.run == name] for name in names]


def warning(scores: Scores, reals: int, dims: int) -> str | None:
    """One sentence where there are too few images for a Fréchet distance, with its bias."""
    name, bias = scores.numbers[0].name, float(scores.numbers[0].protocol["expected_bias"])
    fewest = min(scores.images, reals)
    singular = too_few(fewest, dims)
    if singular is not None:
        return (
            f"{name}: {singular}; so many images of the real distribution itself would be at "
            f"about {bias:.3g} or more from the reference"
        )
    share = bias / max(scores.numbers[0].value, 1e-12)
    if share > _BIASED:
        return (
            f"{name}: about {bias:.3g} of it is what so few images bring, {scores.images} and "
            f"{reals}: compare it only with others of as many images"
        )
    return None


def _shuffled(logits: Tensor, splits: int, seed: int) -> Tensor:
    """The same in random order where they are divided: images of a folder may be sorted."""
    if splits == 1:
        return logits
    order = torch.randperm(len(logits), generator=generator(seed, "inception score splits"))
    return logits[order.to(logits.device)]


def _short(value: float) -> float:
    """In six digits: kernel distances are small."""
    return float(f"{value:.6g}")


def _around(value: float, interval: Interval | None) -> Interval | None:
    """The interval, made to hold the value: both are estimates from other subsets."""
    if interval is None:
        return None
    return interval.model_copy(
        update={"low": min(interval.low, value), "high": max(interval.high, value)}
    )
