"""What `status`, `explain` and `config` show, and to whom."""

from __future__ import annotations

import json
import re

import pytest

from tests.e2e.test_output import read_terminal
from tests.support import Lab


def test_a_fresh_workspace_teaches_the_next_command(lab: Lab) -> None:
    bench = lab.workspace()
    assert "put configs into the config folder" in bench.run("status").out
    bench.add("exp1.yml")
    answer = bench.run("status")
    assert "`tinksched start` queues what is new" in answer.out and answer.err == ""
    assert bench.run().out.splitlines()[1:] == answer.out.splitlines()[1:], "a bare tinksched is status"
    assert not bench.state.path.exists(), "looking leaves nothing behind"


def test_only_the_tasks_that_are_named_are_shown(lab: Lab) -> None:
    bench = lab.workspace(executor="local", tasks={"exp1.yml": "code: 1", "exp2.yml": "", "other.yml": ""})
    assert list(bench.tasks("exp*")) == ["exp1", "exp2"], "those count that were never queued"
    assert "there is no task 'exq1'" in bench.run("status", "exq1", code=3).err
    assert "no task has failed" in bench.run("status", "--failed", code=3).err
    bench.run("start", "--wait", code=1)
    bench.add("exp3.yml")
    assert list(bench.tasks("exp*")) == ["exp1", "exp2", "exp3"]
    assert list(bench.tasks("--failed")) == ["exp1"] and list(bench.tasks("2-3")) == ["exp2", "other"]
    assert list(bench.tasks("@", "exp3.yml")) == ["other", "exp3"]
    record = json.loads(bench.run("status", "exp1", "exp3", "--json").out)
    assert record["counts"] == {"failed": 1, "new": 1} and len(record["gpus"]) == 2
    table = bench.run("status", "exp*").out
    assert "exp1" in table and "other" not in table and "3 tasks: 1 completed, 1 failed, 1 new" in table
    answer = bench.run("status", "exp1", "exq3", code=3)
    assert "no task 'exq3'" in answer.err and "exp3" in answer.err and answer.out == ""
    assert len(bench.tasks("--all")) == 4


def test_a_pipe_gets_every_word_and_a_terminal_lines_of_its_width(lab: Lab) -> None:
    name = "a_rather_long_name_of_an_experiment_with_learning_rate_0_001_and_batch_size_256_and_more"
    bench = lab.workspace(tasks={f"{name}.yml": "code: 1\n", "short.yml": ""})
    bench.run("start", "--wait", code=1)
    bench.wait_for_scheduler_end()
    assert name in bench.run("status").out
    for columns in (80, 200):
        lines = bench.run("status", COLUMNS=str(columns)).out.splitlines()
        assert max(map(len, lines)) <= columns, lines
        assert any("✘ failed" in line for line in lines)
    assert "\x1b[" not in bench.run("status").out


def test_colour_on_a_terminal_and_none_with_no_color(lab: Lab) -> None:
    import sys

    bench = lab.workspace(tasks={"exp1.yml": ""})
    command = [sys.executable, "-m", "tinksched", "status"]
    assert "\x1b[" in read_terminal(command, bench, "next:")
    bench.lab.environment["NO_COLOR"] = "1"
    assert "\x1b[3" not in read_terminal(command, bench, "next:")


def test_ascii_terminals_get_ascii(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp1.yml": ""})
    bench.run("start", "--wait")
    out = bench.run("status", LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0").out
    assert out.isascii() and "+ completed" in out


def test_what_completed_tells_when_the_rest_will_start_and_end(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "seconds: 1"}, gpu_count=1, max_jobs_per_gpu=1)
    bench.run("start", "--wait")
    assert " left, ends ~" not in bench.run("status").out, "nothing is to be done"
    gate = bench.gate()
    bench.add("b.yml", gate.config)
    bench.add("c.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("b")
    status = bench.status()
    tasks = {task["name"]: task for task in status["tasks"]}
    (one,) = json.loads(bench.run("show", "a", "--json").out)["runs"]
    took = one["seconds"]
    if tasks["b"]["expected_end"] is not None:  # a slow machine may have taken longer than a second by now
        assert tasks["b"]["expected_end"] == pytest.approx(tasks["b"]["started_at"] + took, abs=0.01)
    assert tasks["b"]["expected_start"] is None
    assert tasks["c"]["expected_start"] >= status["at"] - took
    assert tasks["c"]["expected_end"] == pytest.approx(tasks["c"]["expected_start"] + took, abs=0.01)
    assert status["batch_ends"] == tasks["c"]["expected_end"]
    assert re.search(r"3 tasks: .*; about \ds left, ends ~\d\d:\d\d", bench.run("status").out)
    assert "By what others took it will start at about " in bench.run("explain", "c").out
    assert json.loads(bench.run("show", "c", "--json").out)["expected_start"] is not None
    assert "starts     about 20" in bench.run("show", "c").out
    bench.run("stop")
    bench.wait_for_scheduler_end()
    status = bench.status()
    tasks = {task["name"]: task for task in status["tasks"]}
    assert (tasks["c"]["expected_start"], status["batch_ends"]) == (None, None), "nobody would start it"
    gate.open()


def test_json_has_a_version_and_these_fields(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp1.yml": "code: 4\n"})
    bench.run("start", "--wait", code=1)
    status = bench.status()
    assert status["version"] == 1
    assert set(status) == {
        "version", "workspace", "task_name", "at", "scheduler", "gpus", "gpu_note", "counts", "batch_ends", "tasks",
    }  # fmt: skip
    (task,) = status["tasks"]
    assert set(task) == {
        "name", "number", "state", "reason", "diagnosis", "config", "config_changed", "gpus", "wanted_gpus",
        "priority", "attempt", "exit_code", "queued_at", "started_at", "ended_at", "session", "log", "pid",
        "expected_start", "expected_end", "usage",
    }  # fmt: skip
    assert (task["state"], task["exit_code"], task["reason"]["code"]) == ("failed", 4, "exit_code")
    assert set(status["gpus"][0]) == {"index", "device", "name", "slots", "tasks", "others", "state"}
    explained = json.loads(bench.run("explain", "exp1", "--json").out)
    assert explained["version"] == 1 and explained["reason"]["code"] == "exit_code"


@pytest.mark.parametrize(
    ("text", "settings", "state", "reason"),
    [
        ("code: 0\n", {}, "completed", None),
        ("code: 5\nmarker: no\n", {}, "failed", "exit_code"),
        ("code: 0\nmarker: no\n", {"require_marker": True}, "failed", "no_marker"),
        ("code: 0\nmarker: no\n", {}, "completed", None),
    ],
)
def test_completion_by_evidence(lab: Lab, text: str, settings: dict[str, object], state: str, reason: str) -> None:
    bench = lab.workspace(tasks={"exp1.yml": text}, **settings)
    bench.run("start", "--wait", code=None)
    task = bench.tasks()["exp1"]
    assert (task["state"], task["reason"] and task["reason"]["code"]) == (state, reason)


def test_a_fresh_marker_outweighs_a_crash_in_teardown_and_a_stale_one_does_not(lab: Lab) -> None:
    bench = lab.workspace(tasks={"fresh.yml": "", "stale.yml": ""})
    (bench.folder / "train.sh").write_text(
        '[ "$TINKSCHED_TASK" = fresh ] && echo new >"$TINKSCHED_OUTPUT_DIR/fresh_completed.txt"\nexit 134\n'
    )
    bench.run("start", "--wait", code=1)
    tasks = bench.tasks()
    assert (tasks["fresh"]["state"], tasks["fresh"]["reason"]["code"]) == ("completed", "marker_despite_exit")
    (bench.folder / "out").joinpath("stale_completed.txt").write_text("old")
    bench.run("start", "--failed", "--wait", code=1)
    assert bench.tasks()["stale"]["state"] == "failed"
    bench.reconfigure(strict_exit=True)
    bench.run("start", "fresh.yml", "--rerun", "--wait", code=1)
    assert bench.tasks()["fresh"]["reason"]["code"] == "killed_by_signal"


def test_a_marker_without_a_record_counts_as_completed_and_is_listed_so(lab: Lab) -> None:
    bench = lab.workspace(tasks={"old.yml": "", "new.yml": ""})
    (bench.folder / "out").mkdir()
    (bench.folder / "out" / "old_completed.txt").write_text("by the old scheduler")
    answer = bench.run("start", "--wait")
    assert "queued 1: new" in answer.out and "old" in answer.out and "markers were there before" in answer.out
    assert bench.tasks()["old"]["reason"]["code"] == "marker_from_before"
    bench.run("start", "old.yml", "--rerun", "--wait")
    assert bench.starts() == {"new": 1, "old": 1}


def test_an_edited_config_is_marked_and_changed_runs_it_again(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp1.yml": ""})
    bench.run("start", "--wait")
    bench.add("exp1.yml", "text: edited\n")
    assert "config edited since" in bench.run("status").out
    assert "left 1 completed, and edited since: exp1" in bench.run("start").out
    bench.run("start", "--changed", "--wait")
    assert bench.starts() == {"exp1": 2}
    assert not bench.tasks()["exp1"]["config_changed"]


def test_config_shows_where_each_value_came_from(lab: Lab) -> None:
    bench = lab.workspace()
    rows = {line.split()[0]: line for line in bench.run("config").out.splitlines()}
    assert "scheduler_config.yml:1" in rows["task_name"] and "default" in rows["placement"]
    settings = json.loads(bench.run("config", "--json").out)["settings"]
    assert settings["max_jobs_per_gpu"] == {"value": 2, "from": "scheduler_config.yml:5"}
    assert settings["gpu_count"]["value"] == 2


def test_commands_work_from_below_the_workspace_and_by_name(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp1.yml": ""})
    assert "1 new" in bench.run("status", cwd=bench.folder / "configs").out
    assert "1 new" in bench.run("status", "--workspace", str(bench.folder), cwd=lab.folder).out
    assert "1 new" in bench.run("--workspace", str(bench.folder), "status", cwd=lab.folder).out
    other = bench.folder / "other.yml"
    other.write_text((bench.folder / "scheduler_config.yml").read_text().replace('"T"', '"OTHER"'))
    assert "OTHER" in bench.run("status", "--config", "other.yml").out


def test_settings_changed_while_the_scheduler_runs_take_effect(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1, max_jobs_per_gpu=1)
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.add("b.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a")
    bench.reconfigure(max_jobs_per_gpu=2)
    bench.run("start")
    bench.wait_for_starts("b")
    gate.open()


def test_of_very_many_tasks_those_are_listed_that_matter(lab: Lab) -> None:
    """With two that run, two that failed, one that completed, and one that is new, among 300."""
    names = [f"t{number:03d}" for number in range(300)]
    bench = lab.workspace(gpu_count=2, max_jobs_per_gpu=1, executor="local")
    gate = bench.gate()
    for name, text in {"good": "", "bad1": "code: 1\n", "bad2": "code: 2\n", "live1": gate.config}.items():
        bench.add(f"{name}.yml", text)
    bench.run("start", "good.yml,bad1.yml,bad2.yml", "--wait", code=1)
    bench.add("live2.yml", gate.config)
    for name in names:
        bench.add(f"{name}.yml")
    answer = bench.run("start", "live1.yml,live2.yml," + ",".join(f"{name}.yml" for name in names[:-1]))
    assert answer.out.startswith("queued 301: live1, live2, t000, ") and "t017 and 281 more" in answer.out
    bench.wait_for_starts("live1", "live2")
    bench.wait_for_states(live1="running", live2="running")
    shown = bench.run("status").out
    listed = {word for line in shown.split("TASK")[1].splitlines()[1:] for word in line.split()[:2]}
    assert {"live1", "live2", "good", "bad1", "bad2", names[-1]} <= listed
    assert {name for name in listed if name in names[:-1]} == set(names[:40]), "those that come next"
    assert "305 tasks: 1 completed, 2 failed, 2 running, 299 queued, 1 new" in shown
    assert "259 of them are not listed here: `tinksched status --all`" in shown
    every = bench.run("status", "--all").out
    assert all(name in every for name in names) and "not listed" not in every
    assert len(bench.tasks()) == 305
    gate.open()
    bench.run("kill-all")
