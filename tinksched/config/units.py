"""Durations and sizes as people write them."""

from __future__ import annotations

import re

HOUR, DAY = 3_600.0, 86_400.0
KB, MB, GB, PB = 10**3, 10**6, 10**9, 10**15

_NUMBER = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": HOUR, "d": DAY}
_DURATION = re.compile(rf"((?:{_NUMBER})(?:[eE][-+]?[0-9]+)?) ?([smhd]?)")
# From large to small, so that the first that divides a size writes it shortest.
_BYTES = {
    "PiB": 2**50,
    "PB": PB,
    "TiB": 2**40,
    "TB": 10**12,
    "GiB": 2**30,
    "GB": GB,
    "MiB": 2**20,
    "MB": MB,
    "KiB": 2**10,
    "kB": KB,
    "B": 1,
}
_SIZE = re.compile(rf"({_NUMBER}) ?([A-Za-z]*)")


def duration(text: str) -> float:
    """The seconds of `90s`, `30m`, `2h`, `1d`, or of a plain number of seconds. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not a duration: {text!r}")
    return float(match[1]) * _SECONDS[match[2]]


def size(text: str) -> int:
    """The bytes of `500MB`, `8 GiB`, `1.5TB`, `64kB` (or `KB`), or of 0, which needs no unit. Raises ValueError."""
    match = _SIZE.fullmatch(text)
    unit = _BYTES.get("kB" if match[2] == "KB" else match[2]) if match else None
    number = float(match[1]) if match else 0.0
    if match and not match[2] and not number:
        return 0
    if unit is None or number * unit == float("inf"):
        raise ValueError(f"not a size: {text!r}")
    return round(number * unit)


def size_text(size: int) -> str:
    """A size such that `size` reads it back."""
    unit = next(unit for unit, factor in _BYTES.items() if size % factor == 0)
    return f"{size // _BYTES[unit]}{unit}" if size else "0"


def with_usual_case(text: str) -> str:
    """`200MB` for `200mb`: the size with its unit in the usual case, or nothing if it has none of the units."""
    match = _SIZE.fullmatch(text)
    unit = next((unit for unit in _BYTES if match and unit.lower() == match[2].lower()), "")
    return f"{match[1]}{unit}" if match and unit else ""
