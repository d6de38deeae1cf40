"""All jobs of a server or a workspace as the page has them, kept up to date by what the store says has changed.

A look costs what has changed. Why the rest of the queue waits and when it will start is asked the scheduler's own
question, which takes time with thousands of tasks: that is the deep look, made less often.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ...core.model import Reason, TaskState
from ...errors import TinkschedError
from ...operations.snapshot import GpuStatus
from ...operations.status import Outlook, outlook
from ...store import Bar, Glance, Store
from .cards import CANCELLED, FAILED, Card, Owned, Prospect, card_of, status_of, with_prospect
from .detail import Facts, facts_of
from .gauges import Gauge
from .sources import Source, Trouble

DAY = 86_400.0
MOST_BARS = 1_000  # runs that ended, on the timeline
_SETTLING = 30.0  # seconds after its end in which the reason of a failure may still become clearer
_Samples = Mapping[str, Gauge]


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything at one instant, of everybody. What of it somebody gets is the business of `views`."""

    at: float = 0.0
    cards: Sequence[Card] = ()  # in their order
    by_task: Mapping[int, Card] = field(default_factory=dict)
    by_id: Mapping[str, Card] = field(default_factory=dict)
    bars: Sequence[Bar] = ()
    names: Mapping[str, str] = field(default_factory=dict)  # of the runs in `bars`, for whom they are not
    gpus: Sequence[GpuStatus] = ()
    gpu_seconds: Mapping[str, float] = field(default_factory=dict)  # by user
    batch_ends: float | None = None
    trouble: Trouble | None = None


class Book:
    """Belongs to one thread."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._store: Store | None = None
        self._key = os.urandom(16)  # for names of runs that say nothing
        self._reasons: dict[int, str] = {}  # why each task waits, by the last deep look, as what follows
        self._seconds: dict[str, float] = {}
        self._outlook: Outlook | None = None
        self._forget()

    def _forget(self) -> None:
        """All that is remembered of the store."""
        self._event = 0
        self._population = (0, 0)
        self._glances: dict[int, Glance] = {}
        self._owned: dict[int, Owned] = {}
        self._cards: dict[int, Card] = {}
        self._bars: dict[str, Bar] = {}
        self._names: dict[str, str] = {}

    def close(self) -> None:
        """Let go of the store."""
        if self._store is not None:
            self._store.close()
        self._store = None
        self._source.close()

    def look(self, *, deep: bool) -> Picture:
        """The picture now; with `deep` also why everything waits, and until when.

        Raises:
            TinkschedError: the state can't be read.
        """
        now = time.time()
        try:
            touched = self._read(now)
            if deep or self._outlook is None:
                self._ask()
                touched |= self._glances.keys() if self._outlook and self._outlook.ended else set()
                if self._store is not None:
                    self._seconds = self._by_user(self._store.gpu_seconds(now))
            self._write(touched, now)
        except sqlite3.Error as error:
            raise TinkschedError(f"the state can't be read: {error}") from None
        return self._picture(now)

    def facts(self, card: Card) -> Facts:
        """What is on record of a job.

        Raises:
            TinkschedError: it is gone, or can't be read.
        """
        store = self._opened()
        if store is None:
            raise TinkschedError("the job is gone")
        return self._source.facts(facts_of(store, card))

    # -- reading

    def _read(self, now: float) -> set[int]:
        """Take over what has changed. Returns the ids of the tasks that did."""
        store = self._opened()
        if store is None:
            self._forget()
            self._outlook = None
            return set()
        with store.snapshot():
            last, touched = store.touched(self._event)
            population = store.population()
            new = sum(one > self._population[1] for one in touched)
            if last < self._event or population[0] != self._population[0] + new:
                self._forget()  # something was cleaned away
            known = {*touched, *self._settling(now), *self._source.moving()} if self._glances else None
            found = store.glances(known)
            bars = store.bars(now - DAY, MOST_BARS, known)
        self._event, self._population = last, population
        self._glances.update((one.id, one) for one in found)
        self._take_bars(bars, {one.id for one in found}, now)
        self._owned.update(self._source.owned(found))
        return {one.id for one in found}

    def _opened(self) -> Store | None:
        if self._store is not None and self._store.is_deleted():
            self._store.close()
            self._store = None
            self._forget()
        if self._store is None:
            self._store = self._source.workspace.store()
        return self._store

    def _settling(self, now: float) -> Collection[int]:
        return [one for one, card in self._cards.items() if card.status == FAILED and -card.order[1] > now - _SETTLING]

    def _take_bars(self, bars: Collection[Bar], tasks: Collection[int], now: float) -> None:
        kept = {run: bar for run, bar in self._bars.items() if bar.task_id not in tasks}
        kept.update((bar.run, bar) for bar in bars)
        ended = sorted((bar.ended_at, run) for run, bar in kept.items() if bar.ended_at is not None)
        for number, (at, run) in enumerate(ended):
            if at < now - DAY or number < len(ended) - MOST_BARS:
                del kept[run]
        self._bars = dict(sorted(kept.items(), key=lambda item: item[1].began_at))
        self._names = {run: self._names.get(run) or self._name(run) for run in self._bars}

    def _name(self, run: str) -> str:
        return hashlib.blake2s(run.encode(), key=self._key, digest_size=8).hexdigest()

    def _ask(self) -> None:
        watch = self._source.watch
        self._outlook = outlook(self._source.workspace, watch.sample if watch is not None else None)
        self._reasons = {
            one: self._source.said(reason, self._owned[one])
            for one, reason in self._outlook.waiting.items()
            if one in self._owned
        }

    def _by_user(self, seconds: Mapping[int, float]) -> dict[str, float]:
        found: dict[str, float] = defaultdict(float)
        for task, count in seconds.items():
            if task in self._owned:
                found[self._owned[task].user] += count
        return dict(found)

    # -- cards

    def _write(self, touched: Collection[int], now: float) -> None:
        for task in touched:
            glance, owned = self._now_of(self._glances[task]), self._owned[task]
            status = owned.status or status_of(glance)
            said = self._said(glance.reason, owned)
            prospect = Prospect(reason=said if status == CANCELLED else None)
            self._cards[task] = card_of(glance, owned, prospect, said or str(glance.outcome).replace("_", " "))
        expected = self._outlook.expected.starts if self._outlook is not None else {}
        queue = [one for one in self._glances.values() if one.state == TaskState.QUEUED.value]
        queue.sort(key=lambda one: (-one.priority, one.queue_number))
        for place, one in enumerate(queue, 1):
            reason = self._reasons.get(one.id) or self._said(one.reason, self._owned[one.id])
            prospect = Prospect(place, reason, expected.get(one.id))
            self._cards[one.id] = with_prospect(self._cards[one.id], prospect)

    def _now_of(self, glance: Glance) -> Glance:
        """A run that has ended while no scheduler looked, as the next one will record it."""
        run = self._outlook.ended.get(glance.run or "") if self._outlook is not None else None
        if run is None or run.outcome is None or glance.state != TaskState.ACTIVE.value:
            return glance
        return glance._replace(
            state=TaskState.DONE.value, outcome=run.outcome.value, run_outcome=run.outcome.value, reason=run.reason,
            exit_code=run.exit_code, ended_at=run.ended_at, changed_at=run.ended_at or glance.changed_at,
        )  # fmt: skip

    def _said(self, reason: Reason | None, owned: Owned) -> str | None:
        return self._source.said(reason, owned) if reason is not None else None

    def _picture(self, now: float) -> Picture:
        outlook = self._outlook
        return Picture(
            now,
            sorted(self._cards.values(), key=lambda card: card.order),
            dict(self._cards),
            {card.id: card for card in self._cards.values()},
            tuple(self._bars.values()),
            self._names,
            outlook.gpus if outlook is not None else (),
            self._seconds,
            outlook.expected.batch_ends if outlook is not None else None,
            self._trouble(outlook),
        )

    def _trouble(self, outlook: Outlook | None) -> Trouble | None:
        with contextlib.suppress(TinkschedError):
            return self._source.trouble(outlook) if outlook is not None else None
        return None
