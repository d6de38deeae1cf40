"""A scheduler that lives in a process with others, and writes what they hand in."""

from __future__ import annotations

import asyncio
import select
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinksched.config import load
from tinksched.core.lifecycle import Held
from tinksched.core.model import Hold, TaskSpec
from tinksched.errors import Conflict, Damaged, TinkschedError, Unwritable
from tinksched.host import statedir, wake
from tinksched.host.statedir import SchedulerLock
from tinksched.scheduler.devices import Watch
from tinksched.scheduler.journal import Journal
from tinksched.scheduler.resident import Resident
from tinksched.store import Store
from tinksched.store.transaction import NewTask, Transaction

SPEC = TaskSpec(("true",), "/", "", "/", gpus=0)
SECONDS = 30.0


class House:
    """A resident in a thread. Nothing is launched, for there is no CPU slot."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "scheduler_config.yml").write_text("task_name: T\ncpu_slots: 0\nexecutor: local\n")
        self.settings = load(folder)
        self.state, self.home = statedir.prepare(folder)
        Store(self.state.database, create=True).close()
        self.begun = threading.Event()
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()
        assert self.begun.wait(SECONDS)

    def _live(self) -> None:
        lock = SchedulerLock(self.state)
        assert lock.acquire()
        self.resident = Resident(
            self.settings, self.state, self.home, {}, Journal(None, screen=False), lock, Watch(blind=True),
            begun=self.begun.set,
        )  # fmt: skip
        asyncio.run(self.resident.run())
        lock.release()

    def end(self) -> None:
        self.resident.end()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()

    def names(self) -> list[str]:
        with Store(self.state.database) as store:
            return store.names()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("TINKSCHED_LEASE_DIR", str(tmp_path / "leases"))
    found = House(tmp_path / "ws")
    yield found
    found.end()


def add(name: str):  # type: ignore[no-untyped-def]
    return lambda tx: tx.add_tasks([NewTask(name, "", SPEC, 0)])[0].name


def test_what_is_answered_is_on_the_disk(house: House) -> None:
    assert house.resident.do(add("a"), "test").result(SECONDS) == "a"
    assert house.names() == ["a"]


def test_an_order_that_fails_takes_back_what_it_wrote_and_no_more(house: House) -> None:
    def half(tx: Transaction) -> None:
        tx.add_tasks([NewTask("half", "", SPEC, 0)])
        raise ValueError("no")

    orders = [house.resident.do(work, "test") for work in (add("a"), half, add("a"), add("b"))]
    assert orders[0].result(SECONDS) == "a" and orders[3].result(SECONDS) == "b"
    with pytest.raises(ValueError, match="no"):
        orders[1].result(SECONDS)
    with pytest.raises(Conflict):
        orders[2].result(SECONDS)
    assert house.names() == ["a", "b"]


def test_what_many_threads_ask_for_at_once_is_all_done(house: House) -> None:
    def ask(number: int) -> None:
        house.resident.do(add(f"t{number}"), "test").result(SECONDS)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(house.names()) == sorted(f"t{number}" for number in range(40))


def test_tasks_that_move_together_are_known_to_have_moved(house: House) -> None:
    def hold(tx: Transaction) -> None:
        with Store(house.state.database) as store:
            tx.apply_to(store.roster(), Held(Hold("ann", 1.0)))

    for name in ("a", "b"):
        house.resident.do(add(name), "test").result(SECONDS)
    house.resident.do(hold, "test").result(SECONDS)

    def held(tx: Transaction) -> list[bool]:
        return [task.hold is not None for task in house.resident._backlog.queue]

    assert house.resident.do(held, "test").result(SECONDS) == [True, True]


def test_an_order_that_was_taken_back_is_not_done_and_keeps_up_nobody(house: House) -> None:
    begun, gate = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        begun.set()
        assert gate.wait(SECONDS)

    first = house.resident.do(slow, "test")
    assert begun.wait(SECONDS) and not first.cancel(), "too late"
    second, third = (house.resident.do(add(name), "test") for name in ("b", "c"))
    assert second.cancel()
    gate.set()
    assert third.result(SECONDS) == "c"
    assert house.names() == ["c"]


def test_what_is_not_on_the_disk_is_not_announced(house: House) -> None:
    def broken(tx: Transaction) -> None:
        tx.connection.execute("INSERT INTO nowhere VALUES (1)")

    listener = wake.listen(house.state.path)
    try:
        house.resident.do(add("a"), "test").result(SECONDS)
        assert select.select([listener], [], [], SECONDS)[0] and listener.clear()
        with pytest.raises(Damaged, match="no such table: nowhere"):
            house.resident.do(broken, "test").result(SECONDS)
        wake.send(house.state.path / wake.LISTENERS, listener.path.name, b"of the test")
        messages = listener.clear()
        while b"of the test" not in messages:
            messages += listener.clear()
        assert messages == [b"of the test"]
    finally:
        listener.close()
    assert house.names() == ["a"]


def test_a_transaction_that_sqlite_has_taken_back_is_no_success_of_anybody(house: House) -> None:
    def gone(tx: Transaction) -> None:
        tx.connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    begun, gate = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        begun.set()
        assert gate.wait(SECONDS)

    first = house.resident.do(slow, "test")
    assert begun.wait(SECONDS)
    both = [house.resident.do(work, "test") for work in (add("a"), gone)]
    gate.set()
    first.result(SECONDS)
    for order in both:
        with pytest.raises(Unwritable, match="disk is full"):
            order.result(SECONDS)
    assert house.names() == []


def test_one_that_is_ended_before_it_has_begun_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKSCHED_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setattr(Resident, "run", _ended_early(Resident.run))
    house = House(tmp_path / "ws")
    house.thread.join(SECONDS)
    assert not house.thread.is_alive()


def _ended_early(run):  # type: ignore[no-untyped-def]
    def begin(self: Resident):  # type: ignore[no-untyped-def]
        self.end()
        return run(self)

    return begin


def test_it_stays_when_there_is_nothing_to_do_and_takes_no_orders_after_its_end(tmp_path: Path, house: House) -> None:
    house.resident.do(add("a"), "test").result(SECONDS)
    assert house.thread.is_alive()
    house.end()
    with pytest.raises(TinkschedError, match="does not run"):
        house.resident.do(add("b"), "test")
    assert house.names() == ["a"]
