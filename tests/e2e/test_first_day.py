"""What somebody does who has read the README only, and what the commands say then."""

from __future__ import annotations

import json
import signal
import sys
import time
from subprocess import PIPE, Popen

from tests.e2e.test_output import read_terminal
from tests.support import Bench, Lab


def until_it_listens(bench: Bench) -> None:
    """Until a command follows what the scheduler announces, besides this test itself."""
    bench.wait_until(lambda: len([*(bench.state.path / "listeners").iterdir()]) > 1, "a listener")


def follower(bench: Bench, *words: str) -> Popen[str]:
    """A command that follows the scheduler by now, its standard error apart."""
    command = Popen([sys.executable, "-m", "tinksched", *words], cwd=bench.folder, env=bench.lab.environment, text=True,
                    stdout=PIPE, stderr=PIPE)  # fmt: skip
    until_it_listens(bench)
    return command


def test_the_log_of_a_task_that_waits_is_followed_once_it_starts(lab: Lab) -> None:
    bench = lab.workspace()
    bench.run("pause")
    bench.run("run", "--name", "z", "--", "echo", "hello at last")
    assert "has not run yet" in bench.run("logs", "z", code=3).err
    command = follower(bench, "logs", "z", "-f")
    bench.run("resume")
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (0, "hello at last\n")
    assert "z has not run yet. It waits: paused by root" in err


def test_following_the_log_of_a_task_that_waits_can_be_ended(lab: Lab) -> None:
    bench = lab.workspace()
    bench.run("pause")
    bench.run("run", "--name", "z", "--", "echo", "never")
    command = follower(bench, "logs", "z", "-f")
    command.send_signal(signal.SIGINT)
    assert command.communicate(timeout=60) and command.returncode == 130
    command = follower(bench, "logs", "z", "-f")
    bench.run("cancel", "z")
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (3, "") and "z has not run" in err


def test_wait_says_that_somebody_holds_a_task(lab: Lab) -> None:
    bench = lab.workspace()
    bench.run("pause")
    bench.run("run", "--name", "held", "--", "true")
    bench.run("run", "--name", "late", "--at", "+1d", "--", "true")
    bench.run("hold", "held")
    said = bench.run("wait", "--timeout", "0s", code=124).err
    assert said.count("held by root") == 1 and ", and does not start before `release`: held\n" in said
    assert said.count("not before ") == 1 and ": late\n" in said
    assert said.count("paused by root") == 1


def test_nothing_is_expected_of_what_is_held_or_paused(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1, max_jobs_per_gpu=1)
    bench.run("run", "--wait", "--name", "known", "--", "true")
    bench.run("run", "--name", "late", "--at", "+1d", "--", "true")
    expected = bench.tasks()["late"]["expected_start"]
    assert expected is not None and expected > time.time() + 80_000
    assert "left" in bench.run("status").out
    bench.run("hold", "late")
    assert bench.tasks()["late"]["expected_start"] is None and "left" not in bench.run("status").out
    bench.run("release", "late", "--at", "+1d")
    bench.run("pause")
    assert bench.tasks()["late"]["expected_start"] is None and "left" not in bench.run("status").out


def test_attach_needs_a_terminal_and_says_so(lab: Lab) -> None:
    bench = lab.workspace()
    bench.run("run", "--wait", "--name", "z", "--", "true")
    answer = bench.run("attach", "z", code=2)
    assert answer.err == "tinksched: attach needs a terminal, and this is none\n    tinksched logs z -f\n"


def test_outside_of_every_workspace_commands_say_that_they_mean_the_personal_one(lab: Lab) -> None:
    bench = lab.workspace()
    outside = lab.folder / "outside"
    outside.mkdir()
    said = "the personal workspace: this folder is in none"
    bench.run("run", "--wait", "--", "true", cwd=outside)
    answer = bench.run("cancel", "nobody", code=3, cwd=outside)
    assert f"there is no task 'nobody'; nothing was done ({said})" in answer.err
    assert f"has no attempt 9; it has 1 ({said})" in bench.run("logs", "--attempt", "9", code=3, cwd=outside).err
    for command in ("kill-all", "pause", "resume"):
        assert bench.run(command, cwd=outside).err.startswith(f"{said}\n")
    assert bench.run("stop", code=3, cwd=outside).err.count(said) == 1
    personal = lab.folder / "home" / ".local" / "state" / "tinksched" / "personal"
    assert said not in bench.run("cancel", "nobody", code=3, cwd=personal).err
    assert said not in bench.run("--workspace", str(personal), "cancel", "nobody", code=3, cwd=outside).err
    assert said not in bench.run("cancel", "nobody", code=3).err


def test_a_task_that_was_cancelled_in_the_queue_after_a_run_ended_then(lab: Lab) -> None:
    bench = lab.workspace(auto_restart_failed=True, retry_delay=3600)
    for name in ("again", "by_itself"):
        bench.run("run", "--name", name, "--", "sh", "-c", "exit 3")
    bench.wait_until(lambda: all(task["state"] == "queued" and task["log"] for task in bench.tasks().values()))
    bench.run("cancel", "again")
    bench.run("pause")
    bench.run("retry", "again")
    before = time.time()
    assert bench.run("cancel", "again", "by_itself").code == 0
    for task in bench.tasks().values():
        assert task["state"] == "cancelled" and task["ended_at"] >= before, task
        assert (task["started_at"], task["exit_code"]) == (None, None)
        assert task["log"], "what the earlier run printed is there"


def test_status_shows_the_same_signs_when_it_is_watched(lab: Lab) -> None:
    bench = lab.workspace()
    bench.run("run", "--wait", "--name", "z", "--", "true")
    watching = read_terminal(
        [sys.executable, "-m", "tinksched", "status", "--watch"], bench, "completed", LANG="C.UTF-8"
    )
    assert "✔ completed" in watching


def test_nothing_is_queued_after_what_has_failed_already(lab: Lab) -> None:
    bench = lab.workspace()
    bench.run("run", "--wait", "--name", "bad", "--", "false", code=1)
    answer = bench.run("run", "--after", "bad", "--", "true", code=2)
    assert "--after: bad did not complete (failed), so nothing can come after it; nothing was queued" in answer.err
    assert "tinksched retry bad" in answer.err
    assert bench.run("run", "--after", "b*", "--", "true", code=2).out == ""
    assert [*bench.tasks()] == ["bad"]


def test_a_relative_priority_says_what_comes_of_it(lab: Lab) -> None:
    bench = lab.workspace()
    bench.run("pause")
    for name in ("y", "z"):
        bench.run("run", "--name", name, "--", "true")
    assert bench.run("priority", "z", "+5").out == "priority +5, now 5: z\n"
    assert bench.run("priority", "y", "z", "-1").out == "priority -1, now -1 to 4: y, z\n"
    assert bench.run("priority", "y", "7").out == "priority 7: y\n"


def test_a_hold_until_a_time_is_a_release(lab: Lab) -> None:
    bench = lab.workspace()
    answer = bench.run("hold", "big_*", "--at", "22:00", code=2)
    assert "takes no --at" in answer.err and "tinksched release 'big_*' --at 22:00" in answer.err


def test_a_command_that_is_waited_for_shows_its_last_lines(lab: Lab) -> None:
    bench = lab.workspace()
    out = bench.run("run", "--wait", "--", "echo", "hello, GPU").out
    assert out.endswith("the last lines of echo:\n  | hello, GPU\n")
    out = bench.run("run", "--wait", "--name", "many", "--", "sh", "-c", "seq 100; exit 3", code=1).out
    assert out.endswith("".join(f"  | {number}\n" for number in range(81, 101))) and "| 80" not in out
    assert "last lines" not in bench.run("run", "--wait", "--", "true").out
    assert "last lines" not in bench.run("run", "--wait", "--json", "--", "echo", "hello").out


def test_who_waits_no_longer_is_told_that_the_task_goes_on(lab: Lab) -> None:
    bench = lab.workspace()
    gate = bench.gate()
    command = follower(bench, "run", "--wait", "--name", "z", "--", "flock", "-s", str(gate.path), "true")
    bench.wait_for_states(z="running")
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=60)
    assert command.returncode == 130 and "z goes on, and ends with: tinksched cancel z" in err
    gate.open()
    bench.wait_for_states(z="completed")


def test_several_tasks_are_explained_and_shown_one_after_another(lab: Lab) -> None:
    bench = lab.workspace(tasks={"good.yml": "", "bad1.yml": "code: 3\n", "bad2.yml": "code: 4\n"})
    bench.run("start", "--wait", code=1)
    bench.add("fresh.yml")
    failed = bench.run("explain", "--failed").out
    assert failed.startswith("bad1: failed\n") and "\n\nbad2: failed\n" in failed and "good" not in failed
    assert bench.run("explain", "bad*", "good").out.startswith(failed)
    assert bench.run("explain", "fresh", "good.yml").out.count("\n\n") == 1
    assert bench.run("show", "1-3").out.count("\nattempt 1: ") == 3
    assert [task["task"] for task in json.loads(bench.run("explain", "--failed", "--json").out)["tasks"]] == [
        "bad1", "bad2",
    ]  # fmt: skip
    assert [task["task"] for task in json.loads(bench.run("show", "--all", "--json").out)["tasks"]] == [
        "bad1", "bad2", "good",
    ]  # fmt: skip
    assert "there is no task 'nobody'" in bench.run("explain", "good", "nobody", code=3).err
