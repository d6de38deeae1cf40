"""The jobs: what is typed with each tool, from jobs.yml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

_OF_JOB: dict[str, Any] = {"job": None, "words": None, "worse": False, "error": False}
FILE = Path(__file__).with_name("jobs.yml")


@dataclass(frozen=True, slots=True)
class Cell:
    """How one job is done with one tool.

    Attributes:
        typed: the lines of bash that a person types; none if the tool can't do it.
        before: what comes before: others' jobs, a config. Not counted.
        after: what is looked at afterwards. Not counted.
        note: what isn't seen in the lines.
        partly: what of the job is left undone; it is then not compared by keystrokes.
        sees: a regular expression that must be found in what was printed, else the cell says so.
        limit: seconds after which a line that does not end is ended; 0: the usual.
        terminal: whether it is typed on a terminal.
    """

    typed: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    note: str = ""
    partly: str = ""
    sees: str = ""
    limit: float = 0.0
    terminal: bool = False

    @property
    def keystrokes(self) -> int:
        """Characters of all lines, each with its enter."""
        return sum(len(line) + 1 for line in self.typed)


@dataclass(frozen=True, slots=True)
class Job:
    """A row: a job, its cells by tool, and in words how what is printed compares, on success and on error.

    `worse`: what we print is poorer. `error`: what is typed is wrong, so that its keystrokes are not compared.
    """

    title: str
    cells: Mapping[str, Cell]
    words: str
    worse: bool = False
    error: bool = False


def load(path: Path = FILE) -> list[Job]:
    """The jobs in their order."""
    return [_job(entry) for entry in YAML(typ="safe").load(path.read_text())]


def _job(entry: dict[str, Any]) -> Job:
    title, words, worse, error = (entry.pop(key, default) for key, default in _OF_JOB.items())
    return Job(title, {tool: _cell(value) for tool, value in entry.items()}, words, worse, error)


def _cell(value: dict[str, Any] | str) -> Cell:
    """A cell; a text alone says why there is none."""
    if isinstance(value, str):
        return Cell(note=value)
    lines = {key: tuple(str(value.pop(key)).splitlines()) for key in ("typed", "before", "after") if key in value}
    return Cell(**lines, **value)
