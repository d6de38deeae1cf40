"""The process that delivers news: `python -m tinksched.scheduler.messenger [LOG]`, one order a line on standard input.

It reads everything at once and keeps it, so that its scheduler never waits. Services and the `on_event` command have a
line of their own each: a slow one holds up no other. It ends when its input has ended and all is delivered, or after
FAREWELL_SECONDS. What can't be delivered is one line in the scheduler's log, and is not tried again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.news import message
from .journal import Journal

SEND_SECONDS = 20.0  # that a service may take
EVENT_SECONDS = 30.0  # that the command may take for one event
FAREWELL_SECONDS = 60.0
MOST_WAITING = 100_000  # events
_LONGEST_OUTPUT = 8192  # bytes of what the command prints for one event
_LONGEST_LINE = 500

Order = Mapping[str, Any]


class Line:
    """Orders that wait for one deliverer, in a thread of its own."""

    def __init__(self, deliver: Callable[[Sequence[Order]], None], at_once: int) -> None:
        """`deliver` gets up to `at_once` of those that wait."""
        self._deliver = deliver
        self._at_once = at_once
        self._waiting: list[Order] = []
        self._busy = 0
        self._change = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, order: Order) -> None:
        """One more; of too many the oldest are dropped."""
        with self._change:
            self._waiting.append(order)
            del self._waiting[:-MOST_WAITING]
            self._change.notify()

    def close(self, deadline: float) -> int:
        """No more will come. Returns how many are left at the deadline (monotonic)."""
        with self._change:
            self._over = True
            self._change.notify()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return len(self._waiting) + self._busy

    def _work(self) -> None:
        while True:
            with self._change:
                self._busy = 0
                self._change.wait_for(lambda: self._waiting or self._over)
                if not self._waiting:
                    return
                orders = self._waiting[: self._at_once]
                del self._waiting[: self._at_once]
                self._busy = len(orders)
            self._deliver(orders)


class Services:
    """Sends messages to the services of apprise. What came while one was sent becomes one message together."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._busy: dict[str, threading.Thread] = {}

    def deliver(self, orders: Sequence[Order]) -> None:
        """Tell every service; they are told side by side."""
        last = orders[-1]
        title, text = message([order["event"] for order in orders])
        threads = [self._begin(url, number, title, text) for number, url in enumerate(last["urls"])]
        deadline = time.monotonic() + SEND_SECONDS
        for number, thread in enumerate(threads):
            if thread is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    self._failed(last["urls"][number], number, f"no answer in {SEND_SECONDS:.0f} seconds")

    def _begin(self, url: str, number: int, title: str, text: str) -> threading.Thread | None:
        before = self._busy.get(url)
        if before is not None and before.is_alive():
            self._failed(url, number, "it has not answered to the message before")
            return None
        thread = threading.Thread(target=self._send, args=(url, number, title, text), daemon=True)
        self._busy[url] = thread
        thread.start()
        return thread

    def _send(self, url: str, number: int, title: str, text: str) -> None:
        try:
            import apprise

            logging.getLogger("apprise").disabled = True  # its messages hold parts of the URL
            service = apprise.Apprise.instantiate(url)
            if service is None:
                self._failed(url, number, "apprise does not know what this is")
            elif not service.notify(title=title, body=text):
                self._failed(url, number, "the service can't be reached, or refused it")
        except Exception as error:  # plugins raise what they like; their texts may hold the URL
            self._failed(url, number, type(error).__name__)

    def _failed(self, url: str, number: int, why: str) -> None:
        scheme = url.partition("://")[0]
        self._journal.say(f"notify[{number}] ({scheme}://…) was not told: {why}")


class Command:
    """Runs the `on_event` command for one event after the other."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def deliver(self, orders: Sequence[Order]) -> None:
        """The command for each of these."""
        for order in orders:
            self._about(order)

    def _about(self, order: Order) -> None:
        what = f"on_event ({order['event']['event']} {order['event'].get('task') or ''}".rstrip() + ")"
        try:
            said, code = _run(order["command"], order["folder"], json.dumps(order["event"]).encode() + b"\n")
        except OSError as error:
            self._journal.say(f"{what} could not be started: {error.strerror}")
            return
        for line in said.decode(errors="replace").splitlines():
            self._journal.say(f"{what}: {line[:_LONGEST_LINE]}")
        if code is None:
            self._journal.say(f"{what} took longer than {EVENT_SECONDS:.0f} seconds and was ended")
        elif code:
            self._journal.say(f"{what} ended with exit code {code}")


def _run(command: Sequence[str], folder: str, data: bytes) -> tuple[bytes, int | None]:
    """The beginning of what the command prints, and its exit code; None if it was ended for its time."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder,
        start_new_session=True,
    )  # fmt: skip
    said = bytearray()

    def read() -> None:
        assert process.stdout is not None
        while chunk := process.stdout.read1(65536):  # type: ignore[attr-defined]
            said.extend(chunk[: _LONGEST_OUTPUT - len(said)])

    def write() -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it need not read
            process.stdin.write(data)
        with contextlib.suppress(OSError):
            process.stdin.close()

    threads = [threading.Thread(target=work, daemon=True) for work in (read, write)]
    for thread in threads:
        thread.start()
    try:
        code: int | None = process.wait(EVENT_SECONDS)
    except subprocess.TimeoutExpired:
        code = None
    if code is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    threads[0].join(1.0)  # children of it may hold the pipe
    return bytes(said), code


def main(log: str | None) -> None:
    """Deliver what comes on standard input."""
    journal = Journal(Path(log) if log else None, screen=False)
    services, command = Line(Services(journal).deliver, MOST_WAITING), Line(Command(journal).deliver, 1)
    for line in sys.stdin.buffer:
        orders = json.loads(line)
        for event in orders["events"]:
            order = {**orders, "events": None, "event": event}
            if orders["urls"] and event["event"] in orders["on"]:
                services.put(order)
            if orders["command"]:
                command.put(order)
    deadline = time.monotonic() + FAREWELL_SECONDS
    left = services.close(deadline) + command.close(deadline)
    if left:
        journal.say(f"{left} events could not be told in time")
    os._exit(0)  # threads may still wait for services


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
