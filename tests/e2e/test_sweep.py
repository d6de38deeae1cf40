"""`sweep` from the shell: what it prints, and that what it queues runs."""

from __future__ import annotations

import json

from tests.support import Bench, Lab


def prepared(lab: Lab) -> Bench:
    return lab.workspace(tasks={"_base.yml": "seconds: 0\ntext: x\n"}, executor="local")


def test_a_sweep_is_written_queued_and_run_once(lab: Lab) -> None:
    bench = prepared(lab)
    dry = bench.run("sweep", "_base.yml", "text=a,b", "--dry-run")
    assert "would write  base_text-a.yml   text=a" in dry.out and "2 points" in dry.err
    assert list((bench.folder / "configs").iterdir()) == [bench.folder / "configs" / "_base.yml"]
    answer = bench.run("sweep", "_base.yml", "text=a,b", "--start")
    assert "queued 2: base_text-a, base_text-b" in answer.out
    bench.wait_for_states(**{"base_text-a": "completed", "base_text-b": "completed"})
    again = bench.run("sweep", "_base.yml", "text=a,b,c", "--start")
    assert "exists" in again.out and "left 2 that were queued before" in again.err
    bench.wait_for_states(**{"base_text-c": "completed"})
    assert bench.starts() == {"base_text-a": 1, "base_text-b": 1, "base_text-c": 1}
    assert bench.log("base_text-c").strip() == "c"


def test_the_points_as_json_and_errors_with_their_codes(lab: Lab) -> None:
    bench = prepared(lab)
    found = json.loads(bench.run("sweep", "_base", "text=a", "seconds=0,1", "--json").out)
    assert found["version"] == 1 and found["written"] and found["grid"] == {"text": ["a"], "seconds": [0, 1]}
    assert [point["state"] for point in found["points"]] == ["new", "new"]
    assert found["points"][1]["values"] == {"text": "a", "seconds": 1}
    assert "did you mean text" in bench.run("sweep", "_base", "txt=a", code=2).err
    assert "--yes" in bench.run("sweep", "_base", "seconds=1..1001", code=2).err
    bench.add("_broken.yml", "a: [1\n")
    assert "_broken.yml:1:4" in bench.run("sweep", "_broken", "a=1", code=2).err
    bench.run("sweep", "_base", code=2)
