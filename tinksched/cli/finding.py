"""The workspace that a command means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from ..operations import workspace as workspaces
from ..operations.selection import Wanted

_BEFORE = ("workspace", "config")  # the options that may also stand before the command's name


def find(
    context: typer.Context, workspace: Path | None, config: Path | None, *, last_good: bool = False
) -> workspaces.Workspace:
    """The workspace that the command means: its own options, then those before the command's name.

    With `last_good`, a configuration that has problems gives way to the one that tasks were last queued with.
    """
    given = {name: Path(value) for name, value in context.find_root().params.items() if name in _BEFORE and value}
    return workspaces.find(workspace or given.get("workspace"), config or given.get("config"), last_good=last_good)


def wanted(selectors: Sequence[str] | None, failed: bool, everything: bool) -> Wanted:
    """The tasks that a command line means."""
    return Wanted(tuple(selectors or ()), failed, everything)
