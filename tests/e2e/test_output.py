"""What a run prints: live in its session, whole in its log, and readable through `logs` and `attach`."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time

import pytest

from tests.support import Bench, Lab

PYTHON_SCRIPT = """
import os, sys, time
assert sys.stdout.isatty() and not sys.stdin.isatty() and sys.stdin.read() == ""
print("first words")
for step in range(101):
    print(f"\\repoch 1 {step:3d}% {'#' * (step // 5):20s}|", end="")
print()
print("\\x1b[32mgreen\\x1b[0m last words")
"""


def read_terminal(command: list[str], bench: Bench, until: str, **environment: str) -> str:
    """What a command shows on a terminal of its own until the text appears; then the terminal is closed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(bench.folder)
        os.execvpe(command[0], command, {**bench.lab.environment, "TERM": "xterm-256color", **environment})
    shown = b""
    deadline = time.monotonic() + 30
    try:
        while until.encode() not in shown and time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 65536)
    except OSError:
        pass
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return shown.decode(errors="replace")


def test_attach_by_plain_tmux_shows_live_output_and_the_log_holds_the_same(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1)
    gate = bench.gate()
    bench.add("exp1.yml", f"{gate.config}text: hello from the task\n")
    bench.run("start")
    bench.wait_for_starts("exp1")
    assert "hello from the task" in read_terminal(["tmux", "attach", "-t", "T_exp1_gpu0"], bench, "hello from the task")
    ours = [sys.executable, "-m", "tinksched", "attach", "exp1"]
    assert "hello from the task" in read_terminal(ours, bench, "hello from the task")
    bench.wait_until(lambda: bench.log("exp1") == "hello from the task\r\n" or bench.log("exp1"), "the log")
    assert bench.states() == {"exp1": "running"}, "attaching and leaving does not disturb the run"
    gate.open()
    bench.wait_for_states(exp1="completed")


def test_a_progress_bar_is_one_line_and_the_terminal_is_a_terminal(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp1.yml": ""}, python_env=sys.executable, script_path="train.py")
    (bench.folder / "train.py").write_text(PYTHON_SCRIPT)
    bench.run("start", "--wait")
    lines = bench.run("logs", "exp1").out.splitlines()
    assert lines == ["first words", f"epoch 1 100% {'#' * 20}|", "green last words"]


@pytest.mark.parametrize("executor", ["tmux", "local"])
def test_a_hundred_commands_that_end_at_once_keep_output_and_exit_code(lab: Lab, executor: str) -> None:
    tasks = {f"e{n}.yml": f"text: words of {n}\ncode: {n}\nmarker: no\n" for n in range(100)}
    bench = lab.workspace(tasks=tasks, executor=executor, max_jobs_per_gpu=4, keep_sessions=200)
    bench.run("start", "--wait", code=1)
    shown = bench.tasks()
    assert {name: task["exit_code"] for name, task in shown.items()} == {f"e{n}": n for n in range(100)}

    def wrong() -> dict[int, str]:
        logs = {n: bench.log(f"e{n}").replace("\r\n", "\n") for n in range(100)}
        return {n: text for n, text in logs.items() if text != f"words of {n}\n"}

    bench.wait_until(lambda: not wrong(), "all logs", 20, wrong)
    assert bench.starts() == {f"e{n}": 1 for n in range(100)}


def test_logs_follow_ends_with_the_run(lab: Lab) -> None:
    bench = lab.workspace()
    gate = bench.gate()
    bench.add("exp1.yml", f"text: early words\n{gate.config}")
    bench.run("start")
    bench.wait_for_starts("exp1")
    with bench.spawn("logs", "exp1", "-f") as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "early words\n"
        gate.open()
        assert follower.stdout.read() == ""
        assert follower.wait(30) == 0


def test_logs_of_an_earlier_attempt(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp1.yml": "text: first\ncode: 1\n"})
    bench.run("start", "--wait", code=1)
    bench.add("exp1.yml", "text: second\n")
    bench.run("retry", "exp1")
    bench.wait_for_states(exp1="completed")
    assert bench.run("logs", "exp1").out == "second\n"
    assert bench.run("logs", "exp1", "--attempt", "1").out == "first\n"
    assert "no attempt 3" in bench.run("logs", "exp1", "--attempt", "3", code=3).err
    assert (bench.folder / "logs" / "train_logs" / "exp1.2.log").exists()


def test_logs_of_nothing(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp1.yml": ""})
    assert "tinksched start" in bench.run("logs", "exp1", code=3).err
    bench.run("start", "--wait")
    assert "did you mean exp1?" in bench.run("logs", "exp2", code=3).err


def test_a_reader_that_goes_away_is_no_error(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp1.yml": ""})
    bench.run("start", "--wait")
    log = bench.folder / "logs" / "train_logs" / "exp1.log"
    log.write_text("line\n" * 200_000)
    done = subprocess.run(
        ["sh", "-c", '"$0" -m tinksched logs exp1 | head -n 1', sys.executable],
        cwd=bench.folder, env=lab.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("line\n", "")


def test_sessions_beyond_the_newest_are_closed_and_leave_no_pipe_behind(lab: Lab) -> None:
    bench = lab.workspace(tasks={f"e{n}.yml": "" for n in range(6)}, keep_sessions=2)
    bench.run("start", "--wait")
    bench.wait_for_scheduler_end()
    assert len([name for name in lab.sessions() if name != "T_scheduler"]) == 2
    pipes = [line for _, line in lab.processes() if line.startswith("cat")]
    assert len(pipes) <= 2, pipes


def test_cleanup_on_complete_closes_the_sessions_of_what_completed(lab: Lab) -> None:
    bench = lab.workspace(tasks={"good.yml": "", "bad.yml": "code: 1\n"}, cleanup_on_complete=True, gpu_count=1)
    bench.run("start", "--wait", code=1)
    bench.wait_for_scheduler_end()
    assert set(lab.sessions()) == {"T_scheduler", "T_bad_gpu0"}
