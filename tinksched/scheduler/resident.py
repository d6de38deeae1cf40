"""A scheduler that stays when nothing is left to do, and takes its tasks from the process that it lives in.

All that the process writes goes through `do`: one writer, on one thread, and what several clients ask for at once is
one commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..core.model import Reason
from ..errors import TinkschedError
from ..host import wake
from ..store import database
from ..store.transaction import Transaction
from .loop import Scheduler
from .result import Result

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Order:
    work: Callable[[Transaction], Any]
    who: str
    answer: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Question:
    answer: Future[dict[str, Reason]] = field(default_factory=Future)


class Resident(Scheduler):
    """Made as any scheduler; `run` it in an event loop of its own, in any thread."""

    def __init__(self, *arguments: Any, begun: Callable[[], object], **options: Any) -> None:
        """`begun` is called once the runs of earlier schedulers are known and orders are carried out."""
        super().__init__(*arguments, **options)
        self._tell_begun = begun
        self._orders: deque[_Order] = deque()
        self._questions: deque[_Question] = deque()
        self._home_loop: asyncio.AbstractEventLoop | None = None  # while it takes orders
        self._door = threading.Lock()  # so that nobody hands in an order behind the last look at them

    async def run(self) -> Result:
        """See `Scheduler.run`. Whoever has asked for something that was not done is told."""
        try:
            return await super().run()
        finally:
            with self._door:
                self._home_loop = None
            asked: list[Future[Any]] = [one.answer for one in self._orders]
            asked += [one.answer for one in self._questions]
            for answer in asked:
                if answer.set_running_or_notify_cancel():
                    answer.set_exception(_not_running())

    def do(self, work: Callable[[Transaction], T], who: str) -> Future[T]:
        """Do this in a write transaction, from any thread. What it returns is in the answer once it is on the disk.

        What `work` raises is in the answer as well, and nothing that it wrote is kept.

        Raises:
            TinkschedError: it has ended.
        """
        order = _Order(work, who)
        with self._door:
            if self._home_loop is None:
                raise _not_running()
            self._orders.append(order)
            self._home_loop.call_soon_threadsafe(self._carry_out)
        return order.answer

    def reasons(self) -> Future[dict[str, Reason]]:
        """Why each task of the queue waits, by name, from any thread.

        Raises:
            TinkschedError: it has ended.
        """
        question = _Question()
        with self._door:
            if self._home_loop is None:
                raise _not_running()
            self._questions.append(question)
            self._home_loop.call_soon_threadsafe(self._explain)
        return question.answer

    def end(self) -> None:
        """Let go of everything and end, from any thread. Runs go on."""
        with self._door:
            if self._home_loop is not None:
                self._home_loop.call_soon_threadsafe(self._finish)
            else:  # before it has begun: then it ends with its first look
                self._terminated = True

    def _finish(self) -> None:
        self._terminated = True
        self._wake_up()

    def _follow_signals(self, stack: contextlib.ExitStack, loop: asyncio.AbstractEventLoop) -> None:
        """Signals are its process's business."""
        self._home_loop = loop

    def _is_over(self) -> bool:
        self._tell_begun()
        if self._backlog.refresh():
            self._wake_up()
        return self._terminated

    def _explain(self) -> None:
        """What several clients ask at once is found out once."""
        asked = [self._questions.popleft() for _ in range(len(self._questions))]
        asked = [question for question in asked if question.answer.set_running_or_notify_cancel()]
        if not asked:
            return
        try:
            reasons = self._ledger.reasons()
        except Exception as error:  # it is who asks that must know
            for question in asked:
                question.answer.set_exception(error)
            return
        for question in asked:
            question.answer.set_result(reasons)

    def _carry_out(self) -> None:
        """All orders that have come, in one transaction. An order that fails takes back what it wrote, and no more."""
        orders = [self._orders.popleft() for _ in range(len(self._orders))]
        orders = [order for order in orders if order.answer.set_running_or_notify_cancel()]
        if not orders:
            return
        answers: list[tuple[_Order, Any, Exception | None]] = []
        try:
            with self._store.transaction(orders[0].who, time.time()) as tx:
                self._backlog.refresh()
                for order in orders:
                    answers.append((order, *self._attempt(tx, order)))
            for task in tx.moved:
                self._backlog.put(task)
            self._backlog.has_news |= bool(tx.moved)
        except Exception as error:  # none of it is on the disk
            answers = [(order, None, error) for order in orders]
        for order, answer, trouble in answers:
            if trouble is None:
                order.answer.set_result(answer)
            else:
                order.answer.set_exception(trouble)
        if any(trouble is None for _, _, trouble in answers):  # else who hears it would only try the same again
            self._wake_up()
            wake.announce(self._state.path)

    def _attempt(self, tx: Transaction, order: _Order) -> tuple[Any, Exception | None]:
        before = len(tx.moved)
        tx.connection.execute("SAVEPOINT an_order")
        try:
            answer, trouble = order.work(tx), None
        except Exception as error:
            if not tx.connection.in_transaction:  # SQLite has taken all of it back, on a full disk say
                raise
            tx.connection.execute("ROLLBACK TO an_order")
            del tx.moved[before:]
            answer, trouble = None, database.translated(self._state.database, "written", error)
        tx.connection.execute("RELEASE an_order")
        return answer, trouble


def _not_running() -> TinkschedError:
    return TinkschedError("the scheduler does not run")
