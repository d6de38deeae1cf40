"""The options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..operations import workspace as workspaces

WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", metavar="DIR", help="The workspace (default: this folder, or the nearest above it)."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The configuration (default: scheduler_config.yml)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, with a version number, for programs.")]


_BEFORE = ("workspace", "config")  # the options that may also stand before the command's name


def find(
    context: typer.Context, workspace: Path | None, config: Path | None, *, last_good: bool = False
) -> workspaces.Workspace:
    """The workspace that the command means: its own options, then those before the command's name.

    With `last_good`, a configuration that has problems gives way to the one that tasks were last queued with.
    """
    given = {name: Path(value) for name, value in context.find_root().params.items() if name in _BEFORE and value}
    return workspaces.find(workspace or given.get("workspace"), config or given.get("config"), last_good=last_good)
