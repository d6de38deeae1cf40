"""Durations as people write them."""

from __future__ import annotations

import re

DAY = 86_400.0
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": DAY}
_DURATION = re.compile(r"((?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?) ?([smhd]?)")


def duration(text: str) -> float:
    """The seconds of `90s`, `30m`, `2h`, `1d`, or of a plain number of seconds. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not a duration: {text!r}")
    return float(match[1]) * _SECONDS[match[2]]
