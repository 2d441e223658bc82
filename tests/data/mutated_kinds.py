"""The kinds of files that selfsup reads: how one is made, and how it is read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mutants import Kind, said
from mutated_runs import RUNS
from PIL import Image
from videos import picture, write_video

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.config.finding import builtin_root
from selfsup_cli.config.presets import resolve
from selfsup_cli.data import packing
from selfsup_cli.data.clips import open_source
from selfsup_cli.data.index import index_path
from selfsup_cli.data.pack_about import Coding
from selfsup_cli.engine.checkpoints import Checkpoints, read_tensors
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.evaluation.cache import VIDEO, FeatureCache
from selfsup_cli.models import build, load_backbone, save_backbone

# -- media


def _every_frame(data: VideoData) -> list[Any]:
    """Of each video its id, and its frames or why they cannot be read; and what is left out."""
    source = open_source(data, "all", labels=False, workers=0)
    found: list[Any] = [(out.id, "left out") for out in source.left_out]
    for i in range(len(source)):
        try:
            clip = source.read(i, np.arange(source.num_frames[i]), (16, 16))
        except BadMediaError:
            found.append((source.ids[i], "bad"))
            continue
        assert clip.shape == (3, source.num_frames[i], 16, 16)
        found.append((source.ids[i], int(clip.sum())))
    return found


def _checked(place: Path) -> dict[str, str]:
    """The verdicts of `data check`; what is bad is listed in a quarantine file."""
    listed = place.parent / "bad.jsonl"
    listed.unlink(missing_ok=True)
    status, out = said(
        "data", "check", str(place), "--workers", "0", "--out", str(listed), "--json"
    )
    if status:
        raise InputError(json.loads(out)["error"]["message"])
    verdicts = {one["id"]: one["verdict"] for one in json.loads(out)["data"]["files"]}
    rows = listed.read_text().splitlines() if listed.exists() else []
    bad = {json.loads(row)["path"] for row in rows}
    assert bad == {name for name, verdict in verdicts.items() if verdict == "bad"}
    return verdicts


def _video(codec: str, suffix: str, folder: Path) -> Path:
    (folder / "media").mkdir()
    whole = write_video(folder / f"media/whole{suffix}", 12, codec=codec, size=(32, 48), gop=6)
    return Path(shutil.copy(whole, folder / f"media/mutant{suffix}"))


def _read_video(path: Path) -> Any:
    """By `data check`, and as training reads it."""
    verdicts = _checked(path.parent)
    frames = _every_frame(VideoData(source=str(path.parent)))
    whole = f"whole{path.suffix}"
    assert verdicts[whole] != "bad"
    assert dict(frames)[whole] not in ("bad", "left out")
    if verdicts[path.name] == "bad":
        raise BadMediaError(path.name, "left out and listed")
    assert dict(frames)[path.name] not in ("bad", "left out")
    return verdicts, frames


def _image(suffix: str, folder: Path) -> Path:
    (folder / "media").mkdir()
    path = folder / f"media/mutant{suffix}"
    Image.fromarray(picture(3, 48, 64)).save(path)
    return path


def _read_image(path: Path) -> Any:
    verdicts = _checked(path.parent)
    if verdicts[path.name] == "bad":
        raise BadMediaError(path.name, "listed")
    return verdicts


# -- packs, features, the index


def _three_videos(folder: Path) -> Path:
    for name, frames in (("a/1", 5), ("a/2", 6), ("b/1", 7)):
        (folder / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"clips/{name}.avi", frames, codec="mpeg4", size=(16, 16))
    return folder / "clips"


def _pack(encoding: Any, folder: Path) -> Path:
    coding = Coding(size=(16, 16), encoding=encoding, quality=90 if encoding == "jpeg" else None)
    plan = packing.plan(
        VideoData(source=str(_three_videos(folder))), coding, workers=0, progress=None
    )
    return packing.pack(plan, folder / "mutant.h5", workers=0).path


def _read_pack(path: Path) -> Any:
    """Each video as it was, or bad; by `data check` too."""
    verdicts = _checked(path)
    frames = _every_frame(VideoData(source=str(path)))
    assert {name for name, verdict in verdicts.items() if verdict == "bad"} >= {
        name for name, found in frames if found == "bad"
    }
    return {name: found for name, found in frames if found != "bad"}


def _read_pack_partly(path: Path) -> Any:
    """What can be read of it is what was packed; raises where not all can be read."""
    found = _read_pack(path)
    expected = path.with_suffix(".json")
    if not expected.exists():
        expected.write_text(json.dumps(found))
    whole = json.loads(expected.read_text())
    assert found.items() <= whole.items()
    if found != whole:
        raise BadMediaError(str(path), "some of its videos cannot be read")
    return found


_ROWS = np.array([2, 3, 1], np.int64)


def _cache(folder: Path) -> FeatureCache:
    return FeatureCache(folder / "features", {"weights": "abc"}, {"conv": 6}, _ROWS, 100)


def _filled(cache: FeatureCache) -> list[int]:
    """Extract what is missing; gives which shards that were."""
    with cache.locked():
        missing = cache.missing()
        for shard in missing:
            span = cache.spans[shard]
            video = np.repeat(np.arange(len(_ROWS)), _ROWS)[span.start : span.stop]
            values = np.random.default_rng(shard).normal(size=(len(video), 6)).astype(np.float32)
            cache.write(shard, video, {"conv": values})
    return missing


def _features(name: str, folder: Path) -> Path:
    _filled(_cache(folder))
    return folder / "features" / name


def _read_features(path: Path) -> Any:
    """What is damaged is made again, and then the same is read."""
    cache = _cache(path.parent.parent)
    _filled(cache)
    assert _filled(cache) == []
    shards = range(len(cache.spans))
    return [cache.read(shard, name).tolist() for shard in shards for name in ("conv", VIDEO)]


def _frame_index(folder: Path) -> Path:
    os.environ["SELFSUP_CACHE"] = str(folder / "cache")
    clips = _three_videos(folder)
    _every_frame(VideoData(source=str(clips)))
    return index_path(clips)


def _read_frame_index(path: Path) -> Any:
    return _every_frame(VideoData(source=str(path.parents[2] / "clips")))


# -- weights and checkpoints


def _weights(name: str, folder: Path) -> Path:
    backbone = build("c3d", width=0.125, crop=32, resize=(40, 40), seed=0)
    save_backbone(folder / "backbone.safetensors", backbone, {"data": "motion"})
    return folder / name


def _read_weights(path: Path) -> Any:
    backbone = load_backbone(path.parent / "backbone.safetensors")
    sums = {name: float(value.double().sum()) for name, value in backbone.state_dict().items()}
    return backbone.spec, backbone.trained_on, sums


def _checkpoint(name: str, folder: Path) -> Path:
    checkpoints = Checkpoints(folder / "checkpoints")
    for step in (1, 2):
        state = {"step": step, "model": {"weight": torch.arange(64.0) + step}, "names": ["a", "b"]}
        checkpoints.save(step, state)
    return checkpoints.path(2) / name


def _read_checkpoint(path: Path) -> Any:
    """The newest that is whole: the damaged one, if anything is amiss, is passed over."""
    state = Checkpoints(path.parents[1]).latest()
    assert state is not None
    assert state["model"]["weight"].tolist() == (torch.arange(64.0) + state["step"]).tolist()
    if state["step"] != 2:
        raise InputError("the one before is taken")
    return state["names"]


def _read_tensors(path: Path) -> Any:
    """Without looking at its checksum."""
    return str(read_tensors(path))


# -- what people write


def _preset(folder: Path) -> Path:
    return Path(shutil.copy(builtin_root() / "pretrain/temporal/base.yaml", folder / "mutant.yaml"))


def _read_preset(path: Path) -> Any:
    return resolve("pretrain/temporal", preset=str(path), env={}).preset


def _listed(write: Callable[[Path], Path], folder: Path) -> Path:
    return write(_three_videos(folder))


def _manifest(clips: Path) -> Path:
    path = clips / "mutant.csv"
    rows = ("a/1.avi,run,train", "a/2.avi,walk,train", "b/1.avi,run,test", '"b/1.avi",walk,val')
    path.write_text("path,label,split\n" + "\n".join(rows[:3]) + "\n")
    return path


def _ucf(name: str, clips: Path) -> Path:
    (clips / "classInd.txt").write_text("1 a\n2 b\n")
    (clips / "trainlist01.txt").write_text("a/1.avi 1\nb/1.avi 2\n")
    (clips / "testlist01.txt").write_text("a/2.avi\nb/1.avi\n")
    return clips / name


def _hmdb(clips: Path) -> Path:
    (clips / "a_test_split1.txt").write_text("1.avi 1\n2.avi 2\n")
    (clips / "b_test_split1.txt").write_text("1.avi 1\n")
    return clips / "a_test_split1.txt"


def _kinetics(clips: Path) -> Path:
    for part, old in (("train", "a/1"), ("train", "b/1"), ("val", "a/2")):
        place = clips / part / f"{'xyz'[int(old[-1])]}{old[0]}_000003_000013.avi"
        place.parent.mkdir(exist_ok=True)
        shutil.copy(clips / f"{old}.avi", place)
    header = "label,youtube_id,time_start,time_end,split\n"
    (clips / "train.csv").write_text(f"{header}run,ya,3,13,train\nwalk,yb,3,13,train\n")
    (clips / "val.csv").write_text(f"{header}run,za,3,13,val\n")
    return clips / "train.csv"


def _read_list(path: Path) -> Any:
    """All parts, with labels and without."""
    data = VideoData(source=str(path if path.suffix == ".csv" else path.parent))
    if path.name == "train.csv":
        data = VideoData(source=str(path.parent))
    found = []
    refused = None
    for part in ("train", "test", "all"):
        for labels in (False, True):
            try:
                source = open_source(data, part, labels=labels, workers=0)
            except InputError as error:
                refused = error
                continue
            known = None if source.labels is None else source.labels.tolist()
            found.append((part, list(source.ids), known, source.classes))
    if refused is not None:
        raise refused
    return found


def _quarantine(folder: Path) -> Path:
    _three_videos(folder)
    path = folder / "mutant.jsonl"
    rows = [{"path": "a/1.avi", "reason": "is damaged"}, {"path": "b/1.avi", "reason": "é"}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def _read_quarantine(path: Path) -> Any:
    data = VideoData(source=str(path.parent / "clips"), quarantine=str(path))
    source = open_source(data, "all", labels=False, workers=0)
    return list(source.ids), [(out.id, out.reason) for out in source.left_out]


KINDS: dict[str, Kind] = {
    "video, H.264 in MP4": Kind(partial(_video, "libx264", ".mp4"), _read_video),
    "video, MPEG-4 in AVI": Kind(partial(_video, "mpeg4", ".avi"), _read_video),
    "image, JPEG": Kind(partial(_image, ".jpg"), _read_image),
    "image, PNG": Kind(partial(_image, ".png"), _read_image),
    "image, WebP": Kind(partial(_image, ".webp"), _read_image),
    "image, BMP": Kind(partial(_image, ".bmp"), _read_image),
    "pack, JPEG": Kind(partial(_pack, "jpeg"), _read_pack_partly, exact=True),
    "pack, raw": Kind(partial(_pack, "raw"), _read_pack_partly, exact=True),
    "feature shard": Kind(partial(_features, "shard-00000.h5"), _read_features, exact=True),
    "feature index": Kind(partial(_features, "index.json"), _read_features, exact=True),
    "frame index": Kind(_frame_index, _read_frame_index, exact=True),
    "weights": Kind(partial(_weights, "backbone.safetensors"), _read_weights, exact=True),
    "sidecar": Kind(partial(_weights, "backbone.safetensors.json"), _read_weights, exact=True),
    "checkpoint": Kind(partial(_checkpoint, "state.pt"), _read_checkpoint, exact=True),
    "checkpoint, unchecked": Kind(partial(_checkpoint, "state.pt"), _read_tensors),
    "manifest of a checkpoint": Kind(
        partial(_checkpoint, "manifest.json"), _read_checkpoint, exact=True
    ),
    "preset": Kind(_preset, _read_preset),
    "CSV manifest": Kind(partial(_listed, _manifest), _read_list),
    "UCF101 list": Kind(partial(_listed, partial(_ucf, "trainlist01.txt")), _read_list),
    "UCF101 classes": Kind(partial(_listed, partial(_ucf, "classInd.txt")), _read_list),
    "HMDB51 list": Kind(partial(_listed, _hmdb), _read_list),
    "Kinetics annotations": Kind(partial(_listed, _kinetics), _read_list),
    "quarantine": Kind(_quarantine, _read_quarantine),
    **RUNS,
}
