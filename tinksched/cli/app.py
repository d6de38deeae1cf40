"""All commands, in the order in which `--help` lists them."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from ..errors import UsageError, WorkspaceError
from . import health, look, queue, setup
from .options import ConfigOption, WorkspaceOption

app = typer.Typer(
    name="tinksched",
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
            look.status(context, workspace, config)
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
    group = typer.main.get_group(app)
    found = group.commands.get(command)
    if found is None or found.hidden:
        names = [name for name, known in group.commands.items() if not known.hidden]
        raise UsageError(f"there is no command {command!r}; there are: {', '.join(names)}")
    print(found.get_help(type(parent)(found, info_name=command, parent=parent)))


app.command("setup-workspace")(setup.setup_workspace)
app.command("start")(queue.start)
app.command("status")(look.status)
app.command("logs")(look.logs)
app.command("attach")(look.attach)
app.command("gpus")(look.gpus)
app.command("explain")(look.explain)
app.command("show")(look.show)
app.command("cancel")(queue.cancel)
app.command("retry")(queue.retry)
app.command("stop")(queue.stop)
app.command("kill-all")(queue.kill_all)
app.command("doctor")(health.doctor)
app.command("config")(look.config)
app.command("help")(help_command)
app.command("serve-workspace", hidden=True)(queue.serve_workspace)
