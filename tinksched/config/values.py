"""Readers: each turns the node of one value into its type, or raises BadValue and says what was expected."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from unicodedata import category

from . import placeholders
from .broken import quoted
from .document import Entry, MappingNode, Node, ScalarNode, SequenceNode
from .units import DAY, PB, duration, size, size_text, with_usual_case

T = TypeVar("T")
LARGEST = 1_000_000  # of any whole number: beyond it lies a typing mistake, or somebody's integer overflow
LONGEST = 365 * DAY
LARGEST_SIZE = PB
LONGEST_NAME = 100  # bytes; what is put behind it must fit into a file name too
YES_NO = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}


class BadValue(Exception):
    """A value that its key can't have."""

    def __init__(self, node: Node, message: str) -> None:
        super().__init__(message)
        self.node = node
        self.message = message


@dataclass(slots=True)
class Context:
    """What every reader of one file shares. `task_name` is None until it is known."""

    workspace: Path
    task_name: str | None = None
    problems: list[BadValue] = field(default_factory=list)

    def attempt(self, reader: Callable[[Value], T], value: Value) -> T | None:
        """What the reader makes of the value; None if it is bad, which is noted, so that reading can go on."""
        try:
            return reader(value)
        except BadValue as bad:
            self.problems.append(bad)
            return None


@dataclass(frozen=True, slots=True)
class Value:
    """A node to be read, and what messages call it."""

    node: Node
    label: str
    context: Context

    def child(self, node: Node, label: str) -> Value:
        """A value inside this one."""
        return Value(node, label, self.context)

    def bad(self, expected: str, hint: str = "") -> BadValue:
        """`LABEL must be EXPECTED, not FOUND; HINT`."""
        found = "and has no value" if is_empty(self.node) else f"not {described(self.node)}"
        message = f"{self.label} must be {expected}, {found}"
        return BadValue(self.node, f"{message}; {hint}" if hint else message)

    def forbids(self, what: str) -> BadValue:
        """`LABEL WHAT`, where `what` begins with "must"."""
        return BadValue(self.node, f"{self.label} {what}")


Reader = Callable[[Value], T]


# Scalars


def text(value: Value) -> str:
    """Any text, with `${task_name}` replaced."""
    node = value.node
    if not isinstance(node, ScalarNode) or node.kind == "null":
        raise value.bad("a text", tilde_hint(node))
    if node.kind != "text":
        raise value.bad("a text", f"put it in quotes: {quoted(node.text)}")
    return as_written(value)


def as_written(value: Value) -> str:
    """The text of any scalar just as the file has it (`007`, `1e-3`, `true`), with `${task_name}` replaced."""
    node = value.node
    if not isinstance(node, ScalarNode) or node.kind == "null":
        raise value.bad("a text, a number, or true or false", 'write "" for an empty text' if is_empty(node) else "")
    return _clean(value, _named(node, value.context.task_name))


def templated(value: Value) -> str:
    """As `as_written`, for a text that a run expands: what looks like a placeholder must be one."""
    as_written(value)
    assert isinstance(value.node, ScalarNode)
    for name in placeholders.unknown(value.node.text):
        shown = quoted("{" + name + "}")
        hint = f"{_nearest_placeholder(name)} {{{{ and }}}} write literal braces"
        value.context.problems.append(value.forbids(f"must not hold {shown}, which is no placeholder; {hint}"))
    # Braces in the name itself are no placeholders.
    return _named(value.node, placeholders.literal(value.context.task_name or ""))


def filled(value: Value) -> str:
    """A text that is not blank."""
    found = text(value)
    if not found.strip():
        raise value.forbids("must not be empty")
    return found


def text_or_none(value: Value) -> str | None:
    """A text, or None for a blank one."""
    found = text(value)
    return found if found.strip() else None


def session_text(value: Value) -> str:
    """A part of a session's name; it may be empty."""
    found = text(value)
    if any(category(character) in ("Cc", "Zl", "Zp") for character in found):
        raise value.forbids("must not hold control characters or line breaks")
    if len(found.encode()) > LONGEST_NAME:
        raise value.forbids(f"must not be longer than {LONGEST_NAME} bytes; it becomes part of names")
    return found


def file_name_part(value: Value) -> str:
    """A part of the names of sessions and files; it may be empty."""
    found = session_text(value)
    if "/" in found:
        raise value.forbids("must not hold '/'; it becomes part of file names")
    return found


def task_name(value: Value) -> str:
    """The workspace's name: not empty, and fit for the names of sessions and files."""
    if "${task_name}" in filled(value):
        raise value.forbids("must not refer to itself")
    return file_name_part(value)


def boolean(value: Value) -> bool:
    """`true` or `false`."""
    node = value.node
    if isinstance(node, ScalarNode) and node.text.lower() in ("true", "false"):  # old files have it in quotes, too
        return node.text.lower() == "true"
    word = YES_NO.get(node.text.lower()) if isinstance(node, ScalarNode) else None
    raise value.bad("true or false", f"write {word}" if word else "")


def integer(least: int = -LARGEST, most: int = LARGEST) -> Reader[int]:
    """A whole number from `least` to `most`, which may stand in quotes, as it does in old files."""

    def read(value: Value) -> int:
        number = whole(_unquoted(value.node))
        if number is None or number < least:
            at_least = "" if least == -LARGEST and number is None else f" of at least {least}"
            raise value.bad(f"a whole number{at_least}")
        if number > most:
            raise value.bad(f"at most {most}")
        return number

    return read


def count_or_auto(least: int) -> Reader[int | None]:
    """A whole number of at least `least`, or None for `auto`."""

    def read(value: Value) -> int | None:
        if isinstance(value.node, ScalarNode) and value.node.text == "auto":
            return None
        if whole(_unquoted(value.node)) is None:
            raise value.bad(f"auto or a whole number of at least {least}")
        return integer(least)(value)

    return read


def seconds(value: Value) -> float:
    """A duration in seconds; 0 is one."""
    expected = "a duration such as 90s, 30m, 2h or 1d, or a number of seconds"
    if not isinstance(value.node, ScalarNode) or value.node.kind in ("null", "bool"):
        raise value.bad(expected)
    try:
        found = duration(value.node.text)
    except ValueError:
        raise value.bad(expected) from None
    if not found <= LONGEST:
        raise value.bad("at most 365d")
    return found


def positive_seconds(value: Value) -> float:
    """A duration that is not 0."""
    if not (found := seconds(value)):
        raise value.bad("longer than 0 seconds")
    return found


def limit_in_seconds(without_limit: str) -> Reader[float]:
    """A duration that is not 0. `without_limit` says how to have none."""

    def read(value: Value) -> float:
        if isinstance(value.node, ScalarNode) and value.node.text.lower() in ("none", "never", "off"):
            raise value.bad("a duration such as 90m or 2h", without_limit)
        if not (found := seconds(value)):
            raise value.forbids(f"must be more than 0; {without_limit}")
        return found

    return read


def size_in_bytes(least: int = 0, expected: str = "a size such as 200MB or 8GiB") -> Reader[int]:
    """A size of at least `least` bytes."""

    def read(value: Value) -> int:
        node = value.node
        given = node.text if isinstance(node, ScalarNode) and node.kind not in ("null", "bool") else ""
        try:
            found = size(given)
        except ValueError:
            usual = with_usual_case(given)
            is_number = isinstance(node, ScalarNode) and node.kind in ("int", "float")
            hint = "a size needs a unit, such as 200MB" if is_number else f"write {usual}" if usual else ""
            raise value.bad(expected, hint) from None
        if found < least:
            raise value.bad(f"at least {size_text(least)}")
        if found > LARGEST_SIZE:
            raise value.bad(f"at most {size_text(LARGEST_SIZE)}")
        return found

    return read


def size_or_auto(value: Value) -> int | str:
    """A size, or the word `auto`."""
    is_auto = isinstance(value.node, ScalarNode) and value.node.text == "auto"
    return "auto" if is_auto else size_in_bytes(expected="a size such as 200MB or 8GiB, or auto")(value)


def choice(*choices: str) -> Reader[str]:
    """One of the given words."""

    def read(value: Value) -> str:
        found = value.node.text if isinstance(value.node, ScalarNode) else ""
        if found not in choices:
            raise value.bad(f"one of {', '.join(choices)}", did_you_mean(found, choices))
        return found

    return read


def path(value: Value) -> Path:
    """A path relative to the workspace, with `~` expanded; nothing is looked up on the disk."""
    found = filled(value)
    expanded = os.path.expanduser(found)
    if found.startswith("~") and expanded == found:
        user = quoted(found.split("/")[0])
        raise value.forbids(f"must name a home folder that exists, not {user}; for a file write ./~")
    return value.context.workspace / expanded


def own_folder(value: Value) -> Path:
    """A path to a folder that is not the workspace itself."""
    found = path(value)
    if os.path.normpath(found) == os.path.normpath(value.context.workspace):
        raise value.forbids("must be a folder of its own, such as .tinksched, not the workspace")
    return found


def variable_name(value: Value) -> str:
    """The name of an environment variable."""
    found = text(value)
    if not found or "=" in found:
        raise value.bad("the name of an environment variable: not empty, and without '='")
    return found


# Lists and maps


def arguments(value: Value) -> tuple[str, ...]:
    """A list of scalars, each the text that a program is given."""
    return items(value, templated, "a list, such as [--resume, --lr, 0.1]", _list_hint(value.node))


def command(value: Value) -> tuple[str, ...]:
    """A program and its arguments."""
    expected = "a list, such as [torchrun, train.py, '--config_path={config}']"
    return _program(value, items(value, templated, expected, _list_hint(value.node)))


def shell_or_command(value: Value) -> tuple[str, ...] | None:
    """A command of the shell in one text, or a program and its arguments; None for a blank text."""
    if isinstance(value.node, ScalarNode) and value.node.kind == "text":
        found = templated(value)
        return (*placeholders.SHELL, found) if found.strip() else None
    hint = f"put it in quotes: {quoted(value.node.text)}" if isinstance(value.node, ScalarNode) else ""
    hint = "" if is_empty(value.node) else hint
    return _program(value, items(value, templated, "a shell command, or a list such as [cp, '{config}', /tmp]", hint))


def _program(value: Value, found: tuple[str, ...]) -> tuple[str, ...]:
    """The command, which must have a program."""
    first = value.node.items[0] if isinstance(value.node, SequenceNode) and value.node.items else None
    if first is None:
        raise value.forbids("must not be an empty list; it begins with the program")
    if isinstance(first, ScalarNode) and first.kind != "null" and not first.text.strip():
        raise value.child(first, f"{value.label}[0]").forbids("must not be empty; it is the program")
    return found


def devices(value: Value) -> tuple[int | str, ...]:
    """GPU indices and UUIDs without duplicates."""
    seen: set[int | str] = set()

    def new_device(item: Value) -> int | str:
        device = _device(item)
        same = device.lower() if isinstance(device, str) else device
        if same in seen:
            raise item.forbids(f"must not name GPU {device} again; it stands in the list already")
        seen.add(same)
        return device

    if isinstance(value.node, SequenceNode) and not value.node.items:
        raise value.forbids("must name a GPU; leave the key out to use all of them")
    return items(value, new_device, "a list of GPU indices or UUIDs, such as [0, 2]")


def variables(value: Value) -> Mapping[str, str]:
    """A map of environment variables."""
    found = {}
    for entry in entries(value, "a map of names to values, such as {OMP_NUM_THREADS: 4}"):
        context = value.context
        name = context.attempt(variable_name, value.child(as_name(entry.key), f"a name in {value.label}"))
        content = context.attempt(templated, value.child(entry.value, f"{value.label}[{quoted(entry.key.text)}]"))
        if name is not None and content is not None:
            found[name] = content
    return MappingProxyType(found)


def entries(value: Value, expected: str) -> tuple[Entry, ...]:
    """The entries of a map."""
    if not isinstance(value.node, MappingNode):
        raise value.bad(expected)
    return value.node.entries


def items(value: Value, reader: Reader[T], expected: str, hint: str = "") -> tuple[T, ...]:
    """What the reader makes of each item of a list, without the bad ones, which are noted."""
    if not isinstance(value.node, SequenceNode):
        raise value.bad(expected, hint)
    items = [value.child(item, f"{value.label}[{index}]") for index, item in enumerate(value.node.items)]
    found = [value.context.attempt(reader, item) for item in items]
    return tuple(item for item in found if item is not None)


def _device(value: Value) -> int | str:
    number = whole(value.node)
    if number is not None and 0 <= number <= LARGEST:
        return number
    if isinstance(value.node, ScalarNode) and value.node.text.startswith(("GPU-", "MIG-")):
        return text(value)
    raise value.bad("a GPU index such as 0, or a UUID such as GPU-8a6f", _unquote_hint(value.node))


# Words about nodes


def as_name(key: ScalarNode) -> ScalarNode:
    """A map's key is a name whatever its kind, so that `1: x` is no puzzle."""
    return ScalarNode(key.line, key.column, key.text, "text")


def is_empty(node: Node) -> bool:
    """Whether the key has no value (`key:`)."""
    return isinstance(node, ScalarNode) and node.kind == "null"


def whole(node: Node) -> int | None:
    """The whole number that the node is, if it is one."""
    if not isinstance(node, ScalarNode) or node.kind != "int":
        return None
    try:
        return int(node.text, 16 if "x" in node.text else 8 if "o" in node.text else 10)
    except ValueError:  # more digits than Python converts
        return None


def described(node: Node) -> str:
    """What a message calls the node."""
    if isinstance(node, MappingNode):
        return "a map"
    if isinstance(node, SequenceNode):
        return "a list"
    if node.kind == "text":
        return f"the text {quoted(node.text)}"
    plain = quoted(node.text)[1:-1]
    return plain if node.kind == "bool" else f"the number {plain}"


def did_you_mean(found: str, known: tuple[str, ...]) -> str:
    """A question with the nearest known word, or nothing."""
    nearest = get_close_matches(found.lower(), known, n=1, cutoff=0.65) if len(found) <= 60 else []
    return f"did you mean {nearest[0]!r}?" if nearest else ""


def tilde_hint(node: Node) -> str:
    """`work_dir: ~` is nothing to YAML, and the home folder to everybody else."""
    is_tilde = isinstance(node, ScalarNode) and node.text == "~"
    return 'to YAML a bare ~ is nothing; write "~" in quotes for the home folder' if is_tilde else ""


def _nearest_placeholder(name: str) -> str:
    nearest = get_close_matches(name.lower(), placeholders.NAMES, n=1, cutoff=0.5) if len(name) <= 60 else []
    if nearest:
        return f"did you mean {{{nearest[0]}}}?"
    return f"there are {' '.join(f'{{{known}}}' for known in placeholders.NAMES)};"


def _named(node: ScalarNode, task_name: str | None) -> str:
    """The text with `${task_name}` replaced, once the name is known."""
    return node.text.replace("${task_name}", task_name or "${task_name}")


def _unquoted(node: Node) -> Node:
    """A decimal number in quotes as the number that it is."""
    is_quoted = isinstance(node, ScalarNode) and node.kind == "text" and re.fullmatch("-?[0-9]{1,7}", node.text)
    return replace(node, kind="int") if is_quoted and isinstance(node, ScalarNode) else node


def _unquote_hint(node: Node) -> str:
    is_number = isinstance(node, ScalarNode) and node.kind == "text" and re.fullmatch("-?[0-9]{1,7}", node.text)
    return f"write {node.text} without quotes" if is_number and isinstance(node, ScalarNode) else ""


def _list_hint(node: Node) -> str:
    """The list that a command line in one text was meant to be."""
    if not isinstance(node, ScalarNode) or not 0 < len(node.text) <= 200 or not node.text.isprintable():
        return ""
    try:
        words = shlex.split(node.text)
    except ValueError:  # a quote that is never closed
        return ""
    return f"write [{', '.join(map(_in_quotes, words))}]"


def _in_quotes(word: str) -> str:
    return word if re.fullmatch(r"[A-Za-z0-9_./=-]+", word) else "'" + word.replace("'", "''") + "'"


def _clean(value: Value, found: str) -> str:
    """Text that a program can be given: without NUL, and without the halves of characters that `\\ud800` makes."""
    if "\0" in found:
        raise value.forbids("must not hold a NUL character")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise value.forbids("must not hold a lone surrogate (half a character)") from None
    return found
