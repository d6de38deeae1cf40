"""`doctor`: is everything in order, and if the database is damaged, mend it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import NothingToActOn, WorkspaceError
from ..operations import doctor as examining
from ..operations import repair as repairing
from ..operations.doctor import Level
from ..operations.repair import Repaired
from ..operations.workspace import Workspace
from . import render
from .finding import find, is_named
from .options import ConfigOption, JsonOption, WorkspaceOption


def doctor(
    context: typer.Context,
    repair: Annotated[
        bool, typer.Option("--repair", help="Keep a damaged database aside, and make a new one of what is left.")
    ] = False,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine and the workspace. Tmux, logging out, the driver, the config, permissions, locks, the disk.
    Exit code 1 if something is broken.

    Outside of a workspace it looks at the machine alone, and at the personal workspace if there is one.

    \b
    Examples:
      tinksched doctor
      tinksched doctor --repair    # of a damaged database
    """
    found = _workspace(context, workspace, config)
    if repair:
        if found is None:
            raise NothingToActOn("this folder is in no workspace: there is nothing to repair", hint="--workspace DIR")
        _say(repairing.repair(found))
    checks = examining.examine(found)
    if as_json:
        print(json.dumps(examining.json_of(checks), indent=2, ensure_ascii=False))
    else:
        render.checks(checks)
    if any(check.level is Level.BAD for check in checks):
        raise typer.Exit(1)


def _workspace(context: typer.Context, workspace: Path | None, config: Path | None) -> Workspace | None:
    """The workspace that is meant; None where none is meant, and this folder is in none."""
    try:
        return find(context, workspace, config, last_good=True)
    except WorkspaceError:
        if is_named(context, workspace, config):
            raise
        render.message("this folder is in no workspace: only the machine is checked")
        return None


def _say(done: Repaired | None) -> None:
    """What was recovered and what not, on standard error."""
    if done is None:
        render.message("the database is whole: there is nothing to repair")
        return
    for path in done.aside:
        render.message(f"kept as it was: {path}")
    for tasks, what in (
        (done.from_database, "read from the damaged database"),
        (done.from_runs, "runs found by their folders"),
        (done.active, "active: they run, or ended and will be recorded by the next scheduler"),
        (done.lost, "lost: they were active, and nothing is left of their runs"),
        (done.unknown, "RUNNING, but nothing else is known of these runs: end them before you start anything"),
        (done.new, "without any record or marker: `tinksched start` will queue them as new"),
    ):
        if tasks:
            render.message(f"{len(tasks)} {what}: {render.names(tasks)}")
    render.message("nothing was started; look at `tinksched status`, then go on with `tinksched start`")
