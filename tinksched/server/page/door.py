"""Who may see the page's data on a server: whoever has a token of the queue API or a key of the OpenTinker API."""

from __future__ import annotations

import logging
import time

from fastapi import Request

from .. import auth
from ..auth import Caller
from ..desk import Desk
from ..limits import Limits
from ..submission import Refused
from .feed import Check
from .views import Limits as Allowed
from .views import User, Viewer

_log = logging.getLogger("tinksched.server")
_ENDED = "Your key has expired or was revoked"


class ServerDoor:
    """See `Door`."""

    asks = True

    def __init__(self, desk: Desk, limits: Limits) -> None:
        self._desk = desk
        self._limits = limits

    def viewer(self, request: Request) -> Viewer | None:
        caller = self.caller(request)
        return Viewer(caller.user, caller.is_admin) if caller is not None else None

    def caller(self, request: Request) -> Caller | None:
        """Who calls; None without a credential. Raises Refused (401): it is not good."""
        try:
            token = auth.bearer(request.headers.getlist("authorization"))
            return None if token is None else auth.caller_of(self._desk.tables, token, None)
        except Refused:
            _log.info("refused login from %s", request.state.address)
            raise

    def check(self, request: Request, viewer: Viewer) -> Check:
        def why() -> str | None:
            try:
                return None if self.viewer(request) == viewer else _ENDED
            except Refused:
                return _ENDED

        return why

    def count(self, request: Request) -> None:
        self._limits.hit("page", str(request.state.address))

    def may(self) -> dict[str, bool]:
        return {"cancel": True, "retry": True}

    def known_users(self) -> list[User]:
        found: dict[str, User] = {}
        now = time.time()
        for token in self._desk.tables.tokens():
            known = found.get(token.user)
            admin = (token.is_admin and token.is_good(now)) or (known is not None and known.is_admin)
            first = (
                min(token.created_at, known.created_at or token.created_at) if known is not None else token.created_at
            )
            found[token.user] = User(token.user, admin, first, self._desk.tables.seen.get(token.user))
        return list(found.values())

    def allowed(self, viewer: Viewer) -> Allowed:
        """The limits of somebody."""
        settings = self._desk.settings
        if viewer.is_admin and not settings.limit_admins:
            return {}
        found: dict[str, float] = {"active_jobs": settings.active_jobs, "max_expected_time": settings.max_expected_time}
        return {**found, "submissions_per_minute": settings.submissions_per_minute} if settings.limits else found
