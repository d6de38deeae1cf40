"""Somebody deletes the private state while everything runs: no task is lost, and none runs twice."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import TIMEOUT, Bench, Gate, Lab


def running(lab: Lab, **settings: object) -> tuple[Bench, Gate]:
    """Two tasks that run until the gate opens, and one that is queued behind them."""
    bench = lab.workspace(**{"gpu_count": 1, "max_jobs_per_gpu": 2, **settings})
    gate = bench.gate()
    for name in ("a", "b", "c"):
        bench.add(f"{name}.yml", gate.config)
    bench.add("c.yml", "")
    bench.run("start")
    bench.wait_for_starts("a", "b")
    return bench, gate


def halt(pid: int) -> None:
    """Stop a process, and wait until it stands still. Not in tmux, which lets its children go on at once."""
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        os.sched_yield()


def wait_for_end(pid: int) -> None:
    """Wait until a process has ended."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        assert select.select([descriptor], [], [], TIMEOUT)[0], "the scheduler did not end"
        os.close(descriptor)


def said(bench: Bench) -> str:
    return (bench.folder / "logs" / "T_scheduler.log").read_text()


DELETIONS = {
    "all of it": "rm -r .tinksched",
    "the database": "rm .tinksched/state.db*",
    "the lock": "rm .tinksched/lock",
    "moved away": "mv .tinksched elsewhere",
    "home and runs, then the database": "rm -r .tinksched/home .tinksched/runs; rm .tinksched/state.db*",
}


@pytest.mark.parametrize("command", DELETIONS.values(), ids=DELETIONS)
def test_a_scheduler_puts_its_state_back_and_goes_on(lab: Lab, command: str) -> None:
    bench, gate = running(lab)
    before = {name: task["pid"] for name, task in bench.tasks().items()}
    subprocess.run(["sh", "-c", command], cwd=bench.folder, check=True)
    bench.wait_until(lambda: "was deleted or replaced" in said(bench), "a word of the scheduler", tell=lambda: 0)
    bench.wait_for_states(a="running", b="running", c="queued")
    assert {name: task["pid"] for name, task in bench.tasks().items()} == before
    assert "all that it knew is there again, and it goes on (a, b running)" in said(bench)
    assert bench.run("start").err.count("the scheduler runs already") + len(bench.wrapper_pids()) >= 1
    gate.open()
    bench.wait_for_states(a="completed", b="completed", c="completed")
    assert bench.starts() == {"a": 1, "b": 1, "c": 1}
    assert bench.state.path.stat().st_mode & 0o777 == 0o700


def test_a_run_that_ends_while_the_state_is_gone_keeps_its_outcome(lab: Lab) -> None:
    bench, gate = running(lab, executor="local")
    scheduler = bench.scheduler_pid()
    halt(scheduler)
    try:
        shutil.rmtree(bench.state.path)
        gate.open()
        bench.wait_until(
            lambda: len([line for line in bench.record() if line.what == "end"]) == 2, "their ends", tell=lambda: 0
        )
    finally:
        os.kill(scheduler, signal.SIGCONT)
    bench.wait_for_states(a="completed", b="completed", c="completed")
    assert bench.starts() == {"a": 1, "b": 1, "c": 1}


def test_lost_permissions_come_back(lab: Lab) -> None:
    """Root may read anything, so this runs without the capabilities that allow it."""
    plain = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]
    if os.geteuid() == 0 and subprocess.run([*plain, "true"], capture_output=True).returncode != 0:
        pytest.skip("root reads everything here, and setpriv can't change that")
    bench = lab.workspace(gpu_count=1, executor="local")
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    command = [*(plain if os.geteuid() == 0 else []), "python3", "-m", "tinksched", "start"]
    subprocess.run(command, cwd=bench.folder, env=lab.environment, check=True, timeout=TIMEOUT, capture_output=True)
    bench.wait_for_starts("a")
    bench.state.path.chmod(0)
    bench.wait_until(lambda: "had lost its permissions" in said(bench), "a word of the scheduler", tell=lambda: 0)
    assert bench.state.path.stat().st_mode & 0o777 == 0o700
    gate.open()
    bench.wait_for_states(a="completed")


def test_a_link_in_its_place_is_not_followed(lab: Lab) -> None:
    bench, gate = running(lab, executor="local")
    elsewhere = lab.folder / "elsewhere"
    elsewhere.mkdir()
    scheduler = bench.scheduler_pid()
    halt(scheduler)
    try:
        shutil.rmtree(bench.state.path)
        bench.state.path.symlink_to(elsewhere)
    finally:
        os.kill(scheduler, signal.SIGCONT)
    wait_for_end(scheduler)
    assert "is a link now" in said(bench) and "the scheduler ends (a, b running on)" in said(bench)
    assert list(elsewhere.iterdir()) == []
    gate.open()


def test_start_refuses_while_runs_of_before_go_on_and_kill_all_ends_them(lab: Lab) -> None:
    bench, gate = running(lab)
    bench.run("stop")
    shutil.rmtree(bench.state.path)
    assert "new" in bench.run("status").out
    refused = bench.run("start", code=2)
    assert "a, b still run, but the record of that is gone" in refused.err and "kill-all" in refused.err
    assert "killed: a, b" in bench.run("kill-all").out
    assert not [line for _, line in lab.processes() if "flock" in line]
    assert bench.starts() == {"a": 1, "b": 1}
    gate.open()
    bench.run("start", "--wait")
    assert bench.starts() == {"a": 2, "b": 2, "c": 1}


def test_whoever_made_a_new_state_keeps_it(lab: Lab) -> None:
    bench, gate = running(lab, executor="local")
    scheduler = bench.scheduler_pid()
    halt(scheduler)
    try:
        shutil.rmtree(bench.state.path)
        assert "a, b still run" in bench.run("start", code=2).err
    finally:
        os.kill(scheduler, signal.SIGCONT)
    wait_for_end(scheduler)
    assert "somebody has made a new one: this scheduler ends (a, b running on)" in said(bench)
    gate.open()
    bench.wait_until(lambda: len(bench.record()) == 4, "their ends", tell=lambda: 0)
    bench.wait_until(lambda: not bench.wrapper_pids(), "the end of their wrappers", tell=lambda: 0)
    bench.run("start", "--wait")
    assert bench.states() == {"a": "completed", "b": "completed", "c": "completed"}
    assert bench.starts() == {"a": 1, "b": 1, "c": 1}, "their markers say that a and b have completed"
