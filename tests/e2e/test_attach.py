"""`attach` inside of tmux: the terminal is switched to the session, looks only, and comes back as it was."""

from __future__ import annotations

import contextlib
import os
import pty
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support import Bench, Lab

CAT = "printf 'words of the run\\n'; exec cat\n"


@dataclass(frozen=True)
class Seat:
    """Somebody at a terminal who is in the session `mine` of a tmux server, in a shell."""

    bench: Bench
    socket: str
    keyboard: int

    def tmux(self, *arguments: str) -> str:
        return self.bench.lab.tmux(*arguments, socket=self.socket).stdout.rstrip("\n")

    def type(self, text: str) -> None:
        os.write(self.keyboard, text.encode())

    def until(self, state: str) -> None:
        """Until the terminal shows this session, and may do this there."""
        self.bench.wait_until(lambda: self.state() == state, state, tell=self.state)

    def state(self) -> str:
        return self.tmux("list-clients", "-F", "#{session_name}#{?client_readonly, read-only,}")

    def screen(self, session: str) -> str:
        return self.tmux("capture-pane", "-p", "-t", f"={session}:")


@contextlib.contextmanager
def seated(bench: Bench, socket: str) -> Iterator[Seat]:
    bench.lab.tmux(
        "-f", "/dev/null", "new-session", "-d", "-s", "mine", "-c", str(bench.folder), "-x", "100", "-y", "30",
        *(f"-e{name}={value}" for name, value in bench.lab.environment.items()), "sh", socket=socket,
    )  # fmt: skip
    bench.lab.tmux("set-option", "-g", "assume-paste-time", "0", socket=socket)  # keys may come fast
    pid, keyboard = pty.fork()
    if pid == 0:
        arguments = ["tmux", "-L", socket, "attach-session", "-t", "=mine"]
        os.execvpe("tmux", arguments, {**bench.lab.environment, "TERM": "xterm-256color"})
    reader = threading.Thread(target=drain, args=(keyboard,))
    reader.start()
    seat = Seat(bench, socket, keyboard)
    try:
        seat.until("mine")
        yield seat
    finally:
        bench.lab.tmux("kill-server", socket=socket)
        os.waitpid(pid, 0)
        reader.join()
        os.close(keyboard)


def drain(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 65536):
            pass


@pytest.fixture
def bench(lab: Lab) -> Bench:
    bench = lab.workspace(gpu_count=1, interactive=True, tasks={"exp1.yml": ""})
    (bench.folder / "train.sh").write_text(CAT)
    return bench


@pytest.fixture
def seat(bench: Bench) -> Iterator[Seat]:
    with seated(bench, "default") as seat:
        bench.run("start")
        bench.wait_until(lambda: "words of the run" in seat.screen("T_exp1_gpu0"), "the run")
        yield seat


def attach(seat: Seat, *arguments: str) -> None:
    seat.type(f"{sys.executable} -m tinksched attach exp1 {' '.join(arguments)}\n")


def test_the_terminal_goes_there_looks_only_and_comes_back(seat: Seat) -> None:
    for _ in range(2):
        attach(seat)
        seat.until("T_exp1_gpu0 read-only")
        seat.type("never\n\x03")
        seat.type("\x02L")
        seat.until("mine")
    assert seat.tmux("show-hooks", "-g", "client-session-changed").strip() == "client-session-changed"
    seat.type("echo $((40 + 2))\n")
    seat.bench.wait_until(lambda: "42" in seat.screen("mine"), "the shell", tell=lambda: seat.screen("mine"))
    assert "never" not in seat.screen("T_exp1_gpu0") and seat.bench.states() == {"exp1": "running"}


def test_who_may_write_writes(seat: Seat) -> None:
    attach(seat, "--write")
    seat.until("T_exp1_gpu0")
    seat.type("typed\n")
    seat.bench.wait_until(lambda: seat.screen("T_exp1_gpu0").count("typed") == 2, "what cat says")
    seat.type("\x02L")
    seat.until("mine")


def test_a_session_that_is_closed_throws_nobody_out(seat: Seat) -> None:
    attach(seat)
    seat.until("T_exp1_gpu0 read-only")
    seat.bench.run("cancel", "exp1")
    seat.tmux("kill-session", "-t", "=T_exp1_gpu0")
    seat.bench.wait_until(lambda: "T_exp1" not in seat.state(), "to be back", tell=seat.state)
    assert seat.state() and "read-only" not in seat.state()


def test_in_another_server_it_is_a_session_within_a_session(bench: Bench) -> None:
    with seated(bench, "other") as seat:
        bench.run("start")
        bench.wait_for_states(exp1="running")
        attach(seat)
        bench.wait_until(lambda: "words of the run" in seat.screen("mine"), "the run", tell=lambda: seat.screen("mine"))
        clients = bench.lab.tmux("list-clients", "-F", "#{session_name} #{client_readonly}").stdout
        assert clients == "T_exp1_gpu0 1\n" and seat.state() == "mine"
        seat.type("\x02\x02d")
        bench.wait_until(lambda: "leave the task's session with Ctrl-b Ctrl-b d" in seat.screen("mine"), "the hint")
