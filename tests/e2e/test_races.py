"""Commands that meet each other, or the scheduler at an awkward step: nothing is lost, nothing runs twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support import TIMEOUT, Bench, Lab
from tests.victim import Victim
from tinksched.core.model import TaskState
from tinksched.host.statedir import SchedulerLock
from tinksched.store import Store


def one_task(lab: Lab, text: str = "") -> Bench:
    return lab.workspace(tasks={"a.yml": text}, gpu_count=1, max_jobs_per_gpu=1, executor="local", stop_grace=0.5)


def answer_of(spawned: subprocess.Popen[str]) -> str:
    out, _ = spawned.communicate(timeout=TIMEOUT)
    assert "Traceback" not in out and "locked" not in out and "defect" not in out, out
    return out


def look(bench: Bench, at: Callable[[Store], object]) -> Callable[[], object]:
    """A look into the store, for `wait_until`."""

    def looked() -> object:
        with Store(bench.state.database) as store:
            return at(store)

    return looked


def asked(store: Store) -> bool:
    """Whether a request stands on a task, or it is done, or the scheduler is to stop."""
    return store.fact("stopped") is not None or all(
        task.request is not None or task.state is TaskState.DONE for task in store.tasks()
    )


def runs_of(bench: Bench) -> dict[str, int]:
    with Store(bench.state.database) as store:
        return {task.name: len(store.runs_of(task)) for task in store.tasks()}


# -- a command at every step


@pytest.mark.parametrize("then", [signal.SIGCONT, signal.SIGKILL], ids=["goes on", "killed"])
@pytest.mark.parametrize("step", ["intended", "launched", "recorded", "ending", "ended"])
@pytest.mark.parametrize("command", [("cancel", "a"), ("kill-all",)], ids=["cancel", "kill-all"])
def test_ending_a_task_at_every_step(lab: Lab, step: str, command: tuple[str, ...], then: signal.Signals) -> None:
    bench = one_task(lab, "seconds: 0\n" if step.startswith("end") else "seconds: 4242\n")
    victim = Victim(bench, step)
    victim.wait_until_halted()
    spawned = bench.spawn(*command)
    if step != "ended":
        bench.wait_until(look(bench, asked), "the request", tell=lambda: 0)
    victim.go_on(then)
    said = answer_of(spawned)
    victim.finish()
    state = bench.states()["a"]
    if step in ("ending", "ended"):
        assert state == "completed", said
    else:
        assert state == "cancelled" and spawned.returncode == 0, said
    assert not [line for _, line in lab.processes() if "4242" in line]
    assert bench.starts().get("a", 0) <= 1
    assert not SchedulerLock(bench.state).is_held()
    bench.run("stop", code=None)


@pytest.mark.parametrize("then", [signal.SIGCONT, signal.SIGKILL], ids=["goes on", "killed"])
@pytest.mark.parametrize("step", ["intended", "launched", "recorded", "ending", "ended", "before release"])
def test_stop_and_start_at_every_step_run_a_task_once(lab: Lab, step: str, then: signal.Signals) -> None:
    bench = one_task(lab)
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    victim = Victim(bench, step)
    if step in ("ending", "ended", "before release"):
        gate.open()
    victim.wait_until_halted()
    spawned = bench.spawn("stop")
    bench.wait_until(look(bench, lambda store: store.fact("stopped")), "the stop", tell=lambda: 0)
    victim.go_on(then)
    answer_of(spawned)
    victim.finish()
    if step not in ("ending", "ended", "before release"):
        gate.open()
    bench.run("start", "--wait")
    assert bench.states() == {"a": "completed"}
    assert bench.starts() == {"a": 1} and runs_of(bench) == {"a": 1}


@pytest.mark.parametrize("step", ["ending", "ended", "before release", "after release"])
def test_start_at_the_end_of_the_last_task_is_heard(lab: Lab, step: str) -> None:
    bench = one_task(lab)
    victim = Victim(bench, step)
    victim.wait_until_halted()
    bench.add("b.yml")
    bench.run("start")
    victim.go_on()
    bench.wait_for_states(a="completed", b="completed")
    victim.finish()
    bench.wait_for_scheduler_end()
    assert bench.starts() == {"a": 1, "b": 1}


@pytest.mark.parametrize("step", ["before release", "after release"])
def test_start_at_the_end_of_stop_is_heard(lab: Lab, step: str) -> None:
    """The scheduler has seen the stop, and has not ended yet."""
    bench = one_task(lab)
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.add("b.yml")
    victim = Victim(bench, step)
    bench.wait_for_starts("a")
    stop = bench.spawn("stop")
    victim.wait_until_halted()
    bench.run("start")
    victim.go_on()
    answer_of(stop)
    gate.open()
    bench.wait_for_states(a="completed", b="completed")
    victim.finish()
    assert bench.starts() == {"a": 1, "b": 1}


@pytest.mark.parametrize("command", ["stop", "kill-all"])
def test_start_while_somebody_waits_for_a_scheduler_that_hangs(lab: Lab, command: str) -> None:
    """`stop` and `kill-all` end the scheduler that they found, and leave none of what `start` asked for undone."""
    bench = one_task(lab)
    victim = Victim(bench, "before release")
    victim.wait_until_halted()
    bench.add("b.yml")
    spawned = bench.spawn(command)
    bench.wait_until(look(bench, lambda store: store.fact("stopped")), "the stop", tell=lambda: 0)
    bench.run("start")
    victim.go_on(signal.SIGKILL)
    answer_of(spawned)
    victim.finish()
    bench.wait_for_states(a="completed", b="completed")
    assert bench.starts() == {"a": 1, "b": 1}


@pytest.mark.parametrize("step", ["ending", "ended"])
def test_retry_while_a_run_is_ending(lab: Lab, step: str) -> None:
    bench = one_task(lab, "code: 3\n")
    victim = Victim(bench, step)
    victim.wait_until_halted()
    if step == "ending":
        assert "only finished tasks can be retried: a is running" in bench.run("retry", "a", code=3).err
        victim.go_on()
        bench.wait_for_states(a="failed")
        bench.add("a.yml", "code: 0\n")
        bench.run("retry", "a")
    else:
        bench.add("a.yml", "code: 0\n")
        bench.run("retry", "a")
        victim.go_on()
    bench.wait_for_states(a="completed")
    victim.finish()
    assert bench.starts() == {"a": 2} and runs_of(bench) == {"a": 2}


# -- commands against each other


def test_ten_starts_at_once_make_one_scheduler_and_run_each_task_once(lab: Lab) -> None:
    bench = lab.workspace(tasks={f"t{number}.yml": "" for number in range(20)})
    gate = bench.gate()
    bench.add("held.yml", gate.config)
    spawned = [bench.spawn("start") for _ in range(10)]
    for one in spawned:
        said = answer_of(one)
        assert one.returncode == 0, said
    bench.wait_for_states(**{f"t{number}": "completed" for number in range(20)})
    schedulers = [line for _, line in lab.processes() if "serve-workspace" in line and not line.startswith("tmux")]
    assert len(schedulers) == 1, schedulers
    gate.open()
    bench.wait_for_states(held="completed")
    assert set(bench.starts().values()) == {1}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", ["stop", "kill-all"])
@pytest.mark.parametrize("executor", ["tmux", "local"])
def test_start_against_what_ends_the_scheduler(lab: Lab, command: str, executor: str) -> None:
    """Whoever came last, as the store tells, has its way: without a stop on record all must be done by itself."""
    seed = int(os.environ.get("TINKSCHED_SEED") or random.randrange(10**6))
    print(f"TINKSCHED_SEED={seed}")
    chance = random.Random(seed)
    bench = lab.workspace(tasks={f"t{n}.yml": f"seconds: 0.{n}\n" for n in range(4)}, executor=executor, stop_grace=0.2)
    for _ in range(6):
        bench.run("start", "--rerun")
        # Random instants are wanted here, not events: time itself is the input.
        time.sleep(chance.random() * 0.3)
        ending = bench.spawn(command)
        time.sleep(chance.random() * 0.5)
        start = bench.spawn("start", "--rerun")
        texts = answer_of(ending), answer_of(start)
        assert start.returncode == 0 and ending.returncode in (0, 3), texts
        if look(bench, lambda store: store.fact("stopped"))() is not None:
            bench.run("start", "--rerun")
        bench.wait_until(look(bench, lambda store: all(task.state is TaskState.DONE for task in store.tasks())), "ends")
        with Store(bench.state.database) as store:
            assert {task.outcome.value for task in store.tasks() if task.outcome} <= {"completed", "cancelled"}
            if command == "stop":
                assert {task.outcome.value for task in store.tasks() if task.outcome} == {"completed"}
    assert bench.starts() == runs_of(bench)


@pytest.mark.timeout(300)
def test_fifty_commands_at_once(lab: Lab) -> None:
    bench = lab.workspace(tasks={f"t{number}.yml": "" for number in range(8)}, stop_grace=0.2)
    bench.add("bad.yml", "code: 3\n")
    bench.run("start")
    commands = [
        ("start",), ("status",), ("status", "--json"), ("start", "--failed"), ("cancel", "t1", "t2"), ("retry", "t3"),
        ("stop",), ("explain", "t4"), ("logs", "t5"), ("kill-all",), ("show", "t6"), ("retry", "--failed"),
        ("config",), ("start", "--rerun"), ("start", "t7.yml", "0"), ("start", "--unless-stopped"),
        ("start", "--dry-run"),
    ]  # fmt: skip
    spawned = [(words, bench.spawn(*words)) for words in (commands * 3)[:50]]
    for words, one in spawned:
        said = answer_of(one)
        assert one.returncode in (0, 1, 3), (words, said)
        if one.returncode == 1:
            assert "by somebody else at this moment" in said, (words, said)
    bench.run("start", "--rerun", "--failed")
    bench.wait_until(look(bench, lambda store: all(task.state is TaskState.DONE for task in store.tasks())), "ends")
    bench.wait_for_scheduler_end()
    starts, runs = bench.starts(), runs_of(bench)
    with Store(bench.state.database) as store:  # a run that was cancelled in time is on record and never began
        cancelled = sum(run.outcome.value == "cancelled" for task in store.tasks() for run in store.runs_of(task))
    assert all(starts.get(name, 0) <= number for name, number in runs.items())
    assert sum(runs.values()) - sum(starts.values()) <= cancelled
    bench.wait_until(lambda: not bench.wrapper_pids(), "the wrappers, which stay a moment for the last output, end")


# -- a store that can't be written


def test_commits_that_fail_are_tried_again_once_a_second_and_not_in_a_spin(lab: Lab) -> None:
    bench = one_task(lab)
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a")
    refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON tasks BEGIN SELECT RAISE(ABORT, 'not today'); END"
    with contextlib.closing(sqlite3.connect(bench.state.database, isolation_level=None)) as connection:
        connection.execute(refuse)
    gate.open()
    log = bench.folder / "logs" / "T_scheduler.log"
    said = "nothing was changed, and it is tried again until it works"
    bench.wait_until(lambda: said in log.read_text(), "a failure")
    scheduler, began = psutil.Process(bench.scheduler_pid()), time.monotonic()
    used = sum(scheduler.cpu_times()[:2])
    with pytest.raises(AssertionError):
        bench.wait_until(lambda: bench.states() != {"a": "running"}, seconds=3)
    used = sum(scheduler.cpu_times()[:2]) - used
    assert used < 0.5 * (time.monotonic() - began), "it spins"
    assert log.read_text().count(said) == 1, "it says so once"
    with contextlib.closing(sqlite3.connect(bench.state.database, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER refuse")
    bench.wait_for_states(a="completed")
    assert bench.starts() == {"a": 1}
    assert Path(bench.folder / "out" / "a_completed.txt").exists()
