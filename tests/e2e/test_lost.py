"""Runs that were killed: what became of them, and what a person is told about it.

One of these tests makes the kernel run out of memory, and its counter is that of the whole host: so the reasons of all
others here may say that, too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import Bench, Lab
from tinksched.host import memory, processes

MEMORY = Path("/sys/fs/cgroup/memory")


def kill_all(bench: Bench) -> None:
    """Both shells of every wrapper and their commands, with -9, before any of them can write anything down."""
    runs = processes.of_runs(os.listdir(bench.state.runs))
    wrappers = [found for found in map(processes.identify, bench.wrapper_pids()) if found]
    alive = [*wrappers, *(process for living in runs.values() for process in living)]
    for process in alive:
        processes.send(process, signal.SIGSTOP)
    for process in alive:
        processes.send(process, signal.SIGKILL)
    assert processes.wait_for(alive, 60)


def started(lab: Lab, **settings: object) -> Bench:
    bench = lab.workspace(**settings)
    bench.add("a.yml", bench.gate().config)
    bench.run("start")
    bench.wait_for_starts("a")
    return bench


def reason(bench: Bench, state: str) -> dict[str, Any]:
    bench.wait_for_states(a=state)
    found: dict[str, Any] = bench.tasks()["a"]["reason"]
    return found


@pytest.mark.parametrize("executor", ["tmux", "local"])
def test_a_run_that_was_killed_with_its_wrapper_is_lost(lab: Lab, executor: str) -> None:
    bench = started(lab, executor=executor)
    kill_all(bench)
    why = reason(bench, "lost")
    if executor == "local":
        assert "its wrapper was killed by signal 9 (KILL), and it left no exit status" in why["text"]
    else:  # tmux may not have noticed yet by which signal
        assert "its wrapper was killed by signal 9" in why["text"] or "its wrapper is gone" in why["text"]


def test_a_run_that_was_killed_with_its_tmux_server_is_lost_with_it(lab: Lab) -> None:
    bench = started(lab)
    bench.run("stop")
    bench.wait_for_scheduler_end()
    (server,) = {int(lab.tmux("display-message", "-p", "#{pid}").stdout)}
    process = processes.identify(server)
    assert process is not None
    processes.send(process, signal.SIGSTOP)
    kill_all(bench)
    processes.send(process, signal.SIGKILL)
    assert processes.wait_for([process], 60)
    bench.run("start", "--foreground", code=None)  # a scheduler in tmux would have a server again
    assert "its tmux server is gone, and it left no exit status" in reason(bench, "lost")["text"]


def test_a_run_whose_tmux_server_died_has_its_exit_code_and_says_why(lab: Lab) -> None:
    bench = started(lab)
    lab.tmux("kill-server")
    bench.run("start")
    why = reason(bench, "failed")
    assert why["text"] == "exit code 129 (signal HUP: its tmux session or the tmux server was ended)"


EATER = """
import os, pathlib, sys
pathlib.Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
hoard = []
while True:
    hoard.append(bytearray(os.urandom(1 << 20)))
"""


def test_a_run_that_the_kernel_killed_for_want_of_memory_says_so(lab: Lab) -> None:
    group = MEMORY / f"tinksched-{lab.id}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(40 << 20))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    if memory.oom_kills() is None:
        pytest.skip("this kernel does not count what it kills for want of memory")
    try:
        bench = lab.workspace(command=[sys.executable, "eat.py", str(group)])
        (bench.folder / "eat.py").write_text(EATER)
        bench.add("a.yml")
        bench.run("start")
        why = reason(bench, "failed")
        assert why["code"] == "out_of_memory"
        assert why["text"].startswith("exit code 137 (signal KILL); the kernel killed ")
        assert "want of memory" in bench.run("explain", "a").out
    finally:
        subprocess.run(["rmdir", str(group)], check=False)


def test_a_kernel_that_does_not_count_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "VMSTAT", tmp_path / "none")
    assert memory.oom_kills() is None
    (tmp_path / "vmstat").write_text("nr_free 3\noom_kill x\n")
    monkeypatch.setattr(memory, "VMSTAT", tmp_path / "vmstat")
    assert memory.oom_kills() is None
    (tmp_path / "vmstat").write_text("nr_free 3\noom_kill 12\n")
    assert memory.oom_kills() == 12
    assert os.access("/proc/vmstat", os.R_OK)
