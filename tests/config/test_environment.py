"""The environment: what is read, what is not, and that reading a preset stays light."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

from selfsup_cli.config.environment import VARIABLES, warnings


def test_unknown_variables_are_told_with_the_nearest() -> None:
    env = dict.fromkeys(VARIABLES, "1") | {
        "SELFSUP_DEVCE": "cpu",
        "SELFSUP_TEST_DATA": "x",
        "SELFSUP_REQUIRE_DATA": "1",
        "PATH": "/bin",
    }
    (warning,) = warnings(env)
    assert "SELFSUP_DEVCE" in warning
    assert "did you mean 'SELFSUP_DEVICE'" in warning
    assert warnings({}) == []


def test_every_variable_is_explained() -> None:
    assert all(variable.about.endswith(".") for variable in VARIABLES.values())
    assert {name for name, variable in VARIABLES.items() if variable.field} == {
        "SELFSUP_DEVICE",
        "SELFSUP_WORKERS",
    }


def test_a_wrong_key_is_told_without_anything_heavy() -> None:
    program = (
        "import sys, pkgutil, importlib, selfsup_cli.config as config\n"
        "for module in pkgutil.iter_modules(config.__path__):\n"
        "    importlib.import_module(f'selfsup_cli.config.{module.name}')\n"
        "from selfsup_cli.config.presets import resolve\n"
        "from selfsup_cli.errors import InputError\n"
        "try:\n"
        "    resolve('pretrain/temporal', sets=['optim.lrr=1'])\n"
        "except InputError as error:\n"
        "    print(error)\n"
        "heavy = {'torch', 'torchvision', 'timm', 'av', 'h5py', 'numpy', 'PIL', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ)
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.stdout.splitlines() == [
            "--set optim.lrr: unknown key 'lrr' (did you mean 'lr'?)",
            "[]",
        ]
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # About 0.2 s; the clock on the wall would measure the machine's other work.
    assert min(spent) < 0.6
