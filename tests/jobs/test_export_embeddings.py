"""A table of features holds what the network gives, for every video and for no other."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup_cli.config.presets import Resolved, resolve
from selfsup_cli.data.clips import open_source
from selfsup_cli.errors import InputError, MachineError, TrainingError
from selfsup_cli.evaluation.features import Features
from selfsup_cli.jobs import export_embeddings as job
from selfsup_cli.jobs.export_embeddings import embeddings, video_means
from selfsup_cli.jobs.export_tables import Table, write
from selfsup_cli.models import build, load_backbone, save_backbone, sidecar_path
from selfsup_cli.runs.atomic import Recorder, file_sha256
from selfsup_cli.transforms.clips import center
from selfsup_cli.transforms.time import evenly_spaced_clips

SUFFIXES = (".h5", ".parquet", ".csv")
Columns = tuple[list[str], np.ndarray, list[str] | None]


def read(path: Path) -> Columns:
    """Ids, features and classes of a table, with the tools of others."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            ids = file["id"].asstr()[:].tolist()
            names = None
            if "label" in file:
                names = file["classes"].asstr()[:][file["label"][:]].tolist()
            return ids, file["features"][:], names
    if path.suffix == ".parquet":
        table = pyarrow.parquet.read_table(path)
        names = table["label"].to_pylist() if "label" in table.column_names else None
        return table["id"].to_pylist(), np.array(table["features"].to_pylist(), np.float32), names
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    first = head.index("f0")
    assert head == ["id", "label", *head[first:]] if first == 2 else head[:1] == ["id"]
    values = np.array([row[first:] for row in rows], np.float32)
    return [row[0] for row in rows], values, [row[1] for row in rows] if first == 2 else None


# Tables


NAME = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=12
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Columns, Table]:
    ids = draw(st.lists(NAME, min_size=1, max_size=9, unique=True))
    dim = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    scale = 10.0 ** rng.integers(-30, 30, (len(ids), dim))
    features = (rng.standard_normal((len(ids), dim)) * scale).astype(np.float32)
    classes = draw(st.none() | st.lists(NAME, min_size=1, max_size=3, unique=True).map(tuple))
    labels = None if classes is None else rng.integers(0, len(classes), len(ids))
    cuts = sorted(draw(st.lists(st.integers(0, len(ids)), max_size=3)))
    blocks = iter(np.split(features, cuts))
    names = None
    if classes is not None and labels is not None:
        names = [classes[label] for label in labels]
    table = Table(ids, labels, classes, dim, blocks, {"layer": "conv5"})
    return (ids, features, names), table


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=40)
@given(made=tables())
def test_what_is_written_is_read_by_others(
    suffix: str, tmp_path_factory: pytest.TempPathFactory, made: tuple[Columns, Table]
) -> None:
    (ids, features, names), table = made
    path = tmp_path_factory.getbasetemp() / f"table{suffix}"
    assert write(path, table) == file_sha256(path)
    found = read(path)
    assert found[0] == ids
    assert found[1].dtype == np.float32
    np.testing.assert_array_equal(found[1], features)
    assert found[2] == names


@pytest.mark.parametrize("suffix", [".h5", ".parquet"])
def test_the_table_says_what_it_is(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{suffix}"
    about = {"layer": "conv5", "long": "x" * 100_000}
    write(path, Table(["a"], None, None, 2, iter([np.zeros((1, 2), np.float32)]), about))
    if suffix == ".h5":
        with h5py.File(path) as file:
            text = file["selfsup"].asstr()[()]
    else:
        text = pyarrow.parquet.read_schema(path).metadata[b"selfsup"]
    assert json.loads(text) == about


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_does_not_grow_with_the_table(suffix: str, tmp_path: Path) -> None:
    """Every piece is on its way to the disk before the next but a few is made."""
    path = tmp_path / f"t{suffix}"
    part = path.with_name(f".{path.name}.tmp")
    piece = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    waiting = []

    def blocks() -> Iterator[np.ndarray]:
        for number in range(12):
            waiting.append(number * piece.nbytes - part.stat().st_size)
            yield piece

    ids = [f"{number:06d}" for number in range(12 * len(piece))]
    write(path, Table(ids, None, None, 256, blocks(), {}))
    assert max(waiting) < 2 * piece.nbytes


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_nothing_behind(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0

    def full(file: Recorder, data: Any) -> int:
        nonlocal taken
        taken += memoryview(data).nbytes
        if taken > 100:
            file.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise file.error
        return memoryview(data).nbytes

    monkeypatch.setattr(Recorder, "write", full)
    block = np.ones((40, 8), np.float32)
    table = Table([str(i) for i in range(40)], None, None, 8, iter([block]), {})
    with pytest.raises(MachineError, match="No space left"):
        write(tmp_path / f"t{suffix}", table)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_lacks_rows_is_not_written(tmp_path: Path) -> None:
    table = Table(["a", "b"], None, None, 1, iter([np.ones((1, 1), np.float32)]), {})
    with pytest.raises(ValueError, match="1 rows of features for 2 ids"):
        write(tmp_path / "t.csv", table)
    assert list(tmp_path.iterdir()) == []


@given(
    clips=st.lists(st.integers(1, 7), min_size=1, max_size=9),
    rows=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_means_in_pieces_are_the_means(clips: list[int], rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    video = np.repeat(np.arange(len(clips)), clips)
    array = rng.standard_normal((len(video), 3)).astype(np.float32)
    features = Features.of({"conv5": array}, video)
    pieces = list(video_means(features, "conv5", rows))
    wanted = [array[video == number].astype(np.float64).mean(0) for number in range(len(clips))]
    np.testing.assert_allclose(np.concatenate(pieces), np.array(wanted), rtol=1e-6, atol=1e-7)
    assert all(len(piece) for piece in pieces)
    assert max(map(len, pieces)) <= rows


# The job


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    network = build("c3d", width=0.125, frames=8, crop=32, resize=(32, 43), seed=1)
    save_backbone(path, network, {})
    return path


@pytest.fixture
def clips(data_dir: Path, tmp_path: Path) -> Path:
    """Five real clips of two classes, one of them of another length, and a file that is none."""
    folder = tmp_path / "clips"
    for name in ("Jump", "Walk"):
        (folder / name).mkdir(parents=True)
        for path in sorted((data_dir / "actions" / name).iterdir())[:2]:
            shutil.copy(path, folder / name)
    shutil.copy(data_dir / "broken" / "five_frames.avi", folder / "Walk")
    (folder / "Jump" / "torn.avi").write_bytes(b"RIFF")
    return folder


def asked(weights: Path, data: Path, *sets: str, max_bad: float = 0.5) -> Resolved:
    options = {"subject.run": str(weights), "data.source": str(data), "data.max_bad": max_bad}
    sets = ("machine.workers=0", "table.clips=3", *sets)
    return resolve("export/embeddings", options=options, sets=sets, env={})


def by_hand(weights: Path, resolved: Resolved, layer: str) -> dict[str, np.ndarray]:
    """One clip at a time, and the mean of each video's."""
    network = load_backbone(weights).eval()
    source = open_source(resolved.preset.data, "all", labels=False, workers=1)  # type: ignore[attr-defined]
    found = {}
    for i, name in enumerate(source.ids):
        vectors = []
        for frames in evenly_spaced_clips(int(source.num_frames[i]), 8, 4, 3):
            clip = center(source.read(i, frames, (32, 43))[None], 32)
            with torch.no_grad():
                vectors.append(network.features(clip, [layer])[layer].mean((2, 3, 4))[0].numpy())
        found[name] = np.mean(vectors, 0)
    return found


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_row_for_each_video(suffix: str, weights: Path, clips: Path, tmp_path: Path) -> None:
    layer = "conv3" if suffix == ".parquet" else None
    resolved = asked(weights, clips, *([] if layer is None else [f"table.layer={layer}"]))
    out = tmp_path / f"features{suffix}"
    outcome = embeddings(resolved, out=out, quiet=True)
    ids, features, names = read(out)
    wanted = by_hand(weights, resolved, layer or "conv5")
    assert len(ids) == 5
    assert sorted(ids) == sorted(wanted)
    assert names == [one.split("/")[0] for one in ids]
    np.testing.assert_allclose(features, [wanted[one] for one in ids], rtol=1e-4, atol=1e-6)
    assert features.std(0).max() > 1e-4
    sidecar = json.loads(sidecar_path(out).read_text())
    assert [one["id"] for one in sidecar["left_out"]] == ["Jump/torn.avi"]
    assert (sidecar["layer"], sidecar["features"]) == (layer or "conv5", features.shape[1])
    assert sidecar["clips"] == {"frames": 8, "max_skip": 4, "clips": 3}
    assert sidecar["file"]["sha256"] == file_sha256(out)
    assert "left out  1 of 6 videos: Jump/torn.avi (" in outcome.text
    assert outcome.text.splitlines()[-1] == str(out)


def test_too_many_unreadable_files_and_the_list_of_known_ones(
    weights: Path, clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "t.csv"
    with pytest.raises(TrainingError, match=r"1 of 6 videos .*Jump/torn\.avi"):
        embeddings(asked(weights, clips, max_bad=0.1), out=out, quiet=True)
    listed = tmp_path / "quarantine.jsonl"
    listed.write_text('{"path": "Jump/torn.avi", "reason": "torn"}\n')
    known = asked(weights, clips, f"data.quarantine={listed}", max_bad=0.1)
    outcome = embeddings(known, out=out, quiet=True)
    assert len(read(out)[0]) == 5
    assert "Jump/torn.avi (quarantined" in outcome.text


def test_a_file_that_breaks_after_it_was_indexed_ends_the_job(
    weights: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = job.common.open_videos

    def torn(*arguments: Any, **settings: Any) -> Any:
        videos = whole(*arguments, **settings)
        for name in videos.source.ids:
            if name.startswith("Walk"):
                (clips / name).write_bytes(b"RIFF")
        return videos

    monkeypatch.setattr(job.common, "open_videos", torn)
    with pytest.raises(InputError, match=r"Walk/.* cannot be read: .*--quarantine"):
        embeddings(asked(weights, clips), out=tmp_path / "t.csv", quiet=True)
    assert not (tmp_path / "t.csv").exists()


def test_clips_without_classes_and_one_part_of_a_split(
    weights: Path, clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "t.h5"
    outcome = embeddings(asked(weights, clips / "Walk"), out=out, quiet=True)
    ids, features, names = read(out)
    assert (len(ids), len(features), names) == (3, 3, None)
    assert "labels    none" in outcome.text
    parts = []
    for part in ("train", "test"):
        path = tmp_path / f"{part}.csv"
        sets = (f"table.part={part}", "data.test_share=0.4")
        embeddings(asked(weights, clips / "Walk", *sets), out=path, quiet=True)
        parts += read(path)[0]
    assert sorted(parts) == sorted(ids)


def test_mistakes_are_told_before_the_work(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = asked(weights, tmp_path / "no-data")
    with pytest.raises(InputError, match=r"ends in \.h5 or \.hdf5 or \.parquet or \.csv"):
        embeddings(resolved, out=tmp_path / "t.npz")
    (tmp_path / "t.csv").touch()
    with pytest.raises(InputError, match="exists already; --force"):
        embeddings(resolved, out=tmp_path / "t.csv")
    with pytest.raises(InputError, match="unknown layer 'layer1'"):
        embeddings(asked(weights, tmp_path, "table.layer=layer1"), out=tmp_path / "u.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MachineError, match="needs the Python package 'pyarrow'") as caught:
        embeddings(resolved, out=tmp_path / "t.parquet")
    assert caught.value.hint == "pip install pyarrow"


def test_the_default_name_is_made_of_the_runs(
    weights: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = embeddings(asked(weights, clips), quiet=True)
    assert outcome.data["path"] == "small-embeddings.h5"
    assert Path("small-embeddings.h5").is_file()
    with pytest.raises(InputError, match="exists already"):
        embeddings(asked(weights, clips), quiet=True)
    embeddings(asked(weights, clips), force=True, quiet=True)
