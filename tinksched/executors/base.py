"""The executor protocol, and what both executors of this machine share: runs under the wrapper, seen from outside.

An executor has four methods, none optional, all of them safe to repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import select
import shutil
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..core.model import Run
from ..host import inotify, processes
from ..host.processes import Moment, Process
from ..host.rundir import NO_ROOM, RunDir

WRAPPER = Path(__file__).with_name("wrapper.sh")
WRAPPER_SECONDS = 5.0  # how long the wrapper may take to write the status of a command that has ended


@dataclass(frozen=True, slots=True)
class Handle:
    """What finds a run again. It can be made from the run alone: `pid` is only a shorter way."""

    run_id: str
    directory: str
    wrapper: Process | None = None
    session: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The executor could not launch a run; nothing of it is left. `passing`: the machine is short of something now."""

    why: str
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """At least one process of the run is alive."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The main process ended with this status, at this time. Others of the run may still be there."""

    code: int
    at: float
    leftovers: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True)
class NeverBegan:
    """The run did not begin and never will. `passing`: the machine was short of something."""

    why: str
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Gone:
    """Nothing of the run is left, and it left no exit status. What is known of its wrapper's end: mostly nothing."""

    signal: int | None = None  # that killed it
    lost: str = ""  # what it ran in and is gone too: "session" or "server" (of tmux)


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The executor can't tell at present. This is never taken for an end."""

    why: str


Observation = Running | Exited | NeverBegan | Gone | Unreachable
Wake = Callable[[], None]


class Executor(Protocol):
    """Starts, observes and stops runs. Events are reported through the `wake` that it was made with."""

    async def launch(self, runs: Sequence[Run]) -> Mapping[str, Handle | Refused]:
        """Launch prepared runs and return at once. A run that was launched already is found, not started again."""
        ...

    async def observe(self, handles: Sequence[Handle]) -> Mapping[Handle, Observation]:
        """What each run is doing now."""
        ...

    async def stop(self, handle: Handle, *, grace: float) -> bool:
        """TERM, after `grace` seconds KILL, then verified dead. False if something of it could not be killed."""
        ...

    async def forget(self, handles: Sequence[Handle]) -> None:
        """Give back what is kept of runs that have ended: their folders and, if they have one, their sessions."""
        ...


def handle_of(run: Run) -> Handle:
    """The handle of a run that was launched by anybody, at any time."""
    known = Process(run.pid, run.pid_started) if run.pid and run.pid_started is not None else None
    return Handle(run.id, run.directory, known, run.session)


class WrapperRuns:
    """Observing and stopping runs under `wrapper.sh`, by their files and processes alone."""

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._watched: dict[Process, int] = {}
        self._quiet = select.poll()  # the same processes: who is readable here has ended
        self._folders: inotify.Watch | None = None
        self._told: set[str] = set()  # the run folders that are watched
        self._began: dict[str, Moment] = {}  # before runs were launched here, by run id
        self._threads = ThreadPoolExecutor(max_workers=64)  # where runs that are being ended are waited for

    @property
    def blind(self) -> bool:
        """True if a run is alive that can't be watched (no pidfds): somebody has to look every now and then."""
        unseen = [process for process, descriptor in self._watched.items() if descriptor < 0]
        for process in unseen:
            del self._watched[process]
            self.watch(process)
        return any(descriptor < 0 for descriptor in self._watched.values())

    async def observe(self, handles: Sequence[Handle]) -> Mapping[Handle, Observation]:
        """See the protocol. One pass over `/proc` for all runs whose wrapper is not seen alive."""
        try:
            return self._look(handles)
        except OSError as error:  # out of descriptors or memory: that is no news of the runs
            return dict.fromkeys(handles, Unreachable(str(error)))

    def _look(self, handles: Sequence[Handle]) -> Mapping[Handle, Observation]:
        seen: dict[Handle, Observation] = {}
        unclear: list[Handle] = []
        ended = {descriptor for descriptor, _ in self._quiet.poll(0)}
        for handle in handles:
            watched = self._watched.get(handle.wrapper, -1) if handle.wrapper else -1
            lives = (watched >= 0 and watched not in ended) or self._wrapper_lives(handle)
            if lives and RunDir(handle.directory).exit_status() is None:
                seen[handle] = Running()
            else:
                unclear.append(handle)
        if unclear:
            living = processes.of_runs((handle.run_id for handle in unclear), self._before(unclear))
            for handle in unclear:
                try:
                    seen[handle] = self._judge(handle, living[handle.run_id])
                except OSError as error:  # a full disk: the others are seen all the same
                    seen[handle] = Unreachable(str(error))
        return seen

    async def stop(self, handle: Handle, *, grace: float) -> bool:
        """See the protocol."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._stop, handle, grace)

    def begin(self, runs: Sequence[Run]) -> None:
        """Before these runs are launched: remember when, and hear of what their wrappers write."""
        now = Moment.now()
        for run in runs:
            if now is not None:
                self._began[run.id] = now
            self.watch_status(run.directory)

    def _before(self, handles: Sequence[Handle]) -> Moment | None:
        """A moment before all of these began; None if one of them was launched by an earlier scheduler."""
        known = [self._began.get(handle.run_id) for handle in handles]
        return min((moment for moment in known if moment), key=lambda moment: moment.forks) if all(known) else None

    async def forget(self, handles: Sequence[Handle]) -> None:
        """See the protocol."""
        for handle in handles:
            self._began.pop(handle.run_id, None)
            self._told.discard(handle.directory)
            RunDir(handle.directory).remove()

    def watch_status(self, directory: str) -> None:
        """Call `wake` as soon as the wrapper has written how its run ended, before the wrapper itself is gone."""
        if directory in self._told:
            return
        with contextlib.suppress(OSError):  # without inotify, the end of the wrapper tells it a little later
            if self._folders is None:
                self._folders = inotify.Watch()
                asyncio.get_running_loop().add_reader(self._folders.fileno(), self._written)
            self._folders.add(Path(directory), inotify.CLOSE_WRITE)
            self._told.add(directory)

    def _written(self) -> None:
        assert self._folders is not None
        if self._folders.clear() & {"exit", "never"}:
            self._wake()

    def close(self) -> None:
        """Stop watching. The runs go on; whoever is being ended is left to somebody else."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._folders is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._folders.fileno())
            self._folders.close()
            self._folders = None
        for process in list(self._watched):
            self._forget(process)

    # -- inside

    def _judge(self, handle: Handle, living: list[Process]) -> Observation:
        folder = RunDir(handle.directory)
        status = folder.exit_status()
        # A shell of the wrapper that is just ending can't be told from a process of the run by its looks.
        shells = {folder.began(), handle.wrapper.pid if handle.wrapper else None}
        living = _without(shells, living)
        if not living and (status is None or status.code != 0) and not self._wrapper_lives(handle):
            # A pass over `/proc` is no snapshot: who is born behind it, of a parent that dies before it, is not seen.
            # What may be tried again must be gone for certain.
            living = _without(shells, processes.of_runs([handle.run_id])[handle.run_id])
        for process in living:
            self.watch(process)
        if status is not None:
            if not living and handle.wrapper is not None:
                self._forget(handle.wrapper)  # that it ends soon is no news
            return Exited(status.code, status.at, tuple(living))
        if living:
            return Running()
        if self._wrapper_lives(handle):
            return Running()
        why = folder.never()
        if why is not None:
            return NeverBegan(why, passing=why == NO_ROOM)
        # The wrapper may have written its status between the two looks.
        status = folder.exit_status()
        if status is not None:
            return Exited(status.code, status.at)
        if processes.wrappers(handle.directory):
            return Running()  # its wrapper is about to begin
        # What has not begun by now shall not begin later, when nobody expects it any more.
        if folder.path.is_dir() and folder.take_back():
            return NeverBegan("its wrapper was gone before it began")
        return self.gone(handle)

    def gone(self, handle: Handle) -> Gone:
        """What is known of the end of a run of which nothing is left."""
        return Gone()

    def _wrapper_lives(self, handle: Handle) -> bool:
        living = wrapper_processes(handle)
        for process in living:
            self.watch(process)
        if living:
            self.watch_status(handle.directory)
        return bool(living)

    def _stop(self, handle: Handle, grace: float) -> bool:
        with contextlib.suppress(OSError):  # a full disk must not save anybody
            RunDir(handle.directory).take_back()
        _, alive = processes.end(handle.run_id, grace=grace)
        # Its command is dead, so the wrapper writes down the status and ends.
        wrapper = wrapper_processes(handle)
        if not processes.wait_for(wrapper, WRAPPER_SECONDS):
            for process in wrapper:
                processes.send(process, signal.SIGKILL)
            processes.wait_for(wrapper, 1.0)
            _, alive = processes.end(handle.run_id, grace=0)
        return not alive

    def watch(self, process: Process) -> None:
        """Call `wake` when this process ends."""
        if process in self._watched:
            return
        descriptor = processes.open_pidfd(process)
        if descriptor is None:
            if process.alive():
                self._watched[process] = -1
            else:
                self._wake()
            return
        self._watched[process] = descriptor
        self._quiet.register(descriptor, select.POLLIN)
        asyncio.get_running_loop().add_reader(descriptor, self._ended, process)

    def _ended(self, process: Process) -> None:
        self._forget(process)
        self._wake()

    def _forget(self, process: Process) -> None:
        descriptor = self._watched.pop(process, -1)
        if descriptor >= 0:
            self._quiet.unregister(descriptor)
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)


def _without(shells: Collection[int | None], living: Sequence[Process]) -> list[Process]:
    """The processes but for these shells of a wrapper, if they are about to end."""
    return [process for process in living if process.pid not in shells or not process.is_ending]


def wrapper_processes(handle: Handle) -> list[Process]:
    """The living ones of the wrapper's two shells: the one that was launched, and the one that said it began."""
    known = {handle.wrapper, began_process(handle)}
    return [process for process in known if process is not None and process.alive()]


def began_process(handle: Handle) -> Process | None:
    """The wrapper as it named itself when the run began, if it is still that process."""
    folder = RunDir(handle.directory)
    pid = folder.began()
    found = processes.identify(pid) if pid else None
    if found is None:
        return None
    # The pid may belong to somebody else by now: the wrapper's command line names the run's folder.
    with contextlib.suppress(OSError):
        arguments = Path(f"/proc/{found.pid}/cmdline").read_bytes().split(b"\0")
        if os.fsencode(handle.directory) in arguments:
            return found
    return None


def wrapper_command(run: Run) -> list[str]:
    """The argument list that runs a prepared run."""
    return ["/bin/sh", str(WRAPPER), run.directory, run.lease, run.work_dir, _flock()]


@functools.cache
def _flock() -> str:
    """Where flock(1) is; the wrapper has no PATH."""
    return shutil.which("flock") or "flock"
