"""The scheduler stops, is killed, and starts again: no run is lost, none is started twice."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.support import Bench, Lab
from tinksched.host.statedir import SchedulerLock


def kill_scheduler(bench: Bench) -> bool:
    """`kill -9` of the scheduler, if one runs, and wait until it is gone."""
    holder = SchedulerLock(bench.state).holder()
    if holder is None:
        return False
    try:
        descriptor = os.pidfd_open(holder.pid)
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return False
    import select

    select.select([descriptor], [], [], 10)
    os.close(descriptor)
    return True


def test_stop_lets_four_tasks_run_and_start_adopts_them(lab: Lab) -> None:
    bench = lab.workspace()
    gate = bench.gate()
    for number in range(1, 7):
        bench.add(f"exp{number}.yml", gate.config)
    bench.run("start")
    bench.wait_for_states(exp1="running", exp2="running", exp3="running", exp4="running")
    bench.wait_for_starts("exp1", "exp2", "exp3", "exp4")
    before = {name: task["pid"] for name, task in bench.tasks().items()}

    stopped = bench.run("stop")
    assert "scheduler stopped" in stopped.out and "4 running on" in stopped.out and "2 queued" in stopped.out
    assert not SchedulerLock(bench.state).is_held()
    assert bench.states()["exp1"] == "running"
    scheduler = bench.status()["scheduler"]
    assert not scheduler["running"] and scheduler["stopped"].startswith("by ")

    bench.run("start")
    assert {name: task["pid"] for name, task in bench.tasks().items() if task["state"] == "running"} == {
        name: pid for name, pid in before.items() if pid
    }
    gate.open()
    bench.wait_for_states(**{f"exp{number}": "completed" for number in range(1, 7)})
    assert bench.starts() == {f"exp{number}": 1 for number in range(1, 7)}


def test_what_ended_while_no_scheduler_looked_is_shown_and_then_recorded(lab: Lab) -> None:
    bench = lab.workspace(max_jobs_per_gpu=1)
    gate = bench.gate()
    bench.add("good.yml", gate.config)
    bench.add("bad.yml", gate.config + "code: 7\n")
    bench.run("start")
    bench.wait_for_starts("good", "bad")
    bench.run("stop")
    gate.open()
    bench.wait_until(lambda: bench.states() == {"good": "completed", "bad": "failed"}, "both ended")
    assert bench.tasks()["bad"]["exit_code"] == 7
    done = bench.run("start", "--wait", code=1)  # nothing is queued again; the ends are recorded
    bench.wait_for_scheduler_end()
    assert "2 tasks: 1 completed, 1 failed" in bench.run("status").out, done.text
    assert bench.starts() == {"good": 1, "bad": 1}
    assert bench.tasks()["bad"]["exit_code"] == 7


@pytest.mark.timeout(300)
def test_fifty_kills_of_the_scheduler_at_random_instants(lab: Lab) -> None:
    seed = int(os.environ.get("TINKSCHED_SEED") or random.randrange(10**6))
    print(f"TINKSCHED_SEED={seed}")
    chance = random.Random(seed)
    bench = lab.workspace(tasks={f"exp{n}.yml": f"seconds: 0.{n % 10}\ntext: of {n}\n" for n in range(1, 41)})
    kills = 0
    bench.run("start")
    while kills < 50:
        # A random instant is wanted here, not an event: this is the one place where time itself is the input.
        time.sleep(chance.random() * 0.15)
        kills += kill_scheduler(bench)
        bench.run("start")
        if all(state == "completed" for state in bench.states().values()):
            bench.run("start", "--rerun")  # the batch was faster than the kills: once more
            for line in bench.record():
                assert line.task
    bench.wait_until(lambda: set(bench.states().values()) == {"completed"}, "the end of the batch", 120)
    attempts = {name: task["attempt"] for name, task in bench.tasks().items()}
    assert bench.starts() == attempts, f"seed {seed}"
    assert len(bench.record()) == 2 * sum(attempts.values()), f"seed {seed}"
    assert_never_over(bench, 2)


def assert_never_over(bench: Bench, slots: int) -> None:
    """By the tasks' own times, no GPU ever had more tasks than slots."""
    events = sorted((line.at, line.what == "start", line.gpus) for line in bench.record())
    there: dict[str, int] = {}
    for _, began, gpus in events:
        for gpu in gpus.split(","):
            there[gpu] = there.get(gpu, 0) + (1 if began else -1)
            assert there[gpu] <= slots, f"GPU {gpu} had {there[gpu]} tasks"


def test_two_starts_at_once_make_one_scheduler(lab: Lab) -> None:
    bench = lab.workspace()
    gate = bench.gate()
    bench.add("exp1.yml", gate.config)
    starts = [bench.spawn("start") for _ in range(6)]
    for start in starts:
        out, _ = start.communicate(timeout=60)
        assert start.returncode == 0, out
    bench.wait_for_starts("exp1")
    schedulers = [line for _, line in lab.processes() if "serve-workspace" in line and not line.startswith("tmux")]
    assert len(schedulers) == 1, schedulers
    gate.open()
    bench.wait_for_states(exp1="completed")
    assert bench.starts() == {"exp1": 1}
