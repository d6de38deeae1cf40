"""Runs in tmux sessions: each run in its own, with the wrapper as the session's only command."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.model import Run
from ..host import processes
from ..host.rundir import RunDir
from ..host.tmux import RUN_OPTION, WORKSPACE_OPTION, NewSession, Pane, Tmux, TmuxError, TmuxSilent, is_taken
from .base import Gone, Handle, Refused, Wake, WrapperRuns, wrapper_command

LINGER_SECONDS = 1.0
_SUFFIXES = 50  # how many sessions of others may have the names that a run would like


class TmuxExecutor(WrapperRuns):
    """Launches runs in a tmux server."""

    def __init__(self, wake: Wake, tmux: Tmux, workspace_id: str) -> None:
        super().__init__(wake)
        self._tmux = tmux
        self._workspace_id = workspace_id

    async def launch(self, runs: Sequence[Run]) -> Mapping[str, Handle | Refused]:
        """See the protocol. One client call for as many of them as it holds."""
        self.begin(runs)
        created = await asyncio.to_thread(self._create_all, runs)
        launched: dict[str, Handle | Refused] = {}
        for run in runs:
            answer = created[run.id]
            if isinstance(answer, TmuxError | TmuxSilent):
                launched[run.id] = await asyncio.to_thread(self._refused, run, answer)
                continue
            name, pane = answer
            wrapper = processes.identify(pane.pid)
            if wrapper is not None:
                self.watch(wrapper)
            else:
                self._wake()  # it has ended already
            launched[run.id] = Handle(run.id, run.directory, wrapper, name)
        return launched

    async def forget(self, handles: Sequence[Handle]) -> None:
        """See the protocol. The sessions are found by run id: names and tmux's ids may be somebody else's by now."""
        await asyncio.to_thread(self._forget_sessions, {handle.run_id for handle in handles})
        await super().forget(handles)

    def gone(self, handle: Handle) -> Gone:
        """See `WrapperRuns`. The session of a run that was killed is kept, and knows by which signal."""
        try:
            panes = self._tmux.panes()
            if not panes and not self._tmux.is_running():
                return Gone(lost="server")
        except (TmuxError, TmuxSilent):
            return Gone()
        found = next((pane for pane in panes if pane.run == handle.run_id), None)
        return Gone(lost="session") if found is None else Gone(signal=found.signal)

    def _forget_sessions(self, run_ids: set[str]) -> None:
        with contextlib.suppress(TmuxError):  # without a tmux there are no sessions
            self._tmux.kill_sessions([pane for pane in self._tmux.panes() if pane.run in run_ids])

    def _create_all(self, runs: Sequence[Run]) -> dict[str, tuple[str, Pane] | TmuxError | TmuxSilent]:
        """The sessions of all these runs: at once, or one by one if one of them is refused."""
        created: dict[str, tuple[str, Pane] | TmuxError | TmuxSilent] = {}
        try:
            panes = self._tmux.create_all([self._session(run, run.session) for run in runs])
            return {run.id: (run.session, pane) for run, pane in zip(runs, panes, strict=True)}
        except TmuxError:
            pass
        except TmuxSilent as silent:
            return {run.id: silent for run in runs}
        for run in runs:
            try:
                created[run.id] = self._create(run)
            except TmuxError as error:
                created[run.id] = error
            except TmuxSilent as silent:  # it is not asked for the rest
                return {**{other.id: silent for other in runs}, **created}
        return created

    def _create(self, run: Run) -> tuple[str, Pane]:
        """Create the run's session, under another name if somebody else has this one.

        The name is taken only by asking tmux to create it, so two that want it at once can't both get it.
        """
        name = run.session
        for number in range(2, _SUFFIXES):
            try:
                return name, self._tmux.create(self._session(run, name))
            except TmuxError as error:
                there = self._tmux.pane_of(name)
                if there is None and is_taken(error):
                    continue
                if there is None:
                    raise error
            if there.run == run.id:
                return name, there
            if there.workspace == self._workspace_id and there.run and _has_ended(there, run):
                self._tmux.kill_session(there)  # the kept session of an earlier run
            else:
                name = f"{run.session}_{number}"
        raise TmuxError(f"tmux has {_SUFFIXES} sessions named like {run.session} already")

    def _session(self, run: Run, name: str) -> NewSession:
        options = [(RUN_OPTION, run.id), (WORKSPACE_OPTION, self._workspace_id)]
        command = ["/usr/bin/env", "-i", *wrapper_command(run)]  # what the server's environment holds stays there
        return NewSession(name, command, run.work_dir, run.log, options)

    def _refused(self, run: Run, error: TmuxError | TmuxSilent) -> Handle | Refused:
        """A launch that failed half-way, or whose answer was lost, may have begun the run all the same.

        If it has not, it never will: a session that a silent server makes later finds the run taken back.
        """
        if not RunDir(run.directory).take_back():
            return Handle(run.id, run.directory, None, run.session)
        if isinstance(error, TmuxError):
            with contextlib.suppress(TmuxSilent):
                self._forget_sessions({run.id})
        return Refused(error.message, passing=isinstance(error, TmuxSilent))


def _has_ended(there: Pane, run: Run) -> bool:
    """Whether a pane shows an earlier run that has ended. Its wrapper stays a moment, for the last of the output."""
    wrapper = processes.identify(there.pid)
    if there.dead or wrapper is None:
        return True
    if RunDir(Path(run.directory).with_name(there.run)).exit_status() is None:
        return False
    return processes.wait_for([wrapper], LINGER_SECONDS)
