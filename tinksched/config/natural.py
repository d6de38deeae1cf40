"""The order in which people count: `exp2` before `exp10`."""

from __future__ import annotations

import re
from typing import Any

NaturalKey = tuple[list[Any], str]

_split = re.compile("([0-9]+)").split
_DECIMAL = re.compile(r"(?<![0-9])0+\.[0-9]|[0-9]\.0")


def natural_key(name: str) -> NaturalKey:
    """A sort key by which runs of digits compare as numbers; names that differ only in leading zeros stay apart.

    Digits behind the point of a number below one, and those that begin with a zero there, are no whole number: `0.25`
    comes before `0.5`, and `1.05` before `1.5`. Others may be the parts of a version: `v1.9` comes before `v1.10`.
    """
    pieces: list[Any] = _split(name)
    texts, digits = pieces[2::2], pieces[1::2]
    # As if they were hexadecimal: the order is the same, and their length has no limit there.
    pieces[1::2] = [int(found, 16) for found in digits]
    if _DECIMAL.search(name):
        for at, (text, whole, found) in enumerate(zip(texts, digits, digits[1:], strict=False)):
            if text == "." and (not whole.strip("0") or found[0] == "0"):
                pieces[2 * at + 3] = float(f"0.{found}") - 1  # below all numbers that are whole
    return pieces, name
