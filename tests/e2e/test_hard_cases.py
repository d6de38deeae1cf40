"""Cases that a reviewer of the engine thought of, each seen to go wrong once."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tests.support import SCRIPT, Lab


def test_a_script_that_saves_and_ends_with_0_at_term_was_cancelled_and_did_not_complete(lab: Lab) -> None:
    bench = lab.workspace(max_jobs_per_gpu=4)
    gate = bench.gate()
    (bench.folder / "train.sh").write_text("trap 'echo saved; exit 0' TERM\n" + SCRIPT)
    for name in ("a", "b"):
        bench.add(f"{name}.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a", "b")
    assert bench.run("cancel", "a").out == "cancelled: a\n"
    bench.run("kill-all")
    assert bench.states() == {"a": "cancelled", "b": "cancelled"}
    assert "queued 1: b" in bench.run("start", "--dry-run").out.replace("would queue", "queued")


def test_the_emergency_stop_works_with_a_broken_configuration(lab: Lab) -> None:
    bench = lab.workspace(stop_grace=0.5)
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a")
    (bench.folder / "scheduler_config.yml").write_text("task_name: T\nnonsense: [\n")
    assert bench.run("status", code=2).err
    assert "killed: a" in bench.run("kill-all").out


@pytest.mark.parametrize("state_dir", [None, "elsewhere/state"])
def test_with_a_broken_configuration_what_is_on_record_is_shown_and_ended(lab: Lab, state_dir: str | None) -> None:
    bench = lab.workspace(stop_grace=0.5, executor="local", tasks={"done.yml": "text: words"})
    bench.reconfigure(**({} if state_dir is None else {"state_dir": state_dir}))
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.run("start")
    bench.run("wait", "done")
    config = bench.folder / "scheduler_config.yml"
    config.write_text(config.read_text() + "nonsense: [\n")
    answer = bench.run("logs", "done")
    assert answer.out.strip() == "words" and "scheduler_config.yml:" in answer.err
    assert "this goes by the configuration that tasks were last queued with" in answer.err
    assert "attempt 1" in bench.run("explain", "a").out and "done: completed" in bench.run("show", "done").out
    assert "1 running on: a" in bench.run("pause").out
    answer = bench.run("cancel", "a")
    assert answer.out == "cancelled: a\n" and "last queued with" in answer.err
    assert "last queued with" in bench.run("kill-all").err
    for command in ("status", "start", "resume"):
        assert "scheduler_config.yml:" in bench.run(command, code=2).err


def test_the_environment_of_a_run_is_in_no_command_line(lab: Lab) -> None:
    bench = lab.workspace(tasks={f"e{n}.yml": "" for n in range(20)})
    seen = []

    def look() -> bool:
        for entry in os.listdir("/proc"):
            if entry.isdigit() and entry != str(os.getpid()):
                with contextlib.suppress(OSError):
                    seen.append(b"s3cr3t" in Path(f"/proc/{entry}/cmdline").read_bytes())
        return "completed" in bench.states().values() and "queued" not in bench.states().values()

    bench.run("start", WANDB_API_KEY="s3cr3t")
    bench.wait_until(look, "the end")
    assert not any(seen) and len(seen) > 50


def test_stop_does_not_wait_for_what_outlives_a_run(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""}, stop_grace=60)
    (bench.folder / "train.sh").write_text("mkfifo up; setsid sh -c 'echo up >up; exec sleep 1000' &\nread -r _ <up\n")
    bench.run("start")
    bench.wait_until(lambda: "outlived" in (bench.folder / "logs" / "T_scheduler.log").read_text(), "the leftover")
    assert "scheduler stopped" in bench.run("stop").out
    assert bench.states() == {"a": "completed"}


def test_a_shell_in_the_session_of_the_scheduler_blocks_no_start(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""})
    bench.run("start", "--wait")
    bench.wait_for_scheduler_end()
    lab.tmux("new-window", "-t", "=T_scheduler:", "cat")
    bench.add("b.yml")
    bench.run("start", "--wait")
    assert bench.states() == {"a": "completed", "b": "completed"}


def test_a_second_attempt_and_a_task_of_that_name_have_logs_of_their_own(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp.yml": "code: 1\ntext: first", "exp.2.yml": "text: another task"})
    bench.run("start", "--wait", code=1)
    bench.add("exp.yml", "text: second")
    bench.run("retry", "exp")
    bench.wait_for_states(exp="completed")
    assert bench.run("logs", "exp").out == "second\n"
    assert bench.run("logs", "exp.2").out == "another task\n"


def test_another_file_for_a_known_task_is_refused(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""})
    bench.run("start", "--wait")
    (lab.folder / "a.yml").write_text("")
    answer = bench.run("start", str(lab.folder / "a.yml"), "--rerun", code=2)
    assert "is known by another config" in answer.err


def test_two_workspaces_wake_each_other_though_one_looks_at_the_leases(lab: Lab) -> None:
    one = lab.workspace("one", gpu_count=1, max_jobs_per_gpu=1, check_interval=600)
    two = lab.workspace("two", gpu_count=1, max_jobs_per_gpu=1, check_interval=600)
    for number in range(5):
        one.add(f"a{number}.yml")
        two.add(f"b{number}.yml")
    one.run("start")
    two.run("start")
    one.wait_until(lambda: set(one.states().values()) == {"completed"}, "one", 60)
    two.wait_until(lambda: set(two.states().values()) == {"completed"}, "two", 60)
    record = sorted(one.record(), key=lambda line: line.at)
    assert [line.what for line in record] == ["start", "end"] * 10
