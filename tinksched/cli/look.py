"""The commands that only look: `gpus`, `explain`, `show`, `logs`, `attach`, `config`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from ..operations import history, occupancy, selection
from ..operations import logs as logging
from ..operations import status as looking
from ..operations.selection import Wanted
from ..operations.snapshot import JSON_VERSION, TaskStatus, diagnosis_json
from ..operations.workspace import Workspace
from . import render
from .finding import find, wanted
from .options import AllOption, ConfigOption, FailedOption, JsonOption, WorkspaceOption

TaskArgument = Annotated[
    str,
    typer.Argument(
        metavar="[TASK]",
        help="The task: its name, its number, or a glob of one; @, the one queued last, if none is named.",
    ),
]

TasksArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TASK]...",
        help="Tasks: names, globs, numbers (1-3,5); @, the one queued last, if none is named.",
        show_default=False,
    ),
]

AttemptOption = Annotated[int | None, typer.Option("--attempt", metavar="N", help="An earlier run of the task.")]


def gpus(as_json: JsonOption = False) -> None:
    """Show this machine's GPUs, and who is on them since when. All users and other programs, and who waits.

    \b
    Examples:
      tinksched gpus
      tinksched gpus --json
    """
    found = occupancy.occupancy()
    if as_json:
        print(json.dumps(found.json(), indent=2, ensure_ascii=False))
    else:
        render.occupancy(found)


def explain(
    context: typer.Context,
    selectors: TasksArgument = None,
    failed: FailedOption = False,
    everything: AllOption = False,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a task waits, or how it ended.

    \b
    Examples:
      tinksched explain exp1
      tinksched explain --failed
      tinksched explain @    # the task that was queued last
    """
    there, names = _some(context, workspace, config, wanted(selectors, failed, everything))
    explained = [looking.explain(there, name, relative=not as_json) for name in names]
    if as_json:
        _print_json([_explanation_json(*one) for one in explained])
        return
    for number, (found, sentences) in enumerate(explained):
        print(end="\n" * (number > 0))
        render.explanation(found, sentences)


def _explanation_json(found: TaskStatus, sentences: list[str]) -> dict[str, object]:
    record = {"version": JSON_VERSION, "task": found.name, "state": found.state, "text": sentences}
    reason = {"code": found.reason.code.value, "detail": dict(found.reason.detail)} if found.reason else None
    return {**record, "reason": reason, "diagnosis": diagnosis_json(found.reason)}


def show(
    context: typer.Context,
    selectors: TasksArgument = None,
    failed: FailedOption = False,
    everything: AllOption = False,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    attempt: AttemptOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print all that is on record about a task. Every run, what exactly it ran, and what its config changed.

    \b
    Examples:
      tinksched show exp1
      tinksched show exp1 --attempt 1
    """
    there, names = _some(context, workspace, config, wanted(selectors, failed, everything))
    found = [history.show(there, name, attempt) for name in names]
    if as_json:
        _print_json([one.json() for one in found])
        return
    for number, one in enumerate(found):
        print(end="\n" * (number > 0))
        render.history(one)


def logs(
    context: typer.Context,
    task: TaskArgument = "@",
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the run ends; wait for its start.")
    ] = False,
    attempt: AttemptOption = None,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
) -> None:
    """Print what a run printed. Without -f, what a progress bar overwrote is left out.

    \b
    Examples:
      tinksched logs exp1
      tinksched logs @ -f    # the newest task's, until it ends
      tinksched logs exp1 --attempt 1
    """
    found, name = _one(context, workspace, config, task)
    if follow and attempt is None and logging.waits(found, name):
        _, sentences = looking.explain(found, name)
        render.message(
            f"{name} has not run yet. {sentences[0]} What it prints follows once it starts; Ctrl-C ends this."
        )
        logging.await_start(found, name)
    log = logging.find(found, name, attempt)
    if follow:
        for chunk in logging.follow(found, name, log):
            sys.stdout.buffer.write(chunk if sys.stdout.isatty() else chunk.replace(b"\r\n", b"\n"))
            sys.stdout.buffer.flush()
        return
    try:
        data = log.path.read_bytes()
    except OSError:
        render.message(f"{log.path} is {'not there yet' if log.live else 'gone'}")
        return
    sys.stdout.write(logging.clean(data))


def attach(
    context: typer.Context,
    task: TaskArgument = "@",
    write: Annotated[bool, typer.Option("--write", help="Let what you type reach the program.")] = False,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
) -> None:
    """Show the live session of a task. Leave it with Ctrl-b d; the task goes on.

    Inside of tmux the terminal is switched there: Ctrl-b L brings it back.

    \b
    Examples:
      tinksched attach exp1
      tinksched attach exp1 --write
    """
    found, name = _one(context, workspace, config, task)
    command, nested = logging.attach_command(found, name, write=write)
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise UsageError("attach needs a terminal, and this is none", hint=f"tinksched logs {name} -f")
    if nested:
        render.message("you are inside of another tmux: leave the task's session with Ctrl-b Ctrl-b d")
    sys.stdout.flush()
    os.execvp(command[0], command)


def config(
    context: typer.Context, workspace: WorkspaceOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show every setting, its value, and where that came from.

    \b
    Examples:
      tinksched config
      tinksched config --json
    """
    settings = find(context, workspace, config).settings
    if as_json:
        print(json.dumps(render.settings_json(settings), indent=2, ensure_ascii=False))
    else:
        render.settings(settings)


def _print_json(records: list[dict[str, object]]) -> None:
    """One as it is, several as a list."""
    several = {"version": JSON_VERSION, "tasks": records}
    print(json.dumps(records[0] if len(records) == 1 else several, indent=2, ensure_ascii=False))


def _some(
    context: typer.Context, workspace: Path | None, config: Path | None, chosen: Wanted
) -> tuple[Workspace, list[str]]:
    """The workspace, and the tasks of it that are meant: the newest if none is named."""
    found = find(context, workspace, config, last_good=True)
    return found, selection.some_of(found, chosen or Wanted(("@",)))


def _one(context: typer.Context, workspace: Path | None, config: Path | None, task: str) -> tuple[Workspace, str]:
    """The workspace, and the one task of it that a selector means."""
    found = find(context, workspace, config, last_good=True)
    return found, selection.one_of(found, task)
