"""How well `selfsup sample artifacts` finds what was damaged, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from selfsup_cli.config.spotting import SampleArtifacts
from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.evaluation import located
from selfsup_cli.evaluation.located import Located
from selfsup_cli.jobs.damager import Damager, batches, suspected
from selfsup_cli.randomness import derive
from selfsup_cli.runs.report import Finding, Measurement, at_chance

_MARKED = 0.5


def score(
    preset: SampleArtifacts,
    damagers: Sequence[Damager],
    source: ImageSource,
    progress: Progress,
    stop: StopFlag,
) -> tuple[list[Measurement], list[Finding]]:
    """How well each run finds what was damaged, at each drop rate.

    Images are read a batch at a time, once for each drop rate, and never held all at once.
    """
    settings, seed = preset.scored, derive(preset.shown.seed, "scored")
    rows: list[Measurement] = []
    said: list[Finding] = []
    if not settings.images:
        return rows, said
    several = len(damagers) > 1 or len(preset.damage.drop_rates) > 1
    for one in damagers:
        if not one.method.preset.locate:
            text = f"{one.run.name} was trained without locating the damage: nothing to measure"
            said.append(Finding(text=text, verdict="note"))
            continue
        for rate in one.rates(preset.damage.drop_rates):
            what = f"θ = {rate:g}" if len(damagers) == 1 else one.run.name
            count = min(settings.images, len(source))
            counter = progress.counting(f"{one.run.name}, θ = {rate:g}: images")
            # All at once: how many go through the networks together must not matter.
            kept = one.kept(count, rate, seed)
            parts = []
            done = 0
            for _, images in batches(source, one.framing, count, seed, settings.batch_size):
                if stop:
                    raise stop.stopped("nothing")
                parts.append(_seen(one, images, kept[done : done + len(images)]))
                done += len(images)
                counter(done, count)
            scores, damaged, marked = map(np.concatenate, zip(*parts, strict=True))
            if damaged.all() or not damaged.any():
                text = f"θ = {rate:g}: too few images to measure how well the damage is found"
                said.append(Finding(text=text, verdict="note"))
                continue
            side = one.side // 16
            own = located.measurements(
                Located(scores, damaged),
                name=f"localisation, {what}" if several else "localisation",
                subject="learned" if len(damagers) == 1 else one.run.name,
                dataset=source.name,
                split=source.split_rule,
                protocol={
                    "drop_rate": rate,
                    "trained_at": one.method.preset.drop_rate,
                    "images": f"centre {one.side} pixels, repaired",
                    "cells": f"{side}×{side} of 16 pixels",
                    "seed": preset.shown.seed,
                },
            )
            rows += own
            said.append(_told(what if several else "", own[0], float((marked >= _MARKED).mean())))
    return rows, said


def _seen(one: Damager, images: Tensor, kept: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each cell of images uint8 `[n, 3, S, S]`: how likely it is damaged, whether it is, and how
    likely it seemed before it was; each `[n, cells]`."""
    made = one.made(images, kept)
    found, marked = (suspected(one.method, part) for part in (made.repaired, made.replicas))
    assert found is not None and marked is not None  # noqa: S101, PT018 (it locates)
    return (
        found.flatten(1).double().cpu().numpy(),
        (~made.kept).flatten(1).cpu().numpy(),
        marked.flatten(1).double().cpu().numpy(),
    )


def _told(what: str, row: Measurement, intact: float) -> Finding:
    text = f"{what}: " if what else ""
    assert row.chance is not None  # noqa: S101 (see located)
    text += (
        f"damaged cells are found with an average precision of {row.value:.1f} %, chance "
        f"{row.chance:.1f} %; of the cells of undamaged images {100 * intact:.1f} % are marked "
        "as well"
    )
    if at_chance(row) or row.value < row.chance:
        return Finding(text=f"{text}: it is not known where the damage is", verdict="unclear")
    return Finding(text=text, verdict="good")
