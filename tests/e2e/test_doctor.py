"""`doctor`: what it says of a workspace that is in order, and of one that isn't."""

from __future__ import annotations

import json
import shutil

from tests.support import Lab
from tinksched.operations.doctor import CHECKS


def test_a_workspace_in_order(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1, executor="local")
    fresh = json.loads(bench.run("doctor", "--json").out)
    assert fresh["version"] == 1 and fresh["fine"]
    assert [check["name"] for check in fresh["checks"]] == [name for name, _ in CHECKS]
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a")
    bench.wait_for_states(a="running")
    table = bench.run("doctor").out
    assert f"runs as process {bench.scheduler_pid()}" in table
    assert "whole (1 active)" in table and "1 active, 0 of them ended" in table and "MB free" in table
    gate.open()


def test_what_is_broken_is_named_and_the_rest_is_looked_at_all_the_same(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1, executor="local")
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a")
    bench.wait_for_states(a="running")
    bench.run("stop")
    shutil.rmtree(bench.state.runs)
    (bench.state.path / "home").write_text("{")
    answer = bench.run("doctor", "--json", code=1)
    found = {check["name"]: check for check in json.loads(answer.out)["checks"]}
    bad = {name for name, check in found.items() if check["level"] == "bad"}
    assert bad == {"home", "runs"}
    assert "the run folders of a are gone" in found["runs"]["what"]
    assert "home can't be read" in found["home"]["what"] and "rm " in found["home"]["todo"]
    gate.open()


def test_nothing_to_repair(lab: Lab) -> None:
    bench = lab.workspace(executor="local", tasks={"a.yml": ""})
    assert "nothing to repair" in bench.run("doctor", "--repair").err
    bench.run("start", "--wait")
    bench.wait_for_scheduler_end()
    assert "nothing to repair" in bench.run("doctor", "--repair").err
    assert bench.states() == {"a": "completed"}
