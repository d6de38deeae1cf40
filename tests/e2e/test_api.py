"""The same operations from Python; every error is one of ours, and nothing is printed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Bench, Lab
from tinksched import TinkschedError, Workspace
from tinksched.errors import ConfigError, NothingToActOn, TimedOut, UsageError, WorkspaceError

ROOT = Path(__file__).parents[2]


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


def test_the_example_runs_twice(lab: Lab) -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples" / "api.py"), str(lab.folder / "demo")],
            env={**os.environ, **lab.environment}, cwd=lab.folder, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "the best is base_rate0.5; it ended with 'step 19: x = 3.0000'" in done.stdout
