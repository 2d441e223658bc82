"""`selfsup export` as it is typed."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfsup_cli.cli.export import WEIGHTS, Export

ROOT = Path(__file__).resolve().parents[2]

# Put before a script of somebody who has not installed us.
STRANGER = """\
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "selfsup_cli":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
try:
    import selfsup_cli
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("selfsup_cli can be imported")

"""


@pytest.fixture
def weights(tmp_path: Path) -> str:
    from selfsup_cli.models import build, save_backbone

    path = tmp_path / "small.safetensors"
    save_backbone(path, build("c3d", width=0.125, frames=8, crop=32, resize=(32, 40), seed=0), {})
    return path.name


def finished(name: str, network: Any) -> None:
    """A run that has the network, in the folder of runs."""
    from selfsup_cli.models import save_backbone
    from selfsup_cli.runs.run import Run, runs_dir

    run = Run.create_or_continue(
        runs_dir(), name, preset="", identity={"network": {"arch": network.arch}},
        command=["selfsup"], job="pretrain/temporal", seed=0, dataset=None, parents=[],
    )  # fmt: skip
    with run:
        save_backbone(run.path / "backbone.safetensors", network, {})
        run.finish(step=1)


def test_what_is_shown_gives_the_same_features_without_us(
    selfsup: Callable[..., Any],
    jobs: Any,
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the README says is typed; then its code runs, and that of the page on export.

    Nothing is trained, and clips are smaller, whose size a run has from its preset.
    """
    import torch

    from selfsup_cli.models import build

    monkeypatch.chdir(tmp_path)
    for name in ("Jump", "Walk"):
        (tmp_path / "actions" / name).mkdir(parents=True)
        shutil.copy(next((data_dir / "actions" / name).iterdir()), tmp_path / "actions" / name)
    network = build("r3d_18", crop=32, resize=(32, 43), seed=0)
    with torch.no_grad():
        network.train()(torch.randn(2, 3, 16, 32, 32))  # moves the running statistics
    finished("clips", network)
    section = (ROOT / "README.md").read_text().partition("## Use it elsewhere\n")[2]
    section = section.partition("\n## ")[0]
    typed = re.findall(r"^selfsup (.*)$", section, re.MULTILINE)
    assert [line.split()[0] for line in typed] == ["pretrain", "export", "export", "export"]
    for line in typed:
        told = selfsup(*shlex.split(line))
        assert told.status == 0, told.err
        assert line.startswith("pretrain") or (tmp_path / line.split()[-1]).is_file()
    assert [name for name, _, _ in jobs.calls] == ["pretrain"]

    finished("first", build("c3d", width=0.125, crop=32, seed=0))
    for form in ("onnx", "program"):
        told = selfsup("export", form, "--from", "first", "--layer", "embedding,conv3")
        assert told.status == 0, told.err
    photos = build("resnet18", crop=64, seed=0).eval()
    finished("photos", photos)
    assert selfsup("export", "torchvision", "--from", "photos").status == 0
    page = (ROOT / "docs" / "export.md").read_text()
    graphs, of_images, table = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    of_images += "numpy.savez('photos.npz', images=images, features=features)\n"
    sets = ("--set", "data.test_share=0.5", "--workers", "0")
    told = selfsup("export", "embeddings", "--data", "actions", "--out", "features.h5", *sets)
    assert told.status == 0, told.err

    code = "".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    assert code.count("112, 112") == 1
    code = code.replace("112, 112", "32, 32")
    code += "import numpy\nnumpy.savez('found.npz', clips=clips, mine=features, onnx=embedding)\n"
    (tmp_path / "script.py").write_text(STRANGER + code + graphs + of_images + table)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "script.py"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    clips = torch.from_numpy(found["clips"])
    assert clips.shape == (2, 3, 16, 32, 32)
    assert clips.std() > 0.5
    with torch.inference_mode():
        wanted = network.eval().embed(clips)
    assert wanted.std() > 0.01
    for name in ("mine", "onnx"):
        torch.testing.assert_close(torch.from_numpy(found[name]), wanted, rtol=1e-4, atol=1e-5)
    seen = np.load(tmp_path / "photos.npz")
    with torch.inference_mode():
        again = photos((torch.from_numpy(seen["images"]) / 255 - 0.5) / 0.5)
    torch.testing.assert_close(torch.from_numpy(seen["features"]), again, rtol=1e-4, atol=1e-5)


def test_the_path_is_the_last_line_and_nothing_else_is_on_stdout(
    process: Callable[..., Any], weights: str, tmp_path: Path
) -> None:
    done = process("export", "onnx", "--from", weights, "--layer", "conv2,embedding")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "small.onnx"
    assert (tmp_path / lines[-1]).is_file()
    assert [line.split()[0] for line in lines[:-1]] == [
        "from", "input", "output", "output", "checked", "sidecar",
    ]  # fmt: skip
    assert "output    conv2 [batch, 16, 8, 16, 16]: differs by at most " in done.stdout
    assert "with onnxruntime " in done.stdout
    assert done.stderr == ""


def test_json_is_one_document_and_an_old_file_stays(
    selfsup: Callable[..., Any], weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("export", "program", "--from", weights, "--out", "net.pt2", "--json")
    document = json.loads(selfsup(*command).out)
    assert document["ok"]
    assert document["data"]["path"] == "net.pt2"
    assert document["data"]["compared"]["outputs"]["embedding"]["largest_difference"] < 1e-6
    before = (tmp_path / "net.pt2").read_bytes()
    (tmp_path / "net.pt2.json").unlink()
    told = selfsup(*command)
    assert told.status == 2
    error = json.loads(told.out)["error"]
    assert error["message"].startswith("net.pt2 exists already; --force replaces it")
    assert selfsup(*command, "--force").status == 0
    assert (tmp_path / "net.pt2").read_bytes() == before


def test_a_table_of_features(process: Callable[..., Any], weights: str, tmp_path: Path) -> None:
    done = process(
        "export", "embeddings", "--from", weights, "--data", "motion", "--clips", "2",
        "--part", "test", "--workers", "0", "--out", "test.csv",
        "--set", "data.motion.videos=8", "--set", "data.motion.test_videos=9",
        "--set", "data.motion.side=32",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "test.csv"
    with (tmp_path / "test.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["id", "label", *(f"f{k}" for k in range(32))]
    assert len(rows) == 9
    assert all(row[0].startswith("test/") for row in rows)


def test_a_missing_extra_is_the_machines_fault(
    process: Callable[..., Any], weights: str, tmp_path: Path
) -> None:
    stand_in = tmp_path / "path" / "onnxscript"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").write_text("raise ModuleNotFoundError('no onnxscript')\n")
    path = os.pathsep.join([str(stand_in.parent), str(ROOT)])
    done = process("export", "onnx", "--from", weights, env={"PYTHONPATH": path})
    assert done.returncode == 3
    assert "onnx needs the Python package 'onnxscript'" in done.stderr
    assert "selfsup: hint: pip install onnx onnxscript onnxruntime" in done.stderr
    assert not (tmp_path / "small.onnx").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "",
            "missing format; known are: safetensors, torchvision, timm, onnx, program, embeddings",
        ),
        ("onxx", "unknown format 'onxx' (did you mean 'onnx'?)"),
        ("torchscript", "unknown format 'torchscript'"),
        ("timmm", "unknown format 'timmm' (did you mean 'timm'?)"),
        ("timm --from FILE", "timm has no network c3d, only those that are called timm/NAME"),
        ("safetensors --layer conv1", "unknown option '--layer'"),
        ("onnx --layers conv1", "unknown option '--layers' (did you mean '--layer'?)"),
        ("onnx --from nobody", "there is no run 'nobody'"),
        ("onnx --from FILE --layer conv6", "unknown layer 'conv6' (did you mean 'conv5'?)"),
        ("onnx --from FILE --out away/m.onnx", "--out away/m.onnx: there is no folder"),
        ("program --from FILE --out m.pt", "--out m.pt: give it a name that ends in .pt2"),
        (
            "torchvision --from FILE",
            "small: torchvision has no network c3d, only r3d_18, mc3_18, r2plus1d_18, resnet18, "
            "resnet34, resnet50; export it as safetensors, onnx or program",
        ),
        ("safetensors --from torn.safetensors", "torn.safetensors is not a safetensors file"),
        ("embeddings --data motion --layer conv10", "unknown layer 'conv10'"),
        ("embeddings --data motion --part some", "--part"),
    ],
)
def test_mistakes(
    selfsup: Callable[..., Any],
    weights: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torn.safetensors").write_bytes(b"nothing")
    before = sorted(tmp_path.rglob("*"))
    told = selfsup("export", *line.replace("FILE", weights).split())
    assert told.status == 2
    assert said in told.err
    assert told.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_what_can_be_typed_is_what_there_is() -> None:
    from selfsup_cli.jobs.export import BACKBONE, FORMATS

    assert set(WEIGHTS) == {BACKBONE, *FORMATS}
    assert set(Export.entries) == {*WEIGHTS, "embeddings"}
    for form, told in WEIGHTS.items():
        suffixes = (".safetensors",) if form == BACKBONE else FORMATS[form].suffixes
        assert told.file.endswith(suffixes[0])
        if form in FORMATS:
            assert told.is_graph is (FORMATS[form].library is None)
