"""What a person types, performed: lines of bash in one tool's corner, with what they printed and how they ended."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.place import BenchError, Corner, Place

from .jobs import Cell
from .tools import Tool, project

PATIENCE = 40.0  # seconds for a line to succeed
LIMIT = 30.0  # seconds after which a line that does not end is ended
SETTLING = 0.1  # seconds between two looks at what a peer does: they announce nothing
ESCAPES = re.compile(r"\x1b(\[[0-9;?>=!]*[a-zA-Z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Z0-9]|[=>78MD])")
KILLED = "all"


@dataclass(frozen=True, slots=True)
class Said:
    """A line, what it printed on both streams, and its exit code; None: it had to be ended."""

    line: str
    text: str
    code: int | None


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a cell: what was typed, and what was looked at afterwards."""

    typed: tuple[Said, ...]
    after: tuple[Said, ...]

    @property
    def text(self) -> str:
        """All that can be read."""
        return "\n".join(said.text for said in (*self.typed, *self.after))


def perform(place: Place, tool: Tool, cell: Cell) -> Done:
    """Do one job with one tool, in a fresh corner.

    Raises:
        BenchError: its daemons did not start, or what had to come before did not.
    """
    with place.corner(tool.name) as corner, _without_strays(corner):
        corner.environment |= {"SHELL": "/bin/bash", "TERM": "xterm-256color"}
        tool.start(corner)
        folder = project(corner)
        for line in cell.before:
            said = _line(corner, folder, line)
            if said.code != 0:
                raise BenchError(f"{line}: exit code {said.code}\n{said.text}")
        typed = tuple(_said(corner, folder, line, cell) for line in cell.typed)
        return Done(typed, tuple(_line(corner, folder, line) for line in cell.after))


@contextlib.contextmanager
def _without_strays(corner: Corner) -> Iterator[None]:
    """At the end, kill those as well who have dropped the environment by which the corner knows its processes."""
    try:
        yield
    finally:
        for pid in _strays(corner):
            _end(pid)


def _strays(corner: Corner) -> list[int]:
    """The processes whose folder lies in the corner: those that watch Slurm's jobs have no environment."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and Path(os.readlink(entry / "cwd")).is_relative_to(corner.folder):
                found.append(int(entry.name))
    return found


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _line(corner: Corner, folder: Path, line: str) -> Said:
    """A line of bash; `? LINE` is repeated until it succeeds, `! WORD` kills the processes with this word."""
    if line.startswith("! "):
        return _kill(corner, line[2:])
    if not line.startswith("? "):
        return _call(corner, folder, line, LIMIT)
    deadline = time.monotonic() + PATIENCE
    while (said := _call(corner, folder, line[2:], LIMIT)).code != 0 and time.monotonic() < deadline:
        time.sleep(SETTLING)
    return said


def _kill(corner: Corner, word: str) -> Said:
    """Kill those whose command line has this word, or all: what a power cut does."""
    processes = corner.processes()
    for pid, line in processes.items():
        if word == KILLED or word in (os.path.basename(part) for part in line.split()):
            _end(pid)
    for pid in _strays(corner) if word == KILLED else ():
        _end(pid)
    time.sleep(5 * SETTLING)
    return Said(f"kill -9 ({word})", "", 0)


def _said(corner: Corner, folder: Path, line: str, cell: Cell) -> Said:
    if cell.terminal:
        return _on_a_terminal(corner, folder, line, cell.limit)
    return _call(corner, folder, line, cell.limit or LIMIT)


def _call(corner: Corner, folder: Path, line: str, limit: float) -> Said:
    path = corner.folder / "said"
    with path.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", line], cwd=folder, env=corner.environment, stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
    return Said(line, _plain(corner, path.read_bytes()), code)


def _on_a_terminal(corner: Corner, folder: Path, line: str, limit: float) -> Said:
    """On a terminal of 100×30, which is taken away after some seconds."""
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe("bash", ["bash", "-c", f"stty cols 100 rows 30; {line}"], _text(corner.environment))
    out = b""
    deadline = time.monotonic() + limit
    with contextlib.suppress(OSError):
        while (left := deadline - time.monotonic()) > 0:
            if select.select([descriptor], [], [], left)[0]:
                out += os.read(descriptor, 65536)
    os.close(descriptor)
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return Said(line, _plain(corner, out), os.waitstatus_to_exitcode(status) if ended else None)


def _text(environment: Mapping[str, str]) -> dict[str, str]:
    return dict(environment)


def _plain(corner: Corner, data: bytes) -> str:
    """Without what a terminal obeys, and without the places of this machine."""
    text = ESCAPES.sub("", data.decode(errors="replace")).replace("\r\n", "\n").replace("\r", "\n").replace("\x0f", "")
    return text.replace(str(corner.home), "~").replace(str(corner.folder), "/tmp").replace(os.getcwd(), "~").strip("\n")


def shown(lines: Sequence[str], most: int, width: int) -> list[str]:
    """The first lines, each cut; what was left out is said."""
    kept = [line if len(line) <= width else line[: width - 1] + "…" for line in lines[:most]]
    return [*kept, f"… ({len(lines) - most} more lines)"] if len(lines) > most else kept
