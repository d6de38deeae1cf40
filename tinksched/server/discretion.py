"""Reasons as the owner of a job may read them: who else works here is not for everybody to know."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..core.model import Reason, ReasonCode

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OTHERS = {"user": "somebody else", "workspace": "not of this server"}


def discreet(reason: Reason, is_own: Callable[[str], bool]) -> str:
    """In words, without the jobs that are not `is_own` and without who else works on this machine. Foreign processes
    are named: everybody can see them."""
    detail = {key: _OTHERS.get(key, value) for key, value in reason.detail.items()}
    if str(detail.get("others", "")).startswith("; one by "):
        detail["others"] = "; others of this machine hold some"
    if reason.code is ReasonCode.CANCELLED_BY_USER:
        detail = dict(reason.detail)
    text = Reason(reason.code, detail, reason.found).text
    return _ID.sub(lambda found: found[0] if is_own(found[0]) else "another job", text)
