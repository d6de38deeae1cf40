"""The workspace that a command means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from ..operations import workspace as workspaces
from ..operations.selection import Wanted
from . import render
from .options import ELSEWHERE, UNSAID

_ON_THE_WHOLE = (
    "start",
    "stop",
    "kill-all",
    "pause",
    "resume",
    "doctor",
)  # they name no task that would show where they work
_BEFORE = ("workspace", "config")  # the options that may also stand before the command's name


def find(
    context: typer.Context, workspace: Path | None, config: Path | None, *, last_good: bool = False
) -> workspaces.Workspace:
    """The workspace that the command means: its own options, then those before the command's name.

    With `last_good`, a configuration that has problems gives way to the one that tasks were last queued with, and that
    is said.
    """
    given = {name: Path(value) for name, value in context.find_root().params.items() if name in _BEFORE and value}
    folder, file = workspace or given.get("workspace"), config or given.get("config")
    found = workspaces.find(folder, file, last_good=last_good)
    if found.trouble is not None:
        for problem in found.trouble.problems:
            render.message(str(problem))
        render.message("until that is mended, this goes by the configuration that tasks were last queued with")
    if not folder and not file and workspaces.is_fallback(found):
        if context.info_name in _ON_THE_WHOLE:
            render.message(ELSEWHERE)
        else:
            context.meta[UNSAID] = True
    return found


def is_named(context: typer.Context, workspace: Path | None, config: Path | None) -> bool:
    """Whether the command line says which workspace is meant."""
    given = context.find_root().params
    return bool(workspace or config or any(given.get(name) for name in _BEFORE))


def wanted(selectors: Sequence[str] | None, failed: bool, everything: bool) -> Wanted:
    """The tasks that a command line means."""
    return Wanted(tuple(selectors or ()), failed, everything)
