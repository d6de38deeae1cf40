"""`tinksched register`: a name and a key on a server, for clients of OpenTinker and for `tinksched remote`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError

DEFAULT = "http://127.0.0.1:8765"


def register(
    username: Annotated[
        str | None, typer.Argument(metavar="[USERNAME]", help="1 to 64 letters, digits, '.', '_' or '-'.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="URL", help=f"The server (default: $TINKSCHED_SERVER, or {DEFAULT})."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Where the key goes (default: ~/.config/tinksched/token)."),
    ] = None,
) -> None:
    """Register on a server, and save the key that it gives. In a file that only you can read; it is shown nowhere.

    Without USERNAME it asks for one. It works from the server's own machine, unless the server is open to all; else
    an administrator registers you, whose token is in TINKSCHED_TOKEN.

    \b
    Example:
      tinksched register alice --output opentinker.key
    """
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise UsageError("register needs httpx", hint="pip install httpx, or 'tinksched[server]'") from None
    from ..operations import remote

    url = remote.server_url(server or os.environ.get(remote.SERVER) or DEFAULT)
    file = output if output is not None else remote.token_file()
    name = username if username is not None else _asked()
    with _NewFile(file) as saved:
        key, user_id = remote.register(url, name, os.environ.get(remote.TOKEN, "").strip())
        saved.keep(key)
    remote.verify(url, key)
    print(f"registered: {name} ({user_id}) on {url}")
    print(f"the key is in {file}, which only you can read; it is good: the server was asked with it")


def _asked() -> str:
    if not sys.stdin.isatty():
        raise UsageError("which name?", hint="tinksched register USERNAME")
    return input("username: ").strip()


class _NewFile:
    """A file that is made before anything is asked for, so that no key is lost; gone again if there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_kept = False

    def __enter__(self) -> _NewFile:
        try:
            if self._path.parent.name == "tinksched":
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            hint = "name another file: --output FILE"
            raise UsageError(f"{self._path}: is there already; nobody was registered", hint=hint) from None
        except OSError as error:
            raise UsageError(f"{self._path}: can't be written: {error.strerror}; nobody was registered") from None
        return self

    def keep(self, key: str) -> None:
        """Write it."""
        os.write(self._descriptor, f"{key}\n".encode())
        os.fsync(self._descriptor)
        self._is_kept = True

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        if not self._is_kept:
            self._path.unlink(missing_ok=True)
