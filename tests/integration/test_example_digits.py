"""The example examples/digits, run as a user runs it: the script, its configs, and how they fail."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
CONFIGS = sorted((EXAMPLE / "configs").glob("*.yml"))
QUICK = "model: mlp\nhidden_layers: [16]\naugment: false\nepochs: 2\n"


def environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without what a scheduler or a machine could have put there."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TINKSCHED_", "CUDA_"))}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **extra}


def command(config: Path, script: Path = EXAMPLE / "train.py") -> list[str]:
    return [sys.executable, str(script), "--config_path", str(config)]


def train(config: Path, output_dir: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    env = environment(TINKSCHED_OUTPUT_DIR=str(output_dir), **extra)
    return subprocess.run(command(config), env=env, capture_output=True, text=True, timeout=120)


def read_metrics(output_dir: Path, task: str) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((output_dir / f"{task}_metrics.json").read_text())
    return metrics


@pytest.mark.parametrize(
    ("task", "gpu", "least", "most"),
    [
        pytest.param("linear_sgd", "1", 0.93, 1.0, id="linear"),
        pytest.param("mlp_tiny_data", "0,1", 0.6, 0.9, id="mlp-with-too-little-data"),
    ],
)
def test_a_config_trains_and_reports(task: str, gpu: str, least: float, most: float, tmp_path: Path) -> None:
    config = EXAMPLE / "configs" / f"{task}.yml"
    done = train(config, tmp_path, TINKSCHED_TASK=task, CUDA_VISIBLE_DEVICES=gpu)

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{task}_completed.txt", f"{task}_metrics.json"]
    metrics = read_metrics(tmp_path, task)
    assert least <= metrics["test_accuracy"] <= most
    assert (metrics["task"], metrics["gpu"]) == (task, gpu)
    assert metrics["seconds"] > 0
    settings = YAML(typ="safe").load(config)
    assert {key: metrics["config"][key] for key in settings} == settings
    assert [entry["epoch"] for entry in metrics["history"]] == list(range(1, settings["epochs"] + 1))
    assert metrics["history"][-1]["loss"] < metrics["history"][0]["loss"]

    marker = (tmp_path / f"{task}_completed.txt").read_text().splitlines()
    assert marker == [f"test_accuracy: {metrics['test_accuracy']:.4f}", f"seconds: {metrics['seconds']}"]
    first, *epochs, last = done.stdout.splitlines()
    assert f"CUDA_VISIBLE_DEVICES={gpu}" in first
    assert len(epochs) == settings["epochs"]
    assert f"test accuracy {metrics['test_accuracy']:.4f}" in last


def test_the_seed_decides_the_result(tmp_path: Path) -> None:
    results = {}
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        config = tmp_path / f"{name}.yml"
        config.write_text(f"{QUICK}seed: {seed}\n")
        assert train(config, tmp_path).returncode == 0
        metrics = read_metrics(tmp_path, name)
        losses = [(entry["loss"], entry["train"], entry["validation"]) for entry in metrics["history"]]
        results[name] = (metrics["test_accuracy"], losses)
    assert results["first"] == results["again"]
    assert results["first"] != results["other"]


def test_the_broken_config_fails_with_the_real_error_and_leaves_no_marker(tmp_path: Path) -> None:
    done = train(EXAMPLE / "configs" / "broken_learning_rate.yml", tmp_path)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "InvalidParameterError: The 'learning_rate_init' parameter of MLPClassifier" in done.stderr
    assert "Got -0.1" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_scheduler_the_results_lie_beside_the_script(tmp_path: Path) -> None:
    script = Path(shutil.copy(EXAMPLE / "train.py", tmp_path))
    config = tmp_path / "my.first run.yml"
    config.write_text(QUICK)
    done = subprocess.run(command(config, script), env=environment(), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "CUDA_VISIBLE_DEVICES=(none)" in done.stdout.splitlines()[0]
    assert read_metrics(tmp_path / "out", "my.first run")["gpu"] is None
    assert (tmp_path / "out" / "my.first run_completed.txt").exists()


def test_a_terminal_gets_a_progress_bar_and_a_file_does_not(tmp_path: Path) -> None:
    config = tmp_path / "quick.yml"
    config.write_text(QUICK)
    assert "\r" not in train(config, tmp_path).stdout

    ours, theirs = pty.openpty()
    env = environment(TINKSCHED_OUTPUT_DIR=str(tmp_path))
    process = subprocess.Popen(command(config), env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    screen = b""
    try:
        while chunk := os.read(ours, 4096):
            screen += chunk
    except OSError:  # EIO: the other side is closed
        pass
    finally:
        os.close(ours)
        assert process.wait(timeout=120) == 0
    assert b"\repoch   1/2 [###" in screen
    assert b"\repoch   2/2  loss " in screen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "must be a map of keys and values", id="empty"),
        pytest.param("model: [mlp\nepochs: 3\n", "line 2, column 7", id="broken-yaml"),
        pytest.param("epochz: 3\n", "unknown key 'epochz'; known are model, ", id="unknown-key"),
        pytest.param("epochs: many\n", "epochs must be of type int, not 'many'", id="wrong-type"),
        pytest.param("hidden_layers: 64\n", "hidden_layers must be of type list of int, not 64", id="no-list"),
        pytest.param("model: forest\n", "model must be one of mlp, linear, rbf_svm, not 'forest'", id="unknown-model"),
        pytest.param("epochs: 0\n", "epochs and batch_size must be at least 1", id="no-epochs"),
        pytest.param(None, "No such file", id="no-file"),
    ],
)
def test_a_bad_config_is_one_clear_line(text: str | None, message: str, tmp_path: Path) -> None:
    config = tmp_path / "bad.yml"
    if text is not None:
        config.write_text(text)
    done = train(config, tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{config}: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_every_config_says_what_it_shows_and_is_valid() -> None:
    assert len(CONFIGS) >= 9
    assert all(path.read_text().startswith("# ") for path in CONFIGS)
    check = "import sys, pathlib, train; [train.load_config(pathlib.Path(name)) for name in sys.argv[1:]]"
    subprocess.run([sys.executable, "-c", check, *map(str, CONFIGS)], cwd=EXAMPLE, env=environment(), check=True)


def test_the_scheduler_config_names_what_is_there() -> None:
    settings = YAML(typ="safe").load(EXAMPLE / "scheduler_config.yml")
    assert (EXAMPLE / settings["script_path"]).is_file()
    assert (EXAMPLE / settings["config_dir"]).is_dir()
    assert set(settings["tasks"]) <= {path.stem for path in CONFIGS}
    assert settings["tasks"]["mlp_two_gpus"]["gpus"] == settings["gpu_count"] == 2
