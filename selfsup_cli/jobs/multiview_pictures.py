"""Pictures of pairs of views: what the network is fed, and what it makes of unseen subjects."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from selfsup_cli.data.view_pairs import Anchor, AnchorDataset, Anchors, at_rate
from selfsup_cli.evaluation.synchrony import chosen_anchors
from selfsup_cli.methods.multiview import Multiview
from selfsup_cli.models.siamese import Question
from selfsup_cli.randomness import generator
from selfsup_cli.runs.report import Picture
from selfsup_cli.runs.run import Run
from selfsup_cli.transforms.views import ANCHOR, LATER, MIRRORED, PARTNER, Prepared
from selfsup_cli.visualization.pairs import Pair, pair_sheet

_ROWS = 6
_ANCHOR_KEYS = ("views", "masks", "backgrounds")


def pair_sheets(method: Multiview, seen: Anchors, unseen: Anchors, run: Run) -> list[Picture]:
    """Draw pairs as the network was fed them, and pairs of unseen subjects with its answers."""
    out = []
    for name, part, answered in (("pretext", seen, False), ("answers", unseen, True)):
        caption = sheet_of(method, part, run.picture(f"{name}.png"), answered=answered)
        out.append(Picture(file=f"pictures/{name}.png", caption=caption))
    return out


def sheet_of(
    method: Multiview, part: Anchors, path: Path, *, answered: bool, count: int = _ROWS
) -> str:
    """Draw the pairs of `count` anchors into a file, with the network's answers if they are
    `answered`; gives the caption."""
    who = "What the network says of pairs held out" if answered else "What the network is fed"
    background = {
        "remove": "backgrounds removed",
        "substitute": "backgrounds of random views",
        "mixed": "backgrounds removed or those of random views",
        "keep": "backgrounds kept",
    }[method.preset.pairs.background]
    note = (
        "Each row is an anchor: a view, another at the same time, one at another time, and one of "
        f"the first two mirrored; {background}. Chosen evenly over all of the part."
    )
    if answered:
        note += " Numbers are the network's probabilities."
    rows = pairs_shown(method, part, answered=answered, count=count)
    pair_sheet(path, rows, title=f"{who}: {part.name}", note=note)
    return f"{who}: synchronised, unsynchronised and mirrored pairs, {background}."


@torch.no_grad()
def pairs_shown(
    method: Multiview, part: Anchors, *, answered: bool, count: int = _ROWS
) -> list[list[Pair]]:
    """A row of three pairs for each of `count` anchors, with what the network answers."""
    method.eval()
    seed = method.preset.train.seed
    device = next(method.parameters()).device
    dataset = AnchorDataset(part, seed, "monitor")
    rows = []
    for index in chosen_anchors(part, count):
        sample = dataset[0, int(index)]
        batch = {key: sample[key].to(device) for key in _ANCHOR_KEYS if key in sample}
        g = generator(seed, int(index), "sheet", device=str(device))
        prepared = method.prepare(batch, g)
        logits = method.judge(prepared) if answered else {}
        rows.append(_row(part, part.anchor(seed, 0, int(index), "monitor"), prepared, logits))
    return rows


def _row(
    part: Anchors, anchor: Anchor, prepared: Prepared, logits: dict[Question, Tensor]
) -> list[Pair]:
    images = prepared.images[0].cpu()
    recording = part.recording(anchor.recording)
    cameras = [recording.cameras[one].name for one in (anchor.first, anchor.second)]
    apart = at_rate(anchor.later - anchor.time, recording.rate)
    views = (images[ANCHOR], images[PARTNER])
    mirrored = images[MIRRORED]
    flipped = (views[0], mirrored) if bool(prepared.second[0]) else (mirrored, views[1])
    seen = {name: given.float().sigmoid().cpu().tolist() for name, given in logits.items()}
    told: list[list[str]] = [[], [], []]
    for name, word in (("sync", "synchronised"), ("flip", "not mirrored")):
        if name in seen:
            yes, no = seen[name]
            told[0].append(f"{word} {yes:.0%}")
            told[1 if name == "sync" else 2].append(f"{word} {no:.0%}")
    where = f"{recording.id}, frame {anchor.time}"
    return [
        Pair(*views, "synchronised", f"{where}: {cameras[0]} and {cameras[1]}", ", ".join(told[0])),
        Pair(
            views[0], images[LATER], "not synchronised", f"{apart:+.0f} frames", ", ".join(told[1])
        ),
        Pair(*flipped, "mirrored", "one of the two", ", ".join(told[2])),
    ]
