"""`tinksched serve` and `tinksched token`: the server, and who may use it."""

from __future__ import annotations

import getpass
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.server import LONGEST_TOKEN_DAYS
from ..errors import NothingToActOn, UsageError
from ..host import wake
from .options import JsonOption

if TYPE_CHECKING:
    from ..server.tables import Token
    from ..store import Store

_LONGEST_LINE = 4096  # of standard input
_OWN = 0o077  # what the server writes, its jobs included, is for its user alone

ServerOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="server.yml (default: that of this folder; without one, defaults)."),
]


def serve(
    config: ServerOption = None,
    init: Annotated[bool, typer.Option("--init", help="Write a commented server.yml here, and serve nothing.")] = False,
) -> None:
    """Serve jobs over HTTP to a team. With tokens, limits and isolation; on loopback unless server.yml says otherwise.

    It runs in the foreground, with this machine's GPUs; a signal ends it, and jobs that run go on.

    \b
    Example:
      tinksched serve --config server.yml
    """
    require_server()
    if init:
        _write_settings(config)
        return
    from ..server import main, state

    os.umask(_OWN)
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
    """Make, list and revoke the tokens of the server's users.

    \b
    Example:
      tinksched token create alice --generate
    """


@token_commands.command("create")
def create(
    user: Annotated[str, typer.Argument(metavar="USER", help="Whom it lets in.")],
    token: Annotated[
        str | None,
        typer.Argument(metavar="[TOKEN]", help="-: read it from standard input. As an argument all users can see it."),
    ] = None,
    days: Annotated[float, typer.Option("--days", help="How long it is good; 30 at most.")] = 30.0,
    admin: Annotated[bool, typer.Option("--admin", help="May see and cancel everybody's jobs.")] = False,
    generate: Annotated[bool, typer.Option("--generate", help="Make one, and print it this one time.")] = False,
    config: ServerOption = None,
) -> None:
    """Let a user in; older tokens of the same user end. Only a hash of it is kept.

    A TOKEN that is written as an argument can be seen by every user of this machine while the command runs, and is
    kept in the shell's history: `-` and --generate avoid that.

    \b
    Example:
      tinksched token create alice --generate --days 14
    """
    from ..server import auth

    if generate == (token is not None):
        raise UsageError("name a TOKEN, - for standard input, or --generate")
    secret = auth.generate() if generate else _secret(str(token))
    with open_store(config) as store:
        try:
            with store.transaction("token create", time.time()) as tx:
                made = auth.issue(tx, user, secret, days=days, is_admin=admin)
        except ValueError as error:
            raise UsageError(f"{error}; nothing was created") from None
        _tell(store)
    if generate:
        print(secret)
    cut = f" ({days:g} were asked for; {LONGEST_TOKEN_DAYS} are the most)" if days > LONGEST_TOKEN_DAYS else ""
    ends = f"good for {min(days, LONGEST_TOKEN_DAYS):g} days{cut}, until {_day(made.expires_at)}"
    print(f"a token for {user}{' (admin)' * admin}, {ends}", file=sys.stderr)


@token_commands.command("list")
def list_tokens(as_json: JsonOption = False, config: ServerOption = None) -> None:
    """Show whose tokens there are. The tokens themselves are not kept.

    \b
    Example:
      tinksched token list
    """
    from ..server.tables import Tables
    from . import tables

    with open_store(config) as store:
        known = Tables(store.path)
        rows = [_row(token, time.time()) for token in known.tokens()]
        known.close()
    if as_json:
        print(tables.as_json({"version": 1, "tokens": rows}))
        return
    columns = ("user", "role", "kind", "created", "expires", "days left", "state")
    cells = [
        (row["user"], "admin" if row["admin"] else "", row["kind"], _day(row["created_at"]), _day(row["expires_at"]),
         "" if row["days_left"] is None else f"{row['days_left']:.1f}", row["state"])
        for row in rows
    ]  # fmt: skip
    for line in tables.lines([tables.Table(columns, [[(text, "") for text in row] for row in cells])]):
        print(line)


@token_commands.command("revoke")
def revoke(
    token: Annotated[
        str,
        typer.Argument(metavar="TOKEN", help="-: read it from standard input. As an argument all users can see it."),
    ],
    config: ServerOption = None,
) -> None:
    """End one token, at once.

    \b
    Example:
      tinksched token revoke -    # reads it from standard input
    """
    from ..server import tables

    secret = _secret(token)
    with open_store(config) as store:
        with store.transaction("token revoke", time.time()) as tx:
            if not tables.revoke_token(tx, tables.digest_of(secret), time.time()):
                raise NothingToActOn("there is no such token, or it was revoked before")
        _tell(store)
    print("revoked")


@token_commands.command("revoke-user")
def revoke_user(
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose tokens end.")], config: ServerOption = None
) -> None:
    """End all tokens of a user, at once.

    \b
    Example:
      tinksched token revoke-user alice
    """
    from ..server import tables

    with open_store(config) as store:
        with store.transaction("token revoke-user", time.time()) as tx:
            count = tables.revoke(tx, user, time.time())
        _tell(store)
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


def open_store(config: Path | None) -> Store:
    """The store of the server that is meant. Raises TinkschedError: it can't be used."""
    from ..server import state
    from ..store import Store

    os.umask(_OWN)
    place, _ = state.prepare(state.find(config))
    return Store(place.database)


def _tell(store: Store) -> None:
    """Have the server look at once whether those who follow something still may."""
    wake.announce(store.path.parent, wake.TOKENS)


def _secret(argument: str) -> str:
    """The token that is meant. On a terminal it is asked for, and not shown."""
    if argument != "-":
        return argument
    if sys.stdin.isatty():
        return getpass.getpass("token: ").strip()
    return sys.stdin.buffer.readline(_LONGEST_LINE).decode(errors="replace").strip()


def _row(token: Token, now: float) -> dict[str, Any]:
    left = None if token.expires_at is None else max(0.0, token.expires_at - now) / 86_400.0
    state = "good" if token.is_good(now) else "revoked" if token.revoked_at is not None else "expired"
    return {"user": token.user, "admin": token.is_admin, "kind": token.kind, "created_at": token.created_at,
            "expires_at": token.expires_at, "days_left": left, "state": state}  # fmt: skip


def _day(at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at is not None else "never"
