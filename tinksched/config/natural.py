"""The order in which people count: `exp2` before `exp10`."""

from __future__ import annotations

import re
from typing import Any

NaturalKey = tuple[list[Any], str]

_split = re.compile("([0-9]+)").split


def natural_key(name: str) -> NaturalKey:
    """A sort key by which runs of digits compare as numbers; names that differ only in leading zeros stay apart."""
    pieces: list[Any] = _split(name)
    # As if they were hexadecimal: the order is the same, and their length has no limit there.
    pieces[1::2] = [int(digits, 16) for digits in pieces[1::2]]
    return pieces, name
