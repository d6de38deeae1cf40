"""The commands that only look: `gpus`, `explain`, `show`, `logs`, `attach`, `config`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..operations import history, occupancy
from ..operations import logs as logging
from ..operations import status as looking
from . import render
from .finding import find
from .options import ConfigOption, JsonOption, WorkspaceOption

TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="The task: its config's name without .yml.")]

AttemptOption = Annotated[int | None, typer.Option("--attempt", metavar="N", help="An earlier run of the task.")]


def gpus(as_json: JsonOption = False) -> None:
    """Show this machine's GPUs: what they do, who is on them since when, all users and other programs, and who waits.

    Examples:  tinksched gpus   |   tinksched gpus --json
    """
    found = occupancy.occupancy()
    if as_json:
        print(json.dumps(found.json(), indent=2, ensure_ascii=False))
    else:
        render.occupancy(found)


def explain(
    context: typer.Context,
    task: TaskArgument,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a task waits, or how it ended.

    Example:  tinksched explain exp1
    """
    found, sentences = looking.explain(find(context, workspace, config), _name(task))
    if as_json:
        record = {"version": looking.JSON_VERSION, "task": found.name, "state": found.state, "text": sentences}
        reason = {"code": found.reason.code.value, "detail": dict(found.reason.detail)} if found.reason else None
        more = {"reason": reason, "diagnosis": looking.diagnosis_json(found.reason)}
        print(json.dumps({**record, **more}, indent=2, ensure_ascii=False))
        return
    render.explanation(found, sentences)


def show(
    context: typer.Context,
    task: TaskArgument,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    attempt: AttemptOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print everything on record about a task: every run, what exactly it ran, and what its config changed.

    Examples:  tinksched show exp1   |   tinksched show exp1 --attempt 1
    """
    found = history.show(find(context, workspace, config), _name(task), attempt)
    if as_json:
        print(json.dumps(found.json(), indent=2, ensure_ascii=False))
    else:
        render.history(found)


def logs(
    context: typer.Context,
    task: TaskArgument,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run ends.")] = False,
    attempt: AttemptOption = None,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
) -> None:
    """Print what a run printed. Without -f, what a progress bar overwrote is left out.

    Examples:  tinksched logs exp1   |   tinksched logs exp1 -f   |   tinksched logs exp1 --attempt 1
    """
    found = find(context, workspace, config)
    log = logging.find(found, _name(task), attempt)
    if follow:
        for chunk in logging.follow(found, _name(task), log):
            sys.stdout.buffer.write(chunk if sys.stdout.isatty() else chunk.replace(b"\r\n", b"\n"))
            sys.stdout.buffer.flush()
        return
    try:
        data = log.path.read_bytes()
    except OSError:
        render.message(f"{log.path} is not there yet")
        return
    sys.stdout.write(logging.clean(data))


def attach(
    context: typer.Context,
    task: TaskArgument,
    write: Annotated[bool, typer.Option("--write", help="Let what you type reach the program.")] = False,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
) -> None:
    """Show the live session of a task. Leave it with Ctrl-b d; the task goes on.

    Example:  tinksched attach exp1
    """
    command = logging.attach_command(find(context, workspace, config), _name(task), write=write)
    if os.environ.get("TMUX"):
        render.message("you are inside of tmux already: leave the task's session with Ctrl-b Ctrl-b d")
    sys.stdout.flush()
    os.execvp(command[0], command)


def config(
    context: typer.Context, workspace: WorkspaceOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show every setting, its value, and where that came from."""
    settings = find(context, workspace, config).settings
    if as_json:
        print(json.dumps(render.settings_json(settings), indent=2, ensure_ascii=False))
    else:
        render.settings(settings)


def _name(task: str) -> str:
    """A config's file name stands for its task."""
    return Path(task).stem if task.endswith((".yml", ".yaml")) else task
