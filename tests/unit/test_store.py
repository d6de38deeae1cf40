"""The database: what is written comes back, a change is whole or not at all, and what isn't ours stays as it is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinksched.core.diagnosis import Diagnosis, Kind
from tinksched.core.lifecycle import (
    Began,
    Dropped,
    Ended,
    Finished,
    GaveBack,
    Held,
    Launched,
    Ranked,
    Released,
    Requeued,
)
from tinksched.core.model import (
    Hold,
    Outcome,
    Reason,
    ReasonCode,
    Request,
    Run,
    RunRecord,
    RunState,
    Task,
    TaskSpec,
    TaskState,
)
from tinksched.core.usage import Sample, Usage
from tinksched.errors import Conflict, StoreError, TinkschedError
from tinksched.store import PAUSED, NewTask, Store, database, records

NOW = 1_700_000_000.25
SPEC = TaskSpec(("python", "train.py"), "/w", "/w/out/a_completed.txt", "/w/out")
FULL_SPEC = TaskSpec(
    command=("/opt/π/python", "it's", "", "a\nb", "--lr=0.1"),
    work_dir="/w ä",
    marker="/w/out/a_completed.txt",
    output_dir="/w/out",
    gpus=2,
    pinned=(3, 1),
    exclusive=True,
    environment=(("A", "1"), ("B", ""), ("LONG", "x" * 5000)),
    environment_ref="0123456789abcdef",
)


def add(store: Store, *names: str, spec: TaskSpec = SPEC, priority: int = 0, now: float = NOW) -> list[Task]:
    with store.transaction("start by ann", now) as tx:
        return tx.add_tasks([NewTask(name, f"/w/configs/{name}.yml", spec, priority) for name in names])


def new_run(task: Task, **given: Any) -> Run:
    attempt = task.attempts + 1
    fresh = Run(
        id=f"{task.name}-{attempt}", task_id=task.id, task=task.name, attempt=attempt, state=RunState.STARTING,
        gpus=(0,), devices=("index-0",), executor="local", session="", directory=f"/s/runs/{task.name}-{attempt}",
        work_dir="/w", log=None, lease="/l/x", marker="/m", marker_before=None, boot_id="b", created_at=NOW + attempt,
    )  # fmt: skip
    return replace(fresh, **given)


def begin(store: Store, task: Task, **given: Any) -> tuple[Task, Run]:
    """Start a run of a queued task, as far as the store is concerned."""
    run = new_run(task, **given)
    with store.transaction("scheduler", NOW + 1) as tx:
        active = tx.apply(task, Began("hash"))
        tx.add_run(run)
    return active, run


def finish(store: Store, task: Task, run: Run, outcome: Outcome = Outcome.COMPLETED, at: float = NOW + 9) -> Task:
    with store.transaction("scheduler", NOW + 10) as tx:
        tx.apply_run(run, Ended(outcome, None, 0, at))
        return tx.apply(task, Finished(outcome, None))


def digest(path: Path) -> dict[str, str]:
    """The content of a database file and of its side files."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.parent.iterdir())
        if file.name.startswith(path.name) and file.is_file() and not file.name.endswith("-shm")
    }


def raw(path: Path, script: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()


# ---------------------------------------------------------------- what is written comes back


def test_a_task_comes_back_with_every_field(store: Store, other: Store) -> None:
    (task,) = add(store, "a", spec=FULL_SPEC, priority=-7)
    assert task == Task(
        id=1, name="a", config="/w/configs/a.yml", spec=FULL_SPEC, state=TaskState.QUEUED, priority=-7, queue_number=1,
        queued_at=NOW, changed_at=NOW,
    )  # fmt: skip
    assert other.task("a") == task
    assert other.tasks() == other.queue() == [task]
    assert other.active_tasks() == []


def test_a_finished_task_comes_back_with_every_field(store: Store, other: Store) -> None:
    (task,) = add(store, "a")
    active, _ = begin(store, task)
    reason = Reason(ReasonCode.KILLED_BY_SIGNAL, {"code": 137, "signal": "KILL"})
    with store.transaction("scheduler", NOW + 5) as tx:
        done = tx.apply(active, Finished(Outcome.FAILED, reason))
    found = other.task("a")
    assert found == done
    assert found is not None
    assert found.reason == reason
    assert (found.attempts, found.config_hash, found.changed_at) == (1, "hash", NOW + 5)
    defaults = Task(0, "", "", SPEC, TaskState.QUEUED, 0, 0, 0, 0)
    same = {field.name for field in fields(Task) if getattr(found, field.name) == getattr(defaults, field.name)}
    assert same <= {"priority", "request", "spec", "failures", "not_before", "need", "hold"}, (
        "this test has a value of its own for nearly every field"
    )


def test_a_run_comes_back_with_every_field(store: Store, other: Store) -> None:
    (task,) = add(store, "a")
    run = new_run(
        task, gpus=(3, 5), devices=("GPU-aa", "index-5"), executor="tmux", session="demo_a_gpu3-5", log="/w/logs/a.log",
        marker_before="1:2:3", exclusive=True, deadline=NOW + 60,
        record=RunRecord(("python", "x"), "python", "box", port=7),
    )  # fmt: skip
    with store.transaction("scheduler", NOW + 1) as tx:
        tx.apply(task, Began("hash"))
        tx.add_run(run)
    assert other.active_runs() == [run]
    with store.transaction("scheduler", NOW + 2) as tx:
        run = tx.apply_run(run, Launched(2**22, 2**40, "demo_a_gpu3-5_2"))
    assert other.runs_of(task) == [run]
    reason = Reason(ReasonCode.LEFTOVERS_KILLED, {"names": "python (12), sh (13)"})
    with store.transaction("scheduler", NOW + 3) as tx:
        run = tx.apply_run(run, Ended(Outcome.TIMED_OUT, reason, 143, NOW + 2.5))
    assert other.last_runs() == {task.id: run}
    assert other.recently_ended(5) == [run]
    assert run.started_at == NOW + 2
    empty = [field.name for field in fields(Run) if getattr(run, field.name) in (None, "", ())]
    assert empty == [], "this test has a value for every field"


@pytest.mark.parametrize("code", [None, *ReasonCode])
def test_every_outcome_and_reason_can_be_stored(store: Store, code: ReasonCode | None) -> None:
    reason = Reason(code or ReasonCode.KILL_ALL, {"why": "ä'\"\n{}", "code": 1, "until": NOW})
    for outcome, task in zip(Outcome, add(store, *(outcome.value for outcome in Outcome)), strict=True):
        active, run = begin(store, task)
        with store.transaction("me", NOW) as tx:
            tx.apply_run(run, Ended(outcome, reason if code else None, None, NOW))
            tx.apply(active, Finished(outcome, reason if code else None))
    assert {(task.outcome, task.name) for task in store.tasks()} == {(outcome, outcome.value) for outcome in Outcome}
    assert {task.reason.code if task.reason else None for task in store.tasks()} == {code}
    assert all(run.reason == store.tasks()[run.task_id - 1].reason for run in store.last_runs().values())


texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=30)
specs = st.builds(
    TaskSpec,
    command=st.lists(texts, max_size=4).map(tuple),
    work_dir=texts,
    marker=texts,
    output_dir=texts,
    gpus=st.integers(0, 64),
    pinned=st.lists(st.integers(0, 64), max_size=3).map(tuple),
    exclusive=st.booleans(),
    environment=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    environment_ref=texts,
    min_free_memory=st.none() | st.integers(0, 10**13) | st.just("auto"),
)


@given(specs)
def test_any_spec_survives_the_way_through_json(spec: TaskSpec) -> None:
    task = Task(1, "a", "c", spec, TaskState.QUEUED, 0, 1, NOW, NOW)
    assert records.spec_of(str(records.task_row(task)["spec"])) == spec


@given(st.sampled_from(ReasonCode), st.dictionaries(texts, texts | st.integers() | st.floats(allow_nan=False)))
def test_any_reason_survives_the_way_through_json(code: ReasonCode, detail: dict[str, str | int | float]) -> None:
    reason = Reason(code, detail)
    assert records.reason_of(records.reason_text(reason)) == reason
    assert records.reason_of(records.reason_text(None)) is None


def test_a_reason_without_details_of_an_older_version_can_be_read() -> None:
    assert records.reason_of('{"code": "no_marker"}') == Reason(ReasonCode.NO_MARKER)


def test_a_spec_of_an_older_version_without_the_newest_fields_can_be_read() -> None:
    old = {"command": ["x"], "work_dir": "/", "marker": "m", "output_dir": "o", "pinned": [1], "environment": []}
    assert records.spec_of(json.dumps(old)) == TaskSpec(("x",), "/", "m", "o", pinned=(1,))


@pytest.mark.parametrize("name", ["a", "ä ö", "a'; DROP TABLE tasks; --", "x" * 1000, "a\nb", "🚀", "%", ""])
def test_any_name_is_found_again_and_no_other_one(store: Store, name: str) -> None:
    add(store, name, "another")
    found = store.task(name)
    assert found is not None
    assert found.name == name
    assert store.task(name + "x") is None
    assert store.task("A" if name == "a" else "nobody") is None


NOT_UTF8 = os.fsdecode(b"caf\xe9")


def test_arguments_and_paths_that_are_not_utf8_come_back(store: Store) -> None:
    spec = replace(SPEC, command=("python", NOT_UTF8), work_dir=f"/home/{NOT_UTF8}")
    add(store, "a", spec=spec)
    assert store.tasks()[0].spec == spec


@pytest.mark.parametrize("where", ["name", "config"])
def test_names_of_tasks_that_are_not_utf8_are_refused_as_a_whole(store: Store, where: str) -> None:
    """`start` refuses them before, and names the file."""
    name, config = (NOT_UTF8 if where == column else "a" for column in ("name", "config"))
    with pytest.raises(StoreError), store.transaction("me", NOW) as tx:
        tx.add_tasks([NewTask(name, config, SPEC, 0)])
    assert store.tasks() == []


def test_text_that_can_not_be_stored_is_an_error_for_the_user_and_nothing_is_written(store: Store) -> None:
    with pytest.raises(TinkschedError):
        add(store, "a", "\ud800")
    assert store.tasks() == []


def test_a_number_that_sqlite_can_not_hold_is_an_error_for_the_user(store: Store) -> None:
    with pytest.raises(TinkschedError):
        add(store, "a", priority=2**63)


# ---------------------------------------------------------------- the queue


def test_the_queue_is_in_the_order_of_rank(store: Store) -> None:
    add(store, "a", "b")
    add(store, "urgent", priority=5)
    add(store, "late", priority=-1)
    add(store, "c")
    queue = store.queue()
    assert [task.name for task in queue] == ["urgent", "a", "b", "c", "late"]
    assert queue == sorted(queue, key=lambda task: task.rank)


def test_queue_numbers_are_given_once_and_ascend(store: Store) -> None:
    add(store, "a", "b")
    with store.transaction("me", NOW) as tx:
        assert tx.queue_numbers(3) == range(3, 6)
        assert tx.queue_numbers(0) == range(3, 3)
    (c,) = add(store, "c")
    assert c.queue_number == 3


def test_a_requeued_task_goes_behind_all_others(store: Store) -> None:
    a, _ = add(store, "a", "b")
    active, run = begin(store, a)
    done = finish(store, active, run)
    with store.transaction("retry", NOW + 20) as tx:
        (number,) = tx.queue_numbers(1)
        again = tx.apply(done, Requeued(number, 0, FULL_SPEC))
    assert [task.name for task in store.queue()] == ["b", "a"]
    assert store.task("a") == again
    assert again.spec == FULL_SPEC
    (c,) = add(store, "c")
    assert c.queue_number > again.queue_number


def test_ids_are_never_used_twice(store: Store, path: Path) -> None:
    ids = [task.id for task in add(store, "a", "b")]
    raw(path, "DELETE FROM tasks")
    assert store.tasks() == []
    (task,) = add(store, "c")
    assert task.id > max(ids)


def test_a_name_can_be_queued_once_and_otherwise_nothing_is(store: Store, other: Store) -> None:
    add(store, "a")
    with pytest.raises(Conflict, match=r"^b was queued|^a was queued"):
        add(other, "b", "a", "c")
    assert [task.name for task in store.tasks()] == ["a"]
    assert len(store.events()) == 1


def test_no_new_tasks_are_no_error(store: Store) -> None:
    assert add(store) == []


def test_counts_are_by_state_and_by_outcome(store: Store) -> None:
    assert store.counts() == {}
    a, b, c, _ = add(store, "a", "b", "c", "d")
    begin(store, a)
    for task, outcome in ((b, Outcome.COMPLETED), (c, Outcome.LOST)):
        finish(store, *begin(store, task), outcome)
    assert store.counts() == {"active": 1, "completed": 1, "lost": 1, "queued": 1}


# ---------------------------------------------------------------- guarded transitions


def test_of_two_that_begin_a_task_one_gets_a_conflict(store: Store, other: Store) -> None:
    (task,) = add(store, "a")
    seen = other.task("a")
    assert seen is not None
    begin(store, task)
    before = store.tasks(), store.active_runs(), store.events()
    with pytest.raises(Conflict):
        begin(other, seen, id="second", attempt=2)
    assert (store.tasks(), store.active_runs(), store.events()) == before


@pytest.mark.parametrize(
    ("event", "winner"),
    [
        (Dropped(Outcome.CANCELLED, Reason(ReasonCode.KILL_ALL)), Began("h")),
        (Began("h"), Dropped(Outcome.CANCELLED, Reason(ReasonCode.KILL_ALL))),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_stale_view_of_a_task_can_not_move_it(store: Store, other: Store, event: Any, winner: Any) -> None:
    (task,) = add(store, "a")
    with store.transaction("first", NOW) as tx:
        tx.apply(task, winner)
    before = store.tasks(), store.events()
    with pytest.raises(Conflict) as caught, other.transaction("second", NOW) as tx:
        tx.apply(task, event)
    assert "a" in caught.value.message
    assert (store.tasks(), store.events()) == before


def test_a_stale_view_of_a_run_can_not_move_it(store: Store, other: Store) -> None:
    (task,) = add(store, "a")
    _, run = begin(store, task)
    with store.transaction("first", NOW) as tx:
        tx.apply_run(run, Ended(Outcome.LOST, None, None, NOW))
    before = store.runs_of(task)
    for event in (Launched(1, 1, ""), Ended(Outcome.COMPLETED, None, 0, NOW)):
        with pytest.raises(Conflict), other.transaction("second", NOW) as tx:
            tx.apply_run(run, event)
    assert store.runs_of(task) == before


def test_a_view_that_is_older_than_a_whole_run_can_not_turn_the_attempts_back(store: Store, other: Store) -> None:
    """Else the next run gets the number of an old one, which UNIQUE (task_id, attempt) refuses for ever."""
    (task,) = add(store, "a")
    stale = finish(store, *begin(store, task))
    with store.transaction("retry", NOW) as tx:
        again = tx.apply(stale, Requeued(2, 0, SPEC))
    finish(store, *begin(store, again))
    with pytest.raises(Conflict), other.transaction("retry", NOW) as tx:
        tx.apply(stale, Requeued(3, 0, SPEC))
    found = store.task("a")
    assert found is not None
    assert found.attempts == 2


def test_a_conflict_undoes_what_came_before_it_in_the_transaction(store: Store, other: Store) -> None:
    a, b = add(store, "a", "b")
    begin(store, b)
    before = store.tasks(), store.events()
    with pytest.raises(Conflict), other.transaction("me", NOW) as tx:
        tx.apply(a, Began("h"))
        tx.add_run(new_run(a))
        tx.set_fact("x", "y")
        tx.add_tasks([NewTask("c", "c", SPEC, 0)])
        tx.apply(b, Began("h"))
    assert (store.tasks(), store.events()) == before
    assert store.fact("x") is None
    assert store.runs_of(a) == []


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), SystemExit(3)])
def test_any_exception_undoes_the_transaction_and_passes(store: Store, error: BaseException) -> None:
    with pytest.raises(type(error)), store.transaction("me", NOW) as tx:
        tx.add_tasks([NewTask("a", "a", SPEC, 0)])
        raise error
    assert store.tasks() == []
    assert add(store, "b"), "and the next one works"


def test_two_processes_that_race_for_every_task_share_them_without_loss(store: Store, path: Path) -> None:
    add(store, *(f"t{number}" for number in range(25)))
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    racers = [context.Process(target=_race, args=(path, barrier, answers)) for _ in range(2)]
    for racer in racers:
        racer.start()
    won, lost = zip(*(answers.get(timeout=60) for _ in racers), strict=True)
    for racer in racers:
        racer.join(30)
        assert racer.exitcode == 0
    assert sorted((*won[0], *won[1])) == sorted(task.name for task in store.tasks()), "each is won exactly once"
    assert len(lost[0]) + len(lost[1]) == 25
    assert len(store.active_runs()) == 25
    assert all(task.attempts == 1 for task in store.tasks())
    assert [event.what for event in store.events()].count("Began") == 25


def _race(path: Path, barrier: Any, answers: Any) -> None:
    """Begin every task, on a view that was taken before the other one began."""
    won, lost = [], []
    with Store(path) as store:
        view = store.queue()
        barrier.wait(30)
        for task in view:
            try:
                begin(store, task, id=f"{task.name}-{os.getpid()}")
                won.append(task.name)
            except Conflict:
                lost.append(task.name)
    answers.put((won, lost))


def test_a_task_has_one_active_run_at_most(store: Store) -> None:
    (task,) = add(store, "a")
    begin(store, task)
    with pytest.raises(StoreError), store.transaction("me", NOW) as tx:
        tx.add_run(new_run(task, id="second", attempt=2))
    assert len(store.active_runs()) == 1


def test_a_run_of_no_task_is_refused(store: Store) -> None:
    (task,) = add(store, "a")
    with pytest.raises(StoreError), store.transaction("me", NOW) as tx:
        tx.add_run(new_run(task, task_id=99))


# ---------------------------------------------------------------- requests, runs taken back, facts


def test_a_request_stands_on_an_active_task_until_it_is_finished(store: Store, other: Store) -> None:
    (task,) = add(store, "a")
    active, run = begin(store, task)
    with other.transaction("cancel by bob", NOW) as tx:
        tx.request(active, Request.CANCEL)
    found = store.task("a")
    assert found is not None
    assert found.request is Request.CANCEL
    assert store.requested_by(task) == "cancel by bob"
    # The scheduler's view is older than the request. It must not write it away, but by the end of the task.
    with store.transaction("scheduler", NOW) as tx:
        run = tx.apply_run(run, Launched(1, 1, ""))
    assert store.active_tasks()[0].request is Request.CANCEL
    finish(store, active, run, Outcome.CANCELLED)
    (found,) = store.tasks()
    assert found.request is None
    assert store.requested_by(task) == ""


def test_a_cancellation_is_not_lost_when_the_run_never_began(store: Store, other: Store) -> None:
    """It comes after the scheduler has judged the run, and before that is written down. Either the writing is refused
    and the request stands, or the task ends as cancelled; but it does not wait for a slot as if nobody had asked.
    """
    (task,) = add(store, "a")
    active, run = begin(store, task)
    with other.transaction("cancel by bob", NOW) as tx:
        tx.request(active, Request.CANCEL)
    with contextlib.suppress(Conflict), store.transaction("scheduler", NOW) as tx:
        (view,) = store.active_tasks()
        tx.remove_run(run, "why")
        tx.apply(view, GaveBack(Reason(ReasonCode.NEVER_BEGAN, {"why": "why"})))
    (found,) = store.tasks()
    assert found.request is Request.CANCEL or found.outcome is Outcome.CANCELLED


@pytest.mark.parametrize("state", ["queued", "done"])
def test_a_request_about_a_task_that_is_not_active_is_refused(store: Store, state: str) -> None:
    (task,) = add(store, "a")
    if state == "done":
        task = finish(store, *begin(store, task))
    with pytest.raises(Conflict), store.transaction("cancel", NOW) as tx:
        tx.request(task, Request.KILL_ALL)
    assert store.requested_by(task) == ""


def test_a_later_request_takes_the_place_of_the_first(store: Store) -> None:
    (task,) = add(store, "a")
    active, _ = begin(store, task)
    for who, request in (("ann", Request.CANCEL), ("bob", Request.KILL_ALL)):
        with store.transaction(who, NOW) as tx:
            tx.request(active, request)
    assert store.active_tasks()[0].request is Request.KILL_ALL
    assert store.requested_by(task) == "bob"


def test_a_run_that_never_began_is_taken_back_and_its_number_is_free_again(store: Store) -> None:
    (task,) = add(store, "a")
    active, run = begin(store, task)
    reason = Reason(ReasonCode.NEVER_BEGAN, {"why": "its lease was revoked"})
    with store.transaction("scheduler", NOW) as tx:
        tx.remove_run(run, reason.text)
        back = tx.apply(active, GaveBack(reason))
    assert store.runs_of(task) == []
    assert store.active_runs() == []
    assert store.last_runs() == {}
    assert back.attempts == 0
    _, second = begin(store, back, id="second")
    assert store.runs_of(task) == [second]
    assert second.attempt == 1
    assert "NeverBegan" in [event.what for event in store.events(task)]


def test_a_run_that_has_ended_can_not_be_taken_back(store: Store) -> None:
    (task,) = add(store, "a")
    active, run = begin(store, task)
    finish(store, active, run)
    with pytest.raises(Conflict), store.transaction("scheduler", NOW) as tx:
        tx.remove_run(run, "why")
    assert len(store.runs_of(task)) == 1


# ---------------------------------------------------------------- what runs use


def test_what_runs_use_is_kept_one_row_a_run(store: Store, other: Store) -> None:
    a, b = add(store, "a", "b")
    active, run = begin(store, a)
    begin(store, b)
    first = Usage().with_sample(Sample(NOW, [5 << 30, 3 << 30], 50.0, 12.5, 2**40, ("never touched its GPU",)))
    second = first.with_sample(Sample(NOW + 30, [1 << 30], 100.0, 20.0, 7))
    for usage in (first, second):
        with store.transaction("scheduler", NOW, synced=False) as tx:
            tx.record_usage({"a-1": usage, "b-1": Usage(at=NOW, samples=1), "nobody": usage})
    finish(store, active, run)
    assert other.usage_of(["a-1", "b-1", "nobody", "x"]) == {"a-1": second, "b-1": Usage(at=NOW, samples=1)}
    assert other.usage_of([]) == {}
    assert [event.what for event in other.events(a)].count("Ended") == 1, "no event for a sample"


def test_the_peaks_are_those_of_completed_runs_newest_first(store: Store) -> None:
    outcomes = [Outcome.COMPLETED, Outcome.COMPLETED, Outcome.FAILED, Outcome.COMPLETED]
    for number, (task, outcome) in enumerate(zip(add(store, *"abcd"), outcomes, strict=True)):
        active, run = begin(store, task)
        with store.transaction("scheduler", NOW) as tx:
            tx.record_usage({run.id: Usage(NOW, 1, gpu_memory_peak=number << 30 if task.name != "b" else None)})
        finish(store, active, run, outcome)
    assert store.peaks(9) == [("d", 3 << 30), ("a", 0)]
    assert store.peaks(1) == [("d", 3 << 30)]
    assert store.peaks(0) == []


def test_the_durations_are_those_of_completed_runs_newest_first(store: Store) -> None:
    tasks = add(store, *"abcd")
    for number, (task, outcome) in enumerate(zip(tasks, [Outcome.COMPLETED] * 3 + [Outcome.FAILED], strict=True)):
        active, run = begin(store, task)
        finish(store, active, run, outcome, at=NOW + 100 - number)
    assert store.durations(9) == [("a", 99.0), ("b", 98.0), ("c", 97.0)]
    assert store.durations(2) == [("a", 99.0), ("b", 98.0)]


def test_the_usage_of_a_run_that_never_began_goes_with_it(store: Store) -> None:
    (a,) = add(store, "a")
    _, run = begin(store, a)
    with store.transaction("scheduler", NOW) as tx:
        tx.record_usage({run.id: Usage(NOW, 1)})
        tx.remove_run(run, "")
    assert store.usage_of([run.id]) == {}


def test_the_end_of_a_run_can_be_explained_later_and_nothing_else_changes(store: Store, other: Store) -> None:
    a, b = add(store, "a", "b")
    found = Reason(ReasonCode.EXIT_CODE, {"code": 1}, Diagnosis(Kind.CUDA_MEMORY, "CUDA out of memory"))
    active, run = begin(store, a)
    _, going = begin(store, b)
    done = finish(store, active, run, Outcome.FAILED)
    with store.transaction("scheduler", NOW, synced=False) as tx:
        tx.explain_end(run, found)
        tx.explain_end(going, found)  # has not ended
    assert other.task("a") == replace(done, reason=found)
    assert other.last_runs()[a.id].reason == found
    assert other.done()[0].reason == found
    assert other.active_runs() == [going]
    with store.transaction("retry", NOW) as tx:
        tx.apply(replace(done, reason=found), Requeued(9, 0, SPEC))
        tx.explain_end(run, Reason(ReasonCode.NO_MARKER))
    assert other.queue()[0].reason is None, "it is queued again"


def test_facts_are_kept_replaced_and_forgotten(store: Store, other: Store) -> None:
    for value in ("one", "two ä", "", None, None):
        with store.transaction("me", NOW) as tx:
            tx.set_fact("stopped", value)
        assert other.fact("stopped") == value
    assert other.fact("never") is None


def test_runs_come_back_in_their_orders(store: Store) -> None:
    a, b, c = add(store, "a", "b", "c")
    for task, at in ((a, NOW + 3), (b, NOW + 9)):
        finish(store, *begin(store, task), at=at)
    again, _ = begin(store, c, created_at=NOW - 5)
    assert [run.task for run in store.recently_ended(9)] == ["b", "a"]
    assert [run.task for run in store.recently_ended(1)] == ["b"]
    assert store.recently_ended(0) == []
    with store.transaction("retry", NOW) as tx:
        queued = tx.apply(store.tasks()[0], Requeued(9, 0, SPEC))
    begin(store, queued)
    assert [run.id for run in store.active_runs()] == ["c-1", "a-2"], "oldest first"
    assert [run.attempt for run in store.runs_of(a)] == [1, 2]
    assert {task_id: run.id for task_id, run in store.last_runs().items()} == {a.id: "a-2", b.id: "b-1", c.id: "c-1"}
    assert {task.name for task in store.active_tasks()} == {"a", "c"}
    assert again.id == c.id


# ---------------------------------------------------------------- the event log


def test_the_event_log_says_who_moved_what_when_and_why(store: Store) -> None:
    a, _ = add(store, "a", "b")
    active, run = begin(store, a)
    with store.transaction("scheduler", NOW + 2) as tx:
        run = tx.apply_run(run, Launched(7, 8, "s"))
    with store.transaction("cancel by bob", NOW + 3) as tx:
        tx.request(active, Request.CANCEL)
    reason = Reason(ReasonCode.CANCELLED_BY_USER, {"user": "bob"})
    with store.transaction("scheduler", NOW + 4) as tx:
        tx.apply_run(run, Ended(Outcome.CANCELLED, reason, 143, NOW + 4))
        done = tx.apply(active, Finished(Outcome.CANCELLED, reason))
    with store.transaction("retry by ann", NOW + 5) as tx:
        again = tx.apply(done, Requeued(3, 0, SPEC))
    with store.transaction("kill-all by ann", NOW + 6) as tx:
        tx.apply(again, Dropped(Outcome.CANCELLED, Reason(ReasonCode.KILL_ALL)))
    found = [
        (event.at - NOW, event.who, event.run_id, event.what, event.from_state, event.to_state, event.why)
        for event in store.events(a)
    ]
    assert found == [
        (0, "start by ann", None, "Queued", None, "queued", None),
        (1, "scheduler", None, "Began", "queued", "active", None),
        (1, "scheduler", "a-1", "Intended", None, "starting", "GPU 0"),
        (2, "scheduler", "a-1", "Launched", "starting", "running", None),
        (3, "cancel by bob", None, "Asked to cancel", "active", "active", None),
        (4, "scheduler", "a-1", "Ended", "running", "ended", "cancelled by bob"),
        (4, "scheduler", None, "Finished", "active", "done", "cancelled by bob"),
        (5, "retry by ann", None, "Requeued", "done", "queued", None),
        (6, "kill-all by ann", None, "Dropped", "queued", "done", "ended by kill-all"),
    ]
    assert len(store.events()) == len(found) + 1
    assert {event.task_id for event in store.events(a)} == {a.id}


# ---------------------------------------------------------------- reading at one instant


def test_a_snapshot_shows_one_instant(store: Store, other: Store) -> None:
    add(store, "a")
    with other.snapshot():
        first = other.tasks()
        add(store, "b")
        assert other.tasks() == first
        assert other.queue() == first
    assert len(other.tasks()) == 2


def test_a_snapshot_ends_with_an_exception_too(store: Store, other: Store) -> None:
    with pytest.raises(ZeroDivisionError), other.snapshot():
        assert other.tasks() == []
        raise ZeroDivisionError
    add(store, "a")
    assert len(other.tasks()) == 1


def test_a_reader_does_not_wait_for_a_writer(store: Store, other: Store) -> None:
    with store.transaction("me", NOW) as tx:
        tx.add_tasks([NewTask("a", "a", SPEC, 0)])
        assert other.tasks() == [], "what is not committed is not there"
        assert [task.name for task in store.tasks()] == ["a"]
    assert len(other.tasks()) == 1


def test_a_writer_that_waits_for_too_long_gets_a_store_error(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    with Store(path) as impatient, store.transaction("me", NOW):
        with pytest.raises(StoreError) as caught:
            add(impatient, "a")
        assert str(path) in caught.value.message
        assert impatient.tasks() == []
    assert add(store, "a")


# ---------------------------------------------------------------- the file


def test_a_fresh_database_is_private_and_in_the_mode_that_survives_a_crash(path: Path) -> None:
    previous = os.umask(0)
    try:
        with Store(path, create=True) as store:
            add(store, "a")
            found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
            mode = store._connection.execute("PRAGMA journal_mode").fetchone()[0]
            synchronous = store._connection.execute("PRAGMA synchronous").fetchone()[0]
            keys = store._connection.execute("PRAGMA foreign_keys").fetchone()[0]
    finally:
        os.umask(previous)
    assert found == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
    assert (mode, synchronous, keys) == ("wal", 2, 1)


def test_every_later_connection_is_in_the_same_mode(store: Store, other: Store) -> None:
    for name, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
        assert other._connection.execute(f"PRAGMA {name}").fetchone()[0] == value


def test_the_file_says_whose_it_is_and_which_version(store: Store, path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone()[0] == int.from_bytes(b"tink", "big")
    assert connection.execute("PRAGMA user_version").fetchone()[0] == len(database.migrations())
    connection.close()


def test_opening_again_changes_nothing(path: Path) -> None:
    with Store(path, create=True) as store:
        add(store, "a")
    before = digest(path)
    for create in (True, False):
        Store(path, create=create).close()
    assert digest(path) == before


def test_without_create_a_missing_file_is_an_error_and_stays_missing(path: Path) -> None:
    with pytest.raises(StoreError, match=r"state\.db"):
        Store(path)
    assert list(path.parent.iterdir()) == []


def test_a_missing_folder_is_an_error_with_the_path(path: Path) -> None:
    missing = path.parent / "no" / "state.db"
    with pytest.raises(StoreError) as caught:
        Store(missing, create=True)
    assert str(missing) in caught.value.message


def _newer(path: Path) -> None:
    Store(path, create=True).close()
    raw(path, f"PRAGMA user_version = {len(database.migrations()) + 1}; CREATE TABLE later (x)")


def _truncated(path: Path) -> None:
    with Store(path, create=True) as store:
        add(store, *(f"task{number}" for number in range(200)), spec=FULL_SPEC)
    os.truncate(path, path.stat().st_size * 2 // 3)


def _damaged_page(path: Path) -> None:
    Store(path, create=True).close()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)


HOSTILE = [
    pytest.param(_newer, id="a newer version"),
    pytest.param(lambda path: raw(path, "CREATE TABLE t (x); INSERT INTO t VALUES (1)"), id="a foreign database"),
    pytest.param(
        lambda path: raw(path, "PRAGMA application_id = 7; CREATE TABLE t (x); PRAGMA user_version = 1"),
        id="a foreign database with an id and our version",
    ),
    pytest.param(lambda path: path.write_bytes(os.urandom(9000)), id="random bytes"),
    pytest.param(lambda path: path.write_bytes(b"task_name: demo\n"), id="a text file"),
    pytest.param(lambda path: path.write_bytes(b"SQLite format 3\0"), id="only the magic"),
    pytest.param(lambda path: path.write_bytes(b"\0" * 8192), id="zeros"),
    pytest.param(_damaged_page, id="a damaged page"),
]


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("make", HOSTILE)
def test_a_file_that_can_not_be_used_is_refused_by_name_and_left_as_it_is(path: Path, make: Any, create: bool) -> None:
    make(path)
    before = digest(path)
    with pytest.raises(StoreError) as caught:
        Store(path, create=create)
    assert str(path) in caught.value.message
    assert digest(path) == before


def test_a_database_of_ours_that_does_not_fit_its_version_is_refused(path: Path) -> None:
    ours = f"PRAGMA application_id = {database.APPLICATION_ID}"
    raw(path, f"{ours}; CREATE TABLE tasks (x); INSERT INTO tasks VALUES (1)")
    with pytest.raises(StoreError) as caught:
        Store(path)
    assert str(path) in caught.value.message
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT * FROM tasks").fetchall() == [(1,)]
    connection.close()


def test_a_truncated_file_is_an_error_when_it_is_opened_or_read_and_left_as_it_is(path: Path) -> None:
    _truncated(path)
    before = digest(path)
    with pytest.raises(StoreError) as caught, Store(path) as store:
        store.tasks()
    assert str(path) in caught.value.message
    assert digest(path) == before


def test_a_file_without_a_byte_is_not_taken_for_an_empty_queue_by_those_who_only_read(path: Path) -> None:
    """It is what a full disk or a failed copy leaves of a queue."""
    path.touch()
    with pytest.raises(StoreError) as caught:
        Store(path, create=False)
    assert str(path) in caught.value.message
    assert path.stat().st_size == 0


def test_a_file_without_a_byte_is_what_a_crash_at_the_first_start_leaves(path: Path) -> None:
    path.touch(0o600)
    with Store(path, create=True) as store:
        assert add(store, "a")


def test_a_folder_in_its_place_is_refused(path: Path) -> None:
    path.mkdir()
    for create in (True, False):
        with pytest.raises(StoreError) as caught:
            Store(path, create=create)
        assert str(path) in caught.value.message


def test_a_link_to_nowhere_is_refused_and_not_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError):
        Store(path, create=True)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("folder", ["a b", "50%", "q?x=1", "h#1", "ä", "c:d", "new\nline", "\udce9"])
def test_a_path_may_hold_any_character(tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder
    place.mkdir()
    with Store(place / "state.db", create=True) as store:
        add(store, "a")
    assert (place / "state.db").stat().st_size > 0
    assert [entry.name for entry in tmp_path.iterdir()] == [folder]


def test_a_relative_path_means_the_same_file_after_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Store(Path("state.db"), create=True) as store:
        monkeypatch.chdir("/")
        add(store, "a")
    assert (tmp_path / "state.db").exists()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="tinksched-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", [0o444, 0])
def test_a_file_that_may_not_be_written_or_read_is_an_error_with_its_path(open_folder: Path, mode: int) -> None:
    path = open_folder / "state.db"
    with Store(path, create=True) as store:
        add(store, "a")
    path.chmod(mode)
    answer = unprivileged(
        "with Store(path) as store, store.transaction('me', 1.0) as tx:\n"
        "    tx.set_fact('x', 'y')\n",
        path,
    )  # fmt: skip
    assert str(path) in answer
    path.chmod(0o600)
    with Store(path) as store:
        assert store.fact("x") is None
        assert len(store.tasks()) == 1


def test_a_folder_that_may_not_be_written_is_an_error_with_the_path(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    path = open_folder / "state.db"
    assert str(path) in unprivileged("Store(path, create=True)", path)
    assert list(open_folder.iterdir()) == []


def unprivileged(body: str, path: Path) -> str:
    """The message of the StoreError that `body` ends in, for a user whom permissions bind: root becomes another one."""
    program = (
        "import os, sys, tempfile\n"
        "from pathlib import Path\n"
        "from tinksched.errors import StoreError\n"
        "from tinksched.store import Store, database\n"
        # Python and the package may lie where only root can read, so everything is loaded before.
        "with tempfile.TemporaryDirectory() as folder: Store(Path(folder, 'x'), create=True).close()\n"
        "steps = database.migrations()\n"
        "database.migrations = lambda: steps\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "path = Path(sys.argv[1])\n"
        "try:\n"
        f"    exec({body!r})\n"
        "except StoreError as error:\n"
        "    print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------- processes


def test_processes_that_make_a_fresh_database_at_once_all_get_it(tmp_path: Path) -> None:
    rounds = 10
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(3), context.Queue()
    makers = [context.Process(target=_make, args=(tmp_path, rounds, barrier, answers)) for _ in range(3)]
    for maker in makers:
        maker.start()
    problems = [problem for _ in makers for problem in answers.get(timeout=60)]
    for maker in makers:
        maker.join(30)
        assert maker.exitcode == 0
    assert problems == []
    for number in range(rounds):
        with Store(tmp_path / f"{number}.db") as store:
            assert store.tasks() == []


def _make(folder: Path, rounds: int, barrier: Any, answers: Any) -> None:
    problems = []
    for number in range(rounds):
        barrier.wait(30)
        try:
            Store(folder / f"{number}.db", create=True).close()
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")
    answers.put(problems)


@pytest.mark.parametrize(
    "moment", ["BEGIN", "sqlite_master", "application_id", "user_version", "COMMIT", "journal_mode", "foreign_keys"]
)
def test_a_database_that_another_process_makes_at_this_instant_is_ours(
    path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The instant is chosen: just after this look at the fresh file, the other process makes all of it if it can."""
    original = sqlite3.connect
    made = []

    class Slow(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            cursor = super().execute(sql, *values)
            if moment in sql and not made:
                made.append(sql)
                answer = cursor.fetchone()
                with monkeypatch.context() as elsewhere, contextlib.suppress(StoreError):  # locked: it would wait
                    elsewhere.setattr(sqlite3, "connect", original)
                    elsewhere.setattr(database, "BUSY_SECONDS", 0.01)
                    Store(path, create=True).close()
                if answer is not None:
                    cursor = super().execute("SELECT ?", tuple(answer))
            return cursor

    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: original(*args, **kwargs, factory=Slow))
    with Store(path, create=True) as store:
        assert store.tasks() == []
    assert made


def test_a_fresh_database_can_be_made_while_another_process_begins_to_write_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock lasts for microseconds; here it is there for the whole of the first attempt to change the mode."""
    original = sqlite3.connect
    locked = []

    class Disturbed(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if "journal_mode" not in sql or locked:
                return super().execute(sql, *values)
            locked.append(sql)
            with contextlib.ExitStack() as stack:
                with contextlib.suppress(sqlite3.Error):
                    other = original(f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None)
                    stack.callback(other.close)
                    other.execute("BEGIN IMMEDIATE")
                return super().execute(sql, *values)

    monkeypatch.setattr(database, "BUSY_SECONDS", 1.0)
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: original(*args, **kwargs, factory=Disturbed))
    with Store(path, create=True) as store:
        assert store.tasks() == []


def test_a_commit_that_returned_survives_a_kill(path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tinksched.core.model import TaskSpec\n"
        "from tinksched.store import NewTask, Store\n"
        "store = Store(Path(sys.argv[1]), create=True)\n"
        "spec = TaskSpec(('x',), '/', 'm', 'o')\n"
        "with store.transaction('me', 1.0) as tx: tx.add_tasks([NewTask('kept', 'c', spec, 0)])\n"
        "with store.transaction('me', 2.0) as tx:\n"
        "    tx.add_tasks([NewTask('never', 'c', spec, 0)])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr.decode()
    with Store(path) as store:
        assert [task.name for task in store.tasks()] == ["kept"]
        assert [event.what for event in store.events()] == ["Queued"]
        assert add(store, "next")[0].id == 2


def test_the_migrations_are_statements_that_sqlite_takes_one_by_one() -> None:
    for script in database.migrations():
        statements = list(database.statements(script))
        assert "".join(statements).strip() == script.strip(), "nothing at the end is dropped"
    assert list(database.statements("SELECT ';';\n-- a; comment\nSELECT 1;\n")) == [
        "SELECT ';';\n", "-- a; comment\nSELECT 1;\n",
    ]  # fmt: skip


def test_a_migration_that_fails_leaves_the_version_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(path, create=True) as store:
        add(store, "a")
    before = digest(path)
    steps = [*database.migrations(), "CREATE TABLE fine (x);\nCREATE TABLE tasks (x);\n"]
    monkeypatch.setattr(database, "migrations", lambda: steps)
    with pytest.raises(StoreError):
        Store(path)
    monkeypatch.undo()
    assert digest(path) == before
    with Store(path) as store:
        assert len(store.tasks()) == 1


def test_an_older_version_is_brought_to_the_newest_with_its_content(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(path, create=True) as store:
        add(store, "a")
    steps = [*database.migrations(), "ALTER TABLE tasks ADD COLUMN later TEXT;\n", "CREATE TABLE more (x);\n"]
    monkeypatch.setattr(database, "migrations", lambda: steps)
    with Store(path) as store:
        assert store._connection.execute("PRAGMA user_version").fetchone()[0] == len(steps)
        assert [task.name for task in store.tasks()] == ["a"]
    monkeypatch.undo()
    with pytest.raises(StoreError, match="newer"):
        Store(path)


STEPS = ("begin", "finish", "back", "drop", "again")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3)), max_size=30))
def test_whatever_happens_in_whatever_order_the_store_and_the_rules_agree(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Each step is applied to a view of the store; those that the rules refuse change nothing at all."""
    path = tmp_path_factory.mktemp("store") / "state.db"
    reason = Reason(ReasonCode.KILL_ALL)
    with Store(path, create=True) as store:
        add(store, "a", "b", "c", "d")
        for number, (step, index) in enumerate(steps):
            task = store.tasks()[index]
            before = store.tasks(), store.events(), store.active_runs()
            try:
                with store.transaction("me", NOW + number) as tx:
                    running = [run for run in store.active_runs() if run.task_id == task.id]
                    if step == "begin":
                        tx.apply(task, Began(None))
                        tx.add_run(new_run(task, id=f"r{number}"))
                    elif step == "finish":
                        tx.apply(task, Finished(Outcome.FAILED, None))
                        tx.apply_run(running[0], Ended(Outcome.FAILED, None, 1, NOW))
                    elif step == "back":
                        tx.apply(task, GaveBack(reason))
                        tx.remove_run(running[0], "why")
                    elif step == "drop":
                        tx.apply(task, Dropped(Outcome.CANCELLED, reason))
                    else:
                        tx.apply(task, Requeued(tx.queue_numbers(1)[0], 0, SPEC))
            except Conflict:
                assert (store.tasks(), store.events(), store.active_runs()) == before
            active = store.active_tasks()
            assert sorted(run.task_id for run in store.active_runs()) == [task.id for task in active]
            assert all(task.attempts == len(store.runs_of(task)) for task in store.tasks())
            assert len({task.queue_number for task in store.tasks()}) == 4


# ---------------------------------------------------------------- holds, priorities, what is forgotten


def test_a_hold_and_a_priority_come_back_and_are_on_record(store: Store, other: Store) -> None:
    a, b = add(store, "a", "b")
    with store.transaction("hold by ann", NOW + 1) as tx:
        held = tx.apply(a, Held(Hold("ann", NOW + 1, NOW + 99)))
        tx.apply(b, Ranked(7))
    assert other.task("a") == held and held.hold == Hold("ann", NOW + 1, NOW + 99)
    assert [task.name for task in other.queue()] == ["b", "a"]
    events = [(event.who, event.what, event.why) for event in other.events()[2:]]
    assert events == [("hold by ann", "Held", held.hold.reason.text), ("hold by ann", "Ranked", "priority 7")]
    with store.transaction("release by ann", NOW + 2) as tx:
        tx.apply(held, Released())
    assert other.task("a") == replace(a, changed_at=NOW + 2)


BATCHES = [
    [Held(Hold("ann", NOW, NOW + number)) for number in range(3)],
    [Ranked(number) for number in range(3)],
    [Released()] * 3,
    [Dropped(Outcome.CANCELLED, Reason(ReasonCode.KILL_ALL))] * 3,
    [Began(f"hash {number}") for number in range(3)],
]


@pytest.mark.parametrize("events", BATCHES, ids=lambda events: type(events[0]).__name__)
def test_many_tasks_move_as_each_would_alone(tmp_path: Path, events: list[Any]) -> None:
    found = []
    for together in (True, False):
        with Store(tmp_path / f"{together}.db", create=True) as store:
            tasks = add(store, "a", "b", "c")
            with store.transaction("me", NOW + 1) as tx:
                moves = list(zip(tasks, events, strict=True))
                moved = tx.apply_all(moves) if together else [tx.apply(*move) for move in moves]
            assert store.tasks() == moved
            found.append((moved, store.events()))
    assert found[0] == found[1]


def test_many_that_are_queued_again_get_each_its_own_spec_and_number(store: Store, other: Store) -> None:
    tasks = [finish(store, *begin(store, task)) for task in add(store, "a", "b", "c")]
    specs = [SPEC, replace(SPEC, gpus=2), SPEC]
    with store.transaction("retry", NOW + 20) as tx:
        moved = tx.apply_all([(task, Requeued(9 - task.id, 1, spec)) for task, spec in zip(tasks, specs, strict=True)])
    assert other.tasks() == moved and [task.spec.gpus for task in moved] == [SPEC.gpus, 2, SPEC.gpus]
    assert [task.name for task in other.queue()] == ["c", "b", "a"]


def test_of_many_none_moves_if_one_was_moved_by_somebody_else(store: Store, other: Store) -> None:
    tasks = add(store, "a", "b", "c")
    begin(other, tasks[1])
    before = store.tasks(), store.events()
    with pytest.raises(Conflict, match="one of 3 tasks"), store.transaction("hold", NOW) as tx:
        tx.apply_all([(task, Held(Hold("ann", NOW))) for task in tasks])
    assert (store.tasks(), store.events()) == before
    with store.transaction("hold", NOW) as tx:
        assert tx.apply_all([]) == []


def test_what_was_asked_for_meanwhile_outlives_a_hold(store: Store) -> None:
    """A run that never began may have been cancelled just then: its task is queued, and still to be dropped."""
    (task,) = add(store, "a")
    active, run = begin(store, task)
    with store.transaction("cancel", NOW) as tx:
        tx.request(active, Request.CANCEL, "ann")
        tx.remove_run(run, "why")
        queued = tx.apply(active, GaveBack(Reason(ReasonCode.NEVER_BEGAN)))
        tx.apply(queued, Held(Hold("bob", NOW)))
    found = store.task("a")
    assert found is not None and found.request is Request.CANCEL and store.requested_by(found) == "ann"


def test_a_hold_that_came_too_late_is_refused(store: Store, other: Store) -> None:
    (task,) = add(store, "a")
    begin(other, task)
    with pytest.raises(Conflict), store.transaction("hold", NOW) as tx:
        tx.apply(task, Held(Hold("ann", NOW)))


def test_forgotten_tasks_leave_nothing_and_their_numbers_are_never_given_again(store: Store, other: Store) -> None:
    a, b, c = add(store, "a", "b", "c")
    done = finish(store, *begin(store, a))
    stale = finish(store, *begin(store, b))
    with other.transaction("retry", NOW) as tx:
        tx.apply(stale, Requeued(9, 0, SPEC))
    with store.transaction("clean", NOW) as tx:
        assert tx.remove_tasks([done, stale, c]) == [done], "neither one that was queued again nor one that never ran"
    assert [task.name for task in other.roster()] == ["b", "c"]
    assert other.run_ids() == {"b-1"} and {event.task_id for event in other.events()} == {b.id, c.id}
    assert other.problems() == []
    assert add(store, "a")[0].id == 4


def test_the_roster_says_of_each_task_what_selectors_ask(store: Store) -> None:
    a, b = add(store, "a", "b")
    finish(store, *begin(store, a), Outcome.LOST)
    assert store.roster() == [
        (1, "a", "done", "lost", NOW + 10, 1, 1, 0, None),
        (2, "b", "queued", None, NOW, 0, 2, 0, None),
    ]
    assert (store.queued_last(0), store.queued_last(1), store.queued_last(2)) == ("b", "a", None)
    assert b.queue_number == 2


def test_a_pause_is_a_fact_with_who_and_since_when(store: Store) -> None:
    assert store.pause() is None and store.paused() is None
    with store.transaction("pause", NOW) as tx:
        tx.set_fact(PAUSED, '{"user": "ann", "since": 1700000000.25, "until": null}')
    reason = store.paused()
    assert store.pause() == Hold("ann", NOW) and reason is not None and reason.text.startswith("paused by ann since ")
    with store.transaction("x", NOW) as tx:
        tx.set_fact(PAUSED, "nonsense")
    with pytest.raises(StoreError, match="makes no sense"):
        store.pause()


def test_what_is_left_of_forgotten_tasks_is_told_of_each_run(store: Store) -> None:
    a, b, _ = add(store, "a", "b", "c")
    with store.transaction("scheduler", NOW) as tx:
        for task in (a, b):
            tx.apply(task, Began("h"))
            tx.add_run(new_run(task, log=f"/w/logs/{task.name}.log", session=f"s_{task.name}"))
    chosen = [task for task in store.roster() if task.name != "b"]
    assert store.remains(chosen) == [("a-1", a.id, "s_a", "/s/runs/a-1", "/w/logs/a.log")]


def test_on_a_network_file_system_there_is_no_log_beside_the_file(path: Path) -> None:
    with Store(path, create=True) as local:
        add(local, "a")
    with Store(path, shared=True) as moved:
        add(moved, "b")
        assert moved._connection.execute("PRAGMA journal_mode").fetchone()[0] == "truncate"
        assert not Path(f"{path}-wal").exists()
    with Store(path) as back:
        assert [task.name for task in back.tasks()] == ["a", "b"]
        assert back._connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
