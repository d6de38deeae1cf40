"""Retries by themselves, time limits, and tasks that depend on others."""

from __future__ import annotations

import json

from tests.support import Lab

FAILS_TWICE = r"""
printf 'start %s %s %s %s\n' "$TINKSCHED_TASK" "$$" "$CUDA_VISIBLE_DEVICES" "$(date +%s.%N)" >>"$RECORD"
echo "attempt $TINKSCHED_ATTEMPT with: $*"
[ "$TINKSCHED_ATTEMPT" -ge 3 ] || exit 9
"""


def test_a_failed_run_is_tried_again_with_its_own_arguments_and_a_doubling_delay(lab: Lab) -> None:
    bench = lab.workspace(
        tasks={"exp1.yml": ""}, auto_restart_failed=True, max_retries=2, retry_delay="0.2s", retry_args=["--resume"]
    )
    (bench.folder / "train.sh").write_text(FAILS_TWICE)
    bench.run("start", "--wait")
    task = bench.tasks()["exp1"]
    assert (task["state"], task["attempt"]) == ("completed", 3)
    starts = [line.at for line in bench.record()]
    assert starts[1] - starts[0] >= 0.2 and starts[2] - starts[1] >= 0.4
    assert "--resume" not in bench.run("logs", "exp1", "--attempt", "1").out
    assert bench.run("logs", "exp1").out.rstrip().endswith("--resume")


def test_retries_end_and_a_retry_by_hand_begins_to_count_anew(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp1.yml": "code: 1"}, auto_restart_failed=True, max_retries=1, retry_delay="0.1s")
    bench.run("start", "--wait", code=1)
    assert bench.starts() == {"exp1": 2}
    bench.run("retry", "exp1")
    bench.wait_until(lambda: bench.starts() == {"exp1": 4} and bench.states() == {"exp1": "failed"}, "two more")


def test_without_auto_restart_nothing_is_tried_again_and_per_task_limits_count(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "code: 1", "b.yml": "code: 1"}, max_retries=5)
    bench.run("start", "--wait", code=1)
    assert bench.starts() == {"a": 1, "b": 1}
    bench.reconfigure(auto_restart_failed=True, retry_delay="0.1s", tasks={"a": {"max_retries": 0}})
    bench.run("start", "--failed", "--wait", code=1)
    assert bench.starts() == {"a": 2, "b": 7}


def test_while_a_retry_waits_others_run_and_explain_says_when(lab: Lab) -> None:
    bench = lab.workspace(
        tasks={"a.yml": "code: 1", "b.yml": ""}, gpu_count=1, max_jobs_per_gpu=1, auto_restart_failed=True,
        retry_delay="30m",
    )  # fmt: skip
    bench.run("start")
    bench.wait_for_states(a="queued", b="completed")
    bench.wait_until(lambda: bench.tasks()["a"]["attempt"] == 1, "the first attempt")
    text = bench.run("explain", "a").out
    assert "its last run failed (exit code 1)" in text and "retry 1 of 3" in text
    assert bench.run("cancel", "a").out == "cancelled: a\n"


def test_a_run_over_its_time_limit_is_ended_with_all_its_processes(lab: Lab) -> None:
    bench = lab.workspace(tasks={"slow.yml": "seconds: 1000", "fast.yml": ""}, time_limit="1s", stop_grace=0.5)
    bench.reconfigure(tasks={"fast": {"time_limit": None}})
    bench.run("start", "--wait", code=1)
    task = bench.tasks()["slow"]
    assert (task["state"], task["reason"]["code"]) == ("timed_out", "time_limit")
    assert bench.states()["fast"] == "completed"
    assert not [line for _, line in lab.processes() if "sleep" in line]


def test_a_time_limit_that_passes_while_no_scheduler_looks_counts_all_the_same(lab: Lab) -> None:
    bench = lab.workspace(tasks={"slow.yml": "seconds: 1000"}, time_limit="2s", stop_grace=0.5)
    bench.run("start")
    bench.wait_for_starts("slow")
    bench.run("stop")
    bench.run("start", "--wait", code=1)
    assert bench.states() == {"slow": "timed_out"}


def test_after_waits_for_completion_and_passes_failure_on(lab: Lab) -> None:
    bench = lab.workspace(
        tasks={"prepare.yml": "", "train_a.yml": "", "train_b.yml": "code: 1", "report_a.yml": "", "report_all.yml": "",
               "mail.yml": ""},
    )  # fmt: skip
    bench.reconfigure(
        tasks={
            "train_*": {"after": ["prepare"]},
            "report_a": {"after": "train_a"},
            "report_all": {"after": ["train_*"]},
            "mail": {"after": ["report_*"]},
        }
    )
    bench.run("start", "--wait", code=1)
    tasks = bench.tasks()
    assert {name: task["state"] for name, task in tasks.items()} == {
        "prepare": "completed", "train_a": "completed", "train_b": "failed", "report_a": "completed",
        "report_all": "failed", "mail": "failed",
    }  # fmt: skip
    assert tasks["report_all"]["reason"]["code"] == tasks["mail"]["reason"]["code"] == "dependency"
    assert "train_b, which it comes after, ended: failed" in tasks["report_all"]["reason"]["text"]
    assert set(bench.starts()) == {"prepare", "train_a", "train_b", "report_a"}
    order = [line.task for line in bench.record() if line.what == "start"]
    assert order[0] == "prepare" and order.index("train_a") < order.index("report_a")


def test_a_cycle_is_refused_and_an_empty_match_is_a_warning(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "", "b.yml": "", "c.yml": ""})
    bench.reconfigure(tasks={"a": {"after": ["b"]}, "b": {"after": ["c"]}, "c": {"after": ["a"]}})
    answer = bench.run("start", code=2)
    assert "wait for each other: a after b after c after a" in answer.err
    assert bench.starts() == {}
    bench.reconfigure(tasks={"a": {"after": ["nobody*"]}})
    answer = bench.run("start", "--wait")
    assert "a comes after 'nobody*', which no task matches" in answer.err
    assert bench.states()["a"] == "completed"


def test_max_running_limits_the_tasks_of_a_glob(lab: Lab) -> None:
    bench = lab.workspace(tasks={f"big_{n}.yml": "seconds: 0.1" for n in range(4)} | {"small.yml": ""})
    bench.reconfigure(tasks={"big_*": {"max_running": 1}})
    bench.run("start", "--wait")
    there = 0
    for line in sorted(bench.record(), key=lambda line: line.at):
        if line.task.startswith("big_"):
            there += 1 if line.what == "start" else -1
            assert there <= 1


def test_show_tells_every_run_and_what_changed_in_the_config(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp1.yml": "text: lr 0.1\ncode: 3\n"})
    bench.run("start", "--wait", code=1)
    bench.add("exp1.yml", "text: lr 0.2\n")
    bench.run("start", "exp1.yml", "--wait")
    text = bench.run("show", "exp1").out
    assert "attempt 1: failed: exit code 3" in text and "attempt 2: completed" in text
    assert "-text: lr 0.1" in text and "+text: lr 0.2" in text
    shown = json.loads(bench.run("show", "exp1", "--json").out)
    assert shown["version"] == 1
    first, second = shown["runs"]
    assert first["command"] == ["/bin/sh", str(bench.folder / "train.sh"), "--config_path",
                                str(bench.folder / "configs" / "exp1.yml")]  # fmt: skip
    assert first["exit_code"] == 3 and first["node"] and first["config_hash"] != second["config_hash"]
    assert [event["what"] for event in shown["events"]][:3] == ["Queued", "Began", "Intended"]
    assert "no task 'exp2'" in bench.run("show", "exp2", code=3).err
