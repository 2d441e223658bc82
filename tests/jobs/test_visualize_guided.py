"""Guided backpropagation as a job: which networks, which videos, what becomes of bad ones."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selfsup_cli.config.pictures import Compared
from selfsup_cli.config.presets import resolve
from selfsup_cli.data.motion import MotionSource
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.jobs import visualize_guided
from selfsup_cli.jobs.visualize_guided import guided_backprop, load_networks
from selfsup_cli.models import build, save_backbone
from selfsup_cli.runs.run import Run, runs_dir
from selfsup_cli.transforms.clips import center
from selfsup_cli.visualization.guided import active_pixels, guided_gradient
from selfsup_cli.visualization.strips import Video

SMALL = ("data.motion.videos=16", "data.motion.test_videos=16", "data.motion.side=32",
         "data.motion.length=80")  # fmt: skip


def weights(path: Path, arch: str = "c3d", **more: Any) -> str:
    backbone = build(arch, width=0.125, crop=24, resize=(32, 32), seed=7, **more)
    save_backbone(path, backbone, {"method": "temporal", "data": "motion"})
    return str(path)


def finished(name: str, job: str) -> Run:
    """A complete run that holds a backbone."""
    settings: dict[str, Any] = {"preset": "version: 1\n", "identity": {}, "command": [], "job": job,
                                "seed": 0, "dataset": None, "parents": []}  # fmt: skip
    run = Run.create_or_continue(runs_dir(), name, **settings)
    with run:
        backbone = build("c3d", width=0.125, crop=24, resize=(32, 32), seed=len(name))
        save_backbone(run.path / "backbone.safetensors", backbone, {"method": job[9:]})
        run.info.arch = "c3d"
        (run.path / "run.json").write_text(run.info.model_dump_json())
        run.finish()
    return run


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Video]:
    """The videos that are drawn."""
    videos: list[Video] = []
    for name in ("strip", "animation"):
        draw = getattr(visualize_guided.strips, name)

        def remember(path: Path, given: list[Video], draw: Any = draw, **settings: Any) -> None:
            videos[:] = given
            draw(path, given, **settings)

        monkeypatch.setattr(visualize_guided.strips, name, remember)
    return videos


def look(runs: str, out: Path, *sets: str) -> Any:
    options = {"data.source": "motion", "subjects.runs": runs}
    resolved = resolve("visualize/guided-backprop", options=options, sets=[*SMALL, *sets], env={})
    return guided_backprop(resolved, out=[out], quiet=True)


def test_each_network_sees_the_clip_in_the_middle_as_it_eats_it(
    tmp_path: Path, shown: list[Video]
) -> None:
    first = weights(tmp_path / "first.safetensors")
    second = weights(tmp_path / "second.safetensors", "r3d", frames=8)
    outcome = look(f"{first},random,{second}", tmp_path / "x.png", "clips.count=2")
    assert (tmp_path / "x.png").is_file()
    assert outcome.data["networks"] == [
        {"name": "first", "arch": "c3d"},
        {"name": "random weights", "arch": "c3d"},
        {"name": "second", "arch": "r3d"},
    ]
    assert len(shown) == 2
    networks = {one.name: one.backbone for one in load_networks(Compared(runs=[first, second]))}
    settings = resolve("visualize/guided-backprop", sets=SMALL, env={}).preset.data.motion
    source = MotionSource(settings, "test", True)
    for video in shown:
        number = source.ids.index(video.name)
        assert source.classes is not None
        assert source.labels is not None
        assert video.label == source.classes[int(source.labels[number])]
        long, short = video.seen
        # 80 frames hold 16 at every fourth: from (80 − 64) // 2 on; and 8 at every fourth.
        assert list(long.numbers) == list(range(8, 72, 4))
        assert list(short.numbers) == list(range(24, 56, 4))
        assert [one.name for one in long.looks] == ["first", "random weights"]
        assert [one.note for one in long.looks] == ["temporal, c3d", "c3d"]
        for seen, name in ((long, "first"), (short, "second")):
            clip = center(source.read(number, np.array(seen.numbers), (32, 32))[None], 24)
            torch.testing.assert_close(seen.frames, clip[0])
            expected = active_pixels(guided_gradient(networks[name], clip))[0]
            torch.testing.assert_close(seen.looks[0].pixels, expected)
        assert not torch.equal(long.looks[0].pixels, long.looks[1].pixels)


def test_the_seed_chooses_the_videos_and_classes_take_turns(
    tmp_path: Path, shown: list[Video]
) -> None:
    runs = weights(tmp_path / "first.safetensors")
    chosen = []
    for seed in (0, 0, 1):
        look(runs, tmp_path / "x.webp", "clips.count=4", f"clips.seed={seed}")
        chosen.append([video.name for video in shown])
        assert len({video.label for video in shown}) == 4
    assert chosen[0] == chosen[1] != chosen[2]


def test_a_video_that_cannot_be_read_is_told_of_and_replaced(
    tmp_path: Path,
    shown: list[Video],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = weights(tmp_path / "first.safetensors")
    look(runs, tmp_path / "x.png", "clips.count=3")
    usual = [video.name for video in shown]
    read = MotionSource.read
    broken = {usual[1]}

    def fail(self: MotionSource, i: int, *rest: Any) -> torch.Tensor:
        if self.ids[i] in broken:
            raise BadMediaError(self.ids[i], "torn")
        return read(self, i, *rest)

    monkeypatch.setattr(MotionSource, "read", fail)
    with caplog.at_level(logging.WARNING, "selfsup"):
        look(runs, tmp_path / "x.png", "clips.count=3")
    names = [video.name for video in shown]
    assert len(names) == 3
    assert names[:2] == [usual[0], usual[2]]
    assert f"{usual[1]} cannot be read and is left out: torn" in caplog.text
    broken |= {f"test/{k:06d}" for k in range(16)}
    (tmp_path / "x.png").unlink()
    with pytest.raises(InputError, match="none of the 16 videos of the test part can be read"):
        look(runs, tmp_path / "x.png", "clips.count=3")
    assert not (tmp_path / "x.png").exists()


def test_networks_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    labels = finished("by-labels", "pretrain/supervised")
    own = finished("own", "pretrain/temporal")
    found = load_networks(Compared(runs=["random", "supervised", "latest", "own", "random"]))
    assert [one.name for one in found] == ["random weights", "by-labels", "own", "own"]
    assert [one.note for one in found] == ["c3d", "supervised, c3d", "temporal, c3d",
                                           "temporal, c3d"]  # fmt: skip
    random, again = (load_networks(Compared(runs=["own", "random"]))[1] for _ in range(2))
    for other, same in ((again, True), (found[1], False)):
        state = other.backbone.state_dict()
        pairs = [(value, state[name]) for name, value in random.backbone.state_dict().items()]
        assert all(torch.equal(*pair) for pair in pairs) is same
    assert found[1].backbone.spec == random.backbone.spec
    by_path = load_networks(Compared(runs=[str(labels.path), str(own.path / "run.json")]))
    assert [one.name for one in by_path] == ["by-labels", "own"]


def test_supervised_needs_a_run_that_learned_from_labels() -> None:
    finished("own", "pretrain/temporal")
    with pytest.raises(InputError, match=r"--from supervised: no run in .* fits") as caught:
        load_networks(Compared(runs=["own", "supervised"]))
    assert "selfsup pretrain supervised" in str(caught.value.hint)


def test_layers_and_units_are_the_chosen_ones(tmp_path: Path, shown: list[Video]) -> None:
    path = weights(tmp_path / "first.safetensors")
    [network] = load_networks(Compared(runs=[path]))
    sets = ("units.layer=conv3", "units.unit=5", "clips.count=1")
    look(path, tmp_path / "x.png", *sets)
    [seen] = shown[0].seen
    expected = guided_gradient(network.backbone, seen.frames[None], layer="conv3", unit=5)
    torch.testing.assert_close(seen.looks[0].pixels, active_pixels(expected)[0])
    other = weights(tmp_path / "other.safetensors", "r3d")
    with pytest.raises(InputError, match="--layer conv3: other is a r3d, whose layers are stem"):
        look(f"{path},{other}", tmp_path / "x.png", *sets)
