"""`sweep`: a grid of configs from a template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..operations import sweep as sweeping
from ..operations.sweep import Fate, Sweep
from ..operations.workspace import Workspace
from . import render
from .answers import answer
from .finding import find
from .options import ConfigOption, JsonOption, WorkspaceOption

_FIRST = 20  # points that are listed, of more than twice as many


def sweep(
    context: typer.Context,
    template: Annotated[str, typer.Argument(metavar="TEMPLATE", help="A config: a path, or a file of config_dir.")],
    grid: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUES...", help="lr=0.1,0.01  model.depth=2,4  seed=1..5  +new.key=a,b")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written and write nothing.")] = False,
    start: Annotated[bool, typer.Option("--start", help="Queue them, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Write more than 1,000 configs, too.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace configs that differ; each is kept as NAME.bak-TIME.")
    ] = False,
    out_dir: Annotated[
        Path | None, typer.Option("--out-dir", metavar="DIR", help="Write to another folder than config_dir.")
    ] = None,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a config for each point of a grid. From a template, whose comments and order stay.

    \b
    Examples:
      tinksched sweep base.yml lr=0.1,0.01 model.depth=2,4 --dry-run
      tinksched sweep base.yml seed=1..5 --start
    """
    found = find(context, workspace, config)
    made = sweeping.plan(found.settings, template, grid, out_dir=out_dir, many=yes or dry_run)
    kept = [] if dry_run else sweeping.write(made, force=force)
    if not as_json:
        _say(made, dry_run, then=start)
    for copy in kept:
        render.message(f"kept: {copy}")
    queued = _start(found, made, as_json) if start and not dry_run else ()
    if as_json:
        same = [(point.name, "exists") for point in made.of(Fate.SAME)]
        done = () if dry_run else [point.name for point in made.points if point.fate is not Fate.SAME]
        answer("sweep", done, same, written=not dry_run, queued=[*queued], **made.json())


def _say(made: Sweep, dry: bool, *, then: bool) -> None:
    words = {Fate.NEW: "would write" if dry else "written", Fate.SAME: "exists",
             Fate.OTHER: "would be refused" if dry else "replaced"}  # fmt: skip
    shown = made.points if len(made.points) <= 2 * _FIRST else made.points[:_FIRST]
    width = max(len(words[point.fate]) for point in shown)
    for point in shown:
        values = "  ".join(f"{key}={value.said}" for key, value in point.values.items())
        print(f"{words[point.fate]:{width}}  {point.path.name}   {values}")
    if len(shown) < len(made.points):
        print(f"and {len(made.points) - len(shown)} more")
    counts = [
        f"{len(found)} {'new' if dry and fate is Fate.NEW else words[fate]}"
        for fate in Fate
        if (found := made.of(fate))
    ]
    render.message(f"{len(made.points)} points in {made.folder}: {', '.join(counts)}")
    if made.is_task_folder and not dry and not then:
        render.message("tinksched start queues what is new")


def _start(found: Workspace, made: Sweep, as_json: bool) -> Sequence[str]:
    """The tasks that were queued."""
    done = sweeping.queue(found, made)
    if done.left:
        render.message(f"left {done.left} that were queued before (tinksched retry runs them again)")
    if done.plan is not None and not as_json:
        render.plan(done.plan, dry=False)
    render.message(done.started)
    return done.plan.queued if done.plan is not None else ()
