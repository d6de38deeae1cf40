"""Showing a session to somebody who sits in front of the same tmux server: their client goes there, and comes back."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .tmux import Tmux, TmuxError, join

_FIELDS = ("client_activity", "pid", "pane_id", "client_readonly", "client_control_mode", "client_name")
_FORMAT = "|".join(f"#{{{field}}}" for field in _FIELDS)
_MESSAGE_MILLISECONDS = 5000


@dataclass(frozen=True, slots=True)
class Client:
    """A terminal that is attached to a tmux server."""

    name: str
    read_only: bool


def in_front(tmux: Tmux) -> Client | None:
    """The client in whose pane this program runs, the one that was used last if there are several; None if this
    program runs outside of tmux, on another server, or where nobody looks.

    Raises:
        TmuxSilent: nobody can tell.
    """
    server, pane = os.environ.get("TMUX", "").split(",")[-2:-1], os.environ.get("TMUX_PANE")
    if not server or not pane:
        return None
    try:
        lines = tmux.call("list-clients", "-F", _FORMAT)
    except TmuxError:
        return None
    found = []
    for activity, pid, looks_at, read_only, control, name in (line.split("|", 5) for line in lines):
        if [pid] == server and looks_at == pane and control != "1":
            found.append((int(activity), Client(name, read_only == "1")))
    return max(found, key=lambda one: one[0])[1] if found else None


def switch(client: Client, session: str, *, read_only: bool) -> list[str]:
    """The sequence of commands that has the client show a session, given by its id.

    A client that is only to look stays read-only until it shows another session: a hook sees to that, and goes then.
    If the session is closed meanwhile, the client is not thrown out of tmux.
    """
    locked = read_only and not client.read_only
    said = f"{'read-only; ' * read_only}#{{prefix}} L goes back"
    return join([
        ["switch-client", *(["-r"] if locked else []), "-c", client.name, "-t", session],
        *([_unlocking(client, session)] if locked else []),
        ["set-option", "-t", session, "detach-on-destroy", "off"],
        ["display-message", "-c", client.name, "-d", str(_MESSAGE_MILLISECONDS), said],
    ])  # fmt: skip


def _unlocking(client: Client, session: str) -> list[str]:
    """The command that has the client obey again when it shows another session than this."""
    hook = f"client-session-changed[{os.getpid()}]"
    left = f"#{{&&:#{{==:#{{client_name}},{client.name}}},#{{!=:#{{session_id}},{session}}}}}"
    unlock = f"if-shell -F '#{{client_readonly}}' 'switch-client -r -c {client.name}' ; set-hook -gu {hook}"
    return ["set-hook", "-g", hook, f"if-shell -F '{left}' \"{unlock}\""]
