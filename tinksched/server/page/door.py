"""Who may see the page's data on a server: whoever has a token of the queue API or a key of the OpenTinker API."""

from __future__ import annotations

import logging

from fastapi import Request

from .. import auth
from ..auth import Caller
from ..desk import Desk
from ..limits import Limits
from ..opentinker_api import is_local
from ..submission import Refused
from .feed import Check
from .views import Limits as Allowed
from .views import User, Viewer

_log = logging.getLogger("tinksched.server")
_ENDED = "Your key has expired or was revoked"


class ServerDoor:
    """See `Door`."""

    has_users = True

    def __init__(self, desk: Desk, limits: Limits) -> None:
        self.asks = desk.settings.enable_auth
        self._desk = desk
        self._limits = limits

    def viewer(self, request: Request) -> Viewer | None:
        caller = self.caller(request)
        return Viewer(caller.user, caller.is_admin) if caller is not None else None

    def caller(self, request: Request) -> Caller | None:
        """Who calls; None without a credential. Raises Refused (401): it is not good."""
        if not self._desk.settings.enable_auth and "authorization" not in request.headers and is_local(request):
            return Caller(auth.NOBODY, is_admin=True)
        try:
            token = auth.bearer(request.headers.getlist("authorization"))
            return None if token is None else auth.caller_of(self._desk.tables, token)
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
        tables = self._desk.tables
        return [User(name, is_admin, at, tables.seen.get(name)) for name, at, is_admin in tables.users()]

    def allowed(self, viewer: Viewer) -> Allowed:
        """The limits of somebody."""
        settings = self._desk.settings
        if viewer.is_admin and not settings.limit_admins:
            return {}
        found: dict[str, float] = {
            "active_jobs": settings.active_jobs,
            "active_services": settings.active_services,
            "max_expected_time": settings.max_expected_time,
        }
        return {**found, "submissions_per_minute": settings.submissions_per_minute} if settings.limits else found
