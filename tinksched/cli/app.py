"""All commands, in the order in which `--help` lists them. The module of a command is loaded when it is called."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import NothingToActOn, UsageError, WorkspaceError
from .options import ELSEWHERE, UNSAID, ColorOption, ConfigOption, WorkspaceOption
from .shells import SCRIPTS, SHORT

COMMANDS = {  # by name: the first paragraph of its help, whose first sentence stands in the list of all
    "setup-workspace": "Make a folder a workspace. It gets a commented configuration, a wrapper script, configs/ with "
    "one example, out/.",
    "start": "Queue new configs, and make sure that a scheduler runs. Safe to repeat at any time.",
    "status": "Show the tasks, the slots and the scheduler.",
    "watch": "Live view: GPUs, tasks, and the log of the selected one. Keys cancel, retry, attach; ? lists them.",
    "logs": "Print what a run printed. Without -f, what a progress bar overwrote is left out.",
    "attach": "Show the live session of a task. Leave it with Ctrl-b d; the task goes on.",
    "gpus": "Show this machine's GPUs, and who is on them since when. All users and other programs, and who waits.",
    "explain": "Say why a task waits, or how it ended.",
    "show": "Print all that is on record about a task. Every run, what exactly it ran, and what its config changed.",
    "run": "Queue any command as a task. With this folder and environment; outside of a workspace, in a personal one.",
    "wait": "Wait until tasks are done. All that are queued or running if none are named; exit code 0 if all "
    "completed.",
    "cancel": "Cancel tasks that wait or run. A queued one leaves the queue, a running one is ended with all its "
    "processes.",
    "retry": "Queue finished tasks again.",
    "sweep": "Write a config for each point of a grid. From a template, whose comments and order stay.",
    "report": "Show what ran on which GPU when, and what it measured. Also how long GPUs and tasks waited, and "
    "what failed.",
    "hold": "Keep queued tasks from starting until `release`.",
    "release": "Let held tasks start. With --at, have queued ones wait until then.",
    "priority": "Give queued tasks a priority: higher numbers start first. +1 and -1 change the one that they have.",
    "pause": "Start nothing new until `resume`; what runs goes on. To drain the GPUs, before an update, say.",
    "resume": "Let tasks start again after `pause`.",
    "clean": "Forget finished tasks: records, logs and kept sessions. Asks first, and needs --yes where it can't ask.",
    "stop": "Stop the scheduler; running tasks go on. A later `start` finds them again.",
    "kill-all": "End the scheduler and every run of this workspace, now. The emergency stop: it asks nothing.",
    "doctor": "Check this machine and the workspace. Tmux, logging out, the driver, the config, permissions, "
    "locks, the disk. Exit code 1 if something is broken.",
    "config": "Show every setting, its value, and where that came from.",
    "dashboard": "Show the workspace in a browser. GPUs, queue, timeline and logs, live; it only shows.",
    "serve": "Serve jobs over HTTP to a team. With tokens, limits and isolation; on loopback unless server.yml "
    "says otherwise.",
    "token": "Make, list and revoke the tokens of the server's users.",
    "register": "Register on a server, and save the key that it gives. In a file that only you can read; it is shown "
    "nowhere.",
    "scan": "Show what the server's code scan has found.",
    "remote": "Use a server of `tinksched serve`. Submit jobs to it, follow them, and get their results.",
    "db": "Back up, restore, check and clean the server's database.",
    "completion": "Print what makes a shell complete commands and tasks. For bash, zsh and fish; options, too.",
    "help": "Show this help, or that of a command.",
}
_HIDDEN = ("serve-workspace",)
# Commands that have commands, and the name of these in their module.
GROUPS = {
    "token": "token_commands",
    "scan": "scan_commands",
    "remote": "remote_commands",
    "db": "database_commands",
}
_SETTINGS: Mapping[str, dict[str, Any]] = {
    "run": {"allow_interspersed_args": False},  # the options behind the command are its own
    "priority": {"ignore_unknown_options": True},  # -1 is no option
}


def _no_such(command: str) -> UsageError:
    near = difflib.get_close_matches(command, COMMANDS)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(COMMANDS)}"
    return UsageError(f"there is no command {command!r}", hint=hint)


class _Group(TyperGroup):
    """Knows its commands by name only, until one is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in SHORT:
            args = [SHORT[args[0]], *(["--follow"] if args[0] == "f" else []), *args[1:]]
        if args[0] not in (*COMMANDS, *_HIDDEN) and not args[0].startswith("-"):
            raise _no_such(args[0])
        name, command, rest = super().resolve_command(ctx, args)
        return name, command_of(name) if name and command else command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except NothingToActOn as error:
            if ctx.meta.get(UNSAID):
                error.message += f" ({ELSEWHERE})"
            raise


app = typer.Typer(
    name="tinksched",
    cls=_Group,
    help="Queue a folder of configs, keep every GPU busy, watch any run live in tmux, lose nothing.",
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,  # plain help: it starts three times faster, and reads well in a pipe
    pretty_exceptions_enable=False,
    epilog="Short: `tk` is tinksched, and "
    + ", ".join(f"{short} {long}" for short, long in SHORT.items() if short != "f")
    + ", f logs -f. So `tk r python train.py` queues a command, and `tk f` shows what it prints.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    color: ColorOption = None,
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
    """Show this help, or that of a command.

    \b
    Example:
      tinksched help run
    """
    parent = context.find_root()
    if command is None:
        print(parent.get_help())
        return
    command = SHORT.get(command, command)
    if command not in COMMANDS:
        raise _no_such(command)
    found = command_of(command)
    print(found.get_help(type(parent)(found, info_name=command, parent=parent)))


def completion(shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> None:
    """Print what makes a shell complete commands and tasks. For bash, zsh and fish; options, too.

    \b
    Examples:
      eval "$(tinksched completion bash)"    # in .bashrc; zsh likewise
      tinksched completion fish | source     # in config.fish
    """
    if shell not in SCRIPTS:
        raise UsageError(f"there is no completion for {shell!r}; there is one for: {', '.join(SCRIPTS)}")
    print(SCRIPTS[shell].strip())


def function(command: str) -> Callable[..., None]:
    """The function of a command, with what it takes to do its work."""
    if command == "help":
        return help_command
    if command == "completion":
        return completion
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
    elif command == "watch":
        from . import watch as module  # type: ignore[no-redef]
    elif command == "doctor":
        from . import health as module  # type: ignore[no-redef]
    elif command in ("wait", "hold", "release", "priority", "pause", "resume"):
        from . import waiting as module  # type: ignore[no-redef]
    elif command in ("serve", "token"):
        from . import serve as module  # type: ignore[no-redef]
    elif command == "dashboard":
        from . import dashboard as module  # type: ignore[no-redef]
    elif command == "scan":
        from . import scan as module  # type: ignore[no-redef]
    elif command == "register":
        from . import register as module  # type: ignore[no-redef]
    elif command == "remote":
        from . import remote as module  # type: ignore[no-redef]
    elif command == "db":
        from . import database as module  # type: ignore[no-redef]
    elif command == "run":
        from . import command as module  # type: ignore[no-redef]
    elif command == "clean":
        from . import cleaning as module  # type: ignore[no-redef]
    else:
        from . import queue as module  # type: ignore[no-redef]
    found: Callable[..., None] = getattr(module, command.replace("-", "_"))
    return found


def command_of(name: str) -> Any:
    """A command as Typer's object, with its module loaded."""
    if name in GROUPS:
        return typer.main.get_command(getattr(sys.modules[function(name).__module__], GROUPS[name]))
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name, context_settings=_SETTINGS.get(name))(function(name))
    return typer.main.get_command(alone)


def _elsewhere() -> None:
    """Stands in the list for a command whose module is not loaded yet."""


for _name in (*COMMANDS, *_HIDDEN):
    app.command(_name, help=COMMANDS.get(_name), hidden=_name in _HIDDEN)(_elsewhere)
