"""`cancel`, `kill-all`, and processes that do not want to end."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support import SCRIPT, Lab

STUBBORN = r"""
printf 'start %s %s %s 0\n' "$TINKSCHED_TASK" "$$" "$CUDA_VISIBLE_DEVICES" >>"$RECORD"
trap '' TERM HUP INT
setsid sh -c 'trap "" TERM HUP; while :; do sleep 1000; done' &
nohup sleep 1000 >/dev/null 2>&1 &
while :; do sleep 1000; done
"""


def test_kill_all_ends_everything_children_included(lab: Lab) -> None:
    bench = lab.workspace(tasks={f"exp{n}.yml": "" for n in range(1, 7)}, stop_grace=0.5)
    (bench.folder / "train.sh").write_text(STUBBORN)
    bench.run("start")
    bench.wait_for_starts("exp1", "exp2", "exp3", "exp4")
    answer = bench.run("kill-all")
    assert "killed: the scheduler" in answer.out
    assert "killed: exp1, exp2, exp3, exp4" in answer.out
    assert "cancelled in the queue: exp5, exp6" in answer.out
    left = [line for _, line in lab.processes(exclude=("tmux",)) if not line.startswith("cat")]
    assert left == []
    tasks = bench.tasks()
    assert {task["state"] for task in tasks.values()} == {"cancelled"}
    assert {task["reason"]["code"] for task in tasks.values()} == {"kill_all"}
    assert "nothing to kill" in bench.run("kill-all").out


def test_what_kill_all_left_behind_is_queued_again_by_a_plain_start(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1, max_jobs_per_gpu=1)
    gate = bench.gate()
    for name in ("exp1", "exp2", "exp3"):
        bench.add(f"{name}.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("exp1")
    bench.run("cancel", "exp3")
    bench.run("kill-all")
    gate.open()
    answer = bench.run("start", "--wait")
    assert "queued 2: exp1, exp2" in answer.out and "left 1 cancelled: exp3" in answer.out
    assert bench.starts() == {"exp1": 2, "exp2": 1}


def test_kill_all_works_without_a_scheduler_and_on_a_fresh_workspace(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp1.yml": ""}, stop_grace=0.5)
    assert "nothing" in bench.run("kill-all").out
    (bench.folder / "train.sh").write_text(STUBBORN)
    bench.run("start")
    bench.wait_for_starts("exp1")
    bench.run("stop")
    assert "killed: exp1" in bench.run("kill-all").out
    assert not [line for _, line in lab.processes() if "sleep" in line]


def test_kill_all_ends_a_scheduler_that_hangs(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp1.yml": ""}, stop_grace=0.5)
    (bench.folder / "train.sh").write_text(STUBBORN)
    bench.run("start")
    bench.wait_for_starts("exp1")
    os.kill(bench.scheduler_pid(), signal.SIGSTOP)
    assert "killed: the scheduler\nkilled: exp1" in bench.run("kill-all").out


def test_cancel_a_running_one_without_a_scheduler(lab: Lab) -> None:
    bench = lab.workspace(stop_grace=0.5)
    gate = bench.gate()
    bench.add("exp1.yml", gate.config)
    bench.add("exp2.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("exp1", "exp2")
    bench.run("stop")
    assert bench.run("cancel", "exp1").out == "cancelled: exp1\n"
    assert bench.states() == {"exp1": "cancelled", "exp2": "running"}
    assert bench.tasks()["exp1"]["reason"]["code"] == "cancelled_by_user"


def test_cancel_a_queued_one_and_what_is_not_there(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1, max_jobs_per_gpu=1)
    gate = bench.gate()
    bench.add("exp1.yml", gate.config)
    bench.add("exp2.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("exp1")
    assert bench.run("cancel", "exp2.yml").out == "cancelled: exp2\n"
    assert "did you mean" in bench.run("cancel", "exp3", "exp1", code=3).err
    assert bench.states() == {"exp1": "running", "exp2": "cancelled"}, "nothing is done if one name is wrong"
    assert "exp2 is cancelled" in bench.run("cancel", "exp2", code=3).err
    gate.open()
    bench.wait_for_states(exp1="completed")


def test_children_that_outlive_their_run_are_killed_and_named(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp1.yml": "", "exp2.yml": ""}, gpu_count=1, max_jobs_per_gpu=1, stop_grace=0.3)
    (bench.folder / "train.sh").write_text(
        'printf "start %s %s %s 0\\n" "$TINKSCHED_TASK" "$$" "$CUDA_VISIBLE_DEVICES" >>"$RECORD"\n'
        'mkfifo "$TINKSCHED_TASK.fifo"; setsid sh -c "echo up >$TINKSCHED_TASK.fifo; exec sleep 1000" &\n'
        'read -r _ <"$TINKSCHED_TASK.fifo"\n'
    )
    bench.run("start", "--wait")
    reasons = {name: task["reason"] for name, task in bench.tasks().items()}
    assert {reason["code"] for reason in reasons.values()} == {"leftovers_killed"}
    assert "sleep" in reasons["exp1"]["text"]
    assert not [line for _, line in lab.processes() if "sleep" in line]


@pytest.mark.parametrize("executor", ["tmux", "local"])
def test_a_killed_wrapper_makes_its_run_lost_only_when_its_processes_are_gone(lab: Lab, executor: str) -> None:
    bench = lab.workspace(gpu_count=1, max_jobs_per_gpu=1, executor=executor)
    (bench.folder / "train.sh").write_text("trap '' HUP\n" + SCRIPT)
    gate = bench.gate()
    bench.add("exp1.yml", gate.config)
    bench.add("exp2.yml", "")
    bench.run("start")
    bench.wait_for_states(exp1="running", exp2="queued")
    bench.wait_for_starts("exp1")
    for pid in bench.wrapper_pids():
        os.kill(pid, signal.SIGKILL)
    bench.run("status")
    assert bench.starts() == {"exp1": 1}
    assert bench.states() == {"exp1": "running", "exp2": "queued"}, "its process is alive, so it keeps its slot"
    gate.open()
    bench.wait_for_states(exp1="lost", exp2="completed")


def test_the_death_of_the_tmux_server_leaves_no_run_in_doubt(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1, max_jobs_per_gpu=2, executor="tmux", tmux_socket="priv")
    gate = bench.gate()
    bench.add("exp1.yml", gate.config)
    bench.add("exp2.yml", gate.config)
    bench.add("exp3.yml")
    bench.run("start")
    bench.wait_for_starts("exp1", "exp2")
    lab.tmux("kill-server", socket="priv")
    bench.wait_for_scheduler_end()
    bench.run("start", "--wait", code=None)
    states = bench.states()
    assert states["exp3"] == "completed"
    assert states["exp1"] in ("failed", "lost") and states["exp2"] in ("failed", "lost")
    assert bench.tasks()["exp1"]["exit_code"] in (129, None)
    assert bench.starts() == {"exp1": 1, "exp2": 1, "exp3": 1}


def test_ctrl_c_in_the_session_of_the_scheduler_is_stop(lab: Lab) -> None:
    bench = lab.workspace()
    gate = bench.gate()
    bench.add("exp1.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("exp1")
    lab.tmux("send-keys", "-t", "=T_scheduler:", "C-c")
    bench.wait_for_scheduler_end()
    status = bench.status()
    assert status["scheduler"]["stopped"] and status["tasks"][0]["state"] == "running"
    gate.open()


def test_ctrl_c_in_the_session_of_a_run_cancels_it(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1)
    gate = bench.gate()
    bench.add("exp1.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("exp1")
    lab.tmux("send-keys", "-t", "=T_exp1_gpu0:", "C-c")
    bench.wait_for_states(exp1="cancelled")
    assert bench.tasks()["exp1"]["reason"]["code"] == "interrupted"
