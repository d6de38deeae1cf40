"""The loop: wake, observe, decide, persist, act.

Events wake it: the end of a process (pidfd), a command of the user (wake socket), a slot that somebody else on the
host gave back (inotify on the lease folder), a deadline of its own. `check_interval` is the safety net. Every tick
looks at everything, so an event that was missed or came twice changes nothing.

What a tick decides is committed before it is done (see `ledger`): a run is on disk as `starting` before its session is
created. Ending one run and starting the next are one commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..config import Settings, load
from ..core.model import Outcome, Reason, ReasonCode, Request, Run
from ..errors import StoreError, TinkschedError
from ..executors import registry
from ..executors.base import Exited, Handle, Observation, Refused, Running, Unreachable
from ..host import inotify, wake
from ..host.completion import marker_identity
from ..host.statedir import Home, SchedulerLock, StateDir
from ..store import STOPPED, Store
from . import clock
from .devices import Watch
from .diagnosing import Diagnosing
from .endings import Ending, ending_of
from .guard import Guard
from .journal import Journal
from .ledger import Ledger
from .logs import Logs
from .result import Result
from .stopping import Stopping

BLIND_SECONDS = 0.5  # how often to look at runs that the kernel can't report
TIDY_SECONDS = 1.0  # after an end, until tmux has surely passed on the last output
BACK_OFF_SECONDS = 1.0
ECHO_SECONDS = 0.05
LOG_SECONDS = 0.01  # the shortest wait for a log
HOLD_SECONDS = 10.0  # the longest time between two attempts to launch on a machine that is short of something
_LEASE_EVENTS = inotify.CLOSE_WRITE | inotify.DELETE | inotify.DELETE_SELF | inotify.MOVE_SELF


class Scheduler:
    """The scheduler of one workspace. Only who holds the workspace's `SchedulerLock` may make one."""

    def __init__(
        self,
        settings: Settings,
        state: StateDir,
        home: Home,
        gpus: Mapping[int, str],  # index to device name, in order of preference
        journal: Journal,
        lock: SchedulerLock,
        watch: Watch,
        *,
        launching: bool = True,
    ) -> None:
        """With `launching` off nothing is started: what was asked for (cancel, kill-all) is done, and that's all."""
        self._watch = watch
        self._settings = settings
        self._read_as: str | None = None  # these settings may be older than the file is by now
        self._state = state
        self._journal = journal
        self._guard = Guard(state, home, lock, journal)
        self._may_launch = launching
        self._store = Store(state.database, shared=state.shared)
        self._ledger = Ledger(settings, state, home, self._store, journal)
        self._ledger.use(settings, gpus)
        self._backlog = self._ledger.backlog
        self._executor = registry.make(
            settings.executor, self._wake_up, tmux_socket=settings.tmux_socket, workspace_id=home.workspace_id
        )
        self._woken: asyncio.Event
        self._look = True  # whether anything has happened that may make room for another run
        self._untold: list[Ending] = []
        self._began = False  # whether runs have begun of which nobody was told
        self._launches: dict[asyncio.Task[Mapping[str, Handle | Refused]], list[Run]] = {}  # not answered yet
        self._stopping = Stopping(self._executor, journal, wake=self._wake_up, fail=self._fail)
        self._sampling: asyncio.Task[None] | None = None
        self._sample_at = 0.0  # monotonic
        self._back_off = False  # after a failure that looking again at once would only repeat
        self._launch_at = 0.0  # monotonic, or 0; before, the machine is too short of something to launch
        self._held_for = 0.0
        self._trouble = ""  # why nothing could be written at the last try
        self._tidy_at: float | None = None  # monotonic
        self._logs = Logs(journal)
        self._diagnosing = Diagnosing(self._store, journal)
        self._interrupted = self._terminated = False

    # -- the loop

    async def run(self) -> Result:
        """Work until all is done or somebody says stop.

        Raises:
            TinkschedError: the store can't be used.
        """
        self._woken = asyncio.Event()
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            self._listen(stack, loop)
            self._watch.listen(lambda: loop.call_soon_threadsafe(self._wake_up))
            self._ledger.adopt()
            self._tidy_soon()
            wake.announce(self._state.path, b"ready")
            while True:
                # Clear first, look afterwards: what arrives in between wakes the next tick.
                self._woken.clear()
                if self._guard.is_deleted(self._store):
                    await self._await_launches()
                    back = self._guard.put_back(self._store, self._ledger.runs.values())
                    return Result(False, False, self._store.counts(), 0, back)
                await self._tick()
                if self._is_over():
                    await self._await_launches()
                    return Result(self._stopped(), self._terminated, self._store.counts(), self._backlog.impossible)
                await self._sleep()

    def _listen(self, stack: contextlib.ExitStack, loop: asyncio.AbstractEventLoop) -> None:
        def watch(source: wake.Receiver | inotify.Watch, heard: Callable[[], None] | None = None) -> None:
            def told() -> None:
                source.clear()
                self._wake_up()

            stack.callback(source.close)
            loop.add_reader(source.fileno(), heard or told)
            stack.callback(loop.remove_reader, source.fileno())

        watch(wake.Receiver(self._state.path, wake.WAKE))
        with contextlib.suppress(OSError):  # out of inotify instances: check_interval is the net
            leases = inotify.Watch()
            watch(leases, functools.partial(self._leases_changed, leases))
            leases.add(self._ledger.slots.folder, _LEASE_EVENTS)
        with contextlib.suppress(OSError):
            watch(self._guard.watch())
        self._follow_signals(stack, loop)

    def _follow_signals(self, stack: contextlib.ExitStack, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._signalled, number)
            stack.callback(loop.remove_signal_handler, number)

    def _leases_changed(self, leases: inotify.Watch) -> None:
        """Others on this host took or freed slots, or say that they wait."""
        names = leases.clear()
        if "" in names:  # something happened to the folder itself
            with contextlib.suppress(TinkschedError, OSError):
                self._ledger.slots.remake_folder()
                leases.add(self._ledger.slots.folder, _LEASE_EVENTS)
        if any(self._ledger.is_news(name) for name in names):
            self._wake_up()
            # The kernel reports a closed file before it drops the lock: the tick may come too early.
            asyncio.get_running_loop().call_later(ECHO_SECONDS, self._wake_up)

    def _signalled(self, number: int) -> None:
        """Ctrl-C is `stop`. TERM and HUP (a shutdown, a closed session) end the scheduler until somebody starts it."""
        if number == signal.SIGINT:
            self._interrupted = True
        else:
            self._terminated = True
        self._wake_up()

    def _wake_up(self) -> None:
        self._look = True
        self._woken.set()

    def _tidy_soon(self) -> None:
        self._tidy_at = self._tidy_at or time.monotonic() + TIDY_SECONDS

    async def _sleep(self) -> None:
        seconds = [self._settings.check_interval]
        if self._back_off:
            self._back_off = False
            await asyncio.sleep(BACK_OFF_SECONDS)
            seconds = [0.0]
        if self._ledger.wake_at is not None:
            seconds.append(self._ledger.wake_at - time.time())
        for run in self._ledger.runs.values():
            if run.deadline is not None and not self._is_settled(run):
                seconds.append(run.deadline - self._ledger.now_of(run))
        if self._tidy_at is not None and not self._launches:  # while there are some, nothing is done afterwards
            seconds.append(self._tidy_at - time.monotonic())
        if self._launch_at:
            seconds.append(self._launch_at - time.monotonic())
        if self._ledger.runs and self._logs.flooded and not self._launches:
            seconds.append(self._logs.look_at - time.monotonic())
        if self._diagnosing.wake_at is not None:
            seconds.append(max(LOG_SECONDS, self._diagnosing.wake_at - time.monotonic()))
        if self._watch.due is not None:
            seconds.append(self._watch.due - time.monotonic())
        if self._executor.blind:
            seconds.append(BLIND_SECONDS)
        try:
            await asyncio.wait_for(self._woken.wait(), max(0.0, min(seconds)))
        except asyncio.TimeoutError:
            self._look = True

    def _stopped(self) -> bool:
        if self._interrupted:
            self._interrupted = False
            try:
                with self._store.transaction("Ctrl-C", time.time()) as tx:
                    tx.set_fact(STOPPED, "Ctrl-C in the scheduler's session")
                self._backlog.forget()
                self._backlog.refresh()
            except StoreError as error:
                self._journal.say(f"stopped, but that could not be recorded: {error}")
                self._terminated = True
        return self._terminated or self._backlog.stopped is not None

    def _is_over(self) -> bool:
        if self._backlog.refresh():
            self._wake_up()
        if self._may_launch and self._stopped():
            return True  # whoever is being ended at this moment is left to the next scheduler: requests are on record
        if self._stopping.now:
            return False
        if not self._may_launch:
            asked = self._backlog.requests
            return all(self._stopping.is_stuck(run.id) for run in self._ledger.runs.values() if run.task_id in asked)
        # While something is still to be tidied up, new tasks are welcome.
        if self._ledger.runs or self._tidy_at is not None:
            return False
        hopes = not self._ledger.slots.gpus and self._watch.inventory.problem is not None  # NVML may answer again
        return len(self._backlog.queue) <= (0 if hopes else self._backlog.impossible)

    def _close(self) -> None:
        self._stopping.close()
        if self._sampling is not None:
            self._sampling.cancel()
        self._executor.close()
        self._ledger.close()
        self._store.close()

    # -- one tick

    async def _tick(self) -> None:
        """Observe, decide, persist, act."""
        look, self._look = self._look, False
        look |= self._follow_settings()
        self._follow_gpus()
        self._backlog.refresh()
        look |= self._backlog.has_news
        self._take_answers()
        self._serve_requests()
        self._end_overdue()
        endings = await self._endings()
        if look and time.monotonic() >= self._launch_at:
            self._launch_at = 0.0
        launching = self._should_launch()
        on_gpus = not (launching and (look or endings) and self._backlog.wants_gpus and self._watch.must_wait())
        self._ledger.slots.seen = self._watch.sample
        self._look |= not on_gpus  # the question is still open
        new = self._commit(endings, launching=launching, on_gpus=on_gpus) if look or endings else []
        if new is None and launching and endings:  # what can't be started keeps no end from being recorded
            new = self._commit(endings, launching=False)
        if new is None:
            return
        self._untold.extend(endings)
        self._began |= bool(new)
        if self._ledger.dropped:
            self._wake_up()  # others may have waited for what was given up
        if new:
            self._launches[asyncio.create_task(self._launch(new))] = new
        if not self._launches:  # nothing may be in the way of a launch, and its answer brings about another tick
            await self._afterwards()
        elif self._backlog.wants_gpus:  # where runs are short there is hardly ever an afterwards
            self._watch.look(self._settings.check_interval, waiting=True)

    async def _afterwards(self) -> None:
        """What nobody waits for."""
        ended = bool(self._untold)
        self._ledger.tell(self._untold)
        self._ledger.describe()
        if self._untold or self._began or self._ledger.dropped:
            wake.announce(self._state.path)
        self._untold, self._began = [], False
        self._logs.shorten(self._ledger.runs.values(), self._settings)
        self._watch_gpus(ended=ended)
        self._watch_runs()
        if self._tidy_at is not None and time.monotonic() >= self._tidy_at:
            await self._tidy()

    def _watch_gpus(self, *, ended: bool) -> None:
        """Say what is new about them, and have them looked at again where that was long ago."""
        for line in self._watch.news(self._ledger.slots.gpus, self._ledger.runs.values()):
            self._journal.say(line)
        self._watch.look(self._settings.check_interval, waiting=self._backlog.wants_gpus, ended=ended)

    def _watch_runs(self) -> None:
        """What they use."""
        sample, runs = self._ledger.slots.seen, list(self._ledger.runs.values())
        if sample is not None:
            self._ledger.sampler.see(runs, sample, self._settings)
        if runs and time.monotonic() >= self._sample_at and (self._sampling is None or self._sampling.done()):
            self._sample_at = time.monotonic() + self._settings.check_interval
            self._sampling = asyncio.create_task(self._ledger.sampler.look(self._ledger.runs, self._settings))
            self._sampling.add_done_callback(self._sampled)

    def _sampled(self, done: asyncio.Task[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:  # a defect, but no reason to end
            self._journal.say(f"what the runs use could not be seen: {error!r}")
        self._woken.set()  # somebody may want to know, or to end one that is stalled

    def _should_launch(self) -> bool:
        return self._may_launch and time.monotonic() >= self._launch_at and not self._stopped()

    def _commit(self, endings: Sequence[Ending], *, launching: bool, on_gpus: bool = True) -> list[Run] | None:
        """The runs to launch. None if nothing could be written, say on a full disk: the next ticks try it again."""
        try:
            new = self._ledger.commit(endings, launching=launching, on_gpus=on_gpus)
        except TinkschedError as error:
            self._back_off = True
            if str(error) != self._trouble:  # it is said once, not at every try
                self._journal.say(f"nothing was changed, and it is tried again until it works: {error}")
            self._trouble = str(error)
            return None
        self._trouble = ""
        self._forget(endings)
        return new

    async def _launch(self, new: Sequence[Run]) -> Mapping[str, Handle | Refused]:
        try:
            return await self._executor.launch(new)
        finally:
            self._woken.set()  # an answer alone is no reason to look at the GPUs

    async def _await_launches(self) -> None:
        """Let what was begun to be launched be launched, and put it on record."""
        if self._launches:
            await asyncio.wait(self._launches)
            self._take_answers()
        await self._afterwards()

    def _take_answers(self) -> None:
        """Record what has become of launches. A launch that raised has met a defect, and ends the scheduler."""
        launched: list[tuple[Run, Handle]] = []
        refused: list[Ending] = []
        for done in [launch for launch in self._launches if launch.done()]:
            new = self._launches.pop(done)
            for run, answer in ((run, done.result()[run.id]) for run in new):
                if isinstance(answer, Handle):
                    launched.append((run, answer))
                else:
                    refused.append(self._refusal(run, answer))
        if launched:
            self._held_for = 0.0
            self._ledger.record_launches(launched)
        if refused:
            self._commit(refused, launching=False)
            self._ledger.tell(refused)
            self._wake_up()  # their slots are free again
        if launched or refused:
            wake.announce(self._state.path)

    def _refusal(self, run: Run, answer: Refused) -> Ending:
        why: dict[str, str | int | float] = {"why": answer.why}
        if answer.passing:
            self._hold_launches()
            return Ending(run, None, Reason(ReasonCode.NEVER_BEGAN, why), None, time.time(), passing=True)
        return Ending(run, Outcome.FAILED, Reason(ReasonCode.LAUNCH_FAILED, why), None, time.time())

    def _is_settled(self, run: Run) -> bool:
        """Whether something is done about a run already, so that there is nothing to do about it now."""
        return self._stopping.has(run.id) or run.id in self._being_launched()

    def _being_launched(self) -> set[str]:
        """The runs, by id, of whose launch nothing is known yet."""
        return {run.id for new in self._launches.values() for run in new}

    def _hold_launches(self) -> None:
        """The machine can't launch anything now: try again after a second, then ever later. All else goes on."""
        if time.monotonic() >= self._launch_at:
            self._held_for = min(max(BACK_OFF_SECONDS, 2 * self._held_for), HOLD_SECONDS)
            self._launch_at = time.monotonic() + self._held_for

    def _follow_settings(self) -> bool:
        """Use an edited configuration from the next launch on. Executor, names and log folder stay as they began."""
        identity = marker_identity(self._settings.file)
        if identity == self._read_as or not self._may_launch:
            return False
        self._read_as = identity
        old = self._settings
        try:
            new = load(old.workspace, old.file)
            if new == old:
                return False
            names = self._watch.names(new, self._ledger.slots.gpus)
        except TinkschedError as error:
            self._journal.say(f"the configuration was edited, but the old one stays in use: {error}")
            return False
        self._settings = replace(
            new, executor=old.executor, tmux_socket=old.tmux_socket, log_dir=old.log_dir, task_name=old.task_name
        )
        self._ledger.use(self._settings, names)
        self._journal.say("the configuration was edited, and is used from now on")
        return True

    def _follow_gpus(self) -> None:
        """Use GPUs that did not answer when the scheduler began. Their sample has woken it."""
        more = self._watch.more(self._settings, self._ledger.slots.gpus) if self._may_launch else None
        if more is not None:
            self._ledger.use(self._settings, more)
            self._journal.say(f"GPU {', '.join(map(str, more))} can be used from now on")

    async def _endings(self) -> list[Ending]:
        begin = self._being_launched()
        handles = {self._ledger.handle(run): run for run in self._ledger.runs.values() if run.id not in begin}
        seen = await self._executor.observe(list(handles))
        endings = []
        for handle, observation in seen.items():
            run = handles[handle]
            if isinstance(observation, Running | Unreachable) or run.id in self._stopping.now:
                continue
            if self._outlived(run, observation):
                continue
            reaped, first = self._stopping.reaped.get(run.id, ()), self._stopping.dead.get(run.id, False)
            stalled = self._was_stalled(run, observation)
            circumstances = self._ledger.circumstances(run, observation, reaped, ended_first=first, stalled=stalled)
            now = self._ledger.now_of(run)
            ending = ending_of(run, clock.corrected(observation, run, now), circumstances, self._settings, now)
            if ending is not None:
                ending = self._diagnosing.of(ending, self._backlog.task(run.task_id))
            if ending is not None:
                endings.append(ending)
        return endings

    def _was_stalled(self, run: Run, seen: Observation) -> bool:
        """Whether it was ended for that, perhaps by a scheduler that did not live to put the end on record."""
        if run.id in self._stopping.stalled:
            return True
        by_itself = isinstance(seen, Exited) and seen.code == 0
        return self._settings.kill_stalled and run.id in self._ledger.sampler.were_stalled and not by_itself

    def _forget(self, endings: Sequence[Ending]) -> None:
        self._diagnosing.recorded(endings)
        for ending in endings:
            self._logs.ended(ending.run)
            self._stopping.forget(ending.run.id)
            self._tidy_soon()

    # -- ending runs

    def _serve_requests(self) -> None:
        asked = self._backlog.requests
        if not asked:
            return
        for run in self._ledger.runs.values():
            if run.task_id in asked and not self._is_settled(run) and not self._stopping.is_resting(run.id):
                self._end(run, "kill-all" if asked[run.task_id] is Request.KILL_ALL else "cancel")

    def _end_overdue(self) -> None:
        """Runs whose time limit has passed: that it had is what their ending shows. And those that are stalled."""
        for run in self._ledger.runs.values():
            if self._is_settled(run) or not self._may_launch or self._stopping.is_resting(run.id):
                continue
            if run.deadline is not None and run.deadline <= self._ledger.now_of(run):
                self._end(run, "its time limit has passed")
            elif self._settings.kill_stalled and self._ledger.sampler.is_stalled(run.id):
                self._stopping.stalled.add(run.id)
                self._end(run, "it is stalled")

    def _end(self, run: Run, why: str) -> None:
        self._stopping.end(run, self._ledger.handle(run), self._settings.stop_grace, why)

    def _fail(self) -> None:
        self._back_off = True

    def _outlived(self, run: Run, seen: Observation) -> bool:
        """Whether processes are left of a run whose command has ended. They get the grace, then they are killed."""
        if not isinstance(seen, Exited) or not seen.leftovers:
            return False
        if not self._settings.keep_children:  # else they keep the slot, and the executor reports their end
            self._stopping.reap(run, seen.leftovers, self._settings.stop_grace)
        return True

    async def _tidy(self) -> None:
        """Close what is kept of ended runs beyond what the user wants to keep.

        Not before TIDY_SECONDS after an end: closing a session drops what tmux has not yet passed on to the log.
        """
        self._tidy_at = None
        self._logs.shorten_ended(self._settings)
        self._diagnosing.look_again()
        with contextlib.suppress(TinkschedError, OSError):
            kept = self._store.recently_ended(self._settings.keep_sessions)
            if self._settings.cleanup_on_complete:
                kept = [run for run in kept if run.outcome is not Outcome.COMPLETED]
            keep = {run.id for run in kept} | set(self._ledger.runs)
            there = {entry.name: entry.path for entry in os.scandir(self._state.runs)}
            await self._executor.forget([Handle(name, path) for name, path in there.items() if name not in keep])
