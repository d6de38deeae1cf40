"""Bad input gets one clear message and exit code 2, and nothing starts."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.support import Bench, Lab


@pytest.fixture
def bench(lab: Lab) -> Bench:
    """A workspace with two configs that would run."""
    return lab.workspace(tasks={"exp1.yml": "", "exp2.yml": ""})


def refused(bench: Bench, *arguments: str, says: tuple[str, ...], code: int = 2, **environment: str) -> str:
    """The command is refused with all these words, and nothing has begun."""
    answer = bench.run(*arguments, code=code, **environment)
    for words in says:
        assert words in answer.err, f"{words!r} is not in: {answer.err}"
    assert bench.starts() == {}
    assert not any(name.startswith("T_") for name in bench.lab.sessions())
    return answer.err


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"script_path": "nothing.py"}, ("script_path", "nothing.py", "does not exist")),
        ({"script_path": "configs"}, ("script_path", "is a folder")),
        ({"python_env": "/no/python"}, ("python_env", "/no/python")),
        ({"python_env": "no-such-python"}, ("python_env", "no-such-python", "PATH")),
        ({"python_env": "configs/exp1.yml"}, ("python_env", "can't be executed")),
        ({"work_dir": "nowhere"}, ("work_dir", "nowhere")),
        ({"config_dir": "nowhere"}, ("config_dir", "nowhere")),
        ({"gpu_count": 0}, ("scheduler_config.yml:4:", "gpu_count")),
        ({"gpu_cuont": 1}, ("unknown key 'gpu_cuont'", "gpu_count")),
        ({"tasks": {"exp1": {"gpus": 3}}}, ("exp1 needs 3 GPUs", "GPU 0, 1")),
        ({"use_gpus": [0, 0]}, ("use_gpus", "0")),
        ({"output_dir": "train.sh/out"}, ("output_dir",)),
        ({"log_dir": "train.sh/logs"}, ("log_dir",)),
    ],
)
def test_settings_that_can_not_work(bench: Bench, settings: dict[str, object], says: tuple[str, ...]) -> None:
    bench.reconfigure(**settings)
    refused(bench, "start", says=says)
    refused(bench, "start", "--dry-run", says=says)


def test_everything_wrong_is_listed_at_once(bench: Bench) -> None:
    bench.reconfigure(script_path="nothing.py", python_env="/no/python", work_dir="nowhere")
    refused(bench, "start", says=("script_path", "python_env", "work_dir"))
    (bench.folder / "scheduler_config.yml").write_text("task_name: T\nmax_jobs: 3\ngpu_count: two\nplacement: tight\n")
    refused(bench, "start", says=(":2:1:", ":3:", ":4:", "max_jobs_per_gpu"))


def test_yaml_that_is_none(bench: Bench) -> None:
    (bench.folder / "scheduler_config.yml").write_text("task_name: [1\n  x: }")
    refused(bench, "start", says=("scheduler_config.yml:",))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("exp3.yml",), ("no config 'exp3.yml'", "did you mean")),
        (("exp1.yml,zzz",), ("no config 'zzz'",)),
        (("a*.yml",), ("no config matches 'a*.yml'",)),
        (("exp1.yml,exp1",), ("is named twice",)),
        (("exp1.yml", "7"), ("GPU '7'", "0, 1")),
        (("exp1.yml", "x"), ("GPU 'x'",)),
        (("exp1.yml", "-1"), ()),
        (("exp1.yml", "0,1"), ("2 GPUs are named for 1 config",)),
        (("exp1.yml", ""), None),
        (("--wait", "--foreground"), ("can't be used together",)),
        (("--no-such-option",), ("No such option",)),
    ],
)
def test_lists_that_mean_nothing(bench: Bench, arguments: tuple[str, ...], says: tuple[str, ...] | None) -> None:
    if says is None:
        bench.run("start", "--dry-run", *arguments)
    else:
        refused(bench, "start", *arguments, says=says)


def test_an_empty_config_folder(lab: Lab) -> None:
    bench = lab.workspace(tasks={"_base.yml": "", ".hidden.yml": "", "notes.txt": ""})
    refused(bench, "start", says=("holds no task config", "*.yml"))


def test_two_configs_for_one_task(bench: Bench) -> None:
    bench.add("exp1.yaml")
    refused(bench, "start", says=("exp1.yml", "exp1.yaml", "the task 'exp1'"))


def test_no_workspace_here(lab: Lab, tmp_path: Path) -> None:
    bench = lab.workspace()
    empty = tmp_path / "empty"
    empty.mkdir()
    for command in ("start", "status", "stop", "kill-all", "config"):
        assert "not in a workspace" in bench.run(command, cwd=empty, code=2).err
    assert "no such folder" in bench.run("start", "--workspace", str(empty / "x"), code=2).err
    assert "Usage" in bench.run(cwd=empty).out


def test_no_tmux_and_a_tmux_that_is_too_old(bench: Bench, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "flock", "env", "python3"):
        (programs / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    refused(bench, "start", says=("tmux is not installed", "tmux"), PATH=str(programs))
    fake = programs / "tmux"
    fake.write_text("#!/bin/sh\necho 'tmux 3.1c'\n")
    fake.chmod(0o755)
    refused(bench, "start", says=("tmux 3.1c is too old", "3.2a"), PATH=str(programs))
    bench.reconfigure(executor="local")
    bench.run("start", "--wait", PATH=str(programs))


def test_a_database_of_a_newer_version_is_left_alone(bench: Bench) -> None:
    bench.run("start", "--dry-run")
    bench.state.path.mkdir(mode=0o700)
    connection = sqlite3.connect(bench.state.database)
    connection.executescript("PRAGMA application_id = 0x74696e6b; CREATE TABLE x (y); PRAGMA user_version = 999;")
    connection.close()
    before = bench.state.database.read_bytes()
    for command in (("start",), ("status",), ("stop",), ("kill-all",)):
        refused(bench, *command, says=("newer tinksched", "999"))
    assert bench.state.database.read_bytes() == before


def test_a_database_that_is_none_is_left_alone(bench: Bench) -> None:
    bench.state.path.mkdir(mode=0o700)
    bench.state.database.write_bytes(b"this is no database, but somebody's only copy of something" * 40)
    before = bench.state.database.read_bytes()
    for command in ("start", "status"):
        refused(bench, command, says=("state.db", "left as it is"))
    assert bench.state.database.read_bytes() == before


def test_a_workspace_of_another_host(bench: Bench) -> None:
    bench.run("start", "--wait")
    home = bench.state.path / "home"
    record = json.loads(home.read_text())
    home.write_text(json.dumps({**record, "host": "box7", "machine": "f" * 32}))
    for command in ("start", "status", "stop"):
        assert "worked on by the host box7" in bench.run(command, code=2).err


def test_a_copied_workspace_and_a_moved_one(bench: Bench, lab: Lab) -> None:
    bench.run("start", "--wait")
    bench.wait_for_scheduler_end()
    copy = lab.folder / "copy"
    shutil.copytree(bench.folder, copy, ignore=shutil.ignore_patterns("wake"))
    other = Bench(lab, copy)
    assert "is a copy of the workspace" in other.run("start", code=2).err
    shutil.rmtree(bench.folder)
    assert "left 2 completed" in other.run("start").out


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a file system and files of another user")
def test_a_workspace_of_somebody_else(bench: Bench) -> None:
    os.chown(bench.folder, 12345, 12345)
    refused(bench, "start", says=("belongs to uid 12345",))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a read-only file system")
def test_a_workspace_on_a_read_only_disk(bench: Bench, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    try:
        shutil.copytree(bench.folder, place / "ws")
        (place / "ws" / "out").mkdir()
        (place / "ws" / "logs").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        copy = Bench(bench.lab, place / "ws")
        refused(copy, "start", says=("can't be written",))
        assert "2 new" in copy.run("status").out
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_lease_folder_that_can_not_be_made(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(bench, "start", says=("GPU leases can't be made",), TINKSCHED_LEASE_DIR=str(tmp_path / "file" / "leases"))


def test_unknown_commands_and_helps(bench: Bench) -> None:
    assert "there is no command 'strat'\n    did you mean start" in bench.run("strat", code=2).err
    assert "did you mean start" in bench.run("help", "strat", code=2).err
    assert "CONFIG_LIST" in bench.run("help", "start").out
    assert "kill-all" in bench.run("help").out
    assert "kill-all" in bench.run("--help").out


def test_an_impossible_task_is_refused_before_anything_is_queued(bench: Bench) -> None:
    bench.reconfigure(tasks={"exp2": {"gpus": 2}})
    refused(bench, "start", "exp2.yml", "0", says=("exp2 needs 2 GPUs", "pins it to one"))
    assert set(bench.states().values()) == {"new"}
