"""The same operations from Python; every error is one of ours, and nothing is printed."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support import Bench, Lab
from tinksched import TinkschedError, Workspace
from tinksched.api import COMMAND_LINE_ONLY
from tinksched.cli.app import COMMANDS, command_of
from tinksched.errors import ConfigError, NothingToActOn, TimedOut, UsageError, WorkspaceError

ROOT = Path(__file__).parents[2]
METHODS = {"setup-workspace": "setup", "config": "settings"}  # which have other names than their commands
OTHER_NAMES = {"all": "everything", "any": "first"}
EVERYWHERE = {"workspace", "config", "json"}  # what a Workspace is made of, and what it returns in place of text
ELSEWHERE = {  # options of commands for which there are methods, or nothing to ask or to print
    "start": {"dry-run", "wait", "foreground", "unless-stopped"},  # plan, wait; the others are for terminals and cron
    "status": {"all", "watch"},  # it has all
    "explain": {"failed", "all"},  # one task each
    "show": {"failed", "all"},
    "logs": {"follow"},  # follow
    "run": {"wait"},
    "wait": {"all"},  # unless some are named
    "hold": {"at"},  # which the command line refuses
    "sweep": {"yes"},  # many
    "clean": {"yes"},
    "report": {"html"},
    "doctor": {"repair"},  # repair
}


@pytest.fixture
def bench(lab: Lab, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Bench]:
    for name, value in lab.environment.items():
        monkeypatch.setenv(name, value)
    yield lab.workspace(tasks={"a.yml": "text: said", "b.yml": "code: 3"}, executor="local")
    assert capfd.readouterr() == ("", "")


def test_a_day_in_python(bench: Bench) -> None:
    workspace = Workspace(bench.folder)
    assert workspace.folder == bench.folder and workspace.settings.task_name == "T"
    assert {task.state for task in workspace.tasks().values()} == {"new"}
    assert workspace.plan().queued == ("a", "b") and workspace.tasks()["a"].state == "new"
    assert workspace.start(["a", "b"], [1]).queued == ("a", "b")
    assert workspace.wait(timeout=30) in ({"a": "completed", "b": "failed"}, {"b": "failed"}, {"a": "completed"}, {})
    assert workspace.wait("a", "b", timeout=30) == {"a": "completed", "b": "failed"}
    assert workspace.tasks()["a"].gpus == (1,) and workspace.status().total == 2
    assert workspace.logs("a").strip() == "said" and b"".join(workspace.follow("a")).strip() == b"said"
    assert "exit code 3" in " ".join(workspace.explain("b"))
    assert workspace.show("b").runs[0].run.exit_code == 3
    assert workspace.retry(failed=True) == ("b",)
    assert workspace.wait("b") == {"b": "failed"}
    assert workspace.report().counts == {"completed": 1, "failed": 2}


def test_ending_things(bench: Bench) -> None:
    gate = bench.gate()
    for name in ("x", "y", "z"):
        bench.add(f"{name}.yml", gate.config)
    workspace = Workspace(bench.folder)
    workspace.start("x,y,z")
    bench.wait_for_starts("x", "y", "z")
    with pytest.raises(TimedOut, match="3 of 3"):
        workspace.wait("x", "y", "z", timeout=0.2)
    assert workspace.cancel("x").cancelled == ("x",)
    stopped = workspace.stop()
    assert stopped.was_running and set(stopped.running) == {"y", "z"}
    with pytest.raises(TinkschedError, match="2 of 2 tasks are not done"):
        workspace.wait("y", "z")
    assert set(workspace.kill_all().runs) == {"y", "z"}
    assert workspace.wait("x", "y") == {"x": "cancelled", "y": "cancelled"}


def test_a_sweep_from_values_of_python(bench: Bench) -> None:
    bench.add("_base.yml", "seconds: 0\ntext: x\n")
    workspace = Workspace(bench.folder)
    grid = {"text": ["plain", "two words", "1", "no"], "+n": [1, 0.5, None, [1, 2]]}
    made = workspace.sweep("_base.yml", grid, dry_run=True)
    assert len(made.points) == 16 and not list((bench.folder / "configs").glob("base*"))
    values = {tuple(map(str, (value.data for value in point.values.values()))) for point in made.points}
    assert ("two words", "0.5") in values and ("1", "None") in values and ("no", "[1, 2]") in values
    assert made.points[2].values["+n".lstrip("+")].data is None
    workspace.sweep("_base.yml", {"seconds": "0,0.01"}, start=True)
    assert workspace.wait("base_seconds0", "base_seconds0.01") == {
        "base_seconds0": "completed", "base_seconds0.01": "completed",
    }  # fmt: skip


def test_errors_are_ours(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError):
        Workspace(tmp_path / "nowhere")
    workspace = Workspace(bench.folder)
    with pytest.raises(NothingToActOn):
        workspace.retry("a")
    with pytest.raises(UsageError) as bad:
        workspace.start("aa")
    assert bad.value.hint == "did you mean a.yml?"
    workspace.start("a")
    for call in (workspace.wait, workspace.cancel, workspace.logs, workspace.explain, workspace.show):
        with pytest.raises(NothingToActOn, match="nobody"):
            call("nobody")  # type: ignore[operator]
    workspace.wait("a")
    bench.reconfigure(gpu_count="many")
    with pytest.raises(ConfigError, match="gpu_count"):
        workspace.status()


def test_every_command_has_a_method_or_a_reason_why_not() -> None:
    methods = {command: METHODS.get(command, command.replace("-", "_")) for command in COMMANDS}
    missing = {command for command, method in methods.items() if not hasattr(Workspace, method)}
    assert missing == set(COMMAND_LINE_ONLY) and all(COMMAND_LINE_ONLY.values())
    for name, method in inspect.getmembers(Workspace):
        if not name.startswith("_"):
            assert inspect.getdoc(method), name


def test_every_option_has_a_parameter_or_a_reason_why_not() -> None:
    for command in COMMANDS.keys() - COMMAND_LINE_ONLY.keys() - {"config"}:  # a property
        method = getattr(Workspace, METHODS.get(command, command.replace("-", "_")))
        options = {name[2:] for one in command_of(command).params for name in one.opts if name.startswith("--")}
        wanted = {
            OTHER_NAMES.get(name, name.replace("-", "_"))
            for name in options - EVERYWHERE - ELSEWHERE.get(command, set())
        }
        assert wanted <= set(inspect.signature(method).parameters), command
        assert ELSEWHERE.get(command, set()) <= options, command


def test_what_waits(bench: Bench) -> None:
    workspace = Workspace(bench.folder)
    assert workspace.pause().user and workspace.status().paused
    name = workspace.run(["sh", "-c", "echo $HELLO"], name="said", gpus=0, cwd=bench.folder)
    other = workspace.run([sys.executable, "-c", "pass"], after=[name], at="+1h")
    assert (name, workspace.tasks()[other].state) == ("said", "queued")
    assert workspace.hold("s*").done == ("said",) and workspace.release("said").done == ("said",)
    assert workspace.priority(other, to=5).done == (other,) and workspace.priority("@", by=2).done == (other,)
    assert workspace.tasks()[other].priority == 7
    assert workspace.priority("said").done == ("said",) and workspace.tasks()["said"].priority == 8
    assert [task.name for task in workspace.status("said").tasks] == ["said"]
    assert workspace.resume().user
    assert workspace.wait("said", other, first=True, timeout=30) == {"said": "completed"}
    assert workspace.release(other, at=datetime.now() + timedelta(seconds=0.1)).done == (other,)
    assert workspace.wait(timeout=30) == {other: "completed"} == workspace.wait()
    with pytest.raises(NothingToActOn):
        workspace.clean(older_than="1d")
    assert [task.name for task in workspace.clean("said", dry_run=True).tasks] == ["said"]
    (bench.folder / "out" / "a_completed.txt").touch()
    assert workspace.wait("a", "said") == {"a": "completed", "said": "completed"}
    (bench.folder / "out" / "a_completed.txt").unlink()
    assert len(workspace.clean(older_than=0).tasks) == 2 and set(workspace.tasks()) == {"a", "b"}
    for wrong in (lambda: workspace.run("true"), lambda: workspace.hold(), lambda: workspace.priority("a", to=1, by=1)):
        with pytest.raises(UsageError):
            wrong()
    with pytest.raises(UsageError, match="memory"):
        workspace.run(["true"], memory="much")


def test_the_machine_and_the_personal_workspace(bench: Bench) -> None:
    workspace = Workspace.personal()
    assert workspace.folder == Workspace.personal().folder
    assert workspace.folder.is_relative_to(bench.lab.environment["HOME"])
    assert workspace.repair() is None
    assert workspace.run(["true"]) == "true" and workspace.wait("true", timeout=30) == {"true": "completed"}
    assert all(check.level != "bad" for check in workspace.doctor())
    assert workspace.gpus().waiting == ()


def test_the_example_runs_twice(lab: Lab) -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples" / "api.py"), str(lab.folder / "demo")],
            env={**os.environ, **lab.environment}, cwd=lab.folder, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "the best is base_rate0.5; it ended with 'step 19: x = 3.0000'" in done.stdout
