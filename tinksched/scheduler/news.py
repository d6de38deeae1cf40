"""Telling others what happened: noted while the scheduler works, told afterwards, delivered by a process of its own.

What is told is on record already. A scheduler that is killed before it tells takes that along: everything is delivered
at most once. Nothing here waits for a service, a command or a disk.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence

from ..config import Settings
from ..core.lifecycle import Dropped, Finished, Retried, TaskEvent
from ..core.model import Run, Task
from ..core.news import VERSION, News, Tally, kind_of, of_task
from .endings import Ending
from .journal import Journal
from .starting import current_environment

CLOSE_SECONDS = 2.0  # that the end of a scheduler may take because of what is still to be handed over


class Newsroom:
    """What a scheduler tells. Without `notify` and `on_event` it does nothing."""

    def __init__(self, settings: Settings, node: str, journal: Journal) -> None:
        self._node = node
        self._courier = Courier(journal)
        self._tally = Tally()
        self._noted: list[tuple[Task, TaskEvent, Ending | None]] = []
        self._said: list[News] = []
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Work with these settings from now on."""
        self._settings = settings
        self._wanted = bool(settings.notify or settings.on_event)

    # -- noting, which takes no time

    def moved(self, moves: Sequence[tuple[Task, TaskEvent, Ending | None]]) -> None:
        """These changes of tasks are on record."""
        if self._wanted:
            self._noted += moves

    def started(self, runs: Iterable[Run]) -> None:
        """These runs were launched."""
        if self._wanted:
            for run in runs:
                self._tally.begin(run.created_at)
                self._said.append(of_task("started", run.started_at or run.created_at, run.task, run))

    def stalled(self, run: Run, why: str) -> None:
        """A run does nothing any more, because of `why`, a sentence. To be called once each time that it stalls."""
        if self._wanted:
            self._said.append({**of_task("stalled", time.time(), run.task, run), "reason": why})

    # -- telling

    def tell(self, *, nothing_left: bool) -> None:
        """Hand over what was noted. With `nothing_left` to run, the batch has ended."""
        if not self._wanted:
            return
        noted, self._noted = self._noted, []
        said, self._said = self._said, []
        for task, event, ending in noted:
            news = _of(task, event, ending)
            said += [news] if news else []
            if isinstance(event, Finished | Dropped):
                self._tally.done(task)
        summary = self._tally.close(time.time()) if nothing_left else None
        said += [summary] if summary else []
        if said:
            self._courier.put(self._settings, [{**self._common(), **news} for news in said])

    def close(self) -> None:
        """Nothing more will be told."""
        self._courier.close()

    def _common(self) -> News:
        settings = self._settings
        return {"version": VERSION, "workspace": str(settings.workspace), "task_name": settings.task_name,
                "host": self._node}  # fmt: skip


def _of(task: Task, event: TaskEvent, ending: Ending | None) -> News | None:
    run = ending.run if ending else None
    code, at = (ending.exit_code, ending.at) if ending else (None, None)
    if isinstance(event, Finished | Dropped):
        return of_task(kind_of(event.outcome), at or task.changed_at, task.name, run, outcome=event.outcome,
                       reason=event.reason, exit_code=code, ended_at=at)  # fmt: skip
    if isinstance(event, Retried) and ending is not None:
        return of_task("retried", ending.at, task.name, run, outcome=ending.outcome, reason=ending.reason,
                       exit_code=code, ended_at=at, retry_at=event.not_before)  # fmt: skip
    return None


class Courier:
    """Passes events on to the process that delivers them, from a thread of its own: nobody else waits for its pipe.

    The process outlives the scheduler for as long as it takes to deliver what it has.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def put(self, settings: Settings, events: Sequence[News]) -> None:
        """Have these events delivered as the settings say."""
        orders = {
            "urls": settings.notify,
            "on": settings.notify_on,
            "command": settings.on_event,
            "folder": str(settings.work_dir),
            "events": events,
        }
        self._lines.put(json.dumps(orders).encode() + b"\n")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="courier", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait a little until all is handed over, and say so if it isn't."""
        if self._thread is None:
            return
        self._lines.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._journal.say("not everything that happened could be passed on to notify and on_event")

    def _work(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._pass_on(line)
            except OSError as error:
                self._process = None
                self._journal.say(f"notify and on_event are not told: {error}")
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process.returncode = 0  # it goes on without us: there is nothing to wait for

    def _pass_on(self, line: bytes) -> None:
        if self._process is None or self._process.poll() is not None:
            log = [str(path)] if (path := self._journal.log) else []
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tinksched.scheduler.messenger", *log],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # the end of our terminal is not its own
                env=current_environment(),
                cwd="/",
            )
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
