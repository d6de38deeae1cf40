"""Runs as plain child processes, without tmux: for containers, continuous integration and debugging.

The same wrapper, the same files, the same leases. What is missing is the terminal: there is nothing to attach to, and
programs see a file as their output. Each run is the leader of a session of its own, so it outlives the scheduler.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Mapping, Sequence

from ..core.model import Run
from ..host import processes
from .base import Gone, Handle, Observation, Refused, Wake, WrapperRuns, began_process, wrapper_command

PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT)


class LocalExecutor(WrapperRuns):
    """Launches runs as children of this process."""

    def __init__(self, wake: Wake) -> None:
        super().__init__(wake)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._killed_by: dict[str, int] = {}  # the signals that ended wrappers; not above 0: none did

    async def launch(self, runs: Sequence[Run]) -> Mapping[str, Handle | Refused]:
        """See the protocol."""
        self.begin(runs)
        launched: dict[str, Handle | Refused] = {}
        for run in runs:
            handle = Handle(run.id, run.directory)
            there = began_process(handle)
            if there is None and run.id not in self._children:
                try:
                    self._children[run.id] = _spawn(run)
                except OSError as error:
                    launched[run.id] = Refused(str(error), passing=error.errno in PASSING)
                    continue
            wrapper = there or processes.identify(self._children[run.id].pid)
            if wrapper is not None:
                self.watch(wrapper)
            else:
                self._wake()
            launched[run.id] = Handle(run.id, run.directory, wrapper)
        return launched

    async def observe(self, handles: Sequence[Handle]) -> Mapping[Handle, Observation]:
        """See the protocol; ended children are reaped on the way."""
        for run_id, child in list(self._children.items()):
            code = child.poll()
            if code is not None:
                del self._children[run_id]
                self._killed_by[run_id] = -code if code < 0 else code - 128
        return await super().observe(handles)

    async def forget(self, handles: Sequence[Handle]) -> None:
        """See the protocol."""
        for handle in handles:
            self._killed_by.pop(handle.run_id, None)
        await super().forget(handles)

    def gone(self, handle: Handle) -> Gone:
        """See `WrapperRuns`. Only who launched a run can know."""
        number = self._killed_by.get(handle.run_id, 0)
        return Gone(signal=number if number > 0 else None)


def _spawn(run: Run) -> subprocess.Popen[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    output = os.open(run.log or os.devnull, flags, 0o666)
    try:
        return subprocess.Popen(
            wrapper_command(run),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={},
            cwd="/",
        )
    finally:
        os.close(output)
