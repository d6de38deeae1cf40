"""Readers of the keys that say who is told of what. URLs hold secrets: no message and no table shows them."""

from __future__ import annotations

import re

from ..core.news import KINDS
from .document import ScalarNode, SequenceNode
from .values import Value, as_written, did_you_mean

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.")


def urls(value: Value) -> tuple[str, ...]:
    """A URL or a list of URLs, as apprise knows them."""
    return tuple(_url(item) for item in _items(value, "a list of URLs, such as [ntfy://topic]", secret=True))


def kinds(value: Value) -> tuple[str, ...]:
    """A list of kinds of events."""
    return tuple(dict.fromkeys(_kind(item) for item in _items(value, f"a list of {', '.join(KINDS)}")))


def program(value: Value) -> tuple[str, ...] | None:
    """A program and its arguments, in which nothing is a placeholder."""
    if not isinstance(value.node, SequenceNode):
        raise value.bad("a list, such as [python3, tell.py]")
    found = tuple(as_written(item) for item in _items(value, ""))
    if not found or not found[0].strip():
        raise value.forbids("must begin with the program")
    return found


def _items(value: Value, expected: str, *, secret: bool = False) -> list[Value]:
    node = value.node
    if isinstance(node, ScalarNode) and node.kind == "text":
        return [value]
    if not isinstance(node, SequenceNode):
        raise value.forbids(f"must be {expected}") if secret else value.bad(expected)
    return [value.child(item, f"{value.label}[{number}]") for number, item in enumerate(node.items)]


def _url(value: Value) -> str:
    found = as_written(value) if isinstance(value.node, ScalarNode) and value.node.kind == "text" else ""
    if not _SCHEME.match(found) or not found.isprintable() or " " in found:
        raise value.forbids("must be a URL of apprise, such as ntfy://topic or mailto://user:password@example.org")
    return found


def _kind(value: Value) -> str:
    found = value.node.text if isinstance(value.node, ScalarNode) else ""
    if found not in KINDS:
        raise value.bad(f"one of {', '.join(KINDS)}", did_you_mean(found, KINDS))
    return found
