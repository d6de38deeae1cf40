"""Events in words, and what a batch comes to."""

from __future__ import annotations

from typing import Any

from tests.unit.test_store import SPEC
from tinksched.core.model import Outcome, Reason, ReasonCode, Task, TaskState
from tinksched.core.news import OF_ALL, OF_BATCHES, OF_TASKS, Tally, message, of_task

COMMON = {"version": 1, "workspace": "/w", "task_name": "T", "host": "box"}


def event(kind: str, task: str, outcome: str | None = None, reason: str | None = None) -> dict[str, Any]:
    return {**COMMON, "event": kind, "task": task, "outcome": outcome, "reason": reason, "log": f"/w/{task}.log"}


def done(name: str, outcome: Outcome, at: float) -> Task:
    reason = Reason(ReasonCode.EXIT_CODE, {"code": 3}) if outcome is Outcome.FAILED else None
    return Task(1, name, "", SPEC, TaskState.DONE, 0, 0, 0.0, at, outcome=outcome, reason=reason)


def test_one_event_is_a_title_and_its_log() -> None:
    assert message([event("failed", "a", "timed_out", "too long")]) == ("T on box: a timed out: too long", "/w/a.log")
    assert message([event("stalled", "a", None, "no output")])[0] == "T on box: a stalled: no output"
    assert message([event("retried", "a", "lost")])[0] == "T on box: a lost, will be tried again"


def test_an_event_holds_what_is_said_of_it() -> None:
    """A test of the real thing has what the scheduler adds: see `tests/e2e/test_news.py`."""
    assert {*COMMON, *of_task("started", 1.0, "a")} == {*OF_ALL, *OF_TASKS}
    tally = Tally()
    tally.done(done("a", Outcome.FAILED, 5.0))
    summary = tally.close(6.0)
    assert summary is not None and {*COMMON, *summary} == {*OF_ALL, *OF_BATCHES}
    assert {*summary["not_completed"][0]} == {"task", "outcome", "reason"}


def test_many_events_are_one_message_that_is_not_too_long() -> None:
    title, text = message([event("failed", f"t{number}", "failed", "exit code 1") for number in range(1000)])
    assert title == "T on box: 1000 failed"
    assert text.splitlines()[-2:] == ["t19 failed: exit code 1", "and 980 more"]


def test_a_batch_is_summed_up_once_and_a_task_that_was_done_twice_counts_once() -> None:
    tally = Tally()
    assert tally.close(1.0) is None
    tally.begin(10.0)
    for task in (done("a", Outcome.FAILED, 12.0), done("a", Outcome.COMPLETED, 14.0), done("b", Outcome.FAILED, 15.0)):
        tally.done(task)
    found = tally.close(20.0)
    assert found is not None and found["counts"] == {"completed": 1, "failed": 1} and found["seconds"] == 10.0
    assert found["not_completed"] == [{"task": "b", "outcome": "failed", "reason": "exit code 3"}]
    title, text = message([{**COMMON, **found}])
    assert title == "T on box: all done: 1 completed, 1 failed" and text == "b failed: exit code 3"
    assert tally.close(21.0) is None
