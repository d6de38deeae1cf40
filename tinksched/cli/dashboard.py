"""`tinksched dashboard`: the page of a workspace, or for a server elsewhere."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..errors import MissingProgram, UsageError
from .finding import find
from .options import ConfigOption, WorkspaceOption


def dashboard(
    context: typer.Context,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="TCP port; 0: any that is free.")] = 8081,
    host: Annotated[str, typer.Option("--host", help="Address to listen on: one of this machine alone.")] = "127.0.0.1",
    server: Annotated[
        str | None, typer.Option("--server", metavar="URL", help="The page alone, for a server of `tinksched serve`.")
    ] = None,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
) -> None:
    """Show the workspace in a browser. GPUs, queue, timeline and logs, live; it only shows.

    It prints a URL that lets one browser in. A scheduler need not run. A server (`tinksched serve`) has this page at
    /dashboard itself; --server gives it out from here for one elsewhere.

    \b
    Example:
      tinksched dashboard
    """
    try:
        from ..server.page import alone
    except ImportError as error:
        if (error.name or "").startswith("tinksched"):
            raise
        raise MissingProgram(f"dashboard needs {error.name}", hint="pip install 'tinksched[server]'") from None
    os.umask(0o077)

    def say(line: str) -> None:
        print(line, flush=True)

    if server is None:
        alone.serve_workspace(find(context, workspace, config), host, port, say)
    elif workspace is not None or config is not None:
        raise UsageError("--server shows a server, and not a workspace", hint="leave out one of them")
    else:
        alone.serve_page(server, host, port, say)
