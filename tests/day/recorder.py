"""Runs the commands of a story in a laboratory, and keeps what they print as Markdown, without the names of this
machine.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.e2e.test_watch import Terminal
from tests.support import Bench, Lab

WIDTH = 100  # columns
SIZE = (WIDTH, 22)  # of what is shown on a whole screen
TIMEOUT = 120.0


class Recorder:
    """The transcript so far. Commands run in `cwd`, which the command `cd` changes."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.home = Path(lab.environment["HOME"])
        self.cwd = self.home
        self.commands: list[str] = []
        self._parts: list[str] = []
        self._block: list[str] = []
        self._terminal: Terminal | None = None
        self._private = {
            str(self.home): "~",
            str(lab.leases): "/run/lock/tinksched",
            str(lab.folder): "~",
            lab.environment["TMUX_TMPDIR"]: "/tmp",
            str(Path(sys.executable).parent): "/usr/bin",
            str(Path(sys.executable).resolve().parent): "/usr/bin",
            sys.prefix: "/usr",
            os.uname().release: "6.12.0",
            socket.gethostname(): "gpubox",
        }

    def say(self, text: str) -> None:
        """Words between the commands; a heading begins with `#`."""
        self._close()
        self._parts.append(text)

    def run(self, line: str, code: int = 0, *, meanwhile: Callable[[], None] | None = None) -> None:
        """Run a line of the shell and keep it with what it prints. Another exit code than `code` is an error.

        `meanwhile` is called when the command has begun.
        """
        if line.startswith("cd "):
            self.cwd = Path(line[3:].replace("~", str(self.home)))
            self._keep(line, "")
            return
        environment = {**self.lab.environment, "COLUMNS": str(WIDTH), "PWD": str(self.cwd)}
        with subprocess.Popen(
            ["sh", "-c", line], cwd=self.cwd, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            if meanwhile is not None:
                meanwhile()
            shown, _ = process.communicate(timeout=TIMEOUT)
        assert process.returncode == code, f"{line}: exit code {process.returncode}\n{shown}"
        self._keep(line, shown + (f"(exit code {code})\n" if code else ""))

    def see(self, line: str, there: str, leave: str) -> None:
        """Run a line on a whole screen, keep what is to be seen when these words are there, and leave it by a key."""
        terminal = self._terminal = self._terminal or Terminal(Bench(self.lab, self.cwd), SIZE)
        terminal.line(f"clear; {line}")
        shown = terminal.until(lambda text: there in text and text.strip() != "$")
        terminal.type(*leave.split())
        terminal.until(lambda text: text.rstrip().endswith("$"))
        self._keep(line, shown.rstrip() + "\n")

    def text(self) -> str:
        """The transcript."""
        self._close()
        return "\n\n".join(self._parts) + "\n"

    def _keep(self, line: str, shown: str) -> None:
        self.commands.append(line)
        self._block.append(f"$ {line}\n{self._without_names(shown)}")

    def _close(self) -> None:
        if self._block:
            lines = "".join(self._block).splitlines()
            self._parts.append("\n".join(["```text", *(line.rstrip() for line in lines), "```"]))
            self._block = []

    def _without_names(self, text: str) -> str:
        """Columns of tables stay where they are; of an empty screen one line is left."""
        for name, other in sorted(self._private.items(), key=lambda item: -len(item[0])):
            gap = " " * (len(name) - len(other))
            text = re.sub(rf"{re.escape(name)}(\S*  )", lambda found, it=other + "{}" + gap: it.format(found[1]), text)
            text = text.replace(name, other)
        text = re.sub(r"~?/\S*…( *)", lambda found: f"~/…{' ' * (len(found[0]) - 3)}", text)  # one that was cut
        return re.sub(r"\n{3,}", "\n\n", text)
