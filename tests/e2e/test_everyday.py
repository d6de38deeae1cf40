"""The everyday commands with a real scheduler: selectors, wait, pause, hold, release, priority."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass

import pytest

from tests.e2e.test_output import read_terminal
from tests.support import Bench, Gate, Lab


@dataclass(frozen=True)
class Busy:
    """A workspace with one slot: exp1 runs until the gate opens; exp2, exp3 and other wait."""

    bench: Bench
    gate: Gate


@pytest.fixture
def busy(lab: Lab) -> Busy:
    bench = lab.workspace(gpu_count=1, max_jobs_per_gpu=1)
    gate = bench.gate()
    bench.add("exp1.yml", gate.config)
    for name in ("exp2", "exp3", "other"):
        bench.add(f"{name}.yml")
    bench.run("start")
    bench.wait_for_starts("exp1")
    return Busy(bench, gate)


def drain(bench: Bench) -> None:
    """Until nothing is left to do, which may be so already."""
    assert bench.run("wait", code=None).code in (0, 3)


def until_it_listens(bench: Bench) -> None:
    """Until a command follows what the scheduler announces, besides this test itself."""
    bench.wait_until(lambda: len(os.listdir(bench.state.path / "listeners")) > 1, "a listener")


def order(bench: Bench) -> list[str]:
    return [line.task for line in bench.record() if line.what == "start"]


# ---------------------------------------------------------------- selectors


def test_every_command_takes_the_same_selectors(busy: Busy) -> None:
    bench = busy.bench
    numbers = {name: task["number"] for name, task in bench.tasks().items()}
    assert numbers == {"exp1": 1, "exp2": 2, "exp3": 3, "other": 4}
    assert bench.run("hold", "exp[23]").out == "held: exp2, exp3\n"
    assert bench.run("release", "2-3").out == "released: exp2, exp3\n"
    assert bench.run("priority", "@", "5").out == "priority 5: other\n"
    assert bench.run("explain", "@~1").out.startswith("exp3: queued")
    assert bench.run("show", "1").out.startswith("exp1: running")
    assert "no such file" not in bench.run("logs", "exp1*").err
    assert bench.run("cancel", "3,2").out == "cancelled: exp3, exp2\n"
    assert bench.run("retry", "exp2.yml").out == "queued again: exp2\n"
    busy.gate.open()
    assert bench.run("wait", "exp1", "@").code == 0
    assert bench.run("clean", "--yes", "3").out.startswith("removed 1 record")
    assert bench.tasks()["exp3"]["state"] == "new", "it is a config again that was never queued"


def test_status_shows_the_numbers_where_there_are_any(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "", "b.yml": ""})
    assert "#" not in bench.run("status").out.replace("##", "")
    bench.run("start", "a.yml", "--wait")
    lines = bench.run("status").out.splitlines()
    assert any(line.startswith("#  TASK") for line in lines)
    assert any(line.startswith("1  a ") for line in lines) and any(line.startswith("   b ") for line in lines)
    assert bench.tasks()["b"]["number"] is None


@pytest.mark.parametrize(
    "line",
    ["cancel X", "retry X", "hold X", "release X", "wait X", "clean --yes X", "priority X 5", "run --after X -- true",
     "logs X", "attach X", "explain X", "show X"],
)  # fmt: skip
def test_what_matches_nothing_is_exit_code_3_with_near_names(busy: Busy, line: str) -> None:
    def said(selector: str) -> str:
        words = [selector if word == "X" else word for word in line.split()]
        return busy.bench.run(*words, code=3).err

    busy.gate.open()
    assert "there is no task 'exq1'" in said("exq1") and "did you mean exp1" in said("exq1")
    assert "no task matches 'zz*'" in said("zz*")
    assert "no task has the number 77" in said("77")
    assert "there is no task" in said(os.fsdecode(b"\xff\xfe"))


@pytest.mark.parametrize("command", ["logs", "attach"])
def test_where_one_task_is_wanted_several_are_named(busy: Busy, command: str) -> None:
    bench = busy.bench
    answer = bench.run(command, "exp*", code=2)
    assert "'exp*' means 3 tasks, and one is wanted: exp1, exp2, exp3" in answer.err


@pytest.mark.parametrize("command", ["cancel", "retry", "hold", "release"])
def test_no_selector_at_all_is_wrong_use_that_names_the_choices(lab: Lab, command: str) -> None:
    bench = lab.workspace(tasks={"a.yml": ""})
    bench.run("start", "--wait")
    assert "--all" in bench.run(command, code=2).err


def test_partial_success_names_both_sets(busy: Busy) -> None:
    bench = busy.bench
    answer = bench.run("hold", "exp*", code=1)
    assert answer.out == "held: exp2, exp3\n" and answer.err == "left: exp1 is running\n"
    bench.run("cancel", "exp3")
    answer = bench.run("cancel", "exp2", "exp3")
    assert answer.out == "cancelled: exp2\n" and answer.err == "left: exp3 is cancelled\n"
    answer = bench.run("retry", "exp*", code=1)
    assert answer.out == "queued again: exp2, exp3\n" and "left: exp1 is running" in answer.err
    answer = bench.run("priority", "exp1", "exp3", "9", "--json", code=1)
    assert json.loads(answer.out)["done"] == ["exp3"]
    assert json.loads(answer.out)["left"] == {"exp1": "is running"}
    assert bench.run("hold", "exp1", code=3).err == "tinksched: nothing to do: exp1 is running\n"


# ---------------------------------------------------------------- wait


def test_wait_prints_each_change_with_its_time_and_says_how_it_went(busy: Busy) -> None:
    bench = busy.bench
    bench.add("other.yml", "code: 3\n")
    waiting = bench.spawn("wait")
    until_it_listens(bench)
    busy.gate.open()
    out, _ = waiting.communicate(timeout=60)
    lines = out.splitlines()
    assert waiting.returncode == 1
    changes = [line.split("  ", 1)[1] for line in lines[:-1]]
    assert [line for line in changes if "exp" in line] == [
        "exp1 completed", "exp2 running", "exp2 completed", "exp3 running", "exp3 completed",
    ]  # fmt: skip
    assert changes[-1] == "other failed: exit code 3"
    assert all(time.strptime(line[:8], "%H:%M:%S") for line in lines[:-1])
    assert lines[-1] == "3 completed, 1 failed"
    assert bench.run("wait", "exp*").code == 0
    assert bench.run("wait", "exp1", "other", code=1).out.splitlines()[-1].endswith("other failed: exit code 3")
    answer = bench.run("wait", code=1)
    assert {line.split()[1] for line in answer.out.splitlines()} == {"exp1", "exp2", "exp3", "other"}


def test_wait_for_what_is_done_already_tells_how_it_ended(lab: Lab) -> None:
    bench = lab.workspace(executor="local", tasks={"good.yml": "", "bad.yml": "code: 3"})
    assert "nothing was ever queued" in bench.run("wait", code=3).err
    bench.run("start", "bad", "--wait", code=1)
    assert bench.run("wait", code=1).out.endswith("bad failed: exit code 3\n")
    bench.run("start", "good", "--wait", code=0)
    assert bench.run("wait").out.endswith("good completed\n"), "what was queued last, and nothing before"
    assert bench.run("wait", "good").err == "1 completed\n" and bench.run("wait", "--any", "bad", code=1)
    bench.run("clean", "--all", "--yes")
    assert "no task is on record" in bench.run("wait", code=3).err
    assert "good completed: its completion marker was there" in bench.run("wait", "good.yml").err
    bench.run("start", "bad", "--wait", code=1)
    assert bench.run("wait", "good", "bad", code=1).out.endswith("bad failed: exit code 3\n")
    assert "there is no task 'god'" in bench.run("wait", "good", "god", code=3).err


def test_wait_for_the_first_and_with_a_limit(busy: Busy) -> None:
    bench = busy.bench
    begun = time.monotonic()
    answer = bench.run("wait", "exp2", "--timeout", "0.5s", code=124)
    assert "1 of 1 tasks are not done in time" in answer.err and 0.5 <= time.monotonic() - begun < 10
    assert "--timeout must be a duration" in bench.run("wait", "--timeout", "soon", code=2).err
    bench.run("cancel", "other")
    assert bench.run("wait", "--any", "exp1", "other", code=1).out.endswith("other cancelled: cancelled by root\n")
    waiting = bench.spawn("wait", "--any", "--json", "exp1", "exp2")
    until_it_listens(bench)
    busy.gate.open()
    out, _ = waiting.communicate(timeout=60)
    record = json.loads(out.splitlines()[0])
    assert waiting.returncode == 0
    assert (record["version"], record["task"], record["number"], record["state"]) == (1, "exp1", 1, "completed")


def test_wait_says_at_once_that_no_scheduler_runs(busy: Busy) -> None:
    bench = busy.bench
    bench.run("stop")
    answer = bench.run("wait", "exp2", code=1)
    assert "the scheduler ended, and 1 of 1 tasks are not done" in answer.err and "tinksched start" in answer.err


def test_wait_brings_a_scheduler_back_that_was_killed(busy: Busy) -> None:
    bench = busy.bench
    pid = bench.scheduler_pid()
    os.kill(pid, signal.SIGKILL)
    busy.gate.open()
    assert bench.run("wait").code == 0
    assert set(bench.states().values()) == {"completed"}


# ---------------------------------------------------------------- pause and resume


def test_a_pause_drains_and_lasts_until_resume(busy: Busy) -> None:
    bench = busy.bench
    answer = bench.run("pause")
    assert answer.out.splitlines() == [
        "paused: nothing new starts", "1 running on: exp1", "3 queued, and waiting for `tinksched resume`",
    ]  # fmt: skip
    assert "already" in bench.run("pause").out
    busy.gate.open()
    bench.wait_for_states(exp1="completed")
    status = bench.status()
    assert status["scheduler"]["paused"]["user"] == "root"
    assert {task["reason"]["code"] for task in status["tasks"] if task["state"] == "queued"} == {"paused"}
    assert ", paused by root " in bench.run("status").out.splitlines()[0]
    assert "paused by root" in bench.run("explain", "exp2").out
    bench.run("stop")
    answer = bench.run("start")
    assert "nothing starts before `tinksched resume`" in answer.err, "it survives a restart, and start says so"
    assert bench.starts() == {"exp1": 1}
    waiting = bench.spawn("wait")
    assert waiting.stdout is not None
    assert "paused by root" in waiting.stdout.readline()
    assert bench.run("resume").out.startswith("resumed: it was paused by root ")
    assert waiting.wait(60) == 0
    waiting.stdout.close()
    assert "nothing is paused here" in bench.run("resume", code=3).err
    assert bench.starts() == {"exp1": 1, "exp2": 1, "exp3": 1, "other": 1}


def test_a_pause_before_anything_was_queued(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""})
    bench.run("pause")
    bench.run("start")
    assert bench.tasks()["a"]["reason"]["code"] == "paused"
    bench.run("cancel", "a")
    bench.run("resume")
    bench.wait_for_scheduler_end()
    assert bench.starts() == {}


def test_while_all_is_paused_what_came_after_a_failed_one_is_given_up(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1)
    gate = bench.gate()
    bench.reconfigure(tasks={"b": {"after": "a"}})
    bench.add("a.yml", f"{gate.config}code: 1\n")
    bench.add("b.yml")
    bench.run("start")
    bench.wait_for_starts("a")
    bench.run("pause")
    gate.open()
    bench.wait_for_states(a="failed", b="failed")
    bench.wait_for_scheduler_end()


# ---------------------------------------------------------------- hold, release, priority


def test_a_held_task_is_passed_by_until_it_is_released(busy: Busy) -> None:
    bench = busy.bench
    bench.run("hold", "exp2", "exp3")
    task = bench.tasks()["exp2"]
    busy.gate.open()
    bench.wait_for_states(other="completed")
    task = bench.tasks()["exp2"]
    assert task["state"] == "queued" and task["reason"]["code"] == "held"
    assert task["reason"]["text"].startswith("held by root since ")
    assert json.loads(bench.run("show", "exp2", "--json").out)["hold"]["user"] == "root"
    assert "is held already" in bench.run("hold", "exp2", code=3).err
    assert "is not held" not in bench.run("release", "--all").err
    drain(bench)
    assert order(bench) == ["exp1", "other", "exp2", "exp3"]


def test_a_task_releases_itself_at_its_time(busy: Busy) -> None:
    bench = busy.bench
    busy.gate.open()
    bench.wait_for_states(other="completed")
    drain(bench)
    bench.add("late.yml")
    bench.run("pause")
    bench.run("start")
    at = time.time() + 8
    assert "released at " in bench.run("release", "late", "--at", "+8s").out
    bench.run("resume")
    assert bench.tasks()["late"]["reason"]["code"] == "held_until"
    assert "not before " in bench.run("explain", "late").out
    assert bench.run("wait", "late", "--timeout", "40s").code == 0
    (start,) = [line.at for line in bench.record() if line.what == "start" and line.task == "late"]
    assert at <= start < at + 8, "neither before it nor a check_interval (20 s) after it"


@pytest.mark.parametrize("text", ["soon", "25:00", "", "2020-01-01", "+x"])
def test_a_time_that_is_none_changes_nothing(busy: Busy, text: str) -> None:
    bench = busy.bench
    answer = bench.run("release", "exp2", "--at", text, code=2)
    assert "--at" in answer.err and "exp2" not in answer.out
    assert bench.tasks()["exp2"]["reason"]["code"] == "gpus_full"


def test_a_hold_survives_a_killed_scheduler_and_ends_with_a_cancel(busy: Busy) -> None:
    bench = busy.bench
    bench.run("hold", "exp2")
    os.kill(bench.scheduler_pid(), signal.SIGKILL)
    busy.gate.open()
    bench.run("start")
    bench.wait_for_states(other="completed", exp2="queued")
    assert bench.run("cancel", "exp2").out == "cancelled: exp2\n"
    bench.wait_for_scheduler_end()
    bench.run("retry", "exp2")
    bench.wait_for_states(exp2="completed")


def test_release_brings_a_scheduler_back_that_nobody_stopped(busy: Busy) -> None:
    bench = busy.bench
    bench.run("hold", "--all")
    os.kill(bench.scheduler_pid(), signal.SIGKILL)
    busy.gate.open()
    bench.wait_until(lambda: len(bench.record()) == 2, "the end of exp1")
    assert "scheduler started" in bench.run("release", "--all").err
    drain(bench)
    bench.run("stop", code=None)
    bench.add("again.yml")
    bench.run("pause")
    bench.run("start")
    bench.run("stop")
    assert "no scheduler runs (stopped by root)" in bench.run("resume").err


def test_priorities_reorder_the_queue(busy: Busy) -> None:
    bench = busy.bench
    bench.run("priority", "other", "10")
    bench.run("priority", "exp3", "+5")
    bench.run("priority", "exp3", "-1")
    bench.run("priority", "exp2", "=-5")
    assert {name: task["priority"] for name, task in bench.tasks().items()} == {
        "exp1": 0, "exp2": -5, "exp3": 4, "other": 10,
    }  # fmt: skip
    for bad in ("high", "1.5", "+", "99999999"):
        assert "must be the priority" in bench.run("priority", "exp2", bad, code=2).err
    assert "at most 1000000" in bench.run("priority", "exp2", "+1000009", code=2).err
    assert "priority needs tasks" in bench.run("priority", "5", code=2).err
    busy.gate.open()
    drain(bench)
    assert order(bench) == ["exp1", "other", "exp3", "exp2"]


# ---------------------------------------------------------------- colour


def test_colour_is_chosen_for_pipes_and_terminals(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "code: 1\n"})
    bench.run("start", "--wait", code=1)
    assert "\x1b[" not in bench.run("status").out
    assert "\x1b[" in bench.run("--color", "always", "status").out
    assert "\x1b[" in bench.run("--color=always", "status", NO_COLOR="1").out
    assert "--color must be one of auto, always, never" in bench.run("--color", "blue", "status", code=2).err
    shown = read_terminal(["sh", "-c", "exec tinksched --color never status"], bench, "1 task")
    assert "failed" in shown and "\x1b[" not in shown
