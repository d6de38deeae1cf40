"""What is done to thousands of rows at once is what would be done to each."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinksched.core.lifecycle import (
    Dropped,
    Ended,
    ForMany,
    GaveBack,
    Held,
    Ranked,
    Released,
    Requeued,
    Retried,
    changed_alike,
)
from tinksched.core.model import Hold, Outcome, Reason, ReasonCode, Request, RunRecord, Task, TaskState
from tinksched.errors import Conflict, Damaged
from tinksched.store import Store, packing

from .test_store import NOW, SPEC, add, begin, finish

REASON = Reason(ReasonCode.CANCELLED_BY_USER, {"user": "ann"})
EVENTS: list[ForMany] = [
    Dropped(Outcome.CANCELLED, REASON), Held(Hold("ann", NOW)), Held(Hold("ann", NOW, NOW + 9)), Released(), Ranked(7),
]  # fmt: skip
PASTS = ["new", "held", "ranked", "tried", "taken back", "queued again"]


def live(store: Store, task: Task, past: str) -> None:
    """Give a queued task a past, after which it is queued."""
    with store.transaction("before", NOW + 1) as tx:
        if past == "held":
            tx.apply(task, Held(Hold("bob", NOW)))
        elif past == "ranked":
            tx.apply(task, Ranked(-3))
    if past in ("tried", "taken back"):
        active, run = begin(store, task)
        with store.transaction("before", NOW + 2) as tx:
            tx.request(active, Request.CANCEL, "bob")
            if past == "tried":
                tx.apply_run(run, Ended(Outcome.FAILED, None, 1, NOW + 2))
                tx.apply(active, Retried(Reason(ReasonCode.RETRY_DELAY, {"how": "failed"}), NOW + 5, 99))
            else:
                tx.remove_run(run, "why")
                tx.apply(active, GaveBack(Reason(ReasonCode.NEVER_BEGAN)))
    elif past == "queued again":
        done = finish(store, *begin(store, task))
        with store.transaction("before", NOW + 3) as tx:
            tx.apply(done, Requeued(tx.queue_numbers(1)[0], 5, SPEC))


def told(store: Store) -> tuple[Any, ...]:
    """All that a store says of its tasks."""
    return store.tasks(), store.events(), [store.requested_by(task) for task in store.tasks()]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PASTS), st.booleans()), max_size=6), st.sampled_from(EVENTS))
def test_one_event_makes_of_many_tasks_what_it_makes_of_each(
    tmp_path_factory: pytest.TempPathFactory, pasts: list[tuple[str, bool]], event: ForMany
) -> None:
    folder = tmp_path_factory.mktemp("many")
    chosen = {f"t{number}" for number, (_, is_chosen) in enumerate(pasts) if is_chosen}
    found = []
    for together in (True, False):
        with Store(folder / f"{together}.db", create=True) as store:
            for number, (past, _) in enumerate(pasts):
                live(store, add(store, f"t{number}")[0], past)
            with store.transaction("me", NOW + 9) as tx:
                if together:
                    tx.apply_to([task for task in store.roster(TaskState.QUEUED) if task.name in chosen], event)
                else:
                    tx.apply_all([(task, event) for task in store.tasks() if task.name in chosen])
            found.append(told(store))
    assert found[0] == found[1]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_what_changes_alike_is_all_that_changes(event: ForMany, tmp_path: Path) -> None:
    with Store(tmp_path / "state.db", create=True) as store:
        task, other = add(store, "a", "b")
        live(store, other, "tried")
        with store.transaction("me", NOW + 9) as tx:
            after = [tx.apply(one, event) for one in (task, *store.named(["b"]).values())]
    names = changed_alike(event)
    assert [getattr(after[0], name) for name in names] == [getattr(after[1], name) for name in names]
    assert {name for name in Task.__slots__ if getattr(task, name) != getattr(after[0], name)} <= {*names}


def test_of_many_none_moves_if_one_is_not_where_it_should_be(store: Store, other: Store) -> None:
    tasks = add(store, "a", "b", "c")
    begin(other, tasks[1])
    before = told(store)
    for order in (1, -1):
        with pytest.raises(Conflict), store.transaction("hold", NOW) as tx:
            tx.apply_to(store.roster()[::order], Held(Hold("ann", NOW)))
    assert told(store) == before
    with store.transaction("hold", NOW) as tx:
        tx.apply_to([], Released())
    assert told(store) == before


def test_tasks_are_listed_by_their_state_and_by_their_names(store: Store) -> None:
    a, b, _ = add(store, "a", "b", "c")
    begin(store, a)
    live(store, b, "held")
    assert [task.name for task in store.roster(TaskState.QUEUED)] == ["b", "c"]
    assert [task.name for task in store.roster(TaskState.ACTIVE)] == ["a"]
    assert store.listed(["b", "nobody", "a"]) == {task.name: task for task in store.roster() if task.name != "c"}
    assert store.listed(["b"])["b"].hold == Hold("bob", NOW)


def test_one_queued_task_of_each_spec_shows_what_all_of_them_want(store: Store) -> None:
    add(store, "k", "l", "m")
    done, _ = add(store, "n", "o", spec=replace(SPEC, gpus=0)), add(store, "p", spec=replace(SPEC, gpus=3))
    begin(store, done[0])
    assert {task.spec.gpus for task in store.queued_sorts()} == {task.spec.gpus for task in store.queue()}
    assert len(store.queued_sorts()) == 3


# ---------------------------------------------------------------- rows that make no sense

COLUMNS = [*(("tasks", name) for name in ("name", "state", "outcome", "reason", "request", "priority", "attempts",
           "not_before", "need", "hold", "config_hash", "old_marker", "shared")),
           *(("runs", name) for name in ("state", "outcome", "reason", "exit_code", "session", "pid", "ended_at",
           "record", "shared", "attempt", "deadline"))]  # fmt: skip
VALUES: list[Any] = [None, 0, 1, 2.5, b"", b"\xff", b"{}", "", "x", "[]", "{}", '{"code": "x"}', '{"x": 1}', "lost"]


def make_sense_of_all(store: Store) -> None:
    for task in store.tasks():
        store.runs_of(task)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(COLUMNS), st.sampled_from(VALUES), st.integers(0, 3))
def test_one_row_of_each_kind_shows_whether_all_make_sense(
    tmp_path_factory: pytest.TempPathFactory, where: tuple[str, str], value: Any, number: int
) -> None:
    path = tmp_path_factory.mktemp("rows") / "state.db"
    table, column = where
    with Store(path, create=True) as store:
        for index, task in enumerate(add(store, "a", "b", "c", "d")):
            active, run = begin(store, task, record=RunRecord(config_hash=f"h{index % 2}"))
            if index:
                finish(store, active, run)
        store.check_rows()
        with sqlite3.connect(path, isolation_level=None) as raw:
            raw.execute("PRAGMA ignore_check_constraints = ON")
            try:
                raw.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, number + 1))
            except sqlite3.IntegrityError:
                assume(False)
        raw.close()
        damaged = []
        for look in (make_sense_of_all, Store.check_rows):
            try:
                look(store)
            except Damaged:
                damaged.append(True)
            else:
                damaged.append(False)
        assert damaged[0] == damaged[1]


def test_a_text_that_rows_share_is_noticed_and_so_is_an_event(store: Store) -> None:
    add(store, "a", "b")
    store.check_rows()
    for table in ("events", "tasks"):
        text = f"(SELECT shared FROM {table} LIMIT 1)"
        (before,) = store._connection.execute(f"SELECT text FROM texts WHERE id = {text}").fetchone()
        store._connection.execute(f"UPDATE texts SET text = '[1]' WHERE id = {text}")
        with pytest.raises(Damaged, match="makes no sense"):
            store.check_rows()
        store._connection.execute(f"UPDATE texts SET text = ? WHERE id = {text}", (before,))
    store.check_rows()


def test_an_old_run_that_makes_no_sense_is_noticed_too(store: Store) -> None:
    (task,) = add(store, "a")
    done = finish(store, *begin(store, task))
    with store.transaction("retry", NOW + 11) as tx:
        queued = tx.apply(done, Requeued(2, 0, SPEC))
    begin(store, queued)
    store._connection.execute("UPDATE runs SET record = '[1]' WHERE attempt = 1")
    with pytest.raises(Damaged, match="makes no sense"):
        store.check_rows()


def test_every_column_is_passed_on_a_name_or_told_apart() -> None:
    columns = {*packing.TASK_COLUMNS, *packing.RUN_COLUMNS}
    assert {*packing._PASSED_ON, *packing._NAMES} <= columns
    assert columns - packing._PASSED_ON - packing._NAMES == {
        "text", "state", "outcome", "reason", "request", "hold", "record",
    }  # fmt: skip
