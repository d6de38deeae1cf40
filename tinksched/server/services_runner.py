"""Runs one service job: takes a port, starts the program, and says when it answers there.

A program of its own, with nothing but the standard library (and what of ours needs no more), so that it starts fast. It
is the command of the job's run, outlives the server, and needs none: what it finds out lies in a file
(`output/JOB/progress`) and is announced.

- Its port is its own by a lock on STATE_DIR/ports/PORT, which the kernel frees however this ends. Locks keep service
  jobs apart; a stranger who takes the port meanwhile shows because its listener is no process of this run. Then the
  program is ended, and started again on another port.
- It is ready once GET of its health path answers 200, and the listener is a process of this run.
- Signals: the kernel passes Ctrl-C and hang-ups on to the program itself, and the scheduler ends all processes of a
  run. So only a TERM that somebody else sent to this process is passed on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..host import processes, wake

LOOK_SECONDS = 0.02  # between two looks at whether it answers
ANSWER_SECONDS = 10.0  # for an answer; a program that loads may be slow
SURE = 5  # looks in a row that find a stranger on the port: one alone may have missed a process that was just born
TAKEN = -1  # in place of an exit code: somebody else has the port
_LISTEN = b"0A"  # TCP_LISTEN of the kernel's include/net/tcp_states.h
_PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_HEARD = {*_PASSED, signal.SIGCHLD, signal.SIGUSR1}


def main(state_dir: str, job_id: str) -> int:
    """Run the job of this server. Returns the exit code of its program; 1 if it never got ready, 127 without one."""
    for number in (*_PASSED, signal.SIGUSR1):
        signal.signal(number, _noted)  # a handler, unlike SIG_IGN, is not inherited by the program
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    try:
        job = _job(Path(state_dir), job_id)
    except (OSError, ValueError, KeyError) as error:
        print(f"tinksched: what is to be run can't be read: {error}", file=sys.stderr)
        return 1
    return job.run()


def _job(state_dir: Path, job_id: str) -> Job:
    output = state_dir / "output" / job_id
    settings, request = _read(state_dir / "services.json"), _read(output / "request")
    secrets = _read(output / "secrets") if (output / "secrets").exists() else {}
    environment = {**os.environ, **{str(name): str(value) for name, value in secrets.items()}}
    return Job(state_dir, job_id, settings, settings["kinds"][request["kind"]], request, environment)


_missed: list[int] = []  # what came while it was not blocked: see `Job._start`


def _noted(number: int, _: object) -> None:
    if number in _PASSED:
        _missed.append(number)


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


@dataclass(slots=True)
class Job:
    """A service job, as its server's settings and its request have it."""

    state_dir: Path
    id: str
    settings: Mapping[str, Any]
    kind: Mapping[str, Any]  # command, health_path, ready_timeout
    request: Mapping[str, Any]  # values, arguments
    environment: Mapping[str, str]
    run_id: str = field(default_factory=lambda: os.environ.get(processes.RUN_ID_VARIABLE, ""))
    is_ending: bool = False  # somebody asked for its end

    def run(self) -> int:
        """Try one port after the other. Returns an exit code."""
        for port, lock in self._ports():
            if signal.sigpending() & set(_PASSED):
                return 128 + signal.SIGTERM
            try:
                self._say({"port": port})
                code = self._on(port)
            except FileNotFoundError as error:
                return self._fail(port, f"there is no program {error.filename} to start it with", 127)
            finally:
                os.close(lock)
            if code != TAKEN:
                return code
            print(f"tinksched: somebody else has port {port}: another one is tried", file=sys.stderr, flush=True)
        first, last = self.settings["ports"]
        return self._fail(None, f"none of the ports {first} to {last} that service jobs may use is free", 1)

    # -- ports

    def _ports(self) -> Iterator[tuple[int, int]]:
        """Ports that nobody uses, each with the descriptor by which it is locked."""
        folder = self.state_dir / "ports"
        folder.mkdir(mode=0o700, exist_ok=True)
        first, last = self.settings["ports"]
        others, most = 0, self.settings["most"]
        for port in range(first, last + 1):
            if others >= most:
                return
            lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                others += 1
                os.close(lock)
                continue
            if is_free(port):
                yield port, lock
                others += 1  # it was not, after all
            else:
                os.close(lock)

    # -- the program

    def _on(self, port: int) -> int:
        """Run the program on this port to its end. TAKEN if somebody else has it."""
        child = self._start(port)
        deadline: float | None = time.monotonic() + self.kind["ready_timeout"]
        probe = Probe(self, port)
        probe.start()
        try:
            while True:
                code = child.poll()  # first: it may have ended before its signal was blocked
                if code is not None:
                    is_taken = code and not probe.is_ready and sockets_on(port, listening=False) - self.inodes()
                    return TAKEN if is_taken else code if code >= 0 else 128 - code
                if probe.is_ready or self.is_ending:
                    deadline = None
                elif probe.strangers >= SURE:
                    self._end()
                    return TAKEN
                elif deadline is not None and time.monotonic() >= deadline:
                    seen = probe.seen  # before the program ends, and with it an answer that it was about to give
                    self._end()
                    return self._fail(port, f"not ready within {self.kind['ready_timeout']:g} s: {seen}", 1)
                self._hear(None if deadline is None else max(0.0, deadline - time.monotonic()))
        finally:
            probe.over.set()

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        """Start the program. Raises FileNotFoundError: there is none."""
        program = self._command(port)
        if shutil.which(program[0], path=self.environment.get("PATH")) is None:
            raise FileNotFoundError(2, "", program[0])
        words = ["/bin/sh", "-c", self.settings["script"], "sh", os.getcwd(), *program]
        # The lease of the run goes on to the program, which so shows as a process of it.
        lease = [processes.LEASE_DESCRIPTOR] if _is_open(processes.LEASE_DESCRIPTOR) else []
        # What is blocked stays blocked in the program, so for an instant nothing is.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        try:
            return subprocess.Popen(words, env=self.environment, pass_fds=lease)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)

    def _command(self, port: int) -> list[str]:
        """The argument list. Only what the administrator wrote has placeholders."""
        values = {**self.settings["values"], **self.request["values"], "port": str(port), "job_id": self.id,
                  "config_path": os.path.join(os.getcwd(), "config.yaml")}  # fmt: skip
        found: list[str] = []
        for word in self.kind["command"]:
            if word == "{arguments}":
                found += self.request["arguments"]
            else:
                found.append(filled(word, {**values, "arguments": " ".join(self.request["arguments"])}))
        return found

    def _hear(self, seconds: float | None) -> None:
        """Wait for a signal, at most so long, and pass on what is meant for the program."""
        if _missed:
            heard: list[tuple[int, int]] = [(number, 0) for number in _missed]
            _missed.clear()
        elif seconds is None:
            info = signal.sigwaitinfo(_HEARD)
            heard = [(info.si_signo, info.si_pid)]
        else:
            maybe = signal.sigtimedwait(_HEARD, seconds)
            heard = [(maybe.si_signo, maybe.si_pid)] if maybe else []
        for number, sender in heard:
            self.is_ending |= number in _PASSED
            if number == signal.SIGTERM and not _is_ours(sender):
                for process in self.others():
                    processes.send(process, signal.SIGTERM)

    def _end(self) -> None:
        """End all processes of the run but this one."""
        processes.end(self.run_id, grace=self.settings["grace"], spare=os.getpid())

    def others(self) -> list[processes.Process]:
        """The processes of the run, without this one."""
        return [one for one in processes.of_runs([self.run_id])[self.run_id] if one.pid != os.getpid()]

    def inodes(self) -> set[int]:
        """The sockets of the run."""
        return {inode for process in self.others() for inode in _sockets(process.pid)}

    # -- what is said

    def ready(self, port: int) -> None:
        """It answers on its port."""
        self._say({"port": port, "ready_at": time.time()})

    def _fail(self, port: int | None, why: str, code: int) -> int:
        print(f"tinksched: {why}", file=sys.stderr, flush=True)
        self._say({"port": port, "failure": why})
        return code

    def _say(self, what: Mapping[str, Any]) -> None:
        """Leave it where the server finds it, as a whole, and wake the server."""
        path = self.state_dir / "output" / self.id / "progress"
        aside = path.with_name(f".progress.{os.getpid()}")
        with contextlib.suppress(OSError):  # of a disk that is full the server hears later, by the end of the run
            aside.write_text(json.dumps({"run": self.run_id, **what}))
            aside.replace(path)
        wake.announce(Path(self.settings["state"]))


class Probe(threading.Thread):
    """Asks until the program answers. A thread, because an answer may be slow, and an end must be noticed at once."""

    def __init__(self, job: Job, port: int) -> None:
        super().__init__(name="probe", daemon=True)
        self.over = threading.Event()
        self.is_ready = False
        self.strangers = 0  # how often in a row somebody else listened
        self.seen = f"nothing listens on port {port}"
        self._job = job
        self._port = port
        self._known: set[int] = set()  # sockets of the run

    def run(self) -> None:
        """Until it is ready, somebody else answers, or `over` is set."""
        while not self.over.wait(LOOK_SECONDS):
            if self._look():
                os.kill(os.getpid(), signal.SIGUSR1)
                return

    def _look(self) -> bool:
        """Whether there is nothing more to find out."""
        path = self._job.kind["health_path"]
        try:
            with socket.create_connection(("127.0.0.1", self._port), ANSWER_SECONDS) as connection:
                # Before anything is said, where nobody knows; later only once it has answered, for a look takes long.
                if not self._known and not self._is_ours():
                    return self._is_strange()
                self.seen = f"GET {path} was not answered"
                status = _ask(connection, path, self._port)
        except OSError:
            return False
        if self.over.is_set():
            return False
        if not self._is_ours():
            return self._is_strange()
        self.strangers = 0
        self.seen = f"GET {path} was answered with {status or 'no HTTP'}, not 200"
        if status != "200":
            return False
        self.is_ready = True
        self._job.ready(self._port)
        return True

    def _is_strange(self) -> bool:
        """Whether somebody else listens for sure."""
        self._known = set()
        self.strangers += 1
        self.seen = f"who listens on port {self._port} is no process of this job"
        return self.strangers >= SURE

    def _is_ours(self) -> bool:
        """Whether all who listen on the port are processes of the run: most often one that descends from this one."""
        there = sockets_on(self._port)
        looks: tuple[Callable[[], set[int]], ...] = (lambda: self._known, _inherited, self._job.inodes)
        for look in looks:  # the last one looks at every process
            self._known = look()
            if there <= self._known:
                return bool(there)
        return False


def is_free(port: int) -> bool:
    """Whether nobody listens on a port, on any address."""
    for family, everywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # those of before may linger
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind((everywhere, port))
                one.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):  # else there is no such family here
                return False
    return True


def sockets_on(port: int, *, listening: bool = True) -> set[int]:
    """The sockets that listen on a port, by inode: see proc(5), `/proc/net/tcp`.

    Not only `listening`: those that have it for another reason as well. An outgoing connection of anybody can.
    """
    found = set()
    # number, local address, remote address, state, queues, timer, retransmissions, user, timeout, inode
    state = _LISTEN if listening else rb"\S+"
    wanted = re.compile(rb"(?m)^ *\d+: \S+:%04X \S+ %s (?:\S+ +){5}(\d+)" % (port, state))
    for name in ("tcp", "tcp6"):  # of a busy machine they have thousands of lines: they are searched as a whole
        with contextlib.suppress(OSError):
            found |= set(map(int, wanted.findall(Path(f"/proc/net/{name}").read_bytes())))
    return found - {0}  # that of connections which nobody has any more


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders replaced, once."""
    for name, value in values.items():
        if text == f"{{{name}}}":
            return value
    pieces, rest = "", text
    while rest:
        before, brace, rest = rest.partition("{")
        name, closing, after = rest.partition("}")
        is_place = bool(brace and closing) and name in values
        pieces += before + (values[name] if is_place else brace)
        rest = after if is_place else rest
    return pieces


def _ask(connection: socket.socket, path: str, port: int) -> str | None:
    """The status of the answer to a GET; None if it is no HTTP."""
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: tinksched\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode())
    line = b""
    while b"\n" not in line and len(line) < 4096:
        part = connection.recv(4096)
        if not part:
            break
        line += part
    words = line.partition(b"\n")[0].split()
    return words[1].decode(errors="replace") if len(words) > 1 and words[0].startswith(b"HTTP/1.") else None


def _sockets(pid: int) -> Iterator[int]:
    """The inodes of the sockets that a process has open."""
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError, ValueError):
                target = os.readlink(f"{folder}/{name}")
                if target.startswith("socket:["):
                    yield int(target[8:-1])


def _inherited() -> set[int]:
    """The sockets of what descends from this process, as far as the kernel lists it (proc(5), `children`)."""
    return {inode for pid in _descendants(os.getpid()) for inode in _sockets(pid)}


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                yield child
                yield from _descendants(child)


def _is_ours(pid: int) -> bool:
    """Whether a process is of tinksched: then it signals all processes of the run itself."""
    return any("tinksched" in word for word in processes.arguments(pid)[:3]) if pid else False


def _is_open(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError:
        return False
    return True
