"""Instants as people say them, all of them in seconds since the epoch: how long ago they are, and by the clock.

Programs are told the numbers.
"""

from __future__ import annotations

from datetime import datetime, timedelta

_JUST_NOW = 5.0  # seconds


def ago(at: float, now: float) -> str:
    """How far it is from now: `just now`, `40 s ago`, `3 min ago`, `in 2 h`, `in 2 h 5 min`, `6 days ago`."""
    if abs(now - at) < _JUST_NOW:
        return "just now" if at <= now else "now"
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"


def clock(at: float, now: float) -> str:
    """By the clock: `14:05`, with the day if that is another one, which near ones are named by: `Mon 14:05`."""
    then, today = datetime.fromtimestamp(at), datetime.fromtimestamp(now)
    day = "" if then.date() == today.date() else "%a " if timedelta() <= then - today < timedelta(6) else "%Y-%m-%d "
    return then.strftime(f"{day}%H:%M")


def both(at: float, now: float) -> str:
    """By the clock, and how far it is from now: `14:05 (in 2 h)`."""
    return f"{clock(at, now)} ({ago(at, now)})"


def exact(at: float) -> str:
    """The day and the second."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """How long: `40 s`, `3 min`, `2 h 5 min`, `6 days`."""
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{round(seconds)} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 6 * 60:
        hours, rest = divmod(minutes, 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    hours = round(seconds / 3600)
    if hours < 24:
        return f"{hours} h"
    days = round(seconds / 86_400)
    return f"{days} days" if days > 1 else "1 day"
