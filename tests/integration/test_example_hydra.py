"""The example examples/hydra: a real Hydra app, by itself and through `command:`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support import Bench, Lab

EXAMPLE = Path(__file__).parents[2] / "examples" / "hydra"
TASKS = ("logistic", "smooth", "svm")

HYDRA = pytest.mark.skipif(
    find_spec("hydra") is None or find_spec("sklearn") is None,
    reason="Hydra and scikit-learn are not both installed: pip install hydra-core scikit-learn",
)


def train(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLE / "train.py"), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def read_metrics(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


@HYDRA
def test_a_config_and_overrides_make_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    done = train("--config-name", "smooth", f"hydra.run.dir='{folder}'", "epochs=2", "seed=3")
    assert (done.returncode, done.stderr) == (0, "")
    assert read_metrics(folder)["config"] == {
        "model": {"loss": "log_loss", "learning_rate": 0.05, "l2": 0.01},
        "batch_size": 64,
        "epochs": 2,
        "seed": 3,
    }
    assert "epoch   2/2  train " in (folder / "train.log").read_text()
    assert not list(tmp_path.rglob("*_completed.txt"))


@HYDRA
def test_an_override_that_does_not_exist_fails(tmp_path: Path) -> None:
    done = train("--config-name", "logistic", f"hydra.run.dir='{tmp_path}'", "learning_rat=1")
    assert done.returncode == 1
    assert "Could not override 'learning_rat'" in done.stderr


def test_the_scheduler_config_names_what_is_there() -> None:
    settings = YAML(typ="safe").load(EXAMPLE / "scheduler_config.yml")
    assert (EXAMPLE / settings["script_path"]).is_file()
    assert sorted(path.stem for path in (EXAMPLE / "configs").glob(settings["config_pattern"])) == ["_base", *TASKS]
    assert set(settings["tasks"]) <= set(TASKS)


@HYDRA
@pytest.mark.timeout(200)
def test_the_batch_runs_through_the_scheduler(lab: Lab) -> None:
    folder = lab.folder / "my hydra"
    ignored = shutil.ignore_patterns("out", "logs", ".tinksched", "__pycache__")
    bench = Bench(lab, Path(shutil.copytree(EXAMPLE, folder, ignore=ignored)))
    process = bench.spawn("start", "--wait")
    text, _ = process.communicate(timeout=150)
    assert process.returncode == 0, text

    assert bench.states() == dict.fromkeys(TASKS, "completed")
    runs = {name: read_metrics(folder / "out" / name) for name in TASKS}
    assert {name: run["test_accuracy"] > 0.9 for name, run in runs.items()} == dict.fromkeys(TASKS, True)
    assert runs["smooth"]["config"]["model"]["l2"] == 0.01
    assert {name: run["config"]["seed"] for name, run in runs.items()} == {"logistic": 0, "smooth": 0, "svm": 7}
    for name in TASKS:
        assert (folder / "out" / f"{name}_completed.txt").is_file(), "the scheduler wrote it"
        assert "test accuracy" in bench.log(name)
