"""Each of the 21 keys of the old scheduler's configuration has the effect that it promises."""

from __future__ import annotations

import itertools

import pytest

from tests.support import Lab

SAYS = 'printf "%s|%s|%s|%s\\n" "$PWD" "$TINKSCHED_OUTPUT_DIR" "$MY_DEVICES" "$CUDA_VISIBLE_DEVICES"\n'


def test_paths_names_and_the_variable_for_the_gpus(lab: Lab) -> None:
    """work_dir, config_dir, script_path, output_dir, config_pattern, cuda_visible_devices_var, task_name."""
    bench = lab.workspace(
        task_name="demo", work_dir="code", config_dir="my configs", script_path="code/say.sh", output_dir="results",
        config_pattern="*.conf.yml", cuda_visible_devices_var="MY_DEVICES", gpu_count=1,
    )  # fmt: skip
    (bench.folder / "code").mkdir()
    (bench.folder / "code" / "say.sh").write_text(SAYS)
    (bench.folder / "my configs").mkdir()
    for name in ("a.conf.yml", "b.yml"):
        (bench.folder / "my configs" / name).write_text("x: 1\n")
    bench.run("start", "--wait")
    assert list(bench.states()) == ["a.conf"]
    assert bench.run("logs", "a.conf").out == f"{bench.folder / 'code'}|{bench.folder / 'results'}|0|\n"
    assert (bench.folder / "results" / "a.conf_completed.txt").exists()
    assert {"demo_scheduler", "demo_a_conf_gpu0"} <= set(lab.sessions())


def test_the_names_of_sessions(lab: Lab) -> None:
    """scheduler_session_suffix, worker_prefix."""
    bench = lab.workspace(tasks={"a.yml": ""}, gpu_count=1, scheduler_session_suffix="-boss", worker_prefix="w")
    bench.run("start", "--wait")
    assert {"T-boss", "w_a_gpu0"} <= set(lab.sessions())


@pytest.mark.parametrize(("slots", "together"), [(1, 2), (3, 6)])
def test_slots_and_gpus(lab: Lab, slots: int, together: int) -> None:
    """max_jobs_per_gpu, gpu_count."""
    bench = lab.workspace(gpu_count=2, max_jobs_per_gpu=slots)
    gate = bench.gate()
    names = [f"e{n}" for n in range(8)]
    for name in names:
        bench.add(f"{name}.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts(*names[:together])
    assert sum(state == "running" for state in bench.states().values()) == together
    gate.open()


def test_the_delay_between_two_starts_on_a_gpu(lab: Lab) -> None:
    """startup_delay."""
    bench = lab.workspace(tasks={"a.yml": "", "b.yml": "", "c.yml": ""}, gpu_count=1, startup_delay="0.5s")
    bench.run("start", "--wait")
    starts = sorted(task["started_at"] for task in bench.tasks().values())  # when it was decided, not when sh was there
    assert all(later - earlier >= 0.499 for earlier, later in itertools.pairwise(starts))


def test_the_safety_net(lab: Lab) -> None:
    """check_interval: what was missed is seen then; a change of the configuration, for which nobody calls."""
    bench = lab.workspace(gpu_count=1, max_jobs_per_gpu=1, check_interval=0.3)
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.add("b.yml", "")
    bench.run("start")
    bench.wait_for_starts("a")
    bench.reconfigure(max_jobs_per_gpu=2)
    bench.wait_for_states(b="completed")
    gate.open()


def test_without_logging_there_are_no_logs(lab: Lab) -> None:
    """enable_logging, log_dir."""
    bench = lab.workspace(tasks={"a.yml": "text: hi"}, enable_logging=False, gpu_count=1)
    bench.run("start", "--wait")
    assert not (bench.folder / "logs").exists()
    assert "enable_logging is off" in bench.run("logs", "a", code=3).err
    bench.reconfigure(enable_logging=True, log_dir="elsewhere")
    bench.wait_for_scheduler_end()
    bench.run("start", "--rerun", "--wait")
    assert (bench.folder / "elsewhere" / "train_logs" / "a.2.log").exists()
    assert (bench.folder / "elsewhere" / "T_scheduler.log").exists()


def test_the_delay_of_commands_is_accepted_and_said_to_do_nothing(lab: Lab) -> None:
    """command_delay."""
    bench = lab.workspace(tasks={"a.yml": ""}, command_delay=0.5)
    assert "nothing is typed into sessions" in bench.run("config").out
    bench.run("start", "--wait")
