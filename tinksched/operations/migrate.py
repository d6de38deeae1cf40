"""The configuration of an older scheduler's workspace, made fit for this one.

The file is edited at the places that the YAML parser names and never written out anew, so that everything which does
not have to change keeps its bytes: comments, quotes, blank lines. Lines never move; new ones come at the end.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import CONFIG_NAME, KEYS, Key, Settings, load
from ..config.document import MappingNode, Node, ScalarNode, SequenceNode, compose
from ..config.settings import shown
from ..config.values import YES_NO, BadValue, Context, Value, did_you_mean
from ..errors import ConfigError, UsageError
from ..host.tmux import Tmux, TmuxError, session_name
from ..scheduler.starting import scheduler_session
from .meanings import DELAY, NO_CONDA, QUESTIONS, lacks_conda, seconds

TITLE = "# --- Added by tinksched setup-workspace --force "
WIDTH = 119
OLD_DELAY = 1.0  # what the old template gave startup_delay, in seconds
_LINE = re.compile(r"[^\n\r]*(?:\r\n|[\n\r]|\Z)")  # as the parser counts lines
_ENDS_COMMENT = re.compile("[\x85\u2028\u2029]")  # to the parser no end of a line, and yet that of a comment
_OURS = re.compile(r"^.*#.*tinksched", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Note:
    """What the user should know about a key. The line is the same before and after."""

    line: int
    key: str
    text: str

    def __str__(self) -> str:
        return f"{CONFIG_NAME}:{self.line}: {self.key}: {self.text}"


@dataclass(frozen=True, slots=True)
class Migrated:
    """The new text of a configuration, the keys that it got as comments, and what the user should know."""

    text: str
    settings: Settings
    added: tuple[str, ...]
    notes: tuple[Note, ...]


def migrate(text: str, workspace: Path) -> Migrated:
    """The text of a `scheduler_config.yml` as this version wants it. Nothing is written.

    A text in which a comment speaks of tinksched was written or migrated by it: its values mean what they say. Then
    only unknown keys, spellings that don't load, and missing keys are seen to.

    Raises:
        ConfigError: it can't be loaded; every problem is listed, at its place in the given text.
        UsageError: it is written in a way that can't be edited without changing other values.
    """
    entries = _entries(text)
    is_old = not _OURS.search(text)
    edited, notes = _edit(text, entries, workspace, is_old=is_old)
    settings = _load(edited, workspace)
    missing = _missing(text, entries)
    complete = edited + _block(edited, missing)
    if missing:
        settings = _load(complete, workspace)
    _refuse_changed_values(text, complete, {note.key for note in notes})
    if is_old:
        notes += _concerns(entries, settings, {note.key for note in notes})
    notes.sort(key=lambda note: note.line)
    return Migrated(complete, settings, tuple(key.name for key in missing), tuple(notes))


def still_running(settings: Settings) -> list[str]:
    """Sentences on what is left of an older scheduler in tmux, and how to end it. Nothing is ended here."""
    if shutil.which("tmux") is None:
        return []
    tmux = Tmux(settings.tmux_socket)
    try:
        names = tmux.session_names()
    except TmuxError:
        return []
    found = []
    scheduler = scheduler_session(settings)
    if scheduler in names and _is_foreign(tmux, scheduler):
        end = f"{' '.join(tmux.arguments())} kill-session -t {_in_quotes('=' + scheduler)}"
        found.append(f"the tmux session {scheduler} is not tinksched's; if an older scheduler runs in it: {end}")
    prefix = session_name(settings.worker_prefix or settings.task_name)
    pattern = re.compile(rf"{re.escape(prefix)}_.+_gpu[0-9]+")
    runs = [name for name in sorted(names) if pattern.fullmatch(name) and _is_foreign(tmux, name)]
    if runs:
        found.append(
            f"runs of an older scheduler may still be in the sessions {', '.join(runs)}; tinksched does not count them "
            "as load of their GPUs, so let them end before you start"
        )
    return found


# ---------------------------------------------------------------- where things stand


@dataclass(frozen=True, slots=True)
class _Entry:
    """A key with its value, and the lines that they take. Lines and columns count from 0."""

    name: str
    node: Node
    line: int
    last: int
    indent: int
    may_comment: bool  # its lines can be made comments
    start: tuple[int, int]  # of the value: line and column
    end: int  # the column after the value; -1 if it isn't a scalar in one line
    is_quoted: bool

    @property
    def text(self) -> str:
        """What a scalar says; nothing for a list or a map."""
        return self.node.text if isinstance(self.node, ScalarNode) else ""


def _entries(text: str) -> dict[str, _Entry]:
    """The keys of the outermost map, in the order of the file; none if the text is broken or no map."""
    document = compose(text)
    if document.broken or not isinstance(document.root, MappingNode):
        return {}
    nodes = {entry.key.text: entry.value for entry in document.root.entries}
    places = list(_places(text))
    ends = [key.start_mark.line - 1 for key, _, _ in places[1:]] + [len(_lines(text)) - 1]
    lines = _lines(text)
    entries = [
        _entry(nodes[key.value], lines, key, (first, last), end)
        for (key, first, last), end in zip(places, ends, strict=True)
        if key.value in nodes  # all but a merge key
    ]
    if _is_flow(text):  # {task_name: demo}
        entries = [replace(entry, may_comment=False) for entry in entries]
    return {entry.name: entry for entry in entries}


def _entry(node: Node, lines: Sequence[str], key: Any, value: tuple[Any, Any], end: int) -> _Entry:
    """One entry, from the parser's events. `end` is the last line that it can have."""
    mark, (first, last) = key.start_mark, value
    bottom = max(mark.line, min(last.end_mark.line, end))  # a block's end is marked where the next thing begins
    while bottom > mark.line and not lines[bottom].split("#")[0].strip():
        bottom -= 1
    style = getattr(last, "style", None) or ""
    is_simple = _kind(last) == "Scalar" and last.anchor is None and last.tag is None and bool(last.value + style)
    is_simple = is_simple and style in ("", "'", '"') and last.start_mark.line == last.end_mark.line
    return _Entry(
        name=key.value,
        node=node,
        line=mark.line,
        last=bottom,
        indent=mark.column,
        may_comment=not (
            lines[mark.line][: mark.column].strip() or _ENDS_COMMENT.search("".join(lines[mark.line : bottom + 1]))
        ),
        start=(first.start_mark.line, first.start_mark.column),
        end=last.end_mark.column if is_simple else -1,
        is_quoted=bool(style),
    )


def _is_flow(text: str) -> bool:
    """Whether the outermost map stands in braces."""
    from ruamel.yaml import YAML

    events = YAML(typ="safe", pure=True).parse(text)
    return any(event.flow_style for event in itertools.islice(events, 3) if _kind(event) == "MappingStart")


def _places(text: str) -> Iterator[tuple[Any, Any, Any]]:
    """The parser's events for each key of the outermost map: the key, the first and the last of its value."""
    from ruamel.yaml import YAML

    depth = 0
    key = first = None
    for event in YAML(typ="safe", pure=True).parse(text):
        kind = _kind(event)
        if kind in ("MappingStart", "SequenceStart"):
            first = event if depth == 1 else first
            depth += 1
            continue
        closes = kind in ("MappingEnd", "SequenceEnd")
        depth -= closes
        if depth != 1 or not (closes or kind in ("Scalar", "Alias")):
            continue
        if key is None:
            key = event
        else:
            yield key, first if closes else event, event
            key = None


def _kind(event: Any) -> str:
    return type(event).__name__.removesuffix("Event")


def _lines(text: str) -> list[str]:
    """The lines with their ends: joined they are the text."""
    return [line for line in _LINE.findall(text) if line]


# ---------------------------------------------------------------- changing lines


def _edit(text: str, entries: Mapping[str, _Entry], workspace: Path, *, is_old: bool) -> tuple[str, list[Note]]:
    """The text with the changes that it needs, and a note on each."""
    lines = _lines(text)
    task_name = entries["task_name"].text if "task_name" in entries else None
    notes = []
    for entry in entries.values():
        if entry.name not in KEYS:
            why = _comment_out(lines, entry, _unknown(entry.name))
        elif is_old and entry.name == "conda_env" and entry.text == "base" and lacks_conda():
            why = _comment_out(lines, entry, NO_CONDA)
        elif is_old and entry.name == "startup_delay" and seconds(entry.text) == OLD_DELAY:
            why = _put(lines, entry, "0", f"was {DELAY}")
        else:
            why = _respell(lines, entry, Context(workspace, task_name))
        if why:
            notes.append(Note(entry.line + 1, entry.name, why))
    return "".join(lines), notes


def _comment_out(lines: list[str], entry: _Entry, why: str) -> str:
    """Make the entry's lines comments, the first with the reason. Nothing, if they aren't its alone."""
    if not entry.may_comment:
        return ""
    for number in range(entry.line, entry.last + 1):
        lines[number] = "#" + lines[number]
    lines[entry.line] = _with_comment(lines[entry.line], why)
    return f"{why}; commented out"


def _put(lines: list[str], entry: _Entry, value: str, why: str) -> str:
    """Replace a scalar that stands in one line, and say so behind it. Nothing, if the value is no such scalar."""
    if entry.end < 0:
        return ""
    number, start = entry.start
    line = lines[number]
    what = f"{line[start : entry.end]} became {value}: {why}"
    lines[number] = line[:start] + value + line[entry.end :]
    if entry.may_comment:
        lines[number] = _with_comment(lines[number], what)
    return what


def _with_comment(line: str, text: str) -> str:
    body = line.rstrip()
    return f"{body}   # tinksched: {text}{line[len(body) :].lstrip(' ')}"


def _respell(lines: list[str], entry: _Entry, context: Context) -> str:
    """A value that can't be read as its key wants it, but would be in quotes or as true or false, is written so."""
    key = KEYS[entry.name]
    if entry.end < 0 or _reads(key, entry.node, context):
        return ""
    for spelling, why in _spellings(entry):
        node = _node_of(spelling)
        if node is not None and _reads(key, node, context):
            return _put(lines, entry, spelling, why)
    return ""


def _spellings(entry: _Entry) -> Iterator[tuple[str, str]]:
    word = YES_NO.get(entry.text.lower())
    if word:
        yield word, "only true and false are understood here"
    if not entry.is_quoted:
        yield json.dumps(entry.text, ensure_ascii=False), "a text that looks like a number stands in quotes"


def _node_of(value: str) -> Node | None:
    root = compose(f"key: {value}\n").root
    return root.entries[0].value if isinstance(root, MappingNode) else None


def _reads(key: Key, node: Node, context: Context) -> bool:
    trial = Context(context.workspace, context.task_name)
    try:
        key.value(Value(node, key.name, trial))
    except BadValue:
        return False
    return not trial.problems


def _unknown(name: str) -> str:
    nearest = did_you_mean(name, tuple(word for word in KEYS if not KEYS[word].note))
    return "tinksched has no such key" + (f" ({nearest})" if nearest else "")


# ---------------------------------------------------------------- adding lines


def _missing(text: str, entries: Mapping[str, _Entry]) -> list[Key]:
    """The keys that the file has neither set nor as a comment. None for a map in braces, which has no end to add to."""
    if _is_flow(text):
        return []
    mentioned = set(re.findall(r"^[ \t]*#[# \t]*([a-z_]+):(?=\s|$)", text, re.MULTILINE))
    return [key for key in KEYS.values() if not (key.required or key.note or key.name in mentioned | entries.keys())]


def _block(text: str, missing: Sequence[Key]) -> str:
    """The missing keys as comments that show their defaults, in the file's own line ends and indentation."""
    if not missing:
        return ""
    lines = [] if TITLE in text else ["", TITLE + "-" * (WIDTH - len(TITLE)), *_INTRODUCTION]
    for key in missing:
        about = textwrap.wrap(key.doc, WIDTH - 2, initial_indent="# ", subsequent_indent="# ")
        lines += ["", *about, f"#{key.name}: {key.default_text}".rstrip()]
    indent = " " * next((entry.indent for entry in _entries(text).values()), 0)
    end = "\r\n" if "\r\n" in text else "\n"
    start = "" if text.endswith(("\n", "\r")) else end
    return start + "".join(f"{indent if line else ''}{line}{end}" for line in lines)


_INTRODUCTION = (
    "# Keys that this file did not have, each with its default. Remove the # before a key to change it.",
    "# `tinksched config` shows every setting, and where it came from.",
)


# ---------------------------------------------------------------- making sure


def _load(text: str, workspace: Path) -> Settings:
    """The settings that the text stands for. Problems name the workspace's file, whose lines are the same.

    Raises:
        ConfigError: it has problems.
    """
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder, CONFIG_NAME)
        aside.write_bytes(text.encode())
        try:
            return load(workspace, aside)
        except ConfigError as error:
            file = shown(workspace / CONFIG_NAME)
            raise ConfigError([replace(problem, file=file) for problem in error.problems], hint=error.hint) from None


def _refuse_changed_values(before: str, after: str, edited: set[str]) -> None:
    """Whatever was done to the text, all other values must be what they were."""
    old, new = (_contents(compose(text).root) for text in (before, after))
    if old is None or new is None:
        return
    changed = sorted(name for name in old.keys() | new.keys() if name not in edited and old.get(name) != new.get(name))
    if changed:
        raise UsageError(
            f"{CONFIG_NAME} can't be migrated without changing {', '.join(changed)}; nothing was changed",
            hint="write these with one key per line and without anchors, then try again",
        )


def _contents(root: Node | None) -> dict[str, object] | None:
    if not isinstance(root, MappingNode):
        return None
    return {entry.key.text: _content(entry.value) for entry in root.entries}


def _content(node: Node) -> object:
    """A node without its place."""
    if isinstance(node, ScalarNode):
        return (node.kind, node.text)
    if isinstance(node, SequenceNode):
        return [_content(item) for item in node.items]
    return {entry.key.text: _content(entry.value) for entry in node.entries}


def _concerns(entries: Mapping[str, _Entry], settings: Settings, edited: set[str]) -> list[Note]:
    """The values of an old file that mean something else now, or that `start` is going to refuse."""
    notes = []
    for name, ask in QUESTIONS.items():
        if name in entries and name not in edited:
            text = ask(entries[name].text, settings)
            if text:
                notes.append(Note(entries[name].line + 1, name, text))
    return notes


def _is_foreign(tmux: Tmux, session: str) -> bool:
    pane = tmux.pane_of(session)
    return pane is not None and not (pane.run or pane.workspace)


def _in_quotes(word: str) -> str:
    """For a shell; always in quotes, as zsh would expand a bare word that begins with `=`."""
    return "'" + word.replace("'", "'\\''") + "'"
