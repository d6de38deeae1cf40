"""`status`, in full."""

from __future__ import annotations

from typing import Annotated

import typer

from . import quick
from .finding import find
from .options import ConfigOption, JsonOption, WorkspaceOption


def status(
    context: typer.Context,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew at every change, until Ctrl-C.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="List every task, even if there are very many.")
    ] = False,
) -> None:
    """Show the tasks, the slots and the scheduler.

    \b
    Examples:
      tinksched status
      tinksched status --watch
      tinksched status --json
    """
    found = find(context, workspace, config)
    if watch:
        from . import render

        render.watch(found)
    else:
        quick.show(found, as_json=as_json, everything=everything)
