"""The text of a YAML file as a small tree of nodes, each with its line and column.

The tree is composed from the parser's events, not by its constructor: every key keeps its place, duplicate keys can
be reported instead of ending the reading, and hostile input meets a limit before it costs time, memory or stack.
Scalars are what the core schema of YAML 1.2 says (https://yaml.org/spec/1.2.2/#103-core-schema): `yes` is a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from .broken import NOT_IN_LINE, SECOND_DOCUMENT, Broken, explain, quoted

MAX_NODES = 20_000
MAX_DEPTH = 20
CHARACTERS = 64  # of a long text count as one node: twenty thousand aliases of it would be no small thing either

Kind = Literal["text", "null", "bool", "int", "float"]

_CORE_SCHEMA: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("null", re.compile(r"~|null|Null|NULL|")),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE")),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")),
    ("float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")),
)
_PLAIN_TAGS = ("!", *(f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map")))


# `config_pattern: *.yml` was a value for the shell scheduler, though YAML reads an alias without an anchor.
_PATTERNS_OF_OLD_FILES = (".yml", ".yaml")


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """One value. `text` is what the file says, without its quotes; `size` grows with its length."""

    line: int
    column: int
    text: str
    kind: Kind
    size: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class SequenceNode:
    """A list. `size` counts every node below, with aliases written out."""

    line: int
    column: int
    items: tuple[Node, ...]
    size: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a map and its value."""

    key: ScalarNode
    value: Node


@dataclass(frozen=True, slots=True)
class MappingNode:
    """A map without duplicates, its merge keys (`<<`) resolved. `size` as in a SequenceNode."""

    line: int
    column: int
    entries: tuple[Entry, ...]
    size: int = field(default=1, compare=False)


Node = ScalarNode | SequenceNode | MappingNode


@dataclass(frozen=True, slots=True)
class Document:
    """What a text holds: its root (None if there is nothing), and what is wrong with it as YAML."""

    root: Node | None
    broken: tuple[Broken, ...]


def compose(text: str, max_nodes: int = MAX_NODES) -> Document:
    """Read one YAML document. Never raises: what is wrong is in `Document.broken`."""
    composer = _Composer(text, max_nodes)
    root = None
    try:
        root = composer.document()
    except Broken as broken:
        composer.broken.append(broken)
    return Document(root, tuple(composer.broken))


class _Composer:
    """Builds nodes from events. A Broken that is raised ends the reading, one in `broken` does not."""

    def __init__(self, text: str, max_nodes: int) -> None:
        self.broken: list[Broken] = []
        self._max_nodes = max_nodes
        self._events = events(text)
        self._anchors: dict[str, Node] = {}
        self._size = 0

    def document(self) -> Node | None:
        """The root of the only document of the stream."""
        root = None
        documents = 0
        for event in self._events:
            if _is(event, "DocumentStart"):
                documents += 1
                if documents > 1:
                    raise _at(event, SECOND_DOCUMENT if event.explicit else NOT_IN_LINE)
                root = self._node(next(self._events), depth=1)
        return root

    def _node(self, event: Any, depth: int, empty_at: ScalarNode | None = None) -> Node:
        if _is(event, "Alias"):
            return self._alias(event)
        if depth > MAX_DEPTH:
            raise _at(event, f"nested deeper than {MAX_DEPTH} levels")
        if event.tag is not None and str(event.tag) not in _PLAIN_TAGS:
            self.broken.append(_at(event, f"the tag {quoted(str(event.tag))} means nothing here; remove it"))
        if _is(event, "Scalar"):
            node: Node = _scalar(event, empty_at)
            self._charge(event, node.size)
        elif _is(event, "SequenceStart"):
            node = self._sequence(event, depth)
        else:
            node = self._mapping(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> Node:
        """The node that the alias names. It counts in full, so that a few aliases can't stand for millions of nodes."""
        node = self._anchors.get(event.anchor)
        if node is None and event.anchor in _PATTERNS_OF_OLD_FILES:
            node = ScalarNode(*_place(event), "*" + event.anchor, "text")
        if node is None:
            name = quoted("*" + event.anchor.removesuffix(":"))
            raise _at(event, f"{name} is an alias without an anchor above; if it is a pattern, put it in quotes")
        self._charge(event, node.size)
        return node

    def _charge(self, event: Any, size: int) -> None:
        self._size += size
        if self._size > self._max_nodes:
            raise _at(event, f"more than {self._max_nodes} values, with aliases written out; a config file is small")

    def _sequence(self, start: Any, depth: int) -> SequenceNode:
        self._charge(start, 1)
        line, column = _place(start)
        items: list[Node] = []
        here = ScalarNode(line, column, "", "null")
        while not _is(event := next(self._events), "SequenceEnd"):
            items.append(self._node(event, depth + 1, empty_at=here))
        return SequenceNode(line, column, tuple(items), 1 + sum(item.size for item in items))

    def _mapping(self, start: Any, depth: int) -> MappingNode:
        self._charge(start, 1)
        line, column = _place(start)
        given: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        while not _is(event := next(self._events), "MappingEnd"):
            is_merge = _is(event, "Scalar") and event.value == "<<" and event.implicit[0]
            key = self._node(event, depth + 1)
            place = key if isinstance(key, ScalarNode) else ScalarNode(*_place(event), "", "null")
            value = self._node(next(self._events), depth + 1, empty_at=place)
            if is_merge:
                self._merge(place, value, merged)
            else:
                self._add(key, place, value, given)
        entries = tuple(entry for name, entry in merged.items() if name not in given) + tuple(given.values())
        return MappingNode(line, column, entries, 1 + sum(entry.key.size + entry.value.size for entry in entries))

    def _add(self, key: Node, place: ScalarNode, value: Node, given: dict[str, Entry]) -> None:
        if not isinstance(key, ScalarNode):
            self.broken.append(Broken(place.line, place.column, "a key must be a text, not a list or a map"))
        elif key.text in given:
            first = given[key.text].key
            message = f"duplicate key {quoted(key.text)}; it stands in line {first.line} already"
            self.broken.append(Broken(key.line, key.column, message))
        else:
            given[key.text] = Entry(key, value)

    def _merge(self, key: ScalarNode, value: Node, merged: dict[str, Entry]) -> None:
        """`<<` adds the entries of a map, or of each map of a list, where an earlier one wins."""
        for node in value.items if isinstance(value, SequenceNode) else (value,):
            if not isinstance(node, MappingNode):
                self.broken.append(Broken(key.line, key.column, "<< merges a map (*anchor) or a list of maps"))
                continue
            for entry in node.entries:
                merged.setdefault(entry.key.text, entry)


def events(text: str) -> Iterator[Any]:
    """The parser's events; whatever it raises becomes one Broken."""
    from ruamel.yaml import YAML

    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except Exception as error:  # hostile input makes the parser raise ValueError, IndexError and more
        raise explain(error, text) from error


def _is(event: Any, name: str) -> bool:
    """Events are told apart by name, so that the parser is imported only when there is something to parse."""
    return type(event).__name__ == f"{name}Event"


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _at(event: Any, message: str) -> Broken:
    return Broken(*_place(event), message)


def _scalar(event: Any, empty_at: ScalarNode | None) -> ScalarNode:
    """An empty value has no place of its own (the parser names the next token's), so it gets that of its key."""
    line, column = _place(event)
    plain = event.tag is None and event.implicit[0]
    if plain and not event.value and empty_at is not None:
        line, column = empty_at.line, empty_at.column
    kinds = (kind for kind, pattern in _CORE_SCHEMA if plain and pattern.fullmatch(event.value))
    return ScalarNode(line, column, event.value, next(kinds, "text"), 1 + len(event.value) // CHARACTERS)
