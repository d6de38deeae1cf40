"""The dashboard's feed with thousands of jobs: how large and how fast it is, and what an open page costs."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from .measure import percentile
from .place import PATIENCE, Place
from .server import Figures, Server, Sizes, answered, served


class Stream:
    """An open page: what it was sent, and when."""

    def __init__(self, server: Server) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/dashboard/api/events",
            headers={"Authorization": f"Bearer {server.token}"},
        )
        self._answer = urllib.request.urlopen(request, timeout=PATIENCE)
        self.jobs: dict[str, list[tuple[float, dict[str, Any]]]] = {}  # each time that a job came
        self.bytes = 0
        self.begun = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.begun.wait(PATIENCE)

    def close(self) -> None:
        """Hang up."""
        self._answer.fp.raw._sock.shutdown(2)  # a thread reads: closing alone would wait for it
        self._thread.join(PATIENCE)
        self._answer.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._answer:
                at = time.time()
                self.bytes += len(line)
                if line.startswith(b"data: "):
                    for job in json.loads(line[6:]).get("jobs", ()):
                        self.jobs.setdefault(job["id"], []).append((at, job))
                    self.begun.set()


@contextlib.contextmanager
def followed(server: Server) -> Iterator[Stream]:
    """An open page."""
    stream = Stream(server)
    try:
        yield stream
    finally:
        stream.close()


def page(place: Place, sizes: Sizes, figures: Figures) -> None:
    """One slot that is taken, and all other jobs pending; then they run through."""
    with served(place, figures, "page", cpu_slots=1, executor="local", timeout_multiplier=100) as server:
        path = server.state / "gate"
        server.submit(f'until [ -e "{path}" ]; do sleep 0.2; done\n')
        order = {"count": sizes.shown, "rate": 250, "connections": 20, "code": "true\n"}
        answered(server.load("submit", **order))
        fetch(server, 1)  # the first look reads everything
        server.until(lambda: all(job["reason"] for job in server.ask("/dashboard/api/state")["jobs"][1:]), "reasons")
        size, took = fetch(server, 200)
        figures.aim(f"the scene of {sizes.shown} jobs, the first 200 of them", "100 ms", f"{took:.0f} ms", took <= 100)
        figures.note("bytes of that", f"{size / 1e3:.0f} kB")
        size, took = fetch(server, 100_000)
        figures.note("all of them at once", f"{took:.0f} ms, {size / 1e6:.2f} MB")
        alone = cpu(server, sizes.idle)
        with followed(server) as stream:
            time.sleep(2)
            more = cpu(server, sizes.idle) - alone
            figures.aim("CPU of an open stream while nothing happens, of a core", "0.1 %", f"{100 * more:.3f} %",
                        more <= 0.001)  # fmt: skip
            calm(server, sizes, stream, figures)
            path.touch()
            busy(server, sizes, stream, figures)


def fetch(server: Server, jobs: int) -> tuple[int, float]:
    """How many bytes a scene has, and in how many milliseconds it comes: of five the one in the middle."""
    times, size = [], 0
    for _ in range(5):
        begun = time.monotonic()
        size = len(json.dumps(server.ask(f"/dashboard/api/state?jobs={jobs}"), separators=(", ", ": ")))
        times.append(1e3 * (time.monotonic() - begun))
    return size, statistics.median(times)


def cpu(server: Server, seconds: float) -> float:
    """What share of a core the server uses."""
    before = _ticks(server)
    time.sleep(seconds)
    return (_ticks(server) - before) / os.sysconf("SC_CLK_TCK") / seconds


def _ticks(server: Server) -> int:
    with open(f"/proc/{server.process.pid}/stat") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def calm(server: Server, sizes: Sizes, stream: Stream, figures: Figures) -> None:
    """From a submission, as it is on record, until an open page has it."""
    times = []
    for _ in range(sizes.changes):
        job = server.submit("true\n")
        server.until(lambda job=job: job in stream.jobs, "a job on the page")
        at, seen = stream.jobs[job][0]
        times.append(1e3 * (at - seen["created_at"]))
        time.sleep(0.1)
    middle, slow = statistics.median(times), percentile(times, 0.95)
    figures.aim("from a submission until an open page has it, median", "100 ms", f"{middle:.0f} ms", middle <= 100)
    figures.note("the same: 95 of 100 within", f"{slow:.0f} ms")


def busy(server: Server, sizes: Sizes, stream: Stream, figures: Figures) -> None:
    """The same of the ends of jobs that run one after the other, as fast as they can."""
    before, begun = stream.bytes, time.monotonic()

    def ended() -> list[float]:
        seen = [times[-1] for times in list(stream.jobs.values())]
        return [1e3 * (at - job["ended_at"]) for at, job in seen if job["ended_at"] is not None]

    server.until(lambda: len(ended()) >= sizes.changes, "the ends of jobs")
    times, took = ended(), time.monotonic() - begun
    middle, slow = statistics.median(times), percentile(times, 0.95)
    figures.aim("from the end of a job until an open page has it, jobs running through, median", "100 ms",
                f"{middle:.0f} ms", middle <= 100)  # fmt: skip
    figures.note("the same: 95 of 100 within", f"{slow:.0f} ms")
    figures.note("sent meanwhile", f"{(stream.bytes - before) / 1e3 / took:.0f} kB a second")
