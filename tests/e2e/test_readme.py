"""Every command of the README runs as it is written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_output import read_terminal
from tests.keys import events, table
from tests.support import SCRIPT, Bench, Lab
from tinksched import Workspace
from tinksched.cli import app
from tinksched.config import load
from tinksched.core.news import KINDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
INSTALL, FIRST, QUICKSTART, TESTS, *REST = COMMANDS
BENCHMARKS = "sh tests/bench/run.sh"  # run by test_bench.py
ON_A_GPU = "sh tests/gpu/run.sh"  # run by test_gpu_checks.py
GUIDE = [FIRST, *(command for command in REST if command not in (BENCHMARKS, ON_A_GPU))]
SHOWN_ON_A_TERMINAL = {
    "tinksched status --watch": "first",
    "tinksched watch": "words of example",
    "tinksched attach example": "words of example",
}


def test_it_begins_with_a_command_that_does_a_job_then_come_the_two_that_matter() -> None:
    assert INSTALL == "pip install ."  # run by the quickstart, which does it editable, and by test_packaging.py
    assert FIRST.startswith("tinksched run --wait -- ")
    assert [QUICKSTART, TESTS] == ["sh examples/quickstart.sh", "sh tests/run.sh"]


def test_the_beginning_fits_a_screen() -> None:
    assert len(README.partition("## Your own")[0].splitlines()) <= 50
    assert len(README.partition(TESTS)[0].splitlines()) <= 34


def test_it_names_all_that_a_workspace_can_do_in_python() -> None:
    said = README.partition("From Python a `Workspace` has ")[2].partition(" ([")[0]
    there = {name for name, value in vars(Workspace).items() if name[0] != "_" and not isinstance(value, property)}
    there -= {command.replace("-", "_") for command in app.COMMANDS}
    assert set(re.findall(r"`([\w-]+)`", said)) == there | {"setup-workspace", "config", "settings"}


def test_the_benchmarks_are_one_command() -> None:
    assert REST.count(BENCHMARKS) == 1


def test_the_checks_on_a_gpu_are_one_command() -> None:
    assert REST.count(ON_A_GPU) == 1


def test_the_commands_of_the_guide_run_in_their_order(lab: Lab) -> None:
    bench = Bench(lab, Path(lab.environment["HOME"]) / "experiments" / "first")
    cwd = lab.folder
    gate = bench.lab.folder / "gate"
    ran = []
    for command in GUIDE:
        if command.startswith("cd "):
            cwd = Path(command[3:].replace("~", lab.environment["HOME"]))
            _give_it_a_script(bench)
            gate = bench.gate()  # type: ignore[assignment]
            example = (bench.folder / "configs" / "example.yml").read_text()
            bench.add("example.yml", f"{example}text: words of example\n{gate.config}")  # type: ignore[attr-defined]
            continue
        if command in SHOWN_ON_A_TERMINAL:
            bench.wait_for_starts("example")
            shown = read_terminal(["sh", "-c", f"exec {command}"], bench, SHOWN_ON_A_TERMINAL[command])
            assert SHOWN_ON_A_TERMINAL[command] in shown, command
        elif command == "tinksched logs example -f":
            _follow(command, bench)
        else:
            if "start --failed" in command:
                gate.open()
            _run(command, lab, cwd)
        ran.append(command)
    assert len(ran) == len(GUIDE) - 1


def _give_it_a_script(bench: Bench) -> None:
    (bench.folder / "train.py").write_text(SCRIPT)
    path = bench.folder / "scheduler_config.yml"
    text = re.sub(r"(?m)^#? ?python_env:.*$", "python_env: /bin/sh", path.read_text(), count=1)
    path.write_text(text)
    assert load(bench.folder).python_env == "/bin/sh"


def _run(command: str, lab: Lab, cwd: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", command], cwd=cwd, env=lab.environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    codes = (0, 3) if command == "tinksched stop" else (0,)  # 3: the scheduler had ended by itself
    assert done.returncode in codes, f"{command}\n{done.stdout}{done.stderr}"


def _follow(command: str, bench: Bench) -> None:
    with subprocess.Popen(
        ["sh", "-c", f"exec {command}"], cwd=bench.folder, env=bench.lab.environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    ) as follower:  # fmt: skip
        assert follower.stdout is not None
        assert follower.stdout.readline() == "words of example\n"
        follower.terminate()


def test_the_table_of_keys_is_that_of_the_code() -> None:
    assert table() in README


def test_the_table_of_events_is_that_of_the_code() -> None:
    assert events() in README
    assert all(f"`{kind}`" in README for kind in KINDS)


def test_the_test_command_hands_its_arguments_to_pytest() -> None:
    if os.environ.get("PYTEST_XDIST_WORKER") and sys.prefix == sys.base_prefix:
        pytest.fail("the tests must run in a virtual environment")
    text = (ROOT / "tests" / "run.sh").read_text()
    assert 'exec "$venv/bin/python" -m pytest "$@"' in text


@pytest.mark.timeout(600)
def test_the_quickstart_trains_real_models_and_can_be_run_again(lab: Lab) -> None:
    checkout = lab.folder / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv*", ".quickstart", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, checkout, ignore=ignored)
    environment = {**lab.environment, "HOME": os.environ.get("HOME", "/"), "PYTHON": sys.executable}
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE", "PIP_FIND_LINKS"):
        if name in os.environ:
            environment[name] = os.environ[name]
    for attempt in (1, 2):
        done = subprocess.run(
            ["sh", "examples/quickstart.sh"], cwd=checkout, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, f"attempt {attempt}\n{done.stdout}{done.stderr}"
        assert "11 tasks: 10 completed, 1 failed" in done.stdout
        assert "Got -0.1 instead" in done.stdout or attempt == 2
        accuracies = re.findall(r"(?m)^    (\w+) +(0\.\d+)$", done.stdout)
        assert len(accuracies) == 10
        assert all(float(value) > 0.9 for name, value in accuracies if name != "mlp_tiny_data")
