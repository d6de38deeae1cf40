"""`status`, in full."""

from __future__ import annotations

from typing import Annotated

import typer

from . import quick
from .finding import find, wanted
from .options import ConfigOption, FailedOption, JsonOption, SelectorsArgument, WorkspaceOption


def status(
    context: typer.Context,
    selectors: SelectorsArgument = None,
    failed: FailedOption = False,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew at every change, until Ctrl-C.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="List every task, even if there are very many.")
    ] = False,
) -> None:
    """Show the tasks, the slots and the scheduler.

    If tasks are named, only those.

    \b
    Examples:
      tinksched status
      tinksched status 'exp*' 3-5
      tinksched status --failed
      tinksched status --watch
      tinksched status --json
    """
    found = find(context, workspace, config)
    chosen = wanted(selectors, failed, everything=False)
    if watch:
        from . import render

        render.watch(found, chosen)
    else:
        quick.show(found, as_json=as_json, everything=everything, wanted=chosen)
