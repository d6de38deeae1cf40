"""Who calls: from a token to a user, and what that one may."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..config.server import LONGEST_TOKEN_DAYS
from ..store.transaction import Transaction
from . import tables
from .submission import ID, Refused
from .tables import Tables, Token

DAY = 86_400.0
SHORTEST, LONGEST = 8, 512  # characters of a token
INVALID = "Invalid or expired token"
FOREIGN = "Token does not belong to specified user_id"
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
NOBODY = "anonymous"  # who calls where no key is asked for
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


def bearer(headers: Sequence[str]) -> str | None:
    """The token in the Authorization headers of a request; None without one.

    Raises:
        Refused: 401, there are several, or it is of another form.
    """
    if not headers:
        return None
    found = _BEARER.fullmatch(headers[0].strip()) if len(headers) == 1 else None
    if found is None:
        raise Refused(401, "Invalid authorization header format: must be 'Bearer TOKEN'")
    return found[1]


def caller_of(known: Tables, token: str | None) -> Caller:
    """Whoever has this token, or this key: they are two kinds of credential of the same users.

    The time that this takes tells nothing of a good token. What is looked for in the index is the SHA-256 of what was
    sent; how far that agrees with one that is stored depends on the hash, which nobody can steer, and not on how many
    characters were right. Unknown, expired and revoked ones take the same one look, and get one answer.

    Raises:
        Refused: 401.
    """
    if token is None:
        raise Refused(401, "Authorization header required")
    found = known.token(tables.digest_of(token))
    if found is None or not found.is_good(time.time()):
        raise Refused(401, INVALID)
    known.seen[found.user] = time.time()
    return Caller(found.user, found.is_admin)


def issue(tx: Transaction, user: str, token: str, *, days: float, is_admin: bool) -> Token:
    """Let a user in by a token from now on. Returns what is on record; the days are cut to what is allowed.

    Raises:
        ValueError: the user's name or the token can't be used, or the token is somebody else's.
    """
    if not ID.fullmatch(user):
        raise ValueError("a user is 1 to 128 letters, digits, '.', '_' or '-'")
    if not SHORTEST <= len(token) <= LONGEST or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"a token has {SHORTEST} to {LONGEST} printable ASCII characters without blanks")
    if not days > 0:
        raise ValueError("a token lasts longer than 0 days")
    now = time.time()
    made = Token(user, "queue", is_admin, now, now + min(days, LONGEST_TOKEN_DAYS) * DAY, None)
    if not tables.add_token(tx, tables.digest_of(token), made):
        raise ValueError("this token is in use, or was, by somebody else or as a key: choose another one")
    return made


def register(tx: Transaction, user: str) -> str | None:
    """Make somebody known by a key that is good until it is revoked. Returns the key; None if the name is taken.

    A name that differs from another one in its case alone is taken: people would mistake the two.

    Raises:
        ValueError: the name can't be used.
    """
    if not NAME.fullmatch(user):
        raise ValueError("a username is 1 to 64 letters, digits, '.', '_' or '-'")
    if user.lower() == NOBODY or tables.is_taken(tx.connection, user):
        return None
    key = f"otk_{secrets.token_hex(16)}"
    tables.add_token(tx, tables.digest_of(key), Token(user, "key", False, time.time(), None, None))
    return key


def generate() -> str:
    """A token that nobody can guess: 43 characters, of which the first is no `-`, as that of an option is."""
    while (token := secrets.token_urlsafe(32)).startswith("-"):
        pass
    return token
