"""What the commands that act say to programs: one JSON document each, of one form, also where they did a part only."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support import Bench, Lab
from tinksched.cli.app import COMMANDS, GROUPS, command_of

FOR_PEOPLE = {
    "setup-workspace",
    "watch",
    "logs",
    "attach",
    "completion",
    "help",
    "serve",
    "register",
    "dashboard",
    *GROUPS,
}


def act(bench: Bench, *arguments: str, code: int = 0) -> dict[str, Any]:
    """The document that the command printed; anything else on standard output is none."""
    record: dict[str, Any] = json.loads(bench.run(*arguments, "--json", code=code).out)
    assert (record["version"], record["command"]) == (1, arguments[0])
    assert isinstance(record["done"], list) and isinstance(record["left"], dict)
    return record


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_shows_data_or_acts_on_tasks_has_json(name: str) -> None:
    options = {option for parameter in command_of(name).params for option in parameter.opts}
    assert ("--json" in options) == (name not in FOR_PEOPLE)


def test_every_command_that_acts_answers_in_one_form(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1, max_jobs_per_gpu=1)
    gate = bench.gate()
    bench.add("exp1.yml", gate.config)
    for name in ("exp2", "exp3"):
        bench.add(f"{name}.yml")
    bench.add("_base.yml")
    dry = act(bench, "start", "--dry-run")
    assert (dry["done"], dry["would_queue"]) == ([], ["exp1", "exp2", "exp3"])
    assert act(bench, "start")["done"] == ["exp1", "exp2", "exp3"]
    assert set(act(bench, "start")["left"].values()) == {"queued or running already"}
    bench.wait_for_starts("exp1")
    assert act(bench, "hold", "exp*", code=1)["left"] == {"exp1": "is running"}
    assert act(bench, "release", "exp3", "--at", "+2h")["until"] > 0
    assert act(bench, "priority", "exp2", "3")["done"] == ["exp2"]
    paused = act(bench, "pause")
    assert (paused["new"], paused["running"], paused["queued"]) == (True, ["exp1"], 2)
    assert not act(bench, "pause")["new"]
    assert act(bench, "resume")["user"] == paused["user"]
    assert act(bench, "cancel", "exp3")["done"] == ["exp3"]
    assert act(bench, "cancel", "exp3", "exp2")["left"] == {"exp3": "is cancelled"}
    assert act(bench, "retry", "exp1", "exp2", code=1) == {
        "version": 1, "command": "retry", "done": ["exp2"], "left": {"exp1": "is running"},
    }  # fmt: skip
    swept = act(bench, "sweep", "_base", "seconds=0,1", "--start")
    assert swept["done"] == swept["queued"] and len(swept["points"]) == len(swept["done"]) == 2
    stopped = act(bench, "stop")
    assert stopped["scheduler"] and stopped["running"] == ["exp1"]
    assert not act(bench, "stop", code=3)["scheduler"]
    killed = act(bench, "kill-all")
    assert "exp1" in killed["done"] and not killed["scheduler"]
    assert act(bench, "clean", "exp1", "--dry-run")["done"] == []
    assert act(bench, "clean", "exp1", "--yes")["done"] == ["exp1"]


def test_a_command_that_waits_answers_once_and_at_the_end(lab: Lab) -> None:
    bench = lab.workspace(tasks={"good.yml": "", "bad.yml": "code: 3"})
    record = act(bench, "start", "--wait", code=1)
    assert record["states"] == {"good": "completed", "bad": "failed"}
    answer = bench.run("run", "--wait", "--json", "--", "sh", "-c", "exit 3", code=1)
    record = json.loads(answer.out)
    assert (record["done"], record["state"], record["reason"]) == ([record["task"]], "failed", "exit code 3")
    assert json.loads(bench.run("run", "--json", "--", "true").out)["command"] == "run"
    assert "can't be used together" in bench.run("start", "--foreground", "--json", code=2).err
