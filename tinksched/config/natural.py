"""The order in which people count: `exp2` before `exp10`."""

from __future__ import annotations

import re

NaturalKey = tuple[tuple[tuple[str, int, str], ...], str]

_PIECE = re.compile(r"([^0-9]*)([0-9]*)")


def natural_key(name: str) -> NaturalKey:
    """A sort key by which runs of digits compare as numbers; names that differ only in leading zeros stay apart."""
    # Of two numbers without leading zeros the longer is the larger: no limit on their length, unlike int().
    return tuple([
        (text, len(digits := found.lstrip("0")), digits) for text, found in _PIECE.findall(name)
    ]), name  # fmt: skip
