"""`doctor`: is everything in order, and if the database is damaged, mend it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..operations import doctor as examining
from ..operations import repair as repairing
from ..operations.doctor import Level
from ..operations.repair import Repaired
from . import render
from .finding import find
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

    \b
    Examples:
      tinksched doctor
      tinksched doctor --repair    # of a damaged database
    """
    found = find(context, workspace, config, last_good=True)
    if repair:
        _say(repairing.repair(found))
    checks = examining.examine(found)
    if as_json:
        print(json.dumps(examining.json_of(checks), indent=2, ensure_ascii=False))
    else:
        render.checks(checks)
    if any(check.level is Level.BAD for check in checks):
        raise typer.Exit(1)


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
