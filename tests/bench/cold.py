"""Cold start: what a command costs beside the interpreter that it runs on."""

from __future__ import annotations

import os
import sys

from .place import Place
from .results import Results, say
from .systems import LONG, Tinksched, names

PYTHON = "python3 -c pass"


def cold(place: Place, results: Results, rounds: int) -> None:
    """Commands in alternation on a workspace with ten tasks, of which four run."""
    with place.corner("cold") as corner:
        command = [*place.task, os.fspath(corner.record().path), LONG]
        folder = Tinksched().workspace(corner, command, 4, names("t", 10))
        corner.call("tinksched", "start", "--workspace", folder)
        commands = {
            PYTHON: (sys.executable, "-c", "pass"),
            "tinksched status": ("tinksched", "status", "--workspace", folder),
            "tinksched status --json": ("tinksched", "status", "--json", "--workspace", folder),
            "tinksched --help": ("tinksched", "--help"),
        }
        say(f"cold start, {rounds} rounds")
        for number in range(-2, rounds):
            for name, words in commands.items():
                seconds = corner.call(*words)
                if number >= 0:
                    results.add("cold", name, [seconds])
