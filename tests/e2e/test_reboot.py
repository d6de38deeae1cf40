"""The machine restarts: what was queued is queued, what ran is lost and says why, what had ended has ended."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine import Machine, Systemd, needs_machine
from tests.support import Bench, Gate, Lab
from tests.victim import Victim
from tinksched.host.rundir import RunDir

pytestmark = needs_machine


@pytest.fixture
def bench(lab: Lab) -> Iterator[Bench]:
    yield lab.workspace(gpu_count=1, max_jobs_per_gpu=4, stop_grace=0.5)


@pytest.fixture
def machine(bench: Bench) -> Iterator[Machine]:
    made = Machine(bench)
    made.boot()
    yield made
    if bench.prefix:
        made.power_off()


def exit_files(bench: Bench) -> int:
    return sum(RunDir(folder).exit_status() is not None for folder in bench.state.runs.iterdir())


def run_until_power_fails(bench: Bench, machine: Machine) -> Gate:
    """Two tasks run, two have ended since the scheduler was killed, and one is queued; then the power fails."""
    gate, early = bench.gate(), bench.gate("early")
    bench.add("runs.yml", gate.config)
    bench.add("marked.yml", f"{gate.config}")
    bench.add("broken.yml", early.config + "code: 7\n")
    bench.add("teardown.yml", early.config + "text: crashes in teardown\n")
    bench.add("waits.yml", "")
    script = bench.folder / "train.sh"
    # `marked` writes its marker and trains on; `teardown` writes it and crashes.
    script.write_text(
        '[ "$TINKSCHED_TASK" = marked ] && echo done >"$TINKSCHED_OUTPUT_DIR/marked_completed.txt"\n'
        + script.read_text().replace('exit "$code"', '[ "$TINKSCHED_TASK" = teardown ] && exit 139; exit "$code"')
    )
    (bench.folder / "out").mkdir(exist_ok=True)
    (bench.folder / "out" / "runs_completed.txt").write_text("of a run that was deleted\n")
    bench.run("start", "runs.yml,marked.yml,broken.yml,teardown.yml,waits.yml", "--rerun")
    bench.wait_for_starts("runs", "marked", "broken", "teardown")
    bench.wait_for_states(waits="queued", runs="running", marked="running", broken="running", teardown="running")
    machine.call("sh", "-c", f"kill -9 {bench.state.lock.read_text()}")
    early.open()
    bench.wait_until(lambda: exit_files(bench) == 2, "two exit files")
    machine.power_off()
    assert not bench.lab.processes()
    return gate


def test_after_a_reboot_everything_is_as_it_must_be(bench: Bench, machine: Machine) -> None:
    before = time.time()
    gate = run_until_power_fails(bench, machine)
    machine.boot()
    tasks = bench.tasks()  # nothing runs, and it is known already
    shown = {name: (task["state"], (task["reason"] or {}).get("code")) for name, task in tasks.items()}
    assert shown["runs"] == shown["marked"] == ("lost", "machine_restarted")
    assert shown["broken"][0] == "failed" and shown["teardown"][0] == "completed" and shown["waits"][0] == "queued"
    gate.open()
    bench.run("start", "--wait", code=1)
    tasks = bench.tasks()
    assert {name: task["state"] for name, task in tasks.items()} == {
        "runs": "lost", "marked": "lost", "broken": "failed", "teardown": "completed", "waits": "completed",
    }  # fmt: skip
    assert tasks["runs"]["reason"]["code"] == tasks["marked"]["reason"]["code"] == "machine_restarted"
    assert "restarted" in tasks["runs"]["reason"]["text"]
    assert (tasks["broken"]["exit_code"], tasks["teardown"]["exit_code"]) == (7, 139)
    assert bench.starts() == {"runs": 1, "marked": 1, "broken": 1, "teardown": 1, "waits": 1}
    for task in tasks.values():
        assert before <= task["queued_at"] <= task["started_at"] <= task["ended_at"] <= time.time(), task
    again = bench.run("start", "--failed", "--wait", code=1)
    assert "queued 3: " in again.out
    assert bench.states() == {
        "runs": "completed", "marked": "completed", "broken": "failed", "teardown": "completed", "waits": "completed",
    }  # fmt: skip


def test_what_was_lost_is_retried_if_that_is_allowed(bench: Bench, machine: Machine) -> None:
    bench.reconfigure(auto_restart_failed=True, max_retries=1, retry_delay=0.1)
    gate = run_until_power_fails(bench, machine)
    machine.boot()
    gate.open()
    bench.run("start", "--wait", code=1)
    assert bench.states() == {
        "runs": "completed", "marked": "completed", "broken": "failed", "teardown": "completed", "waits": "completed",
    }  # fmt: skip
    assert bench.starts() == {"runs": 2, "marked": 2, "broken": 2, "teardown": 1, "waits": 1}


@pytest.mark.parametrize(
    "command", [("start",), ("kill-all",), ("cancel", "runs")], ids=["start", "kill-all", "cancel"]
)
def test_a_pid_of_before_may_be_anybody_now(bench: Bench, machine: Machine, command: tuple[str, ...]) -> None:
    run_until_power_fails(bench, machine)
    machine.boot()
    machine.call(
        "sh", "-c", "sleep 4242 >/dev/null 2>&1 & echo $! >innocent".replace("innocent", f"{bench.folder}/pid")
    )
    pid = int((bench.folder / "pid").read_text())
    ticks = int(machine.call("cat", f"/proc/{pid}/stat").rpartition(")")[2].split()[19])
    with contextlib.closing(sqlite3.connect(bench.state.database, isolation_level=None)) as connection:
        connection.execute("UPDATE runs SET pid = ?, pid_started = ? WHERE state != 'ended'", (pid, ticks))
    for began in bench.state.runs.glob("*/began"):
        began.write_text(f"{pid}\n")
    bench.state.lock.write_text(f"{pid}\n")
    assert bench.status()["scheduler"] == {"running": False, "pid": None, "stopped": None, "paused": None}
    assert bench.states()["runs"] == "lost"
    bench.run(*command)
    if command == ("start",):
        bench.wait_for_states(runs="lost", marked="lost", broken="failed", teardown="completed", waits="completed")
    else:
        assert bench.states()["runs"] in ("lost", "cancelled")
    assert machine.call("cat", f"/proc/{pid}/cmdline").startswith("sleep")
    bench.run("stop", code=None)


@pytest.mark.parametrize(
    ("step", "starts", "state"), [("intended", 1, "completed"), ("launched", 1, "lost"), ("ending", 1, "completed")]
)
def test_the_power_fails_at_a_step(bench: Bench, machine: Machine, step: str, starts: int, state: str) -> None:
    bench.reconfigure(executor="local")
    gate = bench.gate()
    bench.add("a.yml", "" if step == "ending" else gate.config)
    victim = Victim(bench, step)
    bench.wait_until(lambda: halted(bench), "the step", tell=lambda: 0)
    if step == "launched":
        bench.wait_for_starts("a")
    victim.process.kill()  # what stands for it outside of the machine
    machine.power_off()
    victim.process.communicate()
    machine.boot()
    gate.open()
    bench.run("start", "--wait", code=1 if state == "lost" else 0)
    assert bench.states() == {"a": state}
    assert bench.starts() == {"a": starts}


def halted(bench: Bench) -> bool:
    """Whether the scheduler has stopped itself."""
    for pid, line in bench.lab.processes():
        if "victim.py" in line and not line.startswith("nsenter"):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


@pytest.mark.skipif(not Systemd.possible(), reason="needs systemd, and a control group that may be written")
def test_systemd_brings_the_scheduler_back_at_boot_and_ends_no_run(bench: Bench, machine: Machine) -> None:
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.add("b.yml", gate.config)
    bench.reconfigure(max_jobs_per_gpu=1)
    units = bench.lab.folder / "home" / ".config" / "systemd" / "user"
    units.mkdir(parents=True)
    text = (Path(__file__).parents[2] / "templates" / "tinksched.service").read_text()
    program = Path(sys.executable).with_name("tinksched")
    text = text.replace("@TINKSCHED@", str(program)).replace("@WORKSPACE@", str(bench.folder))
    (units / "tinksched.service").write_text(text)
    systemd = Systemd(bench)
    try:
        systemd.start()
        systemd.control("daemon-reload")
        systemd.control("enable", "--now", "tinksched")
        bench.wait_for_starts("a")
        systemd.control("stop", "tinksched")
        assert not bench.status()["scheduler"]["running"]
        assert bench.states() == {"a": "running", "b": "queued"}
        systemd.control("start", "tinksched")
        bench.wait_until(lambda: bench.status()["scheduler"]["running"], "the scheduler")
        assert bench.states() == {"a": "running", "b": "queued"} and bench.starts() == {"a": 1}

        machine.power_off()
        machine.boot()
        gate.open()
        systemd.start()
        bench.wait_for_states(a="lost", b="completed")
        bench.wait_until(lambda: "inactive" in systemd.control("show", "-p", "ActiveState", "tinksched"), "its end")
        assert "Result=success" in systemd.control("show", "-p", "Result", "tinksched")
        assert bench.tasks()["a"]["reason"]["code"] == "machine_restarted"
        assert bench.starts() == {"a": 1, "b": 1}
    finally:
        if bench.prefix:
            machine.power_off()
        systemd.close()
