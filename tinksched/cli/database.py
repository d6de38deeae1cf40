"""`tinksched db`: copies of the server's database, a look at it, and what is forgotten."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ..errors import NothingToActOn, TinkschedError, UsageError
from .serve import ServerOption, require_server

database_commands = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


@database_commands.callback()
def db() -> None:
    """Back up, restore, check and clean the server's database.

    \b
    Example:
      tinksched db backup /backup/jobs.db
    """


@database_commands.command("backup")
def backup(
    file: FileArgument,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    config: ServerOption = None,
) -> None:
    """Copy the database to a file, consistent to an instant. The server may work on.

    It holds jobs and tokens (hashes), not what jobs printed. Nobody else can read it.

    \b
    Example:
      tinksched db backup /backup/jobs.db
    """
    require_server()
    from ..server import backup as backups
    from ..server import state

    backups.backup(state.find(config), file, force=force)
    print(f"written: {file} ({file.stat().st_size} bytes)")


@database_commands.command("restore")
def restore(file: FileArgument, config: ServerOption = None) -> None:
    """Put a backup in the place of the database. Not while a server works; the database of before is kept.

    \b
    Example:
      tinksched db restore /backup/jobs.db
    """
    require_server()
    from ..server import backup as backups
    from ..server import state

    done = backups.restore(state.find(config), file)
    print(f"restored: {file}" + (f"; the one of before: {done.kept}" if done.kept else ""))
    if done.given_up:
        print(f"have run since, so they don't run again: {', '.join(done.given_up)}")


@database_commands.command("check")
def check(config: ServerOption = None) -> None:
    """Look for damage in the database, and for jobs and folders that don't belong together. Changes nothing.

    \b
    Example:
      tinksched db check
    """
    require_server()
    from ..server import backup as backups
    from ..server import state

    found, holds = backups.problems(state.find(config))
    for line in found:
        print(line)
    if found:
        raise TinkschedError(f"{len(found)} problem{'s' * (len(found) > 1)} ({holds})")
    print(f"ok: {holds}")


@database_commands.command("clean")
def clean(
    older_than: Annotated[str, typer.Option("--older-than", metavar="TIME", help="What ended before 12h, 30d …")],
    results: Annotated[bool, typer.Option("--results", help="The results files, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    config: ServerOption = None,
) -> None:
    """Forget jobs that have ended: their records, folders and outputs. Asks first, and needs --yes where it can't ask.

    \b
    Example:
      tinksched db clean --older-than 30d --results
    """
    require_server()
    from ..operations import times
    from ..server import housekeeping, state

    before = time.time() - times.span(older_than, "--older-than")
    settings = state.find(config)
    place = state.existing(settings)
    found = housekeeping.find(settings, place, before, results=results)
    if not found.jobs and not found.folders:
        raise NothingToActOn(f"no job ended more than {older_than} ago")
    if dry_run:
        print(f"would remove {found.words}")
        return
    if not yes:
        _ask(found.words)
    count = housekeeping.remove(settings, place, found)
    left = f"; {len(found.jobs) - count} were queued again and stay" if count < len(found.jobs) else ""
    print(f"removed {found.words}{left}")


def _ask(what: str) -> None:
    """Raises UsageError: nobody can be asked. TinkschedError: the answer is no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"this would remove {what}; nothing was removed", hint="--yes does it; --dry-run only tells")
    sys.stderr.write(f"remove {what}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise TinkschedError("nothing was removed")
