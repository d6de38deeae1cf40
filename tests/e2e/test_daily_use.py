"""What a user does every day, with real processes in a real tmux."""

from __future__ import annotations

from tests.support import Lab


def test_a_batch_runs_to_its_end_and_says_how_it_went(lab: Lab) -> None:
    bench = lab.workspace(tasks={f"exp{n}.yml": "text: hello\n" for n in range(1, 7)} | {"bad.yml": "code: 3\n"})
    answer = bench.run("start", "--wait", code=1)
    assert "7 tasks: 6 completed, 1 failed" in answer.out
    assert "exit code 3" in answer.out
    assert bench.starts() == {**{f"exp{n}": 1 for n in range(1, 7)}, "bad": 1}
    assert bench.log("exp1") == "hello\n"
    bench.wait_for_scheduler_end()


def test_starting_again_adds_nothing(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "seconds: 0\n", "bad.yml": "code: 1\n"})
    bench.run("start", "--wait", code=1)
    again = bench.run("start", "--wait")
    assert "queued nothing new" in again.out
    assert "left 1 completed" in again.out and "--failed" in again.out
    assert bench.starts() == {"a": 1, "bad": 1}
    bench.run("start", "--failed", "--wait", code=1)
    assert bench.starts() == {"a": 1, "bad": 2}
    bench.run("start", "--rerun", "--wait")
    assert bench.starts()["a"] == 2
