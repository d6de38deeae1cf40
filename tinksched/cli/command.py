"""`tinksched run`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..config import asked
from ..core import instants
from ..errors import UsageError, WorkspaceError
from ..operations import commands, logs, personal, times
from ..operations import workspace as workspaces
from ..operations.commands import Order
from ..operations.workspace import OpenWorkspace, Workspace
from . import render
from .answers import answer
from .finding import find, is_named
from .options import ConfigOption, JsonOption, WorkspaceOption
from .tables import printable
from .waiting import AtOption, found_text, until_done

_LAST_LINES = 20  # of what a command printed that was waited for


def run(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="The command and its arguments.")],
    gpus: Annotated[
        str | None, typer.Option("--gpus", "-g", metavar="N", help="Number of GPUs, one slot on each (default: 1).")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory", "-m", metavar="SIZE", help="GPU memory that must be free on each of them, such as 20GiB."
        ),
    ] = None,
    after: Annotated[
        list[str] | None,
        typer.Option("--after", "-a", metavar="TASK", help="Only when this task has completed. Can be given again."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", "-n", metavar="NAME", help="The task's name (default: made of the command).")
    ] = None,
    at: AtOption = None,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Wait until it is done; exit 1 if it did not complete.")
    ] = False,
    cwd: Annotated[
        Path | None, typer.Option("--cwd", metavar="DIR", help="The folder in which it runs (default: this one).")
    ] = None,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Queue any command as a task. With this folder and environment; outside of a workspace, in a personal one.

    \b
    Examples:
      tinksched run -- python train.py --lr 0.1
      tinksched run --gpus 2 --memory 20GiB -- torchrun train.py
      tinksched run --after @ --at 22:30 --wait -- sh -c 'make eval'
    """
    order = Order(
        command=tuple(command),
        cwd=_here(cwd),
        name=name,
        gpus=None if gpus is None else asked.gpus(gpus, "--gpus"),
        memory=None if memory is None else _memory(memory),
        after=tuple(after or ()),
        at=None if at is None else times.moment(at, "--at", time.time()),
    )
    found = _workspace(context, workspace, config)
    with found.open() as opened:
        task, started = commands.queue(opened, order)
        about = {"task": task.name, "number": task.id, "workspace": str(found.settings.workspace)}
        if as_json and not wait:
            answer("run", [task.name], **about)
        elif not as_json:
            when = f", not before {instants.both(order.at, time.time())}" if order.at is not None else ""
            print(f"queued {printable(task.name)} (number {task.id}){when}")
        paused = opened.store.pause()
        render.message(started)
        if paused is not None:
            render.message(f"{found_text(paused.user, paused.since)}: it starts after `tinksched resume`")
        if wait:
            code = _wait(opened, task.name, as_json=as_json)
            if as_json:
                answer("run", [task.name], **about, **_end(opened, task.name))
            else:
                render.last_lines(task.name, logs.last_words(found, task.name, _LAST_LINES))
            raise typer.Exit(code)
        if not as_json:
            render.message("tinksched logs @ -f follows it; tinksched status shows it")


def _wait(opened: OpenWorkspace, name: str, *, as_json: bool) -> int:
    """The exit code that stands for how the task ended. Ctrl-C ends the waiting alone."""
    try:
        return until_done(opened, [name], quiet=as_json)
    except KeyboardInterrupt:
        render.message(f"no longer waiting; {name} goes on, and ends with: tinksched cancel {shlex.quote(name)}")
        raise


def _end(opened: OpenWorkspace, name: str) -> dict[str, object]:
    """How a task ended that was waited for; somebody may have removed it since."""
    task = opened.store.named([name]).get(name)
    if task is None:
        return {"state": "removed", "reason": None}
    return {"state": (task.outcome or task.state).value, "reason": task.reason.text if task.reason else None}


def _workspace(context: typer.Context, workspace: Path | None, config: Path | None) -> Workspace:
    """The workspace that is meant, or the personal one, which is made where it isn't there."""
    try:
        return find(context, workspace, config)
    except WorkspaceError:
        if is_named(context, workspace, config):
            raise
        return workspaces.find(personal.make(), None)


def _here(cwd: Path | None) -> Path:
    try:
        return Path.cwd() if cwd is None else Path.cwd() / cwd.expanduser()
    except FileNotFoundError:
        raise UsageError(
            "the current folder was deleted", hint="cd to an existing folder, or name one: --cwd"
        ) from None


def _memory(text: str) -> int | Literal["auto"]:
    return "auto" if text == "auto" else asked.size(text, "--memory")
