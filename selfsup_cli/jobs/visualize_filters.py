"""`selfsup visualize filters`: what the first convolution looks for (figure 3.7)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfsup_cli.config.looks import VisualizeFilters
from selfsup_cli.config.presets import Resolved
from selfsup_cli.errors import InputError
from selfsup_cli.jobs import common
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.compared import load_compared
from selfsup_cli.jobs.visualize_page import chosen, page
from selfsup_cli.runs.report import Finding
from selfsup_cli.visualization import filters as drawing

_PICTURE = "filters.png"


def filters(
    resolved: Resolved,
    *,
    run: str | None = None,
    out: Path | None = None,
    command: Sequence[str] = (),
    quiet: bool = False,
) -> Outcome:
    """Draw the filters of the first convolution of a network, and of those beside it.

    Into a run with its report, or into the file `out`. Raises InputError.
    """
    chosen(run, out)
    if (done := common.finished(run, resolved)) is not None:
        return done
    preset = resolved.preset
    assert isinstance(preset, VisualizeFilters)  # noqa: S101 (command and preset belong together)
    compared = load_compared(preset.subject, None)
    found = []
    for name, network in compared.networks():
        first = drawing.first_convolution(network)
        if first is None:
            raise InputError(
                f"{compared.subject.run} holds {network.arch}, which has no convolution that sees "
                "colours",
                kind="run-unfit",
            )
        found.append(drawing.Filters(name, *first))
    learned = compared.subject
    with page(
        resolved,
        run=run,
        out=out,
        command=command,
        arch=learned.learned.arch,
        data="",
        seed=preset.subject.baseline_seed,
        dataset=None,
        parents=compared.parents,
    ) as made:
        if (done := made.outcome) is not None:
            return done
        caption = (
            f"The filters of the first convolution of {learned.run}"
            f"{' and of the networks named beside it' if len(found) > 1 else ''}. Each is on a "
            "scale of its own, grey where it is zero."
        )
        drawing.sheet(
            made.picture(_PICTURE), found, title=f"First filters: {learned.run}", note=caption
        )
        facts = [
            {"name": one.name, "layer": one.layer, "filters": len(one.weights),
             "size": list(one.weights.shape[2:]), "flat": one.flat, "smoothness": one.smoothness}
            for one in found
        ]  # fmt: skip
        said = [Finding(text=_told(one), verdict="note") for one in found]
        return made.conclude(_PICTURE, caption, said, facts={"networks": facts})


def _told(one: drawing.Filters) -> str:
    text = f"{one.name}: {one.size} in {one.layer}"
    if one.smoothness is not None:
        text += f", neighbouring weights correlate by {one.smoothness:.2f} (noise: 0)"
    if one.flat:
        text += f"; {one.flat} are next to nothing beside the strongest"
    return text
