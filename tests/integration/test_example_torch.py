"""The example examples/torch_digits: checkpoints, resuming, torchrun; by itself, and through the scheduler.

PyTorch is no dependency of the tests. `pip install torch scikit-learn` beside tinksched, and none of this is skipped.
"""

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
from tinksched.config import load

EXAMPLE = Path(__file__).parents[2] / "examples" / "torch_digits"
CONFIGS = sorted((EXAMPLE / "configs").glob("*.yml"))
QUICK = "model: cnn\nwidth: 4\nepochs: 5\n"

TORCH = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("sklearn") is None,
    reason="PyTorch and scikit-learn are not both installed: pip install torch scikit-learn",
)


def train(
    config: Path, output_dir: Path, *arguments: str, launcher: tuple[str, ...] = (), **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run the script on the CPU, without what a scheduler could have put into the environment."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TINKSCHED_", "CUDA_"))}
    apart = {"TINKSCHED_OUTPUT_DIR": str(output_dir), "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *launcher, str(EXAMPLE / "train.py"), "--config_path", str(config), *arguments]
    env = {**kept, **apart, "OMP_NUM_THREADS": "1", **extra}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yml"
    path.write_text(text)
    return path


def read_metrics(output_dir: Path, task: str) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((output_dir / f"{task}_metrics.json").read_text())
    return metrics


def results(output_dir: Path, task: str) -> tuple[object, object]:
    """What the training found, to the last bit."""
    metrics = read_metrics(output_dir, task)
    return metrics["history"], metrics["test_accuracy"]


@TORCH
def test_a_crashed_training_resumes_and_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    assert train(write(tmp_path, "unbroken", QUICK), tmp_path).returncode == 0

    config = write(tmp_path, "broken", f"{QUICK}crash_after_epoch: 3\n")
    crashed = train(config, tmp_path)
    assert crashed.returncode == 1
    assert (
        crashed.stderr == "crashing on purpose (crash_after_epoch): the checkpoint is written, the work is not done\n"
    )
    assert [line.split()[1] for line in crashed.stdout.splitlines()[1:]] == ["1/5", "2/5", "3/5"]
    assert {path.name for path in tmp_path.glob("broken*")} == {"broken.yml", "broken.ckpt.pt"}

    resumed = train(config, tmp_path, "--resume", TINKSCHED_ATTEMPT="2")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    first, second, *epochs, last = resumed.stdout.splitlines()
    assert first == "broken: cnn on cpu, 1 process, attempt 2"
    assert second == "resuming after epoch 3"
    assert [line.split()[1] for line in epochs] == ["4/5", "5/5"]
    assert last.startswith("broken: test accuracy ")
    assert read_metrics(tmp_path, "broken")["resumed_after_epoch"] == 3
    assert results(tmp_path, "broken") == results(tmp_path, "unbroken")
    marker = (tmp_path / "broken_completed.txt").read_text()
    assert marker.startswith(f"test_accuracy: {read_metrics(tmp_path, 'broken')['test_accuracy']:.4f}\n")


@TORCH
def test_without_resume_or_with_another_config_it_begins_anew(tmp_path: Path) -> None:
    config = write(tmp_path, "task", f"{QUICK}crash_after_epoch: 1\n")
    first = train(config, tmp_path, "--resume")
    assert first.returncode == 1
    assert "no checkpoint yet" in first.stdout
    again = train(config, tmp_path)
    assert again.returncode == 1, "it dies at the same place"
    assert again.stdout.splitlines()[1].startswith("epoch   1/5")
    write(tmp_path, "task", QUICK.replace("4", "6"))
    other = train(config, tmp_path, "--resume")
    assert other.returncode == 0
    assert "the checkpoint is of another config: starting from the beginning" in other.stdout
    longer = write(tmp_path, "task", QUICK.replace("4", "6").replace("5", "6"))
    assert "resuming after epoch 5" in train(longer, tmp_path, "--resume").stdout
    assert [entry["epoch"] for entry in read_metrics(tmp_path, "task")["history"]] == [1, 2, 3, 4, 5, 6]


@TORCH
def test_two_processes_give_what_one_gives_and_resume_as_well(tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    assert train(write(tmp_path, "one", QUICK), tmp_path).returncode == 0
    config = write(tmp_path, "two", f"{QUICK}crash_after_epoch: 2\n")
    assert train(config, tmp_path, launcher=launcher).returncode == 1
    done = train(config, tmp_path, "--resume", launcher=launcher)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["two: cnn on cpu, 2 processes, attempt 1", "resuming after epoch 2"]
    assert len(lines) == 6, "one process speaks for both"
    one, two = read_metrics(tmp_path, "one"), read_metrics(tmp_path, "two")
    assert two["processes"] == 2
    assert two["test_accuracy"] == pytest.approx(one["test_accuracy"], abs=0.02)
    validation = [[entry["validation"] for entry in metrics["history"]] for metrics in (one, two)]
    assert validation[1] == pytest.approx(validation[0], abs=0.02)


@TORCH
@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("epochz: 3\n", "unknown key 'epochz'; known are model, ", id="unknown-key"),
        pytest.param("epochs: many\n", "epochs must be of type int, not 'many'", id="wrong-type"),
        pytest.param("model: rnn\n", "model must be one of cnn, mlp, not 'rnn'", id="unknown-model"),
    ],
)
def test_a_bad_config_is_one_clear_line(text: str, message: str, tmp_path: Path) -> None:
    config = write(tmp_path, "bad", text)
    done = train(config, tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{config}: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_every_config_says_what_it_shows() -> None:
    assert [path.stem for path in CONFIGS] == ["cnn", "crashes_once", "mlp", "two_processes"]
    assert all(path.read_text().startswith("# ") for path in CONFIGS)
    settings = YAML(typ="safe").load(EXAMPLE / "scheduler_config.yml")
    assert set(settings["tasks"]) <= {path.stem for path in CONFIGS}
    assert (EXAMPLE / settings["script_path"]).is_file()


def test_the_scheduler_config_is_valid() -> None:
    settings = load(EXAMPLE)
    assert (settings.auto_restart_failed, settings.retry_args) == (True, ("--resume",))
    assert settings.options_for("two_processes").gpus == 2


@TORCH
@pytest.mark.timeout(300)
def test_the_scheduler_retries_from_the_checkpoint_and_runs_two_processes(lab: Lab) -> None:
    folder = lab.folder / "torch digits"
    ignored = shutil.ignore_patterns("out", "logs", ".tinksched", "__pycache__")
    bench = Bench(lab, Path(shutil.copytree(EXAMPLE, folder, ignore=ignored)))
    lab.environment["CUDA_VISIBLE_DEVICES"] = ""
    process = bench.spawn("start", "--wait")
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text

    tasks = bench.tasks()
    assert {name: (task["state"], task["attempt"]) for name, task in tasks.items()} == {
        "cnn": ("completed", 1),
        "crashes_once": ("completed", 2),
        "mlp": ("completed", 1),
        "two_processes": ("completed", 1),
    }
    assert "crashing on purpose" in bench.log("crashes_once")
    second = [line for line in bench.log("crashes_once.2").splitlines() if line]
    assert second[0].endswith("attempt 2")
    assert second[1] == "resuming after epoch 3"
    assert second[2].startswith("epoch   4/25")
    out = folder / "out"
    assert results(out, "crashes_once") == results(out, "cnn"), "the same training, but for the crash"
    two = read_metrics(out, "two_processes")
    assert (two["processes"], two["gpus"]) == (2, "0,1")
    assert {name: read_metrics(out, name)["test_accuracy"] > 0.92 for name in tasks} == dict.fromkeys(tasks, True)
