"""`sh tests/bench/run.sh --server`: how the server for a team does under load. The clients are a process of their own
on the same machine, so both share its cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import machine
from .load import submission
from .measure import percentile
from .place import HERE, PATIENCE, BenchError, Corner, Place
from .results import say

ROOT = HERE.parents[1]
STAMP = 'date +%s.%N >"$JOB_ID.stamp"\n'  # a job in sh: its first instruction


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    clients: int = 500
    statuses: int = 6_000
    status_rate: int = 200
    submissions: int = 1_000
    submit_rate: int = 100
    starts: int = 60
    pending: int = 1_000
    services: int = 40
    shown: int = 5_000
    changes: int = 100
    idle: float = 30.0


QUICK = Sizes(clients=20, statuses=100, submissions=50, starts=3, pending=50, services=2, shown=50, changes=5, idle=0.5)


@dataclass
class Figures:
    """What came out."""

    rows: list[tuple[str, str, str, bool]] = field(default_factory=list)  # aim, limit, measured, reached
    more: list[tuple[str, str]] = field(default_factory=list)
    most_memory: float = 0.0

    def aim(self, what: str, limit: str, measured: str, reached: bool) -> None:
        """One line of the table of aims."""
        self.rows.append((what, limit, measured, reached))
        say(f"{what}: {measured} (limit: {limit})")

    def note(self, what: str, measured: str) -> None:
        """One figure besides."""
        self.more.append((what, measured))
        say(f"{what}: {measured}")


# What runs a job: Python where the server asks about it, else a shell, which starts at once.
_SHELL = """#!/bin/sh
[ "$1" != -I ] || exec {python} "$@"
exec /bin/sh "$@"
"""


class Server:
    """A server in a corner. Limits are off, isolation is none: what is measured is ours."""

    def __init__(self, corner: Corner, figures: Figures, **settings: object) -> None:
        self._corner = corner
        self._figures = figures
        shell = corner.folder / "sh"
        shell.write_text(_SHELL.format(python=shlex.quote(sys.executable)))
        shell.chmod(0o700)
        values = {
            "port": 0, "scheduler_port": 0, "state_dir": "state", "isolation": "none", "limits": False,
            "active_jobs": 100_000, "active_services": 100_000, "min_free_disk": "0B", "job_python": str(shell),
            "gpus_per_job": 0, **settings,
        }  # fmt: skip
        self._config = corner.folder / "server.yml"
        self._config.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()))
        self.state = corner.folder / "state"
        self.token = self._run("token", "create", "bench", "--generate").strip()
        self.begin()

    def begin(self) -> float:
        """Serve. Returns the seconds until it is healthy."""
        begun = time.monotonic()
        with (self._corner.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tinksched", "serve", "--config", str(self._config)],
                env=self._corner.environment, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT,
            )  # fmt: skip
        assert self.process.stdout is not None
        found = re.search(r"http://127.0.0.1:(\d+)", self.process.stdout.readline())
        if found is None:
            raise BenchError(f"the server ended: {(self._corner.folder / 'log').read_text()}")
        self.port = int(found[1])
        assert self.ask("/health")["status"] == "healthy"
        return time.monotonic() - begun

    def end(self) -> None:
        """By a signal, gracefully."""
        self._figures.most_memory = max(self._figures.most_memory, self.memory_peak())
        self.process.terminate()
        self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def ask(self, path: str, body: Any = None) -> Any:
        """An answer of the server; with a body to a POST."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token}"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def submit(self, code: str) -> str:
        """A job, by its id. Over a connection of its own, as a client that is started would."""
        import socket

        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            connection.sendall(submission(code, "one", self.token, wait=False))
            text = b""
            while not text.endswith(b"}"):
                text += connection.recv(65536)
        return str(json.loads(text.split(b"\r\n\r\n", 1)[1])["job_id"])

    def load(self, what: str, **order: Any) -> subprocess.Popen[str]:
        """Clients, in a process of their own."""
        clients = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.load"], cwd=ROOT, env=self._corner.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert clients.stdin is not None
        clients.stdin.write(json.dumps({"what": what, "port": self.port, "token": self.token, **order}))
        clients.stdin.close()
        return clients

    def until(self, look: Callable[[], bool], what: str) -> None:
        """Wait for something."""
        deadline = time.monotonic() + PATIENCE
        while not look():
            if time.monotonic() > deadline:
                raise BenchError(f"{what} did not come")
            time.sleep(0.05)

    def count(self, status: str) -> int:
        """How many jobs are in a status."""
        return int(self.ask("/api/dashboard")["job_statistics"][status])

    def threads(self) -> int:
        """Of its process."""
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def connections(self) -> int:
        """How often its process has the database open."""
        found = 0
        for name in os.listdir(f"/proc/{self.process.pid}/fd"):
            with contextlib.suppress(OSError):
                found += os.readlink(f"/proc/{self.process.pid}/fd/{name}").endswith("state.db")
        return found

    def memory_peak(self) -> float:
        """The most that it ever had resident, in MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", text)
        return int(found[1]) / 1e3 if found else 0.0

    def _run(self, *words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "tinksched", *words, "--config", str(self._config)],
            env=self._corner.environment, check=True, capture_output=True, text=True, cwd=ROOT,
        ).stdout  # fmt: skip


def answered(clients: subprocess.Popen[str]) -> dict[str, Any]:
    """What the clients say in the end."""
    assert clients.stdout is not None
    found: dict[str, Any] = json.load(clients.stdout)
    clients.stdout.close()
    clients.wait(PATIENCE)
    return found


def gate(server: Server) -> tuple[str, Path]:
    """A job that waits, and the file on which it waits."""
    path = server.state / "gate"
    return f'until [ -e "{path}" ]; do sleep 0.2; done\n', path


@contextlib.contextmanager
def served(place: Place, figures: Figures, name: str, **settings: object) -> Iterator[Server]:
    """A server with these settings, until the end of the block."""
    with place.corner(name) as corner:
        server = Server(corner, figures, **settings)
        try:
            yield server
        finally:
            server.end()


def clients_that_wait(place: Place, sizes: Sizes, figures: Figures) -> None:
    """500 at once, with jobs that don't end before all of them wait."""
    with served(place, figures, "waiting", cpu_slots=4) as server:
        code, path = gate(server)
        for _ in range(4):
            server.submit(code)
        server.until(lambda: server.count("running") == 4, "four jobs")
        before = server.threads(), server.connections()
        clients = server.load("wait", count=sizes.clients, code="true\n")
        server.until(lambda: server.count("pending") == sizes.clients, "all clients")
        threads, connections = server.threads() - before[0], server.connections() - before[1]
        begun = time.monotonic()
        path.touch()
        found = answered(clients)
        took = time.monotonic() - begun
    good = found["completed"] == sizes.clients
    figures.aim(f"{sizes.clients} waiting clients: answers", f"all {sizes.clients}", str(found["completed"]), good)
    figures.aim("more threads because of them (a pool, not one each)", "40", str(threads), threads <= 40)
    figures.aim("more database connections because of them", "0", str(connections), connections <= 0)
    figures.note(f"their {sizes.clients} jobs on 4 slots, tmux", f"{took:.1f} s")


def status_under_load(place: Place, sizes: Sizes, figures: Figures) -> None:
    """`status` while jobs run, one after the other on two slots."""
    with served(place, figures, "status", cpu_slots=2) as server:
        jobs = [server.submit("sleep 0.5\n") for _ in range(sizes.statuses // sizes.status_rate * 4 + 20)]
        order = {"count": sizes.statuses, "rate": sizes.status_rate, "connections": 50, "jobs": jobs}
        found = answered(server.load("status", **order))
        over = server.count("completed")
    times = [1e3 * one for one in found["seconds"]]
    slow = percentile(times, 0.99)
    figures.aim(f"`status`, {sizes.status_rate} a second while jobs run: 99 of 100 within", "50 ms", f"{slow:.1f} ms",
                slow <= 50 and not found["bad"])  # fmt: skip
    figures.note("half of them within", f"{statistics.median(times):.1f} ms; the slowest {max(times):.0f} ms")
    figures.note("answers that were no 200", str(found["bad"]))
    figures.note("jobs that ended meanwhile", str(over))


def submissions(place: Place, sizes: Sizes, figures: Figures) -> None:
    """Submissions at a rate; then the server starts again with all of them pending."""
    with served(place, figures, "submissions", cpu_slots=1) as server:
        server.submit("sleep 600\n")
        order = {"count": sizes.submissions, "rate": sizes.submit_rate, "connections": 50, "code": "sleep 600\n"}
        found = answered(server.load("submit", **order))
        rate = sizes.submissions / found["took"]
        times = [1e3 * one for one in found["seconds"]]
        figures.aim(f"errors in {sizes.submissions} submissions, {sizes.submit_rate} a second", "0", str(found["bad"]),
                    not found["bad"])  # fmt: skip
        figures.aim("of these a second were answered", f"at least {0.95 * sizes.submit_rate:.0f}", f"{rate:.0f}",
                    rate >= 0.95 * sizes.submit_rate)  # fmt: skip
        middle, slow = statistics.median(times), percentile(times, 0.99)
        said = f"{middle:.0f} ms; 99 of 100 within {slow:.0f} ms"
        figures.note("a submission is answered, on the disk, within", said)
        server.end()
        took = server.begin()
        pending = server.count("pending")
    figures.aim(f"start with {pending} pending jobs, from exec to healthy", "2 s", f"{took:.2f} s", took <= 2)


def starts(place: Place, sizes: Sizes, figures: Figures) -> None:
    """From a client's request to the job's own first instruction, with a free slot."""
    for executor in ("tmux", "local"):
        with served(place, figures, f"starts-{executor}", cpu_slots=1, executor=executor) as server:
            times = []
            for _ in range(sizes.starts):
                asked = time.time()
                job = server.submit(STAMP)
                stamp = server.state / "jobs" / job / f"{job}.stamp"
                server.until(lambda stamp=stamp: stamp.exists() and stamp.read_text().endswith("\n"), "a start")
                times.append(1e3 * (float(stamp.read_text()) - asked))
                server.until(lambda: server.count("running") == 0, "the end of the job")
        middle, slow = statistics.median(times), percentile(times, 0.95)
        figures.aim(f"request to the job's first instruction, executor: {executor}, median", "50 ms",
                    f"{middle:.1f} ms", middle <= 50)  # fmt: skip
        figures.note(f"the same, {executor}: 95 of 100 within", f"{slow:.1f} ms")


def readiness(place: Place, sizes: Sizes, figures: Figures) -> None:
    """From the instant at which a training server gets ready to an answer that has its URL. A client asks all the time.

    The program is there, and answers its health path with 503 until it is told to be ready.
    """
    command = [sys.executable, str(ROOT / "tests/training_server.py"), "server.port={port}", "{arguments}"]
    with served(place, figures, "readiness", cpu_slots=1, training_command=command) as server:
        times = []
        for number in range(sizes.services):
            gate = server.state / f"gate-{number}"
            os.mkfifo(gate)
            job = server.ask("/submit_job", {"config": {"gate": str(gate)}})["job_id"]
            with gate.open("w"):  # opened as soon as the program reads it; ready when it is closed
                pass
            while (known := server.ask(f"/job_status/{job}"))["server_url"] is None:
                if known["status"] not in ("STARTING", "RUNNING"):
                    raise BenchError(f"a service job ended: {known}")
            seen = time.time()
            times.append(1e3 * (seen - float(Path(f"{gate}.ready").read_text())))
            server.ask(f"/complete_job/{job}", {})
    middle, slow = statistics.median(times), percentile(times, 0.95)
    figures.aim("a service job's server_url is answered after its readiness within", "100 ms", f"{max(times):.0f} ms",
                max(times) <= 100)  # fmt: skip
    figures.note("half of them within", f"{middle:.0f} ms; 95 of 100 within {slow:.0f} ms")


def main(quick: bool, record: bool, folder: Path) -> int:
    """Measure, print, and with `record` write the file that is committed."""
    sizes, figures = QUICK if quick else Sizes(), Figures()
    with Place(folder) as place:
        from .page import page  # which needs all of this

        for benchmark in (clients_that_wait, status_under_load, submissions, starts, readiness, page):
            benchmark(place, sizes, figures)
        figures.aim("the most memory that any of these servers had", "200 MB", f"{figures.most_memory:.0f} MB",
                    figures.most_memory <= 200)  # fmt: skip
        text = markdown(figures, machine.describe(place))
    print(text)
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    (out / "SERVER.md").write_text(text)
    if record:
        shutil.copyfile(out / "SERVER.md", HERE / "SERVER.md")
    return 0


def markdown(figures: Figures, facts: dict[str, str]) -> str:
    """The report."""
    lines = ["# How the server for a team does under load", "", "Written by `sh tests/bench/run.sh --server --record`.",
             "Clients and server share this machine. Limits are off, `isolation: none`, jobs are one line of sh.", "",
             "| aim | limit | measured | |", "| --- | ---: | ---: | --- |"]  # fmt: skip
    lines += [f"| {what} | {limit} | {measured} | {'reached' if good else 'missed'} |"
              for what, limit, measured, good in figures.rows]  # fmt: skip
    lines += ["", "| besides | |", "| --- | ---: |", *(f"| {what} | {measured} |" for what, measured in figures.more)]
    lines += ["", "| the machine | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items())]
    return "\n".join(lines) + "\n"
