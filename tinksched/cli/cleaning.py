"""`tinksched clean`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..errors import TinkschedError, UsageError
from ..operations import cleaning, times
from ..operations.cleaning import Kinds, Rubbish
from . import render
from .answers import answer
from .finding import find, wanted
from .options import AllOption, ConfigOption, FailedOption, JsonOption, SelectorsArgument, WorkspaceOption

_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def clean(
    context: typer.Context,
    selectors: SelectorsArgument = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="TIME", help="Only what has been done for 12h, 30d …")
    ] = None,
    logs: Annotated[bool, typer.Option("--logs", help="Only the logs; what is on record stays.")] = False,
    sessions: Annotated[bool, typer.Option("--sessions", help="Only the kept sessions.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    failed: FailedOption = False,
    everything: AllOption = False,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget finished tasks: records, logs and kept sessions. Asks first, and needs --yes where it can't ask.

    All that are done if none are named. What is queued or running is never touched, nor are completion markers: what
    completed stays so for `start`.

    \b
    Examples:
      tinksched clean
      tinksched clean --older-than 30d
      tinksched clean --logs --dry-run   # says what it would remove
      tinksched clean 'exp*' --yes
    """
    chosen = wanted(selectors, failed, everything)
    seconds = None if older_than is None else times.span(older_than, "--older-than")
    kinds = Kinds(records=not (logs or sessions), sessions=sessions or not logs, logs=logs or not sessions)
    with find(context, workspace, config).open_existing() as opened:
        found = cleaning.find(opened, chosen, seconds, kinds)
        if not dry_run and not yes:
            _ask(found)
        count = len(found.tasks) if dry_run else cleaning.remove(opened, found)
        if as_json:
            done = () if dry_run else [task.name for task in found.tasks]
            answer("clean", done, found.left, **found.json(removed=not dry_run))
        else:
            print(f"{'would remove' if dry_run else 'removed'} {_summary(found, count)}")
        render.left(found.left)


def _ask(found: Rubbish) -> None:
    """Raises UsageError: nobody can be asked. TinkschedError: the answer is no."""
    question = f"remove {_summary(found, len(found.tasks))}?"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"this would {question[:-1]}; nothing was removed", hint="--yes does it; --dry-run only tells")
    sys.stdout.flush()
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise TinkschedError("nothing was removed")


def _summary(found: Rubbish, count: int) -> str:
    """What is removed, in words."""
    named = render.names([task.name for task in found.tasks])
    what = [f"{count} record{'s' * (count != 1)}"] if found.kinds.records else []
    if found.kinds.sessions:
        what.append(f"{len(found.sessions)} kept session{'s' * (len(found.sessions) != 1)}")
    if found.kinds.logs:
        what.append(f"{len(found.logs)} log{'s' * (len(found.logs) != 1)} ({_size(found.log_bytes)})")
    return f"{', '.join(what)} of {named}"


def _size(count: int) -> str:
    unit = next(((factor, name) for factor, name in _UNITS if count >= factor), None)
    return f"{count / unit[0]:.1f} {unit[1]}" if unit else f"{count} B"
