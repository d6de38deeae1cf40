"""Workspaces of an older scheduler, and those that came from elsewhere: migrated, called the old way, moved, copied."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import SCRIPT, Bench, Lab

TEMPLATE = Path(__file__).parents[2] / "templates" / "scheduler.sh"
OLD_CONFIG = """\
# Who we are
task_name: "T"                          # goes into the names of sessions
work_dir: "@FOLDER@"

# Where things lie
config_dir: 'configs'
script_path: train.sh                   # not Python at all
python_env: "/bin/sh"
output_dir: "out"

scheduler_session_suffix: "_scheduler"
worker_prefix: ''

max_jobs_per_gpu: 2
gpu_count: 2                            # the two big ones

check_interval: 20
startup_delay: 1
command_delay: 0.5

log_dir: "/tmp"
enable_logging: true

conda_env: "base"
cuda_visible_devices_var: "CUDA_VISIBLE_DEVICES"
config_pattern: "*.yml"

auto_restart_failed: false
max_retries: 3
cleanup_on_complete: false
"""


def old_workspace(lab: Lab, name: str = "old ws") -> Bench:
    """A workspace as an older scheduler left it: its wrapper, its 21 keys, and the marker of a task that is done."""
    folder = lab.folder / name
    (folder / "configs").mkdir(parents=True)
    (folder / "out").mkdir()
    (folder / "scheduler_config.yml").write_text(OLD_CONFIG.replace("@FOLDER@", str(folder)))
    (folder / "scheduler.sh").write_text('#!/bin/bash\nexec /gone/scheduler_main.sh "$PWD/scheduler_config.yml" "$@"\n')
    (folder / "scheduler.sh").chmod(0o755)
    (folder / "train.sh").write_text(SCRIPT)
    for task in ("done", "exp2", "exp10"):
        (folder / "configs" / f"{task}.yml").write_text(f"root_dir: {folder / 'out'}\ntext: hello\n")
    (folder / "out" / "done_completed.txt").write_text("long ago\n")
    return Bench(lab, folder)


def sh(bench: Bench, command: str, code: int = 0, **environment: str) -> str:
    """What a command line prints that somebody types in the workspace."""
    done = subprocess.run(
        ["sh", "-c", command], cwd=bench.folder, env={**bench.lab.environment, **environment},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, f"{command}: exit code {done.returncode}\n{done.stdout}"
    return done.stdout


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- migrating


def test_an_old_workspace_is_migrated_and_runs(lab: Lab) -> None:
    bench = old_workspace(lab)
    before = snapshot(bench.folder)
    lab.tmux("new-session", "-d", "-s", "T_scheduler", "cat")
    lab.tmux("new-session", "-d", "-s", "T_exp2_gpu0", "cat")

    # Without --force nothing happens, and it says how to go on.
    refused = bench.run("setup-workspace", ".", code=2)
    assert "nothing was changed" in refused.err and "--force migrates it" in refused.err
    assert snapshot(bench.folder) == before

    said = bench.run("setup-workspace", ".", "--force").out
    after = snapshot(bench.folder)
    for name in ("scheduler_config.yml", "scheduler.sh"):
        (backup,) = [other for other in after if other.startswith(f"{name}.bak-")]
        assert after[backup] == before[name]
        assert f"wrote {name}" in said and f"saved {backup}" in said
    assert {name for name in after if name not in before and ".bak-" not in name} == {".gitignore"}
    assert all(after[name] == before[name] for name in before if name.startswith(("configs/", "out/")))
    text = after["scheduler_config.yml"].decode()
    untouched = [line for line in text.splitlines() if line in OLD_CONFIG.replace("@FOLDER@", str(bench.folder))]
    assert len(untouched) >= len(OLD_CONFIG.splitlines()) - 2, "only startup_delay and conda_env may change"
    assert "startup_delay: 0   # tinksched: 1 became 0" in text

    # What means something else is named by its line, and what still runs by the command that ends it.
    for key in ("max_jobs_per_gpu", "startup_delay", "command_delay", "log_dir", "auto_restart_failed", "max_retries"):
        (line,) = re.findall(rf"^  scheduler_config\.yml:(\d+): {key}: ", said, re.MULTILINE)
        assert text.splitlines()[int(line) - 1].startswith(f"{key}: ")
    assert ("#conda_env: " in text) == ("conda_env: there is no conda" in said)
    assert "the sessions T_exp2_gpu0;" in said
    (end,) = re.findall(r"tmux kill-session -t '=T_scheduler'", said)
    assert {"T_scheduler", "T_exp2_gpu0"} <= set(lab.sessions()), "nothing was ended"
    sh(bench, end)
    lab.tmux("kill-session", "-t", "=T_exp2_gpu0")

    # The user takes the advice, and starts with the wrapper that was always there.
    (bench.folder / "scheduler_config.yml").write_text(text.replace('log_dir: "/tmp"', 'log_dir: "logs"'))
    plan = sh(bench, "./scheduler.sh start --dry-run")
    assert "would queue 2: exp2, exp10" in plan
    assert "left 1 completed (their markers were there before any run of them): done" in plan
    assert "2 completed" in sh(bench, "./scheduler.sh start --wait")
    assert bench.starts() == {"exp2": 1, "exp10": 1}
    bench.wait_until(lambda: bench.log("exp2") == "hello\n", "the log", 10)
    assert sorted(path.name for path in (bench.folder / "out").iterdir()) == [
        "done_completed.txt", "exp10_completed.txt", "exp2_completed.txt",
    ]  # fmt: skip

    # Migrating again finds nothing to do.
    bench.wait_for_scheduler_end()
    shutil.rmtree(
        bench.state.path, ignore_errors=True
    )  # what a scheduler that has just ended may still tidy there is not the point
    now = snapshot(bench.folder)
    again = bench.run("setup-workspace", ".", "--force").out
    assert "wrote" not in again and "saved" not in again and "looked at" not in again
    assert snapshot(bench.folder) == now


def test_a_config_that_can_not_be_loaded_is_left_alone_and_every_problem_listed(lab: Lab) -> None:
    bench = old_workspace(lab)
    path = bench.folder / "scheduler_config.yml"
    path.write_text(path.read_text() + "gpu_count: 4\nslack_channel: me\nplacement: nowhere\n")
    before = snapshot(bench.folder)
    answer = bench.run("setup-workspace", ".", "--force", code=2)
    count = path.read_text().count("\n")
    assert f"scheduler_config.yml:{count - 2}:1: duplicate key 'gpu_count'" in answer.err
    assert f"scheduler_config.yml:{count}:12: placement must be one of" in answer.err
    assert snapshot(bench.folder) == before


def test_logs_that_an_older_scheduler_left_in_a_shared_folder_are_not_written_to(lab: Lab) -> None:
    bench = old_workspace(lab)
    shared = lab.folder / "shared"
    (shared / "train_logs").mkdir(parents=True)
    (shared / "train_logs" / "exp2.log").write_text("of the old one\n")
    path = bench.folder / "scheduler_config.yml"
    path.write_text(path.read_text().replace('"/tmp"', f'"{shared}"'))
    bench.run("setup-workspace", ".", "--force")
    bench.run("start", "exp2.yml", "--wait")
    assert (shared / "train_logs" / "exp2.log").read_text() == "of the old one\n"
    (folder,) = shared.glob("train_logs-*")
    assert (folder / "exp2.log").read_text() == "hello\n"


def test_a_marker_of_before_counts_where_the_config_s_own_root_dir_has_it(lab: Lab) -> None:
    bench = old_workspace(lab)
    results = lab.folder / "results"
    results.mkdir()
    (results / "exp2_completed.txt").write_text("long ago\n")
    (bench.folder / "configs" / "exp2.yml").write_text(f"root_dir: '{results}'  # not out/\n")
    bench.run("setup-workspace", ".", "--force")
    assert "would queue 1: exp10\n" in bench.run("start", "--dry-run").out


# ---------------------------------------------------------------- called the old way


@pytest.mark.parametrize("found_by", ["path", "module"])
def test_a_wrapper_that_was_copied_by_hand_finds_the_program(lab: Lab, found_by: str) -> None:
    bench = lab.workspace("my ws", tasks={"a.yml": ""})
    shutil.copy(TEMPLATE, bench.folder / "scheduler.sh")
    assert "@TINKSCHED@" in (bench.folder / "scheduler.sh").read_text()
    programs = lab.folder / "programs"
    programs.mkdir()
    name, line = ("tinksched", "-m tinksched ") if found_by == "path" else ("python3", "")
    (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {line}"$@"\n')
    (programs / name).chmod(0o755)
    path = f"{programs}:/usr/local/bin:/usr/bin:/bin"
    assert "1 completed" in sh(bench, "cd / && '" + str(bench.folder) + "'/scheduler.sh start --wait", PATH=path)
    assert bench.starts() == {"a": 1}


def test_the_direct_form_of_the_old_program_works_from_anywhere(lab: Lab) -> None:
    bench = lab.workspace("my ws", tasks={"a.yml": "", "b.yml": ""})
    other = bench.folder / "other.yml"
    other.write_text((bench.folder / "scheduler_config.yml").read_text().replace('"T"', '"Other"'))
    answer = bench.run("../my ws/other.yml", "../my ws", "start", "b.yml,a.yml", "1", "--wait", cwd=bench.folder)
    assert "2 completed" in answer.out
    assert bench.tasks()["b"]["gpus"] == [1]
    direct = (str(other), str(bench.folder))
    assert json.loads(bench.run(*direct, "config", "--json", cwd=lab.folder).out)["file"] == str(other)
    assert bench.run(*direct, cwd=lab.folder).out.startswith("Other ")
    assert "setup-workspace" in bench.run(*direct, "help", cwd=lab.folder).out
    bench.run(*direct, "stop", code=None, cwd=lab.folder)
    bench.run(*direct, "start", "gone.yml", cwd=lab.folder, code=2)
    bench.run(*direct, "kill-all", cwd=lab.folder)


# ---------------------------------------------------------------- moved, and copied


def moved(bench: Bench) -> Bench:
    """The workspace at another place, with its wrapper."""
    place = bench.lab.folder / "another place"
    bench.folder.rename(place)
    return Bench(bench.lab, place)


def test_a_moved_workspace_keeps_its_state_and_goes_on(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "text: hello\n"})
    bench.run("setup-workspace", ".", "--force")
    bench.run("start", "--wait")
    bench.wait_for_scheduler_end()
    bench = moved(bench)
    assert bench.states() == {"a": "completed"}
    bench.add("b.yml")
    said = sh(bench, "cd / && '" + str(bench.folder) + "'/scheduler.sh start --wait")
    assert "queued 1: b" in said and "left 1 completed: a" in said
    bench.run("start", "a.yml", "--rerun", "--wait")
    assert bench.states() == {"a": "completed", "b": "completed"}


def test_what_failed_before_the_move_can_be_retried_after_it(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "code: 1\n"})
    bench.run("start", "--wait", code=1)
    bench.wait_for_scheduler_end()
    bench = moved(bench)
    bench.add("a.yml")
    bench.run("retry", "a")
    bench.wait_for_states(a="completed", seconds=20)


def test_what_was_queued_before_the_move_runs_at_the_new_place(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "code: 1\n", "b.yml": ""}, gpu_count=1, max_jobs_per_gpu=1)
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a")
    bench.run("stop")
    gate.open()
    bench.wait_until(lambda: bench.states()["a"] == "completed")
    bench = moved(bench)
    bench.run("start", "--wait")
    assert bench.states() == {"a": "completed", "b": "completed"}
    assert (bench.folder / "out" / "b_completed.txt").exists()


def test_the_log_of_a_run_is_found_after_a_move(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "text: hello\n"})
    bench.run("start", "--wait")
    bench.wait_until(lambda: bench.log("a") == "hello\n", "the log", 10)
    bench.wait_for_scheduler_end()
    assert moved(bench).run("logs", "a").out == "hello\n"


def test_a_workspace_of_another_host_is_refused_and_its_owner_named(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""})
    bench.run("start", "--wait")
    bench.wait_for_scheduler_end()
    home = bench.state.path / "home"
    record = json.loads(home.read_text())
    home.write_text(json.dumps({**record, "machine": "0" * 32, "host": "gpu7"}))
    before = home.read_bytes()
    for command in (["start"], ["status"], ["retry", "a"], ["kill-all"]):
        answer = bench.run(*command, code=2)
        assert "gpu7" in answer.err and "rm " in answer.err, "who works on it, and how to begin anew"
        assert str(bench.state.path) in answer.err
    assert home.read_bytes() == before
    bench.run("setup-workspace", ".", "--force")
    assert home.read_bytes() == before, "migrating is about the files of the user"
    shutil.rmtree(bench.state.path)
    bench.run("start", "--rerun", "--wait")
    assert bench.starts() == {"a": 2}


def test_a_copy_of_a_workspace_is_refused_until_it_has_a_state_of_its_own(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""})
    bench.run("start", "--wait")
    bench.wait_for_scheduler_end()
    copy = Bench(lab, lab.folder / "copy")
    shutil.copytree(bench.folder, copy.folder, ignore=lambda _, names: [n for n in names if n.endswith(".sock")])
    answer = copy.run("start", code=2)
    (command,) = re.findall(r"rm -r .+", answer.err)
    assert str(bench.folder) in answer.err
    sh(copy, command)
    copy.add("b.yml")
    copy.run("start", "--wait")
    assert copy.states() == {"a": "completed", "b": "completed"}, "a by its marker, which was copied"
    assert bench.states() == {"a": "completed"}
    assert os.path.exists(copy.folder / "out" / "b_completed.txt")
