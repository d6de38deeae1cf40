"""Every error that a user can meet, in one tree.

    TinkschedError                exit 1   something went wrong that the user should know
    ├── UsageError                exit 2   wrong use, bad input, or a machine that lacks something
    │   ├── ConfigError           exit 2   scheduler_config.yml, with every problem that it has
    │   ├── WorkspaceError        exit 2   the folder is not a workspace, or not one that may be used
    │   ├── StoreError            exit 2   the state database can't be read or written
    │   │   ├── Damaged           exit 2   it is broken, gone, or another program's: see `doctor --repair`
    │   │   └── Unwritable        exit 2   its disk is full or read-only: it may work again later
    │   └── MissingProgram        exit 2   tmux or an interpreter is not there, or too old
    ├── NothingToActOn            exit 3   no such task, or it is not in a state for this
    ├── TimedOut                  exit 124 it was waited for, and not done in time (as timeout(1) says it)
    └── Conflict                  exit 1   somebody else changed it first; nothing was written

A message says what happened, what is allowed, and what to do next. `hint` is the "do next" part where it is a
command or a sentence of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class TinkschedError(Exception):
    """The base of every error that is meant for a user."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(TinkschedError):
    """Wrong use, bad input, or a machine that lacks something. Nothing was started."""

    exit_code = 2


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong in a file. Lines and columns count from 1; 0 stands for the file as a whole."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.message}"


class ConfigError(UsageError):
    """The configuration has problems. All of them are listed, not only the first one."""

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems), hint=hint)


class WorkspaceError(UsageError):
    """The folder is not a workspace, or it belongs to somebody else or to another host."""


class StoreError(UsageError):
    """The state database can't be used. It is never replaced by an empty one."""


class Damaged(StoreError):
    """The state database is broken, empty, gone, or another program's. It is kept as it is."""


class Unwritable(StoreError):
    """The disk of the state is full, read-only or over quota at present. What is on it is all right."""


class MissingProgram(UsageError):
    """A program that is needed is not on this machine, or is too old."""


class NothingToActOn(TinkschedError):
    """There is no such task, or none in a state in which the command makes sense."""

    exit_code = 3


class Conflict(TinkschedError):
    """The record was no longer in the state that the change was made for. Nothing was written."""


class TimedOut(TinkschedError):
    """What was waited for was not done in time."""

    exit_code = 124
