"""What the old scheduler gets wrong and has no test of its own elsewhere."""

from __future__ import annotations

from tests.support import Lab


def test_gpu_1_and_gpu_10_are_not_taken_for_each_other(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=11, max_jobs_per_gpu=1)
    gate = bench.gate()
    for name in ("a", "b"):
        bench.add(f"{name}.yml", gate.config)
    bench.run("start", "a.yml,b.yml", "1,10")
    bench.wait_for_starts("a", "b")
    assert {"T_a_gpu1", "T_b_gpu10"} <= set(lab.sessions())
    bench.run("cancel", "a")
    assert bench.states() == {"a": "cancelled", "b": "running"}
    gate.open()
    bench.wait_for_states(b="completed")


def test_a_config_without_root_dir_runs_once(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "marker: no\n"}, check_interval=0.2)
    bench.run("start", "--wait")
    bench.run("start", "--wait")
    assert bench.starts() == {"a": 1}


def test_full_gpus_are_balanced(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=3, max_jobs_per_gpu=2)
    gate = bench.gate()
    for number in range(6):
        bench.add(f"e{number}.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts(*(f"e{number}" for number in range(6)))
    assert sorted(gpu for task in bench.tasks().values() for gpu in task["gpus"]) == [0, 0, 1, 1, 2, 2]
    gate.open()


def test_tasks_that_all_failed_do_not_end_in_all_completed(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "code: 1", "b.yml": "code: 2"})
    bench.run("start", "--wait", code=1)
    bench.wait_for_scheduler_end()
    last = (bench.folder / "logs" / "T_scheduler.log").read_text().splitlines()[-1]
    assert last.endswith("all done: 2 failed")
    assert "completed" not in lab.tmux("capture-pane", "-p", "-t", "=T_scheduler:").stdout


def test_a_finished_scheduler_does_not_block_the_next_start(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""})
    for name in ("b", "c"):
        bench.run("start", "--wait")
        bench.wait_for_scheduler_end()
        bench.add(f"{name}.yml")
    bench.run("start", "--wait")
    assert bench.starts() == {"a": 1, "b": 1, "c": 1}
    assert [name for name in lab.sessions() if "scheduler" in name] == ["T_scheduler"]


def test_quoted_and_unquoted_values_are_the_same(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "text: x"})
    for quote in ("", "'", '"'):
        text = f"task_name: {quote}T{quote}\nscript_path: {quote}train.sh{quote}\npython_env: {quote}/bin/sh{quote}\n"
        (bench.folder / "scheduler_config.yml").write_text(f"{text}gpu_count: 2  # two\n")
        bench.run("start", "--rerun", "--wait")
    assert bench.starts() == {"a": 3}
