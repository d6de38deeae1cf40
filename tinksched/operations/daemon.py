"""Making sure that a workspace has a scheduler, and speaking to it."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

from ..errors import TinkschedError
from ..host import nvml, processes, wake
from ..host.processes import Process
from ..host.rundir import exec_script, write_private
from ..host.tmux import WORKSPACE_OPTION, NewSession, Tmux, TmuxError, is_taken
from ..scheduler.starting import Logs, current_environment, scheduler_session
from .workspace import OpenWorkspace

READY_SECONDS = nvml.START_PATIENCE + 30.0  # so long a scheduler may wait for the driver before it begins
_ATTEMPTS = 5


def ensure(opened: OpenWorkspace) -> str | None:
    """Have a scheduler run, and make it look at the queue. Returns what was started; None if one was there.

    Raises:
        TinkschedError: it could not be started.
    """
    start = _start_in_tmux if opened.settings.executor == "tmux" else _start_detached
    listener = wake.listen(opened.state.path)
    try:
        for _ in range(_ATTEMPTS):
            if nudge(opened):
                return None
            what, process = start(opened)
            if _is_ready(listener, process):
                return what
    finally:
        listener.close()
    raise TinkschedError("the scheduler ended at once", hint="tinksched start --foreground shows why")


def nudge(opened: OpenWorkspace) -> bool:
    """Wake the scheduler. False if there is none.

    A scheduler that is about to end looks at the queue once more after it has given its lock back, so a True here
    means that what is in the store now will be seen.
    """
    if not opened.lock.is_held():
        return False
    wake.send(opened.state.path, wake.WAKE)
    return True


def await_end(process: Process, seconds: float) -> bool:
    """Wait until the scheduler's process has ended. False if it hasn't."""
    return processes.wait_for([process], seconds)


def _command(opened: OpenWorkspace) -> list[str]:
    settings = opened.settings
    return [
        sys.executable, "-m", "tinksched", "serve-workspace",
        "--workspace", str(settings.workspace), "--config", str(settings.file),
    ]  # fmt: skip


def _start_in_tmux(opened: OpenWorkspace) -> tuple[str, Process | None]:
    """The scheduler in a session of its own. The environment travels in a private file, as that of a run does."""
    script = opened.state.path / "scheduler.command"
    aside = opened.state.path / f"scheduler.command.{os.urandom(6).hex()}"
    write_private(aside, exec_script(_command(opened), {**current_environment(), "PYTHONUNBUFFERED": "1"}))
    aside.replace(script)
    tmux = Tmux(opened.settings.tmux_socket)
    wanted = name = scheduler_session(opened.settings)
    options = [(WORKSPACE_OPTION, opened.home.workspace_id)]
    for number in range(2, 50):
        # The folder is not the workspace: Python would take modules from there.
        new = NewSession(name, ["env", "-i", "/bin/sh", str(script)], "/", None, options)
        try:
            pane = tmux.create(new)
            break
        except TmuxError as error:
            there = tmux.pane_of(name)
            if there is None and is_taken(error):
                continue
            if there is None:
                raise error
        process = processes.identify(there.pid)
        if there.workspace != opened.home.workspace_id or there.run or (process and not _is_scheduler(process)):
            name = f"{wanted}_{number}"
        elif process is None:
            tmux.kill_session(there)  # the last scheduler's, kept for its last words
        else:
            return _in_session(tmux, name), process  # somebody else starts one, or the last one is ending
    else:
        raise TmuxError(f"tmux has too many sessions named like {wanted}")
    return _in_session(tmux, name), processes.identify(pane.pid)


def _is_scheduler(process: Process) -> bool:
    """Whether it is a scheduler (starting or ending), and no shell that a user opened in its session."""
    try:
        return b"serve-workspace" in Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _in_session(tmux: Tmux, name: str) -> str:
    attach = shlex.join([*tmux.arguments(), "attach", "-t", name])
    return f"scheduler started in the tmux session {name} ({attach})"


def _start_detached(opened: OpenWorkspace) -> tuple[str, Process | None]:
    log = Logs(opened.settings, opened.home).scheduler if opened.settings.enable_logging else None
    child = subprocess.Popen(
        _command(opened),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=current_environment(),
        cwd="/",
    )
    # A program that lives on must not keep a dead scheduler as a zombie.
    threading.Thread(target=child.wait, name="reaper", daemon=True).start()
    where = f", log {log}" if log else ""
    return f"scheduler started as process {child.pid}{where}", processes.identify(child.pid)


def _is_ready(listener: wake.Receiver, process: Process | None) -> bool:
    """Wait for the scheduler's word that it works, for its error, or for its end: False if it ended silently."""
    if process is None:
        return any(message == b"ready" for message in listener.clear())
    deadline = time.monotonic() + READY_SECONDS
    pidfd = processes.open_pidfd(process)
    poller = select.poll()
    poller.register(listener.fileno(), select.POLLIN)
    if pidfd is not None:
        poller.register(pidfd, select.POLLIN)
    try:
        while time.monotonic() < deadline:
            ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
            for message in listener.clear():
                if message == b"ready":
                    return True
                if message.startswith(b"error: "):
                    raise TinkschedError(f"the scheduler could not begin: {message[7:].decode(errors='replace')}")
            if pidfd is not None and any(descriptor == pidfd for descriptor, _ in ready):
                return False
    finally:
        if pidfd is not None:
            os.close(pidfd)
    raise TinkschedError(f"the scheduler gave no sign of life in {READY_SECONDS:.0f} seconds", hint="tinksched status")
