"""`tinksched run`: any command as a task, in a workspace or without one."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import Answer, Bench, Lab


def run_anywhere(lab: Lab, *arguments: str, code: int | None = 0, **environment: str) -> Answer:
    """A command of tinksched in a folder that belongs to no workspace."""
    folder = lab.folder / "somewhere"
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "tinksched", *arguments], cwd=folder, env={**lab.environment, **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return Answer(done.returncode, done.stdout, done.stderr)


def personal(lab: Lab) -> Bench:
    """The personal workspace of the laboratory's user."""
    return Bench(lab, Path(lab.environment["HOME"]) / ".local" / "state" / "tinksched" / "personal")


def drain(bench: Bench) -> None:
    assert bench.run("wait", code=None).code in (0, 1, 3)


# ---------------------------------------------------------------- in a workspace


def test_a_command_runs_where_and_as_its_caller_would_run_it(lab: Lab) -> None:
    bench = lab.workspace(environment={"ONLY": "for configs"}, args=["--never"], pre_run="exit 1")
    place = bench.folder / "a b"
    place.mkdir()
    program = 'import os, sys; print(sys.argv[1:], os.getcwd(), os.environ["MINE"], os.environ.get("ONLY"))'
    words = ["", "{config}", "{{x}}", "$HOME", "a'b\"c", "--wait", "-n", "é"]
    answer = bench.run("run", "--wait", "--", sys.executable, "-c", program, *words, cwd=place, MINE="my own")
    assert answer.out.splitlines()[0] == "queued " + Path(sys.executable).name.replace(".", "_") + " (number 1)"
    assert answer.out.splitlines()[-3].endswith(" completed")
    (line,) = bench.run("logs", "@").out.splitlines()
    assert line == f"{words} {place} my own None"
    (task,) = bench.status()["tasks"]
    assert (task["state"], task["config"], task["config_changed"]) == ("completed", None, False)
    assert task["session"] == f"T_{task['name']}_gpu0"
    assert (bench.folder / "out" / f"{task['name']}_completed.txt").exists(), "the same records as a config's task"


def test_options_end_at_the_command_with_or_without_two_dashes(lab: Lab) -> None:
    bench = lab.workspace()
    bench.run("run", "--name", "one", "echo", "--name", "two", "--wait")
    bench.run("run", "--name", "three", "--", "echo", "--", "x")
    drain(bench)
    assert (bench.run("logs", "one").out, bench.run("logs", "three").out) == ("--name two --wait\n", "-- x\n")
    assert "Missing argument" in bench.run("run", code=2).err
    assert "No such option" in bench.run("run", "--gpu", "echo", code=2).err


def test_exit_codes_of_wait_and_a_failed_command_that_is_tried_again(lab: Lab) -> None:
    bench = lab.workspace(executor="local")
    switch = bench.folder / "works"
    answer = bench.run("run", "--wait", "--name", "flaky", "--", "test", "-e", str(switch), code=1)
    assert "flaky failed: exit code 1" in answer.out and "1 failed" in answer.err
    switch.touch()
    assert bench.run("retry", "@").out == "queued again: flaky\n"
    bench.wait_for_states(flaky="completed")
    shown = json.loads(bench.run("show", "flaky", "--json").out)
    assert [run["exit_code"] for run in shown["runs"]] == [1, 0] and shown["config"] is None
    assert f"command    test -e {switch}" in bench.run("show", "flaky").out


def test_names_are_unique_among_tasks_configs_and_markers(lab: Lab) -> None:
    bench = lab.workspace(tasks={"train.yml": ""}, executor="local")
    (bench.folder / "out").mkdir()
    (bench.folder / "out" / "train_2_completed.txt").write_text("of before")
    (bench.folder / "train.py").write_text("print(1)\n")
    names = [json.loads(bench.run("run", "--json", "--", sys.executable, "train.py").out)["task"] for _ in range(3)]
    assert names == ["train_3", "train_4", "train_5"]
    for name, why in (
        ("train_3", "there is a task of this name already"), ("train", "there is a config of this name"),
        ("train_2", "there is a completion marker of this name"), ("a/b", "must not hold '/'"),
        ("", "must not be empty"), ("@x", "must not begin with"), ("a\nb", "must be printable"),
        ("x" * 200, "must not be longer than"),
    ):  # fmt: skip
        assert why in bench.run("run", "--name", name, "--", "true", code=2).err
    drain(bench)
    assert len(bench.tasks()) == 4
    assert bench.run("start").out.startswith("queued 1: train\n"), "configs go on as before"


def test_a_name_that_only_tmux_takes_for_another_is_refused(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1, max_jobs_per_gpu=1)
    bench.run("pause")
    bench.run("run", "--name", "a.b", "--", "true")
    answer = bench.run("run", "--name", "a:b", "--", "true", code=2)
    assert "the session of another task would have the same name" in answer.err
    bench.run("kill-all")


def test_a_config_that_gets_the_name_of_a_command_is_refused_by_name(lab: Lab) -> None:
    bench = lab.workspace(executor="local")
    bench.run("run", "--name", "later", "--wait", "--", "true")
    bench.add("later.yml")
    answer = bench.run("start", code=2)
    assert "'later' is the name of a command that `tinksched run` queued" in answer.err
    assert "tinksched clean later" in answer.err
    bench.run("clean", "later", "--yes")
    (bench.folder / "out" / "later_completed.txt").unlink()
    bench.run("start", "--wait")
    assert bench.states() == {"later": "completed"}


def test_what_comes_after_what(lab: Lab) -> None:
    bench = lab.workspace(executor="local")
    gate = bench.gate()
    bench.run("run", "--name", "first[1]", "--", "flock", "-s", str(gate.path), "true")
    bad = bench.gate("bad")
    bench.run("run", "--name", "bad", "--", "flock", "-s", str(bad.path), "false")
    bench.run("run", "--name", "second", "--after", "first[1]", "--", "true")
    bench.run("run", "--name", "third", "--after", "1", "--after", "second", "--", "true")
    bench.run("run", "--name", "never", "--after", "bad", "--", "true")
    bench.run("run", "--name", "glob", "--after", "[fs]*", "--", "true")
    assert "--after: there is no task 'frist'" in bench.run("run", "--after", "frist", "--", "true", code=3).err
    bad.open()
    bench.wait_for_states(never="failed")
    tasks = bench.tasks()
    assert tasks["second"]["reason"]["text"] == "comes after first[1]"
    assert tasks["third"]["reason"]["text"] == "comes after first[1], second"
    assert tasks["never"]["reason"]["code"] == "dependency"
    gate.open()
    bench.wait_for_states(third="completed", glob="completed")


def test_at_a_time_and_while_all_is_paused(lab: Lab) -> None:
    bench = lab.workspace(executor="local")
    at = time.time() + 2
    bench.run("run", "--name", "later", "--at", "+2s", "--", "sh", "-c", 'date +%s.%N >"$TINKSCHED_TASK"')
    assert bench.tasks()["later"]["reason"]["code"] == "held_until"
    bench.wait_for_states(later="completed")
    assert at - 0.1 <= float((bench.folder / "later").read_text()) < at + 2
    bench.run("pause")
    assert "it starts after `tinksched resume`" in bench.run("run", "--name", "b", "--", "true").err
    bench.run("resume")
    bench.wait_for_states(b="completed")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--", "no-such-program", "x"], "there is no program 'no-such-program' on PATH"),
        (["--", "./configs"], "there is no program './configs' in "),
        (["--", "./missing"], "there is no program './missing' in "),
        (["--", ""], "there is no program '' on PATH"),
        (["--", "cd", "/"], "sh -c"),
        (["--gpus", "two", "--", "true"], "--gpus must be a whole number of at least"),
        (["--gpus", "9", "--", "true"], "true needs 9 GPUs, and the scheduler uses GPU 0, 1"),
        (["--memory", "20", "--", "true"], "a size needs a unit"),
        (["--at", "tomorrow", "--", "true"], "--at must be a time, not 'tomorrow'"),
        (["--cwd", "nowhere", "--", "true"], "--cwd: there is no folder"),
    ],
)
def test_what_can_not_run_is_refused_at_once(lab: Lab, arguments: list[str], said: str) -> None:
    bench = lab.workspace()
    assert said in bench.run("run", *arguments, code=2).err
    assert bench.status()["tasks"] == [] and lab.sessions() == []


def test_cwd_and_the_rules_of_the_configuration(lab: Lab) -> None:
    bench = lab.workspace(
        tasks={}, auto_restart_failed=True, max_retries=1, retry_delay="0.1s", retry_args=["--resume"],
        time_limit="30s",
    )  # fmt: skip
    bench.run("run", "--name", "x", "--cwd", "configs", "--gpus", "2", "--", "sh", "-c", 'pwd; echo "$*"; exit 3', "sh")
    bench.wait_for_states(x="failed")
    assert bench.run("logs", "x").out == f"{bench.folder / 'configs'}\n\n", "arguments are its own, at a retry too"
    shown = json.loads(bench.run("show", "x", "--json").out)
    assert (len(shown["runs"]), shown["time_limit"], shown["runs"][0]["gpus"]) == (2, 30, [0, 1])


def test_a_command_survives_its_scheduler_and_is_repaired_with_the_rest(lab: Lab) -> None:
    bench = lab.workspace()
    gate = bench.gate()
    bench.run("run", "--name", "x", "--", "flock", "-s", str(gate.path), "echo", "still here")
    bench.wait_for_states(x="running")
    os.kill(bench.scheduler_pid(), signal.SIGKILL)
    bench.state.database.write_bytes(b"")
    for side in ("-wal", "-shm"):
        Path(f"{bench.state.database}{side}").unlink(missing_ok=True)
    bench.run("doctor", "--repair")
    assert bench.run("start").code == 0, "there are no configs, and something is queued or runs"
    gate.open()
    bench.wait_for_states(x="completed")
    assert bench.run("logs", "x").out == "still here\n"
    bench.wait_for_scheduler_end()
    assert "holds no task config" in bench.run("start", code=2).err


# ---------------------------------------------------------------- without a workspace


def test_outside_of_every_workspace_there_is_a_personal_one(lab: Lab) -> None:
    assert "is not in a workspace" in run_anywhere(lab, "status", code=2).err
    answer = run_anywhere(lab, "run", "--wait", "--", "sh", "-c", "pwd; echo $HELLO", HELLO="it's me")
    assert answer.out.startswith("queued sh (number 1)\n")
    assert run_anywhere(lab, "logs", "@").out == f"{lab.folder / 'somewhere'}\nit's me\n"
    bench = personal(lab)
    assert str(bench.folder) in run_anywhere(lab, "status").out
    for folder in (bench.folder, bench.folder.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    bench.wait_for_scheduler_end()
    run_anywhere(lab, "run", "--wait", "--", "true")
    assert bench.states() == {"sh": "completed", "true": "completed"}
    other = lab.workspace()
    assert json.loads(other.run("run", "--json", "--", "true").out)["workspace"] == str(other.folder)
    drain(other)


def test_the_state_folder_of_the_user_is_where_xdg_says(lab: Lab) -> None:
    place = lab.folder / "state home"
    record = json.loads(run_anywhere(lab, "run", "--json", "--", "true", XDG_STATE_HOME=str(place)).out)
    assert record == {
        "version": 1, "command": "run", "done": ["true"], "left": {},
        "task": "true", "number": 1, "workspace": str(place / "tinksched" / "personal"),
    }  # fmt: skip
    run_anywhere(lab, "wait", code=None, XDG_STATE_HOME=str(place))
    assert not personal(lab).folder.exists()
    (lab.folder / "file").write_text("")
    answer = run_anywhere(lab, "run", "--", "true", code=2, XDG_STATE_HOME=str(lab.folder / "file"))
    assert "the personal workspace can't be made" in answer.err


def test_two_that_begin_the_personal_workspace_at_once(lab: Lab) -> None:
    folder = lab.folder / "somewhere"
    folder.mkdir()
    command = [sys.executable, "-m", "tinksched", "run", "--", "sh", "-c", "echo >$TINKSCHED_TASK"]
    running = [
        subprocess.Popen(command, cwd=folder, env=lab.environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for one in running:
        _, err = one.communicate(timeout=60)
        assert one.returncode == 0, err
    run_anywhere(lab, "wait", code=None)
    assert sorted(path.name for path in folder.iterdir()) == ["sh", "sh_2", "sh_3", "sh_4"]
