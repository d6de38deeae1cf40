"""Values put into the text of a YAML file. All else stays as it is, byte for byte: comments, order, quotes, indents.

The parser's events say where each value lies in the text, so that a grid of a thousand files is parsed once.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from .broken import SECOND_DOCUMENT, Broken, quoted
from .document import events

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_FLOW = frozenset("[]{},")
# What PyYAML takes for a text though everybody means a number: 1e-3 lacks a point, 1.0e5 a sign.
_EXPONENT = re.compile(r"([-+]?[0-9]+)(\.[0-9]*)?[eE]([-+]?)([0-9]+)")
_RANGE = re.compile(r"(-?[0-9]{1,9})\.\.(-?[0-9]{1,9})")
_COLON = re.compile(r"\s*:")
LONGEST_RANGE = 100_000
MAX_DEPTH = 100


class BadEdit(Exception):
    """What was asked for can't be done with this text; the message says why. `near` are names that may be meant."""

    def __init__(self, message: str, near: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.near = tuple(near)


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was written on the command line. `plain`: without quotes or brackets."""

    said: str
    text: str  # what goes into the file
    plain: bool

    @property
    def data(self) -> Any:
        """What a reader of YAML 1.2 makes of it."""
        from ruamel.yaml import YAML

        return YAML(typ="safe", pure=True).load(self.text)


@dataclass(frozen=True, slots=True)
class _Spot:
    """A value in the text: where it begins and where its last character is, and what is in it."""

    start: int
    end: int
    kind: str  # scalar, block, flow, alias
    anchor: str = ""
    entries: tuple[tuple[_Spot, str, _Spot], ...] = ()  # of a map: the key, its name, the value
    items: tuple[_Spot, ...] | None = None  # of a list


@dataclass(frozen=True, slots=True)
class _Place:
    """What of the text is replaced, and what comes before and behind the new value."""

    start: int
    end: int
    before: str
    behind: str


class Template:
    """A YAML text and the places of some of its values."""

    def __init__(self, text: str, keys: Sequence[str]) -> None:
        """`keys` are dotted paths; numbers are indices of lists. One that begins with + is new, and is added.

        Raises:
            Broken: the text is no YAML.
            BadEdit: a key isn't there, or is there though it is called new, or lies within another one.
        """
        self._bom, text = text[: text.startswith("\ufeff")], text.removeprefix("\ufeff")
        self.keys = tuple(key.removeprefix("+") for key in keys)
        _tree(text)
        for key in keys:
            if key.startswith("+"):
                text = _with_new(text, key[1:])
        tree = _tree(text)
        places = [_place_of(text, tree, key) for key in self.keys]
        order = sorted(range(len(places)), key=lambda number: places[number].start)
        for one, other in itertools.pairwise(order):
            if places[other].start < places[one].end:
                raise BadEdit(f"{self.keys[other]} is a part of {self.keys[one]}; both can't be given")
        self._text, self._order, self._places = text, order, places

    def check(self, values: Sequence[Given]) -> None:
        """Raises BadEdit: with these values the text would not say what it should."""
        text = self.filled(values).removeprefix("\ufeff")
        for key, value in zip(self.keys, values, strict=True):
            try:
                found = _follow(_tree(text), key)[0]
            except Broken:
                found = None
            said = text[found.start : found.end] if found else ""
            if said != value.text and not said.endswith(f" {value.text}"):  # behind an anchor
                raise BadEdit(f"{key} can't be set to {value.said} where it stands; write it as `key: value`")

    def filled(self, values: Sequence[Given]) -> str:
        """The text with these values, in the order of the keys."""
        parts, at = [self._bom], 0
        for number in self._order:
            place = self._places[number]
            parts += [self._text[at : place.start], place.before, values[number].text, place.behind]
            at = place.end
        return "".join([*parts, self._text[at:]])


def values_of(said: str) -> list[Given]:
    """The values of a comma-separated list. Commas in quotes and brackets separate nothing; 1..5 is 1,2,3,4,5.

    Raises:
        BadEdit: one of them is empty, or no YAML value.
    """
    found: list[Given] = []
    for piece in _pieces(said):
        if match := _RANGE.fullmatch(piece):
            first, last = int(match[1]), int(match[2])
            step = 1 if last >= first else -1
            if abs(last - first) >= LONGEST_RANGE:
                raise BadEdit(f"{piece} is too long a range")
            found += [Given(str(number), str(number), True) for number in range(first, last + step, step)]
        else:
            found.append(_value(piece))
    return found


def _pieces(said: str) -> Iterator[str]:
    """The parts between commas that are not in quotes or brackets."""
    depth, quote, begin = 0, "", 0
    fresh = True  # a quote opens one only where a value begins
    for at, char in enumerate(said):
        if quote:
            quote = "" if char == quote and not (quote == '"' and said[at - 1] == "\\") else quote
        elif char in "\"'" and fresh:
            quote = char
        elif char in "[{" and (fresh or depth):
            depth += 1
        elif char in "]}" and depth:
            depth -= 1
        elif char == "," and not depth:
            yield said[begin:at].strip()
            begin = at + 1
        fresh = char in "[{,:" or (fresh and char == " ")
    if quote or depth:
        raise BadEdit(f"a quote or bracket is never closed in {quoted(said)}")
    yield said[begin:].strip()


def _value(piece: str) -> Given:
    if not piece:
        raise BadEdit("a value is empty; write '' for an empty text, or null")
    if "\n" in piece or not piece.isprintable():
        raise BadEdit(f"the value {quoted(piece)} holds characters that can't be printed")
    spot = None
    try:
        spot = _tree(piece)
    except Broken as broken:
        raise BadEdit(f"{quoted(piece)} is no YAML value: {broken.message}") from None
    plain = piece[0] not in "\"'[{"
    if spot is None or (spot.start, spot.end) != (0, len(piece)) or spot.kind not in ("scalar", "flow"):
        raise BadEdit(f"{quoted(piece)} is more than one YAML value; put it in quotes")
    text = piece
    if plain and (match := _EXPONENT.fullmatch(piece)):
        text = f"{match[1]}{match[2] if match[2] and match[2] != '.' else '.0'}e{match[3] or '+'}{match[4]}"
    elif plain and _FLOW & set(piece):
        text = "'" + piece.replace("'", "''") + "'"
    return Given(piece, text, plain)


# -- the tree


def _tree(text: str) -> _Spot | None:
    """The places of all values; None if the text has none. Raises Broken."""
    stream = _content(text)
    first = next(stream, None)
    found = None if first is None else _Reader(text, stream).spot(first, 1)
    next(stream, None)  # what comes behind may be broken
    return found


def _content(text: str) -> Iterator[Any]:
    """The events between the beginning of the only document and its end."""
    documents = 0
    for event in events(text):
        kind = type(event).__name__
        documents += kind == "DocumentStartEvent"
        if documents > 1:
            raise _at(event, SECOND_DOCUMENT)
        if not kind.startswith(("Stream", "Document")):
            yield event


class _Reader:
    """From events to places."""

    def __init__(self, text: str, stream: Iterator[Any]) -> None:
        self._text = text
        self._stream = stream
        self._anchors: set[str] = set()

    def spot(self, event: Any, depth: int) -> _Spot:
        """The value that begins with this event."""
        if depth > MAX_DEPTH:
            raise _at(event, f"nested deeper than {MAX_DEPTH} levels")
        kind = type(event).__name__
        start, end, anchor = event.start_mark.index, event.end_mark.index, event.anchor or ""
        if kind == "AliasEvent":
            if anchor not in self._anchors:
                raise _at(event, f"{quoted('*' + anchor)} is an alias without an anchor above")
            return _Spot(start, end, "alias", anchor)
        self._anchors.add(anchor)
        if kind == "ScalarEvent":
            if event.style in ("|", ">"):  # its end is behind its last line feed
                end = start + len(self._text[start:end].rstrip())
            return _Spot(start, end, "scalar", anchor)
        return self._map(event, depth) if kind == "MappingStartEvent" else self._list(event, depth)

    def _map(self, begin: Any, depth: int) -> _Spot:
        entries: list[tuple[_Spot, str, _Spot]] = []
        while type(event := next(self._stream)).__name__ != "MappingEndEvent":
            name = str(getattr(event, "value", ""))
            if name != "<<" and any(name == known for _, known, _ in entries):
                raise _at(event, f"duplicate key {quoted(name)}")
            key = self.spot(event, depth + 1)
            value = self.spot(next(self._stream), depth + 1)
            if value.start == value.end:  # nothing has no place of its own: the parser names that of what follows
                colon = _COLON.match(self._text, key.end)
                at = colon.end() if colon else key.end
                value = replace(value, start=at, end=at)
            entries.append((key, name, value))
        last = entries[-1][2].end if entries else begin.end_mark.index
        return self._whole(begin, event, last, entries=tuple(entries))

    def _list(self, begin: Any, depth: int) -> _Spot:
        items: list[_Spot] = []
        last = begin.start_mark.index if not begin.flow_style else begin.end_mark.index
        while type(event := next(self._stream)).__name__ != "SequenceEndEvent":
            item = self.spot(event, depth + 1)
            if item.start == item.end:
                at = self._text.index("-", last) + 1
                item = replace(item, start=at, end=at)
            items.append(item)
            last = item.end
        return self._whole(begin, event, last, items=tuple(items))

    def _whole(self, begin: Any, end: Any, last: int, **content: Any) -> _Spot:
        """A list or a map. Behind a block there may be comments, which are not its own: it ends with its last value."""
        start, anchor = begin.start_mark.index, begin.anchor or ""
        if begin.flow_style:
            return _Spot(start, end.end_mark.index, "flow", anchor, **content)
        return _Spot(start, last, "block", anchor, **content)


def _at(event: Any, message: str) -> Broken:
    return Broken(event.start_mark.line + 1, event.start_mark.column + 1, message)


def _place_of(text: str, tree: _Spot | None, key: str) -> _Place:
    """Where the value of a key lies, and what stands around a new one."""
    found, holder, missing = _follow(tree, key)
    if missing or found is None:
        known = list(_names(tree))
        raise BadEdit(f"there is no key {key!r}", get_close_matches(key, known, 3, 0.5) or known[:8])
    anchor = f"&{found.anchor} " if found.anchor and found.kind != "alias" else ""
    if found.start == found.end:
        return _Place(found.start, found.end, " " + anchor, "")
    if holder is None or found.kind != "block":
        return _Place(found.start, found.end, anchor, "")
    # Below its key: the new value stands behind the colon, before the comment of that line.
    colon = text.index(":", holder.end) + 1
    rest = text[colon : min((text + "\n").index("\n", colon), max(colon, found.start))]
    note = "  " + rest[rest.index("#") :].rstrip() if "#" in rest else ""
    return _Place(colon, found.end, " " + anchor, note)


def _follow(tree: _Spot | None, key: str) -> tuple[_Spot | None, _Spot | None, list[str]]:
    """The value at a path, the key that it belongs to, and the parts of the path that are not there.

    A key that itself holds dots is found, too.
    """
    parts, found, holder = key.split("."), tree, None
    while parts and found is not None:
        if found.kind == "alias":
            raise BadEdit(f"{key!r} lies behind the alias *{found.anchor}; name the key where the anchor stands")
        if found.items is not None:
            if not re.fullmatch("-?[0-9]+", parts[0]):
                raise BadEdit(f"{key!r} goes through a list; its items are 0 to {len(found.items) - 1}")
            index = int(parts[0])
            if not -len(found.items) <= index < len(found.items):
                raise BadEdit(f"{key!r}: the list has {len(found.items)} items, counted from 0")
            found, holder, parts = found.items[index], None, parts[1:]
            continue
        for count in range(len(parts), 0, -1):
            name = ".".join(parts[:count])
            entry = next((entry for entry in found.entries if entry[1] == name), None)
            if entry is not None:
                holder, found, parts = entry[0], entry[2], parts[count:]
                break
        else:
            return found, holder, parts
    return found, holder, parts


def _names(spot: _Spot | None, before: str = "") -> Iterator[str]:
    """The dotted paths of all values of maps."""
    for _, name, value in spot.entries if spot else ():
        yield before + name
        yield from _names(value, f"{before}{name}.")


# -- new keys


def _with_new(text: str, key: str) -> str:
    """The text with this key, and nothing as its value."""
    tree = _tree(text)
    found, holder, missing = _follow(tree, key)
    if not missing and found is not None:
        raise BadEdit(f"the key {key!r} is in the template already; leave the + away")
    if not all(missing):
        raise BadEdit(f"the key {key!r} has an empty part")
    nested = ": {".join(map(_key_text, missing)) + ": null" + "}" * (len(missing) - 1)
    if found is None or (holder is None and found.start == found.end):
        return text + ("" if not text or text.endswith("\n") else "\n") + nested + "\n"
    if holder is not None and (found.start == found.end or text[found.start : found.end] in ("null", "~")):
        place = _place_of(text, tree, key[: -len(".".join(missing)) - 1])
        return text[: place.start] + place.before + "{" + nested + "}" + place.behind + text[place.end :]
    if found.items is not None or not (found.entries or found.kind == "flow"):
        raise BadEdit(f"{key!r} can't be added: what is there is no map")
    if found.kind == "flow":
        comma = ", " if found.entries else ""
        at = found.end - 1
        return text[:at].rstrip() + comma + nested + text[at:]
    first = found.entries[0][0].start
    indent = first - (text.rfind("\n", 0, first) + 1)
    at = (text + "\n").index("\n", found.end)
    return text[:at] + "\n" + " " * indent + nested + text[at:]


def _key_text(name: str) -> str:
    return name if _PLAIN_KEY.fullmatch(name) else "'" + name.replace("'", "''") + "'"
