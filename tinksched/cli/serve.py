"""`tinksched serve` and `tinksched token`: the server, and who may use it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ..errors import NothingToActOn, UsageError

ServerOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="server.yml (default: that of this folder; without one, defaults)."),
]


def serve(
    config: ServerOption = None,
    init: Annotated[bool, typer.Option("--init", help="Write a commented server.yml here, and serve nothing.")] = False,
) -> None:
    """Serve jobs over HTTP to a team: tokens, limits, isolation. On loopback unless server.yml says otherwise.

    It runs in the foreground, with this machine's GPUs; a signal ends it, and jobs that run go on.

    Example:  tinksched serve --config server.yml
    """
    require_server()
    if init:
        _write_settings(config)
        return
    from ..server import main, state

    main.serve(state.find(config), lambda line: print(line, flush=True))


def _write_settings(file: Path | None) -> None:
    from ..config.server import FILE_NAME
    from ..operations.setup import template

    file = file or Path(FILE_NAME)
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(template(FILE_NAME))
    except FileExistsError:
        raise UsageError(f"{file}: is there already; it was left as it is") from None
    except OSError as error:
        raise UsageError(f"{file}: can't be written: {error.strerror}") from None
    print(f"written: {file}; every line in it is a default. Begin with: tinksched serve")


token_commands = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@token_commands.callback()
def token() -> None:
    """Make, list and revoke the tokens of the server's users."""


@token_commands.command("create")
def create(
    user: Annotated[str, typer.Argument(metavar="USER", help="Whom it lets in.")],
    token: Annotated[str | None, typer.Argument(metavar="[TOKEN]", help="-: read it from standard input.")] = None,
    days: Annotated[float, typer.Option("--days", help="How long it is good; 30 at most.")] = 30.0,
    admin: Annotated[bool, typer.Option("--admin", help="May see and cancel everybody's jobs.")] = False,
    generate: Annotated[bool, typer.Option("--generate", help="Make one, and print it this one time.")] = False,
    config: ServerOption = None,
) -> None:
    """Let a user in; older tokens of the same user end. Only a hash of it is kept.

    Example:  tinksched token create alice --generate --days 14
    """
    from ..server import auth

    if generate == (token is not None):
        raise UsageError("name a TOKEN, - for standard input, or --generate")
    secret = auth.generate() if generate else sys.stdin.readline().strip() if token == "-" else str(token)
    with _store(config) as store, store.transaction("token create", time.time()) as tx:
        try:
            made = auth.issue(tx, user, secret, days=days, is_admin=admin)
        except ValueError as error:
            raise UsageError(f"{error}; nothing was created") from None
    left = ((made.expires_at or 0.0) - made.created_at) / auth.DAY
    if generate:
        print(secret)
    cut = f" ({days:g} were asked for; 30 are the most)" if left < days else ""
    print(f"a token for {user}{' (admin)' * admin}, good for {left:g} days{cut}", file=sys.stderr)


@token_commands.command("list")
def list_tokens(config: ServerOption = None) -> None:
    """Show whose tokens there are. The tokens themselves are not kept.

    Example:  tinksched token list
    """
    from ..server.auth import DAY
    from ..server.tables import Tables
    from .tables import Table, lines

    now = time.time()
    with _store(config) as store:
        known = Tables(store.path)
        rows = [
            [token.user, "admin" if token.is_admin else "", token.kind, _day(token.created_at), _day(token.expires_at),
             "" if token.expires_at is None else f"{max(0.0, token.expires_at - now) / DAY:.1f}",
             "good" if token.is_good(now) else "revoked" if token.revoked_at else "expired"]
            for token in known.tokens()
        ]  # fmt: skip
        known.close()
    columns = ("user", "role", "kind", "created", "expires", "days left", "state")
    for line in lines([Table(columns, [[(text, "") for text in row] for row in rows])]):
        print(line)


@token_commands.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="-: read it from standard input.")],
    config: ServerOption = None,
) -> None:
    """End one token, at once.

    Example:  tinksched token revoke - <token.txt
    """
    from ..server import tables

    secret = sys.stdin.readline().strip() if token == "-" else token
    with _store(config) as store, store.transaction("token revoke", time.time()) as tx:
        if not tables.revoke_token(tx, tables.digest_of(secret), time.time()):
            raise NothingToActOn("there is no such token, or it was revoked before")
    print("revoked")


@token_commands.command("revoke-user")
def revoke_user(
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose tokens end.")], config: ServerOption = None
) -> None:
    """End all tokens of a user, at once.

    Example:  tinksched token revoke-user alice
    """
    from ..server import tables

    with _store(config) as store, store.transaction("token revoke-user", time.time()) as tx:
        count = tables.revoke(tx, user, time.time())
    if not count:
        raise NothingToActOn(f"{user} has no token that is good")
    print(f"revoked: {count}")


def require_server() -> None:
    """Raises UsageError: the libraries of the server are not installed."""
    try:
        import fastapi  # noqa: F401
        import limits  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(f"the server needs {error.name}", hint="pip install 'tinksched[server]'") from None


def _store(config: Path | None):  # type: ignore[no-untyped-def]
    from ..server import state
    from ..store import Store

    place, _ = state.prepare(state.find(config))
    return Store(place.database)


def _day(at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at is not None else "never"
