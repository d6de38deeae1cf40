"""Who calls: from a token to a user, and what that one may."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass

from ..config.server import LONGEST_TOKEN_DAYS
from ..store.transaction import Transaction
from . import tables
from .submission import ID, Refused
from .tables import Tables, Token

DAY = 86_400.0
SHORTEST = 8  # characters of a token
INVALID = "Invalid or expired token"
FOREIGN = "Token does not belong to specified user_id"
_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose token is good."""

    user: str
    is_admin: bool

    def may_see(self, user: str) -> bool:
        """Whether what belongs to that user is any business of the caller's."""
        return self.is_admin or user == self.user

    def whom(self, user_id: str | None) -> str | None:
        """Whose things are meant by a call with this `user_id`; None: everybody's.

        Raises:
            Refused: 403, somebody else's.
        """
        if user_id is not None and not self.may_see(user_id):
            raise Refused(403, FOREIGN)
        if self.is_admin:
            return None if user_id in (None, self.user) else user_id
        return self.user


def bearer(header: str | None) -> str | None:
    """The token in an Authorization header; None without one.

    Raises:
        Refused: 401, the header is of another form.
    """
    if header is None:
        return None
    found = _BEARER.fullmatch(header.strip())
    if found is None:
        raise Refused(401, "Invalid authorization header format: must be 'Bearer TOKEN'")
    return found[1]


def caller_of(known: Tables, token: str | None, kind: str = "queue") -> Caller:
    """Whoever has this token. What is compared is its hash, found by index: no time tells how much of it is right.

    Raises:
        Refused: 401.
    """
    if token is None:
        raise Refused(401, "Authorization header required")
    found = known.token(tables.digest_of(token))
    if found is None or found.kind != kind or not found.is_good(time.time()):
        raise Refused(401, INVALID)
    return Caller(found.user, found.is_admin)


def issue(tx: Transaction, user: str, token: str, *, days: float, is_admin: bool) -> Token:
    """Let a user in by a token from now on. Returns what is on record; the days are cut to what is allowed.

    Raises:
        ValueError: the user's name or the token can't be used.
    """
    if not ID.fullmatch(user):
        raise ValueError("a user is 1 to 128 letters, digits, '.', '_' or '-'")
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"a token has at least {SHORTEST} printable ASCII characters without blanks")
    if not days > 0:
        raise ValueError("a token lasts longer than 0 days")
    now = time.time()
    made = Token(user, "queue", is_admin, now, now + min(days, LONGEST_TOKEN_DAYS) * DAY, None)
    tables.add_token(tx, tables.digest_of(token), made)
    return made


def generate() -> str:
    """A token that nobody can guess: 43 characters."""
    return secrets.token_urlsafe(32)
