"""Points in time as people write them on a command line."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from ..config.units import duration
from ..errors import UsageError

_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?")
FORMS = "22:30 (today, or tomorrow if that is over), 2030-12-31 or 2030-12-31T22:30, or +90m, +2h, +1d"
LONGEST_SECONDS = 10 * 365 * 86_400.0


def moment(text: str, option: str, now: float) -> float:
    """The time that the text means, in seconds since the epoch. Without a time zone it is that of this machine.

    Raises:
        UsageError: it means none, or one that is over.
    """
    try:
        found = _moment(text.strip(), datetime.fromtimestamp(now))
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{option} must be a time, not {text!r}", hint=f"such as {FORMS}") from None
    if found <= now:
        raise UsageError(f"{option} {text!r} is over: it is {datetime.fromtimestamp(now):%Y-%m-%d %H:%M:%S} now")
    if found > now + LONGEST_SECONDS:
        raise UsageError(f"{option} {text!r} is more than ten years from now")
    return found


def span(text: str, option: str) -> float:
    """The seconds of a duration such as `90s`, `2h` or `30d`.

    Raises:
        UsageError: it is none.
    """
    try:
        return duration(text.strip())
    except (ValueError, OverflowError):
        raise UsageError(f"{option} must be a duration such as 90s, 30m, 2h or 30d, not {text!r}") from None


def _moment(text: str, now: datetime) -> float:
    if text.startswith("+"):
        return now.timestamp() + duration(text[1:])
    if clock := _CLOCK.fullmatch(text):
        hour, minute, second = (int(part or 0) for part in clock.groups())
        today = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
        return (today if today > now else today + timedelta(days=1)).timestamp()
    if not _ISO.fullmatch(text):
        raise ValueError(text)
    if text.endswith("Z"):  # which Python 3.10 does not read
        text = f"{text[:-1]}+00:00"
    return datetime.fromisoformat(
        re.sub(r"([+-][0-9]{2})([0-9]{2})$", r"\1:\2", text) if "T" in text else text
    ).timestamp()
