"""The feed of the page: one look at the jobs for all who follow, as soon as a change is announced, and no more of them
than the machine bears well.

While nobody follows nothing is looked at but the GPUs, now and then, for their history.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ...errors import TinkschedError
from ...host import wake
from ...scheduler.devices import Watch
from .book import Book, Picture
from .cards import Card
from .detail import Facts
from .gauges import STEP, Gauge
from .sources import Source
from .views import PROSPECT_SECONDS, Frame, Limits, View, Viewer, cards_of, listed, scene

_log = logging.getLogger("tinksched.server")
NET_SECONDS = 15.0  # after so long without news a stream gets a comment, and its credential is looked at again
SAMPLE_SECONDS = 5.0  # from one sample of the GPUs to the next while somebody follows
REST, LONG_REST = 2, 20  # a look is followed by so many times as much rest; a deep one by more
DEEP_SECONDS = 1.0  # between two deep looks, at least
STALE_SECONDS = 30.0  # a deep look is made again after that, though nothing is announced: for what nobody announces
NO_NEWS_REST, STALEST_SECONDS = 1_000, 600.0  # or after so many times as long as it took, at most after these
ASKED_SECONDS = 60.0  # somebody who has asked is expected to ask again
WARM_SECONDS = 5.0  # after its beginning all is looked at once, so that the first who asks need not wait for that
DEAF_SECONDS = 1.0  # from one look to the next where nothing can be announced: no scheduler was ever there
SHORTEST = 0.02  # between two looks; what comes at once is one change
BACKLOG = 100  # events that a slow client may be behind; then it gets the whole scene again
Check = Callable[[], str | None]  # why a credential is not good any more; None if it is


class _Client:
    """A stream's end of the feed."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[str | None] = asyncio.Queue(BACKLOG)
        self.is_lost = False  # it is too far behind

    def put(self, event: str) -> None:
        """Have it sent; an empty one: look at the credential again."""
        try:
            self.events.put_nowait(event)
        except asyncio.QueueFull:
            self.is_lost = True

    def end(self) -> None:
        """Have the stream end."""
        with contextlib.suppress(asyncio.QueueEmpty):
            while self.events.full():
                self.events.get_nowait()
        self.is_lost = False
        self.events.put_nowait(None)


class Feed:
    """One for each server; belongs to an event loop."""

    def __init__(self, source: Source, limits: Callable[[Viewer], Limits]) -> None:
        self.source = source
        self._limits = limits
        self._book = Book(source)
        self._thread = ThreadPoolExecutor(1, "feed")
        self._picture = Picture()
        self._is_fresh = False
        self._gauges: dict[str, Gauge] = {}
        self._views: dict[tuple[Viewer, int], tuple[View, set[_Client]]] = {}
        self.is_ending = False
        self._changed = asyncio.Event()
        self._news = asyncio.Event()
        self._looking = asyncio.Lock()
        self._deep_at = 0.0  # monotonic: when a deep look may be made, and before
        self._stale_at = 0.0  # when one must be
        self._wants_deep = False
        self._free_at = 0.0
        self._asked_at = -ASKED_SECONDS
        self._foreign: object = None  # who else was seen on the GPUs
        self._listener: wake.Receiver | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._later: asyncio.TimerHandle | None = None
        self._trouble = ""

    async def open(self) -> None:
        """Begin to listen."""
        self._listen()
        self._tasks = [asyncio.create_task(work) for work in (self._follow(), self._sample(), self._warm_up())]

    def stop(self) -> None:
        """End all streams."""
        self.is_ending = True
        self._ring()
        for _, clients in self._views.values():
            for client in clients:
                client.end()

    async def close(self) -> None:
        """Let go of everything."""
        self.stop()
        if self._later is not None:
            self._later.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._deafen()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._book.close)
        self._thread.shutdown(wait=False)

    # -- for those who ask once

    async def picture(self) -> Picture:
        """Everything as it is now, but for why jobs wait: nobody waits for what takes long.

        Raises:
            TinkschedError: it can't be read.
        """
        self._asked_at = time.monotonic()
        if not self._is_fresh:
            async with self._looking:
                if not self._is_fresh:
                    await self._look(deep=False)
        if self._is_due():
            self._news.set()
        return self._picture

    async def scene(self, viewer: Viewer, most: int) -> str:
        """The scene of somebody, as JSON. Raises as `picture`."""
        picture = await self.picture()
        return scene(picture, viewer, self._frame(viewer), most)

    async def jobs(self, viewer: Viewer, offset: int, limit: int) -> str:
        """Some of somebody's jobs, as JSON. Raises as `picture`."""
        cards = cards_of(await self.picture(), viewer)
        return f'{{"jobs": {listed(cards[offset : offset + limit])}, "total": {len(cards)}}}'

    async def card(self, job_id: str) -> Card | None:
        """A job; of one that is not known, as it may be after a submission of just now, the store is asked again."""
        found = (await self.picture()).by_id.get(job_id)
        if found is None:
            self._is_fresh = False
            found = (await self.picture()).by_id.get(job_id)
        return found

    async def facts(self, card: Card) -> Facts:
        """What is on record of a job. Raises as `picture`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._book.facts, card)

    # -- for those who follow

    async def follow(self, viewer: Viewer, most: int, check: Check) -> AsyncIterator[str]:
        """The events of somebody's stream, for as long as the credential is good and the feed goes on.

        Raises:
            TinkschedError: nothing can be read at its beginning.
        """
        is_lost = True
        while is_lost:  # with the whole scene, whenever the client was too slow for the changes
            client = _Client()
            await self.picture()
            with self._joined(viewer, most, client):
                yield event("state", scene(self._picture, viewer, self._frame(viewer), most))
                async for text in self._heard_by(client, check):
                    yield text
            is_lost = client.is_lost

    async def _heard_by(self, client: _Client, check: Check) -> AsyncIterator[str]:
        """What comes; a comment where nothing has for a while; and a farewell to who may read no more."""
        check_at = time.monotonic() + NET_SECONDS
        while not client.is_lost:
            found: str | None = ""
            with contextlib.suppress(asyncio.TimeoutError):
                found = await asyncio.wait_for(client.events.get(), NET_SECONDS)
            if found is None:
                return
            if not found or time.monotonic() >= check_at:
                check_at = time.monotonic() + NET_SECONDS
                why = check()
                if why is not None:
                    yield farewell(why)
                    return
            yield found or STILL_THERE

    @contextlib.contextmanager
    def _joined(self, viewer: Viewer, most: int, client: _Client) -> Iterator[None]:
        """Have a client hear what changes from now on."""
        key = (viewer, most)
        if key in self._views:
            self._publish_to(*self._views[key])  # the newcomer's scene is of this instant
        else:
            view = View(viewer, most)
            view.begin(self._picture, self._frame(viewer))
            self._views[key] = (view, set())
        clients = self._views[key][1]
        clients.add(client)
        self._news.set()  # it may have slept while nobody followed
        try:
            yield
        finally:
            clients.discard(client)
            if not clients:
                self._views.pop(key, None)

    def _publish(self) -> None:
        for view, clients in list(self._views.values()):
            self._publish_to(view, clients)

    def _publish_to(self, view: View, clients: set[_Client]) -> None:
        change = view.change(self._picture, self._frame(view.viewer))
        if view.is_behind and not self._later:
            self._later = asyncio.get_running_loop().call_later(PROSPECT_SECONDS, self._catch_up)
        if change is not None:
            text = event("change", change)
            for client in clients:
                client.put(text)

    def _catch_up(self) -> None:
        self._later = None
        self._publish()

    def _frame(self, viewer: Viewer) -> Frame:
        watch = self.source.watch
        sample = watch.sample if watch is not None else None
        return Frame(self.source.mode, self.source.title, sample.states if sample is not None else {}, self._gauges,
                     self._limits(viewer))  # fmt: skip

    # -- looking

    async def _follow(self) -> None:
        """Look when a change is announced, and now and then without; while anybody wants to know."""
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._patience())
            self._news.clear()
            if self._listener is None:
                self._is_fresh = False
            await asyncio.sleep(max(0.0, self._free_at - time.monotonic()))
            if self._is_wanted() and (not self._is_fresh or self._is_due()):
                try:
                    async with self._looking:
                        await self._look(deep=self._is_due() and (self._is_fresh or self._listener is None))
                    self._say("")
                except TinkschedError as error:
                    self._say(str(error))
                    self._free_at = time.monotonic() + 1.0

    def _is_wanted(self) -> bool:
        return bool(self._views) or time.monotonic() < self._asked_at + ASKED_SECONDS

    def _patience(self) -> float:
        if not self._is_wanted():
            return STALE_SECONDS
        until = self._deep_at if self._wants_deep else self._stale_at
        most = STALE_SECONDS if self._listener is not None else DEAF_SECONDS
        return min(most, max(SHORTEST, until - time.monotonic()))

    def _is_due(self) -> bool:
        now = time.monotonic()
        return now >= self._stale_at or (self._wants_deep and now >= self._deep_at)

    async def _look(self, *, deep: bool) -> None:
        """Take a new picture: of what has changed, or with `deep` of what follows from that as well."""
        loop, begun = asyncio.get_running_loop(), time.monotonic()
        self._listen()
        self._wants_deep = not deep or not self._is_fresh
        self._is_fresh = True  # before looking: what comes meanwhile is not missed
        try:
            self._picture = await loop.run_in_executor(self._thread, lambda: self._book.look(deep=deep))
        except BaseException:
            self._is_fresh = False
            raise
        now = time.monotonic()
        took = now - begun
        if deep:
            self._deep_at = now + max(DEEP_SECONDS, LONG_REST * took)
            self._stale_at = now + min(max(STALE_SECONDS, NO_NEWS_REST * took), STALEST_SECONDS)
        self._free_at = now + max(SHORTEST, REST * took)
        self._publish()

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            _log.error("The dashboard can't look: %s", trouble)
        self._trouble = trouble

    async def _warm_up(self) -> None:
        await asyncio.sleep(WARM_SECONDS)
        with contextlib.suppress(TinkschedError):  # whoever asks is told
            await self.picture()

    # -- hearing

    def _listen(self) -> None:
        """Hear of changes, also where the state folder has come only now, or was deleted and made again."""
        folder = self.source.workspace.state.path
        if self._listener is not None and self._listener.path.exists():
            return
        self._deafen()
        with contextlib.suppress(OSError, TinkschedError):  # another user's, or not there yet
            self._listener = wake.listen(folder)
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._heard)
        self._is_fresh = False

    def _deafen(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _heard(self) -> None:
        assert self._listener is not None
        messages = self._listener.clear()
        if wake.TOKENS in messages:
            for _, clients in self._views.values():
                for client in clients:
                    client.put("")
        self._is_fresh = False
        self._news.set()
        self._ring()

    @property
    def changed(self) -> asyncio.Event:
        """Is set when something has been announced. Ask for it before you look."""
        return self._changed

    def _ring(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # -- the GPUs

    async def _sample(self) -> None:
        """Have the GPUs looked at, and remember what was seen."""
        while True:
            watch = self.source.watch
            if watch is not None:
                self._remember(watch)
                watch.look(SAMPLE_SECONDS - 0.5, waiting=False)
            await asyncio.sleep(SAMPLE_SECONDS if self._views else STEP)

    def _remember(self, watch: Watch) -> None:
        sample = watch.sample
        for device, state in sample.states.items() if sample is not None else ():
            self._gauges.setdefault(device, Gauge()).note(state)
        states = sample.states.values() if sample is not None else ()
        foreign = {one.pid for state in states for one in state.processes or () if not one.run}
        if foreign != self._foreign:
            self._foreign, self._wants_deep = foreign, True
            self._news.set()
        self._publish()


STILL_THERE = ": still there\n\n"


def event(kind: str, data: str) -> str:
    """A server-sent event. `data` has no line breaks."""
    return f"event: {kind}\ndata: {data}\n\n"


def farewell(why: str) -> str:
    """The last event of a stream whose credential has ended."""
    return event("bye", json.dumps({"detail": why}))
