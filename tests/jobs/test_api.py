"""The commands as Python functions, as docs/python.md shows them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import selfsup_cli
from selfsup_cli.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "data.motion.videos": 16,
    "data.motion.test_videos": 8,
    "data.motion.side": 32,
}
TRAINING = {
    "network.width": 0.125,
    "augment.resize": [32, 32],
    "augment.crop": 32,
    "train.batch_size": 4,
    "train.max_steps": 2,
    "monitor.videos": 4,
    "monitor.knn_videos": 8,
}


def test_the_page_on_python_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "python.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    small = {**SMALL, "machine.workers": 0}
    evaluation = {"probe": {"clips.test": 1, "clips.train": 1, "probe.epochs": 2}}
    code = code.replace('{"train.epochs": 19}', repr({**small, **TRAINING}))
    code = code.replace(
        '"conv5"]).report', f'"conv5"], settings={ {**small, **evaluation["probe"]}!r}).report'
    )
    code = code.replace(
        'retrieve("first", data="motion")',
        f'retrieve("first", data="motion", settings={ {**small, "neighbours.clips": 1}!r})',
    )
    tuned = {"fraction": 0.5, "train.max_steps": 2, "train.batch_size": 4, "clips.test": 1}
    code = code.replace('{"fraction": 0.5}', repr({**small, **tuned}))
    script = tmp_path / "page.py"
    script.write_text(code)
    environment = {**os.environ, "SELFSUP_RUNS": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "runs" / "first") in done.stdout
    assert "torch.Size([2, " in done.stdout


def test_mistakes_are_sentences() -> None:
    with pytest.raises(InputError, match="did you mean 'temporal'"):
        selfsup_cli.pretrain("temporl", data="motion")
    with pytest.raises(InputError, match=r"optim\.lrr"):
        selfsup_cli.pretrain("temporal", data="motion", settings={"optim.lrr": 1})
    with pytest.raises(InputError, match="there are no runs"):
        selfsup_cli.load_backbone()
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = selfsup_cli.nothing_such


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, selfsup_cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
