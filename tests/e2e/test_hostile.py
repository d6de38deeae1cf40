"""Tasks that misbehave on purpose: whatever one does, the scheduler and the other tasks must not suffer from it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.machine import Machine, needs_machine
from tests.support import SCRIPT, Bench, Gate, Lab
from tinksched.host.statedir import SchedulerLock


def hostile(lab: Lab, evil: str, **settings: object) -> tuple[Bench, Gate]:
    """A workspace with a hostile task, a good one that waits at a gate beside it, and one that wants the slot."""
    wanted: dict[str, object] = {"gpu_count": 1, "max_jobs_per_gpu": 2, "stop_grace": 0.5, "min_free_disk": 0}
    bench = lab.workspace(**{**wanted, **settings})
    lines = ['if [ "$TINKSCHED_TASK" = evil ]; then', 'echo "start evil $$ 0 0" >>"$RECORD"', evil, "exit 0; fi"]
    (bench.folder / "train.sh").write_text("\n".join(lines) + SCRIPT)
    gate = bench.gate()
    bench.add("evil.yml")
    bench.add("good.yml", gate.config)
    bench.add("next.yml")
    return bench, gate


def begin(bench: Bench) -> None:
    """Start the three, until the hostile one and the good one have begun."""
    bench.run("start", "good.yml")
    bench.wait_for_starts("good")
    bench.run("start", "evil.yml,next.yml")
    bench.wait_for_starts("evil")


def finish(bench: Bench, gate: Gate, **evil: str) -> None:
    """The good ones complete, each of them ran once, and the hostile one has this outcome."""
    bench.wait_for_states(**evil)
    gate.open()
    bench.wait_for_states(good="completed", next="completed", **evil)
    assert bench.starts() == {"evil": 1, "good": 1, "next": 1}


def alive(lab: Lab, word: str) -> list[str]:
    """The living processes of the laboratory with this word in their command line."""
    return [line for _, line in lab.processes() if word in line]


# -- processes


def test_two_hundred_children_that_stay_keep_the_slot_until_they_are_dead(lab: Lab) -> None:
    bench, gate = hostile(lab, "trap '' HUP; i=0; while [ $i -lt 200 ]; do sleep 4242 & i=$((i+1)); done")
    later = bench.gate("later")
    bench.add("next.yml", later.config)
    begin(bench)
    bench.wait_for_starts("next")
    assert not alive(lab, "4242")
    later.open()
    finish(bench, gate, evil="completed")
    assert bench.tasks()["evil"]["reason"]["code"] == "leftovers_killed"


@pytest.mark.parametrize(
    "escape",
    [
        pytest.param("setsid env -i sh -c 'exec >&- 2>&- <&- 9>&-; sleep 4242; :' & wait", id="by descent"),
        pytest.param("setsid sh -c 'env -i setsid sleep 4242 & :'; exec sleep 4242", id="by its lease"),
        pytest.param("setsid sh -c 'exec >&- 2>&- <&- 9>&-; setsid sleep 4242 & :'; exec sleep 4242", id="by run id"),
    ],
)
def test_a_process_that_flees_is_found(lab: Lab, escape: str) -> None:
    seconds = str(int(lab.id, 16))  # nobody else sleeps so long
    bench, gate = hostile(lab, escape.replace("4242", seconds))
    begin(bench)
    bench.wait_until(lambda: sleeping(seconds), "the fled process")
    assert "cancelled: evil" in bench.run("cancel", "evil").out
    assert not sleeping(seconds)
    finish(bench, gate, evil="cancelled")


def sleeping(seconds: str) -> list[int]:
    """Who sleeps for so long, whatever its environment says."""
    wanted = f"sleep\0{seconds}\0".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == wanted:
                found.append(int(entry.name))
    return found


def test_what_cut_every_tie_to_its_run_is_not_found_and_harms_only_itself(lab: Lab) -> None:
    """README says so: no run id, no lease, no parent. The scheduler goes on as if it were not there."""
    flee = "setsid sh -c 'exec >&- 2>&- <&- 9>&-; env -i setsid sh -c \"echo \\$\\$ >{}; exec sleep 4242\" & :'"
    pid_file = lab.folder / "fled"
    bench, gate = hostile(lab, flee.format(pid_file))
    begin(bench)
    try:
        finish(bench, gate, evil="completed")
        bench.wait_until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"), "its pid")
        assert Path(f"/proc/{int(pid_file.read_text())}").exists()
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    "evil",
    [
        pytest.param("trap '' TERM HUP INT QUIT; while :; do sleep 4242; done", id="ignores signals"),
        pytest.param("kill -STOP $$; sleep 4242", id="stops itself"),
        pytest.param("exec >&- 2>&- <&- 9>&-; while :; do sleep 4242; done", id="closes everything"),
        pytest.param("kill -STOP $PPID; sleep 4242", id="stops its wrapper"),
        pytest.param("kill -STOP $PPID", id="stops its wrapper and ends"),
        pytest.param("kill -STOP $PPID $(ps -o ppid= -p $PPID); sleep 4242", id="stops both shells of its wrapper"),
        pytest.param("while :; do (sleep 4242; :) & sleep 0.01; done", id="never stops forking"),
    ],
)
def test_a_run_that_does_not_want_to_end_can_be_cancelled(lab: Lab, evil: str) -> None:
    bench, gate = hostile(lab, evil)
    begin(bench)
    assert "cancelled: evil" in bench.run("cancel", "evil").out
    assert not alive(lab, "4242")
    finish(bench, gate, evil="cancelled")


def test_a_run_that_never_ends_ends_with_its_time_limit(lab: Lab) -> None:
    bench, gate = hostile(lab, "trap '' TERM; kill -STOP $$; sleep 4242")
    bench.reconfigure(tasks={"evil": {"time_limit": 1}})
    begin(bench)
    finish(bench, gate, evil="timed_out")
    assert not alive(lab, "4242")


@pytest.mark.parametrize(
    ("evil", "outcome"),
    [
        pytest.param("trap '' HUP; kill -9 $PPID", "lost", id="inner"),
        pytest.param("trap '' HUP; kill -9 $(ps -o ppid= -p $PPID); exit 3", "failed", id="outer"),
        pytest.param("trap '' HUP; kill -9 $PPID $(ps -o ppid= -p $PPID)", "lost", id="both"),
        pytest.param("trap '' HUP; kill -TERM $PPID; exit 3", "failed", id="inner, TERM"),
        pytest.param("kill -TERM 0; exit 3", "failed", id="its whole group, TERM"),
        pytest.param("kill -9 0", "lost", id="its whole group, KILL"),
        pytest.param("exec >&- 2>&- <&- 9>&-; exit 3", "failed", id="closes its terminal"),
        pytest.param("kill -9 $$", "failed", id="itself"),
    ],
)
@pytest.mark.parametrize("executor", ["tmux", "local"])
def test_a_run_that_kills_what_guards_it(lab: Lab, evil: str, outcome: str, executor: str) -> None:
    bench, gate = hostile(lab, evil, executor=executor)
    begin(bench)
    finish(bench, gate, evil=outcome)


def test_fifty_runs_that_end_within_a_millisecond(lab: Lab) -> None:
    bench = lab.workspace(command=["true"], tasks=None)
    for number in range(50):
        bench.add(f"t{number}.yml")
    bench.run("start", "--wait")
    tasks = bench.tasks()
    assert {(task["state"], task["attempt"]) for task in tasks.values()} == {("completed", 1)}


# -- output

ESCAPES = (
    r"\033]2;a new title\007 \033kanother name\033\\ \033]52;c;aGFjaw==\007 \033[8;5;10t \033[3;0;0t \033[?1049h"
    r"\033Ptmux;\033\033]2;through\007\033\\ \033[6n \033[c \033[21t \033P$q q\033\\ \033]0;x\007"
    r" \033c \000\001\377\376"
)


def test_binary_and_escape_codes_are_kept_and_obeyed_by_nobody(lab: Lab) -> None:
    bench, gate = hostile(lab, f"printf '{ESCAPES}'; head -c 100000 /dev/urandom; printf '\\nlast words\\n'; exit 3")
    later = bench.gate("later")
    bench.add("next.yml", later.config)
    begin(bench)
    bench.wait_for_states(evil="failed")
    log = bench.folder / "logs" / "train_logs" / "evil.log"
    bench.wait_until(lambda: b"last words" in log.read_bytes(), "the last words")
    assert b"\x1b]52;c;aGFjaw==\x07" in log.read_bytes() and b"\x01\xff\xfe" in log.read_bytes()
    assert {"T_scheduler", "T_evil_gpu0", "T_good_gpu0"} <= set(lab.sessions())
    windows = lab.tmux("list-windows", "-a", "-F", "#{window_name} #{window_width}x#{window_height}").stdout
    assert "another name" not in windows and "5x10" not in windows and "10x5" not in windows
    assert lab.tmux("list-buffers").stdout == ""
    for answer in (bench.run("status"), bench.run("logs", "evil"), bench.run("explain", "evil")):
        assert "\x1b" not in answer.text and "\0" not in answer.text
    later.open()
    finish(bench, gate, evil="failed")


@pytest.mark.timeout(600)
def test_a_flood_of_output_hurts_nobody(lab: Lab) -> None:
    """1 GB with TINKSCHED_TEST_FLOOD=1000; a fifth of it otherwise."""
    megabytes = int(os.environ.get("TINKSCHED_TEST_FLOOD", "150"))
    flood = f"yes 'a line of output that says nothing at all' | head -c {megabytes}000000"
    bench, gate = hostile(lab, flood, log_max_size="2MB", check_interval=1, max_jobs_per_gpu=3)
    bench.run("start", "evil.yml,good.yml")
    bench.wait_for_starts("evil", "good")
    bench.run("start", "next.yml")
    bench.wait_for_states(next="completed")
    server = int(lab.tmux("display-message", "-p", "#{pid}").stdout)
    sizes = [peak(server), peak(bench.scheduler_pid())]
    log = bench.folder / "logs" / "train_logs" / "evil.log"
    bench.wait_for_states(300, evil="completed")
    sizes += [peak(server), peak(bench.scheduler_pid())]
    print(f"peak memory in MB (tmux server, scheduler) during and after: {sizes}")
    assert max(sizes) < 300
    bench.wait_until(lambda: log.stat().st_size < 3_000_000, "a log that is no longer than log_max_size")
    finish(bench, gate, evil="completed")


def peak(pid: int) -> int:
    """The most memory that a process has had, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1000
    raise AssertionError(f"process {pid} has no memory")


# -- files


@pytest.mark.parametrize(
    "evil",
    [
        pytest.param('rm "$2"', id="its config"),
        pytest.param('rm -r "$TINKSCHED_OUTPUT_DIR"', id="its output folder"),
        pytest.param("rm -r logs", id="the logs"),
        pytest.param("rm -r .tinksched/runs/$TINKSCHED_RUN_ID", id="its run folder"),
        pytest.param("rm -r .tinksched/runs", id="all run folders"),
        pytest.param("rm -r .tinksched/snapshots .tinksched/listeners .tinksched/wake", id="what can be made again"),
    ],
)
@pytest.mark.parametrize("code", [0, 3])
def test_a_run_that_deletes_what_belongs_to_it_ends_as_it_ends(lab: Lab, evil: str, code: int) -> None:
    bench, gate = hostile(lab, f"{evil}; exit {code}")
    begin(bench)
    finish(bench, gate, evil="failed" if code else "completed")


# -- tmux


@pytest.mark.parametrize(
    ("evil", "outcome"),
    [
        pytest.param("tmux rename-session -t =T_evil_gpu0 mine; exit 3", "failed", id="renames its session"),
        pytest.param("tmux rename-session -t =T_good_gpu0 mine; exit 3", "failed", id="renames that of another"),
        pytest.param("tmux rename-session -t =T_scheduler mine; exit 3", "failed", id="renames the scheduler's"),
        pytest.param("tmux kill-session -t =T_evil_gpu0; sleep 4242", "failed", id="closes its session"),
        pytest.param("trap '' HUP; tmux kill-session -t =T_evil_gpu0; exit 3", "failed", id="and survives it"),
        pytest.param("tmux set -t =T_evil_gpu0: destroy-unattached on; sleep 4242", "failed", id="destroys it"),
        pytest.param("tmux set -g remain-on-exit off; tmux set -s exit-empty on; exit 3", "failed", id="options"),
        pytest.param("tmux pipe-pane -t =T_evil_gpu0:; tmux set -t =T_evil_gpu0 -u @tinksched_run; exit 3", "failed",
                     id="takes its marks away"),
    ],
)  # fmt: skip
def test_a_run_that_meddles_with_tmux(lab: Lab, evil: str, outcome: str) -> None:
    bench, gate = hostile(lab, evil)
    begin(bench)
    finish(bench, gate, evil=outcome)


def test_a_run_that_ends_the_tmux_server_leaves_nothing_in_doubt(lab: Lab) -> None:
    bench, gate = hostile(lab, "trap '' HUP; tmux kill-server; exit 3")
    begin(bench)
    bench.wait_for_scheduler_end()
    gate.open()
    bench.run("start", "--wait", code=None)  # 1 if the first scheduler had not yet recorded who failed when it ended
    states = bench.states()
    assert states["evil"] == "failed" and states["next"] == "completed", states
    assert states["good"] in ("failed", "completed")
    assert bench.starts() == {"evil": 1, "good": 1, "next": 1}


def test_a_stopped_screen_does_not_stop_the_scheduler(lab: Lab) -> None:
    bench, gate = hostile(lab, ":")
    bench.run("start", "good.yml")
    bench.wait_for_starts("good")
    lab.tmux("send-keys", "-t", "=T_scheduler:", "C-s")
    bench.run("start", "evil.yml,next.yml")
    bench.wait_for_states(evil="completed", next="completed")
    finish(bench, gate, evil="completed")


@pytest.mark.timeout(300)
def test_a_tmux_server_that_hangs_loses_nothing(lab: Lab) -> None:
    bench, gate = hostile(lab, ":", max_jobs_per_gpu=4)
    other = bench.gate("other")
    bench.add("stay.yml", other.config)
    bench.run("start", "good.yml,stay.yml")
    bench.wait_for_starts("good", "stay")
    server = int(lab.tmux("display-message", "-p", "#{pid}").stdout)
    os.kill(server, signal.SIGSTOP)
    try:
        bench.run("start", "evil.yml,next.yml")
        said = "tmux gave no answer"
        log = bench.folder / "logs" / "T_scheduler.log"
        gate.open()
        bench.wait_for_states(good="completed")  # whose session is to be closed a second later
        holder = SchedulerLock(bench.state).holder()
        assert holder is not None
        scheduler, began = psutil.Process(holder.pid), time.monotonic()
        before = sum(scheduler.cpu_times()[:2])
        bench.wait_until(lambda: log.read_text().count(said) >= 8, "four launches of each without an answer")
        used, took = sum(scheduler.cpu_times()[:2]) - before, time.monotonic() - began
        assert used < took / 5, f"it spun while it waited for an answer: {used:.1f} s of {took:.1f}"
        assert "cancelled: stay" in bench.run("cancel", "stay").out
        assert {"evil": "queued", "next": "queued"}.items() <= bench.states().items()
        assert "Traceback" not in log.read_text()
    finally:
        os.kill(server, signal.SIGCONT)
    bench.wait_for_states(evil="completed", next="completed")
    assert bench.starts() == {"evil": 1, "good": 1, "next": 1, "stay": 1}
    other.open()


def test_start_says_that_tmux_hangs(lab: Lab) -> None:
    bench, _ = hostile(lab, ":")
    lab.tmux("new-session", "-d", "-s", "mine", "cat")
    server = int(lab.tmux("display-message", "-p", "#{pid}").stdout)
    os.kill(server, signal.SIGSTOP)
    try:
        answer = bench.run("start", "next.yml", code=1)
        assert "tmux gave no answer for 10 seconds" in answer.err and "pgrep -a tmux" in answer.err
    finally:
        os.kill(server, signal.SIGCONT)
    bench.run("start", "next.yml", "--wait")
    assert bench.starts() == {"next": 1}


@needs_machine
@pytest.mark.parametrize("executor", ["tmux", "local"])
def test_a_run_that_fills_shared_memory_takes_nothing_from_others(lab: Lab, executor: str) -> None:
    """On a machine of its own, whose /dev/shm is small."""
    bench, gate = hostile(lab, "head -c 1000000 /dev/zero >/dev/shm/full; exit 3", executor=executor)
    machine = Machine(bench)
    machine.boot()
    try:
        machine.call("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/dev/shm")
        begin(bench)
        finish(bench, gate, evil="failed")
        assert machine.call("stat", "--format=%s", "/dev/shm/full") == "65536\n"
    finally:
        machine.power_off()
