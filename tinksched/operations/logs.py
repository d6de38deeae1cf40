"""`logs` and `attach`: what a run printed, and its live screen."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.model import Run, RunState, TaskState
from ..errors import NothingToActOn, TinkschedError
from ..host import clients, inotify, processes, wake
from ..host.logfile import tail
from ..host.rundir import RunDir
from ..host.tmux import Tmux
from ..store import Store
from . import selection, waiting
from .workspace import Workspace

_TOKEN = re.compile(
    r"(?P<erase>\x1b\[[012]?K)"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC: titles, links
    r"|\x1b[P^_X][^\x1b]*\x1b\\"  # DCS and other strings
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[ -/]*[0-~]"  # all others
    r"|(?P<control>[\x00-\x08\x0b-\x1f\x7f-\x9f])"
    r"|(?P<text>[^\x00-\x08\x0b-\x1f\x7f-\x9f]+)"
)
_ERASES = "\x1b["
_PLAIN = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f]*")
LAST_LINES_BYTES = 65536
_REST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Log:
    """The log of one run, and whether more may come."""

    path: Path
    attempt: int
    live: bool
    directory: str  # of the run


def find(workspace: Workspace, task: str, attempt: int | None) -> Log:
    """The log of a task's newest run, or of the attempt that is named.

    Raises:
        NothingToActOn: there is no such task, run or log.
    """
    store = workspace.store()
    if store is None:
        raise NothingToActOn(f"{task} has not run yet: nothing was ever queued here", hint="tinksched start")
    with store:
        run = _run(store, task, attempt)
    if run.log is None:
        raise NothingToActOn(f"{task} has no log: enable_logging is off", hint=f"tinksched attach {task}")
    live = run.state is not RunState.ENDED and RunDir(run.directory).exit_status() is None
    return Log(Path(run.log), run.attempt, live, run.directory)


def waits(workspace: Workspace, task: str) -> bool:
    """Whether the task is queued and has never run, so that there is no log yet."""
    store = workspace.store()
    if store is None:
        return False
    with store:
        found = store.task(task)
    return found is not None and found.state is TaskState.QUEUED and not found.attempts


def await_start(workspace: Workspace, task: str) -> None:
    """Until the task's first run is on record, or the task is done without one.

    Raises:
        TinkschedError: the scheduler was stopped before, or does not stay.
    """
    with workspace.open_existing() as opened:
        for tasks in waiting.follow(opened, [task]):
            if any(found.attempts for found in tasks):
                return


def follow(workspace: Workspace, task: str, log: Log) -> Iterator[bytes]:
    """The log from its beginning, and what is added to it until the run has ended. Waits for events, never polls.

    Raises:
        NothingToActOn: the log is not there, and the run has ended.
    """
    watch = inotify.Watch()
    listener = wake.listen(workspace.state.path)
    poller = select.poll()
    poller.register(watch.fileno(), select.POLLIN)
    poller.register(listener.fileno(), select.POLLIN)
    log.path.touch()
    try:
        watch.add(log.path, inotify.MODIFY | inotify.CLOSE_WRITE | inotify.DELETE_SELF)
        with log.path.open("rb") as file:
            ended, whole = not log.live, False
            while True:
                if chunk := file.read(65536):
                    yield chunk
                    continue
                if whole or not log.path.exists():
                    return
                if ended:
                    await_rest(log.directory)
                    whole = True
                    continue
                # The scheduler may be away, and then nobody announces the end: hence the time-out.
                poller.poll(2000)
                watch.clear()
                listener.clear()
                ended = _has_ended(workspace, task, log.attempt)
    finally:
        listener.close()
        watch.close()


def await_rest(directory: str) -> None:
    """Until the wrapper of a run that has ended is gone: it stays a moment, for the last of the output."""
    processes.wait_for(processes.wrappers(directory), _REST_SECONDS)


def clean(data: bytes) -> str:
    """A log as lines for reading: what a progress bar overwrote or erased is gone, and so are colours and cursor moves.

    Within a line this is what a terminal shows in the end; moves to other lines are left out.
    """
    text = data.decode(errors="replace").replace("\r\n", "\n")
    return "\n".join(line if _PLAIN.fullmatch(line) else _shown(line) for line in text.split("\n"))


def _shown(line: str) -> str:
    """What is to be seen of a line that was written with returns, backspaces and erasures."""
    cells: list[str] = []
    at = 0
    for token in _TOKEN.finditer(line):
        if token["text"]:
            cells[at : at + len(token["text"])] = token["text"]
            at += len(token["text"])
        elif token["control"] == "\r":
            at = 0
        elif token["control"] == "\b":
            at = max(0, at - 1)
        elif token["erase"]:
            kind = token["erase"][2]
            end = len(cells) if kind != "1" else min(at + 1, len(cells))
            start = at if kind in "K0" else 0
            cells[start:end] = [] if end == len(cells) and start == at else [" "] * (end - start)
    return "".join(cells).rstrip(" ") if _ERASES in line else "".join(cells)


def last_lines(path: Path | str, count: int) -> list[str]:
    """The last lines of a log that say anything, cleaned. Empty if there is no log."""
    text = clean(tail(path, LAST_LINES_BYTES))
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


def last_words(workspace: Workspace, task: str, count: int) -> list[str]:
    """The last lines that a task's newest run printed, when that has ended; none if there is no log."""
    try:
        log = find(workspace, task, None)
    except NothingToActOn:
        return []
    await_rest(log.directory)
    return last_lines(log.path, count)


def attach_command(workspace: Workspace, task: str, *, write: bool) -> tuple[list[str], bool]:
    """The command line that shows the task's session, and whether that is a session within a session.

    In front of the same tmux server the terminal is switched there. In that of another one nothing but a session within
    a session is possible.

    Raises:
        NothingToActOn: there is no such task or run, or its session is closed.
    """
    store = workspace.store()
    if store is None:
        raise NothingToActOn(f"{task} has not run yet: nothing was ever queued here", hint="tinksched start")
    with store:
        run = _run(store, task, None)
    if not run.session:
        raise NothingToActOn(f"{task} ran without tmux (executor: {run.executor})", hint=f"tinksched logs {task}")
    tmux = Tmux(workspace.settings.tmux_socket)
    pane = next((pane for pane in tmux.panes() if pane.run == run.id), None)
    if pane is None:
        raise NothingToActOn(f"the session of {task} is closed", hint=f"tinksched logs {task}")
    client = clients.in_front(tmux)
    if client is not None:
        return [*tmux.arguments(), *clients.switch(client, pane.session_id, read_only=not write)], False
    attach = ["attach-session", *([] if write else ["-r"]), "-t", pane.session_id]
    return ["env", "-u", "TMUX", *tmux.arguments(), *attach], bool(os.environ.get("TMUX"))


def _run(store: Store, name: str, attempt: int | None) -> Run:
    task = store.task(name)
    if task is None:
        names = store.names()
        raise NothingToActOn(f"there is no task {name!r}", hint=selection.near(name, names))
    runs = store.runs_of(task)
    if not runs:
        raise NothingToActOn(f"{task.name} has not run yet", hint=f"tinksched explain {task.name}")
    if attempt is None:
        return runs[-1]
    for run in runs:
        if run.attempt == attempt:
            return run
    raise NothingToActOn(f"{task.name} has no attempt {attempt}; it has {', '.join(str(r.attempt) for r in runs)}")


def _has_ended(workspace: Workspace, task: str, attempt: int) -> bool:
    try:
        return not find(workspace, task, attempt).live
    except TinkschedError:
        return True
