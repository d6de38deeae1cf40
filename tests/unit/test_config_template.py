"""The files that setup-workspace writes: they load, and they tell of every key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tinksched.config import KEYS, TASK_OPTIONS, Settings, load

TEMPLATES = Path(__file__).parents[2] / "templates"
TEMPLATE = (TEMPLATES / "scheduler_config.yml").read_text()
COMMENTED_KEY = re.compile(r"^#(?=[a-z_]+:)", re.MULTILINE)


def filled(python_env: str = "python_env: /venv/bin/python") -> str:
    return TEMPLATE.replace("@TASK_NAME@", "demo").replace("@PYTHON_ENV_LINE@", python_env)


def load_text(folder: Path, text: str) -> Settings:
    (folder / "scheduler_config.yml").write_text(text)
    return load(folder)


@pytest.mark.parametrize("placeholder", ["@TASK_NAME@", "@PYTHON_ENV_LINE@"])
def test_each_placeholder_stands_there_once(placeholder: str) -> None:
    assert TEMPLATE.count(placeholder) == 1


def test_the_placeholder_of_python_env_has_its_own_line() -> None:
    assert "\n@PYTHON_ENV_LINE@\n" in TEMPLATE


def test_the_template_loads(tmp_path: Path) -> None:
    found = load_text(tmp_path, filled())
    assert (found.task_name, found.python_env, found.max_jobs_per_gpu) == ("demo", "/venv/bin/python", 1)
    assert found.warnings == ()
    given = {key for key, origin in found.origins.items() if origin.kind == "file"}
    assert given == {
        "task_name",
        "config_dir",
        "script_path",
        "output_dir",
        "python_env",
        "max_jobs_per_gpu",
        "gpu_count",
    }


def test_the_template_loads_without_an_interpreter(tmp_path: Path) -> None:
    assert load_text(tmp_path, filled("#python_env: python3")).python_env is None


def test_the_commented_lines_are_the_defaults(tmp_path: Path) -> None:
    """Without its # no line changes a value, and all keys but those of old files are there."""
    everything = load_text(tmp_path, COMMENTED_KEY.sub("", filled()))
    (tmp_path / "scheduler_config.yml").write_text(
        "task_name: demo\npython_env: /venv/bin/python\nmax_jobs_per_gpu: 1\n"
    )
    defaults = load(tmp_path)
    assert [row[:2] for row in everything.rows()] == [row[:2] for row in defaults.rows()]
    assert {key for key, origin in everything.origins.items() if origin.kind == "file"} == {
        name for name, key in KEYS.items() if not key.note
    }


def test_the_examples_in_the_comments_work(tmp_path: Path) -> None:
    example = re.search(r"^#   tasks:\n(#     .*\n)+", TEMPLATE, re.MULTILINE)
    assert example
    found = load_text(tmp_path, "task_name: demo\n" + re.sub("^#   ", "", example[0], flags=re.MULTILINE))
    assert {option for rule in found.tasks for option in rule.given} == set(TASK_OPTIONS)
    shown = "args: [--epochs, 10]\nuse_gpus: [2, 3]\nenvironment: {OMP_NUM_THREADS: 4}\n"
    assert all(line.split(": ")[1] in TEMPLATE for line in shown.splitlines())
    assert load_text(tmp_path, f"task_name: demo\n{shown}").args == ("--epochs", "10")


def test_the_comments_begin_in_one_column_and_fit_a_screen() -> None:
    assert all(len(line) <= 120 and "\t" not in line for line in TEMPLATE.splitlines())


def test_the_example_task_is_small_yaml_of_its_own() -> None:
    from ruamel.yaml import YAML

    content = YAML(typ="safe", pure=True).load(TEMPLATES / "example_task.yml")
    assert content == {"learning_rate": 0.001, "batch_size": 32, "epochs": 10}
