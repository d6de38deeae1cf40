"""All commands, in the order in which `--help` lists them. The module of a command is loaded when it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import UsageError, WorkspaceError
from .options import ConfigOption, WorkspaceOption

COMMANDS = {  # by name: the first line of its help
    "setup-workspace": "Make a folder a workspace: a commented configuration, a wrapper script, configs/ with one "
    "example, out/.",
    "start": "Queue the configs that are new and make sure that a scheduler runs. Safe to repeat at any time.",
    "status": "Show the tasks, the slots and the scheduler.",
    "logs": "Print what a run printed. Without -f, what a progress bar overwrote is left out.",
    "attach": "Show the live session of a task. Leave it with Ctrl-b d; the task goes on.",
    "gpus": "Show this machine's GPUs: what they do, who is on them since when, all users and other programs, and who "
    "waits.",
    "explain": "Say why a task waits, or how it ended.",
    "show": "Print everything on record about a task: every run, what exactly it ran, and what its config changed.",
    "cancel": "Cancel tasks: a queued one leaves the queue, a running one is ended with all its processes.",
    "retry": "Queue finished tasks again.",
    "sweep": "Write one config for each point of a grid, from a template whose comments and order stay.",
    "report": "Show what ran on which GPU when, how long GPUs and tasks waited, what failed, and what tasks measured.",
    "stop": "Stop the scheduler. Running tasks go on; a later `start` finds them again.",
    "kill-all": "The emergency stop: end the scheduler and every run of this workspace, now. Asks nothing.",
    "doctor": "Check what the workspace needs: its state, the disk, the leases, tmux. Exit code 1 if something is "
    "broken.",
    "config": "Show every setting, its value, and where that came from.",
    "help": "Show this help, or that of a command.",
}
_HIDDEN = ("serve-workspace",)


class _Group(TyperGroup):
    """Knows its commands by name only, until one is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _command(name) if name and command else command, rest


app = typer.Typer(
    name="tinksched",
    cls=_Group,
    help="Queue a folder of configs, keep every GPU busy, watch any run live in tmux, lose nothing.",
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,  # plain help: it starts three times faster, and reads well in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Queue a folder of configs, keep every GPU busy, watch any run live in tmux, lose nothing."""
    if version:
        print(f"tinksched {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        try:
            function("status")(context, workspace, config)
        except WorkspaceError:
            if workspace is not None or config is not None:
                raise
            print(context.get_help())


def help_command(
    context: typer.Context, command: Annotated[str | None, typer.Argument(help="The command to explain.")] = None
) -> None:
    """Show this help, or that of a command."""
    parent = context.find_root()
    if command is None:
        print(parent.get_help())
        return
    if command not in COMMANDS:
        raise UsageError(f"there is no command {command!r}; there are: {', '.join(COMMANDS)}")
    found = _command(command)
    print(found.get_help(type(parent)(found, info_name=command, parent=parent)))


def function(command: str) -> Callable[..., None]:
    """The function of a command, with what it takes to do its work."""
    if command == "help":
        return help_command
    if command == "status":
        from .status import status

        return status
    if command in ("logs", "attach", "gpus", "explain", "show", "config"):
        from . import look as module
    elif command == "setup-workspace":
        from . import setup as module  # type: ignore[no-redef]
    elif command == "sweep":
        from . import sweep as module  # type: ignore[no-redef]
    elif command == "report":
        from . import report as module  # type: ignore[no-redef]
    elif command == "doctor":
        from . import health as module  # type: ignore[no-redef]
    else:
        from . import queue as module  # type: ignore[no-redef]
    found: Callable[..., None] = getattr(module, command.replace("-", "_"))
    return found


def _command(name: str) -> Any:
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name)(function(name))
    return typer.main.get_command(alone)


def _elsewhere() -> None:
    """Stands in the list for a command whose module is not loaded yet."""


for _name in (*COMMANDS, *_HIDDEN):
    app.command(_name, help=COMMANDS.get(_name), hidden=_name in _HIDDEN)(_elsewhere)
