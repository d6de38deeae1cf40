"""The order in which people count: `exp2` before `exp10`, `lr0.01` before `lr0.1`."""

from __future__ import annotations

import re

NaturalKey = tuple[tuple[tuple[str, int, str], ...], str]

_PIECE = re.compile(r"([^0-9]*)([0-9]*)")
_DECIMAL = re.compile(r"(?<![0-9])0+\.[0-9]|[0-9]\.0")


def natural_key(name: str) -> NaturalKey:
    """A sort key by which runs of digits compare as numbers; names that differ only in leading zeros stay apart.

    Digits behind the point of a number below one, and those that begin with a zero there, are no whole number: `0.25`
    comes before `0.5`, and `1.05` before `1.5`. Others may be the parts of a version: `v1.9` comes before `v1.10`.
    """
    pieces = _PIECE.findall(name)
    if _DECIMAL.search(name):
        return _with_decimals(pieces), name
    # Of two numbers without leading zeros the longer is the larger: no limit on their length, unlike int().
    return tuple([(text, len(digits := found.lstrip("0")), digits) for text, found in pieces]), name


def _with_decimals(pieces: list[tuple[str, str]]) -> tuple[tuple[str, int, str], ...]:
    """What is a fraction compares by its digits from the left, and comes before the numbers that are none."""
    key = []
    whole = ""  # the digits before
    for text, found in pieces:
        digits = found.lstrip("0")
        is_fraction = text == "." and whole and found and (not whole.strip("0") or found[0] == "0")
        key.append((text, 0, found) if is_fraction else (text, len(digits), digits))
        whole = found
    return tuple(key)
