"""What a command loads before it does anything: seen in the modules of a fresh process, and not in its time."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tinksched.cli import quick
from tinksched.cli.app import COMMANDS, function
from tinksched.core.lifecycle import Began, Finished
from tinksched.core.model import Outcome, TaskSpec
from tinksched.operations import workspace
from tinksched.operations.selection import Wanted
from tinksched.store import STOPPED, NewTask

# Nobody who only looks needs these: they are slow to load, or start something.
NEVER = {
    "asyncio", "concurrent.futures", "email", "http", "importlib.metadata", "importlib.resources", "libtmux", "logging",
    "multiprocessing", "psutil", "pydantic", "pynvml", "random", "rich", "secrets", "socket", "ssl", "tempfile",
    "textual", "unittest", "urllib.request", "xml",
}  # fmt: skip
WITHOUT_WORKSPACE = NEVER | {
    "json", "ruamel", "sqlite3", "tinksched.config", "tinksched.core", "tinksched.host", "tinksched.operations",
    "tinksched.scheduler", "tinksched.store",
}  # fmt: skip
STATUS = NEVER | {
    "platform", "shellingham", "subprocess", "threading", "traceback", "typer",
    "tinksched.cli.app", "tinksched.cli.render", "tinksched.executors", "tinksched.host.environments",
    "tinksched.host.inotify", "tinksched.host.tmux", "tinksched.host.wake", "tinksched.operations.doctor",
    "tinksched.operations.repair", "tinksched.operations.setup", "tinksched.operations.start",
    "tinksched.scheduler.loop", "tinksched.scheduler.starting",
}  # fmt: skip
PROGRAM = """
import os, sys
from tinksched import cli
output = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
code = cli._run(sys.argv[1:])
sys.stdout.flush()
os.write(output, ' '.join([str(code), *sys.modules]).encode())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace with a queued task and a new one."""
    (tmp_path / "configs").mkdir()
    for name in ("queued", "new"):
        (tmp_path / "configs" / f"{name}.yml").write_text("seconds: 0\n")
    (tmp_path / "scheduler_config.yml").write_text("task_name: T\ngpu_count: 1\n")
    spec = TaskSpec(("x",), str(tmp_path), str(tmp_path / "out" / "queued_completed.txt"), str(tmp_path / "out"))
    with workspace.find(tmp_path, None).open() as opened, opened.store.transaction("me", 1.0) as tx:
        tx.add_tasks([NewTask("queued", str(tmp_path / "configs" / "queued.yml"), spec, 0)])
    return tmp_path


def loaded(folder: Path, *arguments: str) -> set[str]:
    """The modules that are loaded when the command has ended."""
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment |= {"TINKSCHED_LEASE_DIR": str(folder / "leases"), "HOME": str(folder)}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    code, *modules = done.stdout.split()
    assert code == "0", done.stderr
    return set(modules)


def of(modules: set[str], forbidden: set[str]) -> list[str]:
    return sorted(name for name in forbidden if name in modules or any(one.startswith(f"{name}.") for one in modules))


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["help"], ["help", "help"]], ids=" ".join)
def test_help_loads_no_more_than_what_prints_it(folder: Path, arguments: list[str]) -> None:
    assert of(loaded(folder, *arguments), WITHOUT_WORKSPACE) == []


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["status", "--all"]], ids=" ".join)
def test_status_loads_neither_typer_nor_rich_nor_what_starts_things(folder: Path, arguments: list[str]) -> None:
    modules = loaded(folder, *arguments)
    driver = {"pynvml"} & modules if os.path.exists("/proc/driver/nvidia") else set()  # then it must be asked
    assert of(modules, STATUS - driver) == []
    assert {"ruamel.yaml", "sqlite3", "tinksched.scheduler.deciding"} <= modules, "this test sees what is loaded"


def test_what_help_lists_is_what_the_commands_say_of_themselves() -> None:
    for name, said in COMMANDS.items():
        first = inspect.cleandoc(function(name).__doc__ or "").split("\n\n")[0]
        assert first.replace("\n", " ") == said


PLAIN = [
    ["status"],
    ["status", "--json"],
    ["status", "--json", "--all"],
    ["status", "--workspace", "w"],
    ["status", "--workspace=a=b", "--json"],
    ["status", "--config", "c.yml", "--workspace", "w w"],
    ["status", "--workspace", "a", "--workspace", "b"],
]


@pytest.mark.parametrize("arguments", PLAIN, ids=" ".join)
def test_a_plain_call_means_what_typer_makes_of_it(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tinksched.cli import status as in_full
    from tinksched.cli.app import app

    seen: list[Any] = []
    monkeypatch.setattr(in_full, "find", lambda context, workspace, config: (workspace, config))
    monkeypatch.setattr(quick, "show", lambda found, **options: seen.append((found, options)))
    app(arguments, prog_name="tinksched", standalone_mode=False)
    call = quick.understand(arguments)
    assert call is not None
    options = {"as_json": call.as_json, "everything": call.everything, "wanted": Wanted()}
    assert seen == [((call.workspace, call.config), options)]


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["start"], ["status", "--watch"], ["status", "--help"], ["status", "x"], ["status", "--workspace"],
        ["status", "--workspace", "--json"], ["status", "--jso"], ["status", "--json=1"], ["status", "--"],
        ["--workspace", "w", "status"], ["status", "--workspace="],
    ],
    ids=" ".join,
)  # fmt: skip
def test_all_that_is_not_plain_is_left_to_typer(arguments: list[str]) -> None:
    assert quick.understand(arguments) is None


# What speaks to a scheduler needs sockets and may have to start one; nobody of these needs a loop or a table.
CHANGES = NEVER - {"email", "http", "random", "secrets", "socket", "tempfile", "urllib.request", "multiprocessing"}


@pytest.mark.parametrize(
    "arguments",
    [["pause"], ["hold", "queued"], ["priority", "queued", "+1"], ["release", "--at", "+2h", "--all"],
     ["clean", "done", "--dry-run"], ["wait", "done"], ["complete-words", "logs", ""]],
    ids=" ".join,
)  # fmt: skip
def test_what_changes_the_queue_loads_no_loop_and_no_tables(folder: Path, arguments: list[str]) -> None:
    with workspace.find(folder, None).open() as opened, opened.store.transaction("me", 2.0) as tx:
        spec = TaskSpec(("x",), str(folder), str(folder / "out" / "done_completed.txt"), str(folder / "out"))
        (task,) = tx.add_tasks([NewTask("done", "", spec, 0)])
        active = tx.apply(task, Began(None))
        tx.apply(active, Finished(Outcome.COMPLETED, None))
    with workspace.find(folder, None).open() as opened, opened.store.transaction("me", 3.0) as tx:
        tx.set_fact(STOPPED, "by the test")
    assert of(loaded(folder, *arguments), CHANGES) == []


def test_names_of_tasks_are_completed_without_typer(folder: Path) -> None:
    assert of(loaded(folder, "complete-words", "logs", "q"), CHANGES | {"typer", "tinksched.operations.start"}) == []
