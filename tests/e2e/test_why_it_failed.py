"""Why runs failed, what is retried because of it, and everything about a task at one place."""

from __future__ import annotations

import json

import pytest

from tests.support import Bench, Lab

OOM = """\
Traceback (most recent call last):
  File "train.py", line 41, in <module>
    main()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.65 GiB
"""
OTHER = """\
Traceback (most recent call last):
  File "train.py", line 3, in <module>
    import flash_attn
ModuleNotFoundError: No module named 'flash_attn'
"""
# Fails as its config says: `text` names the file with the last words; from the attempt `until` on it succeeds.
SCRIPT = r"""
until=99 code=1 text=
while IFS=': ' read -r key value; do
    case $key in until) until=$value ;; code) code=$value ;; text) text=$value ;; esac
done <"$2"
printf 'start %s %s %s %s\n' "$TINKSCHED_TASK" "$$" "$CUDA_VISIBLE_DEVICES" "$(date +%s.%N)" >>"$RECORD"
printf 'epoch 1\repoch 2\033[31m\n'
[ "$TINKSCHED_ATTEMPT" -ge "$until" ] && exit 0
[ -z "$text" ] || cat "$text"
exit "$code"
"""


def failing(lab: Lab, executor: str = "tmux", **settings: object) -> Bench:
    bench = lab.workspace(executor=executor, retry_delay="0.1s", **settings)
    (bench.folder / "train.sh").write_text(SCRIPT)
    (bench.folder / "oom.txt").write_text(OOM)
    (bench.folder / "other.txt").write_text(OTHER)
    return bench


@pytest.mark.parametrize("executor", ["tmux", "local"])
def test_status_explain_and_show_say_why_a_run_failed(lab: Lab, executor: str) -> None:
    bench = failing(lab, executor)
    bench.add("memory.yml", "text: oom.txt")
    bench.add("module.yml", "text: other.txt")
    bench.add("plain.yml", "code: 3")
    bench.run("start", "--wait", code=1)
    names = ("memory", "module")
    bench.wait_until(lambda: all(bench.tasks()[name]["diagnosis"] for name in names), "the diagnoses", 10)
    tasks = bench.tasks()
    assert tasks["memory"]["diagnosis"] == {"kind": "cuda_out_of_memory", "text": "CUDA out of memory"}
    assert tasks["memory"]["reason"]["code"] == "exit_code"
    assert tasks["module"]["diagnosis"] == {"kind": "missing_module", "text": "no module named flash_attn"}
    assert tasks["plain"]["diagnosis"] is None
    text = bench.run("status").out
    assert "CUDA out of memory (exit code 1)" in text and "no module named flash_attn (exit code 1)" in text
    said = bench.run("explain", "memory").out
    assert "It failed: CUDA out of memory (exit code 1)." in said
    assert json.loads(bench.run("explain", "memory", "--json").out)["diagnosis"]["kind"] == "cuda_out_of_memory"
    shown = bench.run("show", "memory").out
    assert "attempt 1: failed: CUDA out of memory (exit code 1)" in shown
    assert "torch.OutOfMemoryError: CUDA out of memory. Tried" in shown and "\x1b" not in shown
    (run,) = json.loads(bench.run("show", "memory", "--json").out)["runs"]
    assert run["diagnosis"] == {"kind": "cuda_out_of_memory", "text": "CUDA out of memory"}
    assert run["last_lines"][0] == "epoch 2" and run["last_lines"][-1].startswith("torch.OutOfMemoryError")
    assert run["seconds"] >= 0


def test_without_logs_there_is_no_diagnosis(lab: Lab) -> None:
    bench = failing(lab, enable_logging=False)
    bench.add("memory.yml", "text: oom.txt")
    bench.run("start", "--wait", code=1)
    task = bench.tasks()["memory"]
    assert (task["state"], task["diagnosis"], task["log"]) == ("failed", None, None)


def test_a_run_that_ended_while_no_scheduler_was_there_is_diagnosed_too(lab: Lab) -> None:
    bench = failing(lab)
    gate = bench.gate()
    (bench.folder / "train.sh").write_text(SCRIPT.replace("[ -z", f'flock -s "{gate.path}" true; [ -z'))
    bench.add("memory.yml", "text: oom.txt")
    bench.run("start")
    bench.wait_for_starts("memory")
    bench.run("stop")
    bench.wait_for_scheduler_end()
    gate.open()
    bench.wait_until(lambda: bench.states() == {"memory": "failed"}, "its end", 10)
    bench.wait_until(lambda: bench.tasks()["memory"]["diagnosis"], "the diagnosis without a scheduler", 10)
    bench.run("start", "--wait", code=None)
    assert bench.tasks()["memory"]["reason"]["text"] == "CUDA out of memory (exit code 1)"


@pytest.mark.parametrize("executor", ["tmux", "local"])
def test_only_what_is_named_is_retried(lab: Lab, executor: str) -> None:
    bench = failing(lab, executor, retry_on=["oom", 7], max_retries=2)
    bench.add("memory.yml", "text: oom.txt\nuntil: 2")
    bench.add("always.yml", "text: oom.txt")
    bench.add("module.yml", "text: other.txt")
    bench.add("seven.yml", "code: 7\nuntil: 2")
    bench.add("eight.yml", "code: 8")
    bench.run("start", "--wait", code=1)
    assert bench.starts() == {"memory": 2, "always": 3, "module": 1, "seven": 2, "eight": 1}
    assert bench.states() == {
        "memory": "completed", "always": "failed", "module": "failed", "seven": "completed", "eight": "failed",
    }  # fmt: skip


def test_options_for_some_tasks_win_and_an_empty_list_retries_nothing(lab: Lab) -> None:
    bench = failing(lab, auto_restart_failed=True, max_retries=1)
    bench.reconfigure(tasks={"never": {"retry_on": []}, "eight": {"retry_on": "oom"}, "more": {"retry_on": ["failed"]}})
    for name in ("never", "eight", "more", "usual"):
        bench.add(f"{name}.yml", "code: 8")
    bench.run("start", "--wait", code=1)
    assert bench.starts() == {"never": 1, "eight": 1, "more": 2, "usual": 2}


def test_a_retry_after_out_of_memory_waits_for_a_gpu_for_itself_and_says_so(lab: Lab) -> None:
    """Nobody knows here how much memory it had."""
    bench = failing(lab, retry_on=["oom"])
    bench.reconfigure(retry_delay="30m")
    bench.add("memory.yml", "text: oom.txt")
    bench.run("start")
    bench.wait_until(
        lambda: bench.tasks()["memory"]["attempt"] == 1 and bench.states() == {"memory": "queued"}, "retry"
    )
    said = bench.run("explain", "memory").out
    assert "its last run failed: CUDA out of memory (exit code 1)" in said
    assert "(retry 1 of 3, with a GPU for itself)" in said
    assert json.loads(bench.run("show", "memory", "--json").out)["need"] == {"alone": True, "bytes": None}
    bench.run("cancel", "memory")


def test_show_of_one_attempt_and_of_one_that_there_is_not(lab: Lab) -> None:
    bench = failing(lab, "local", retry_on=["failed"], max_retries=1)
    bench.add("exp1.yml", "code: 3\nuntil: 2")
    bench.run("start", "--wait")
    shown = bench.run("show", "exp1", "--attempt", "1").out
    assert "attempt 1: failed: exit code 3" in shown and "attempt 2" not in shown
    runs = json.loads(bench.run("show", "exp1.yml", "--attempt", "2", "--json").out)["runs"]
    assert [(run["attempt"], run["last_lines"]) for run in runs] == [(2, [])]
    assert "exp1 has no attempt 3; it has 1, 2" in bench.run("show", "exp1", "--attempt", "3", code=3).err
