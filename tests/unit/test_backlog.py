"""What the scheduler keeps in memory of its queue is what stands in the database, whoever wrote it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tinksched.config import Settings, load
from tinksched.core.lifecycle import Began, Dropped, Finished, GaveBack, Requeued, Retried, TaskEvent
from tinksched.core.model import Outcome, Reason, ReasonCode, Request, Task, TaskSpec, TaskState
from tinksched.errors import Conflict, Damaged
from tinksched.scheduler.backlog import Backlog
from tinksched.scheduler.needs import Needs
from tinksched.store import STOPPED, NewTask, Store

NOW = 1_700_000_000.0
WHY = Reason(ReasonCode.EXIT_CODE, {"code": 1})


def spec(name: str, after: tuple[str, ...] = (), gpus: int = 1) -> TaskSpec:
    return TaskSpec(("true",), "/", f"/out/{name}", "/out", after=after, gpus=gpus, min_free_memory="auto")


def add(store: Store, *names: str, after: tuple[str, ...] = (), priority: int = 0, gpus: int = 1) -> list[Task]:
    new = [NewTask(name, f"/c/{name}.yml", spec(name, after, gpus), priority) for name in names]
    with store.transaction("test", NOW) as tx:
        return tx.add_tasks(new)


@pytest.fixture
def needs(tmp_path: Path) -> Needs:
    return Needs(learning(tmp_path, "t1*", "t2*"), [])


def learning(folder: Path, *patterns: str) -> Settings:
    """Tasks that match the same of these learn from each other, and so do all others."""
    rules = "".join(f"  '{pattern}': {{min_free_memory: auto}}\n" for pattern in patterns)
    (folder / "scheduler_config.yml").write_text(f"task_name: T\ntasks:\n{rules}")
    return load(folder)


def backlog_of(store: Store, needs: Needs) -> Backlog:
    backlog = Backlog(store, needs)
    backlog.use({0: "index-0", 1: "index-1"})
    backlog.refresh()
    return backlog


def assert_same(backlog: Backlog, store: Store, needs: Needs) -> None:
    fresh = backlog_of(store, needs)
    assert list(backlog.queue) == list(fresh.queue)
    assert {task.id for task in backlog.bound} == {task.id for task in fresh.bound}
    assert backlog.requests == fresh.requests
    assert backlog.impossible == fresh.impossible
    assert backlog.sorts == fresh.sorts
    for task in store.active_tasks():
        assert backlog.task(task.id) == task


def test_only_what_others_write_is_read_again(store: Store, other: Store, needs: Needs) -> None:
    add(store, "a")
    backlog = backlog_of(store, needs)
    assert not backlog.refresh()
    add(store, "mine")
    assert not backlog.refresh(), "what this connection wrote is put there by whoever wrote it"
    add(other, "theirs")
    assert backlog.refresh() and backlog.has_news
    assert [task.name for task in backlog.queue] == ["a", "mine", "theirs"]


def test_a_stop_and_a_request_of_others_are_seen(store: Store, other: Store, needs: Needs) -> None:
    (task,) = add(store, "a")
    backlog = backlog_of(store, needs)
    with store.transaction("test", NOW) as tx:
        backlog.put(tx.apply(task, Began(None)))
    with other.transaction("test", NOW) as tx:
        tx.request(other.tasks()[0], Request.CANCEL)
        tx.set_fact(STOPPED, "somebody")
    backlog.refresh()
    assert backlog.requests == {task.id: Request.CANCEL} and backlog.stopped == "somebody"


def test_what_was_not_committed_is_forgotten(store: Store, needs: Needs) -> None:
    (task,) = add(store, "a")
    backlog = backlog_of(store, needs)
    with pytest.raises(RuntimeError), store.transaction("test", NOW) as tx:
        backlog.put(tx.apply(task, Began(None)))
        raise RuntimeError
    backlog.forget()
    backlog.refresh()
    assert_same(backlog, store, needs)


def test_inside_of_a_transaction_what_others_did_just_before_is_seen(store: Store, other: Store, needs: Needs) -> None:
    add(store, "a")
    backlog = backlog_of(store, needs)
    add(other, "b")
    with store.transaction("test", NOW):
        assert backlog.refresh()
        assert [task.name for task in backlog.queue] == ["a", "b"]


def test_relations_of_a_task_that_comes_back_to_the_queue_are_known(store: Store, needs: Needs) -> None:
    add(store, "first")
    (later,) = add(store, "later", after=("first",))
    with store.transaction("test", NOW) as tx:
        active = tx.apply(later, Began(None))
    backlog = backlog_of(store, needs)
    assert backlog.relations.of(later) is None, "nobody in the queue comes after anybody"
    with store.transaction("test", NOW) as tx:
        backlog.put(tx.apply(active, Retried(WHY, NOW + 1)))
    assert backlog.relations.of(later) is not None


def test_a_task_that_is_done_is_not_there(store: Store, needs: Needs) -> None:
    with pytest.raises(Damaged, match="task 7 is done"):
        backlog_of(store, needs).task(7)


def test_after_many_changes_of_both_sides_it_is_what_the_database_says(
    store: Store, other: Store, needs: Needs
) -> None:
    chance = random.Random(5)
    backlog = backlog_of(store, needs)
    for number in range(300):
        if chance.random() < 0.1:
            after = ("t*",) if chance.random() < 0.3 else ()
            add(other, f"t{number}", after=after, priority=chance.randint(-1, 1), gpus=chance.choice((0, 1, 1, 9)))
        tasks = store.tasks()
        if not tasks:
            continue
        task = chance.choice(tasks)
        events: dict[TaskState, list[TaskEvent]] = {
            TaskState.QUEUED: [Began(None), Dropped(Outcome.CANCELLED, WHY)],
            TaskState.ACTIVE: [
                GaveBack(WHY),
                Retried(WHY, NOW + 9, chance.choice((None, 7))),
                Finished(Outcome.COMPLETED, None),
            ],
            TaskState.DONE: [Requeued((number + 1) * 1000, chance.randint(-1, 1), task.spec)],
        }
        mine = task.state is not TaskState.DONE  # finished tasks are queued again by commands only
        with (store if mine else other).transaction("test", NOW) as tx:
            if mine:
                backlog.refresh()
            moved = tx.apply(task, chance.choice(events[task.state]))
            if mine:
                backlog.put(moved)
        backlog.refresh()
        assert_same(backlog, store, needs)
    backlog.use((0, 1), cpu=False)
    assert backlog.impossible == sum(task.spec.gpus not in (1, 2) for task in backlog.queue)


def test_tasks_whose_need_depends_on_the_same_are_one_sort(store: Store, needs: Needs, tmp_path: Path) -> None:
    add(store, "t11", "t12", "t21", "x")
    backlog = backlog_of(store, needs)
    assert sorted((sort.pattern, count) for sort, count in backlog.sorts.items()) == [("", 1), ("t1*", 2), ("t2*", 1)]
    needs.use(learning(tmp_path, "t*"))
    backlog.use({0: "index-0", 1: "index-1"})
    assert sorted((sort.pattern, count) for sort, count in backlog.sorts.items()) == [("", 1), ("t*", 3)]


def test_two_that_move_a_task_at_once(store: Store, other: Store, needs: Needs) -> None:
    (task,) = add(store, "a")
    backlog = backlog_of(store, needs)
    with other.transaction("test", NOW) as tx:
        tx.apply(task, Dropped(Outcome.CANCELLED, WHY))
    with pytest.raises(Conflict), store.transaction("test", NOW) as tx:
        tx.apply(backlog.task(task.id), Began(None))
    backlog.refresh()
    assert not backlog.queue


@pytest.mark.parametrize(
    ("pinned", "devices", "now"),
    [
        ((1,), ("GPU-b",), (0,)),
        ((0,), ("GPU-a",), (-1,)),
        ((1,), ("index-1",), (1,)),
        ((1,), (), (1,)),
    ],
    ids=["its index has changed", "it is gone", "there was no driver", "queued by an older version"],
)
def test_a_pin_means_the_same_gpu_whatever_its_index(
    store: Store, needs: Needs, pinned: tuple[int, ...], devices: tuple[str, ...], now: tuple[int, ...]
) -> None:
    with store.transaction("test", NOW) as tx:
        tx.add_tasks([NewTask("a", "/c/a.yml", replace(spec("a"), pinned=pinned, pinned_devices=devices), 0)])
    backlog = Backlog(store, needs)
    backlog.use({0: "GPU-a", 1: "GPU-b"})
    backlog.refresh()
    assert backlog.queue[0].spec.pinned in (pinned, (0,)), "as it was"
    backlog.use({0: "GPU-b", 1: "GPU-c"})
    assert backlog.refresh()
    assert backlog.queue[0].spec.pinned == now
    assert backlog.impossible == (1 if now == (-1,) else 0)
    assert store.queue()[0].spec.pinned == pinned, "what is on record stays"
