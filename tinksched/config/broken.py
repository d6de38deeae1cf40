"""What a YAML parser's error means to the person who wrote the file: a place and one clear sentence."""

from __future__ import annotations

import re
from typing import Any


class Broken(Exception):
    """A place where the text is not the YAML that a config file may be. Line and column count from 1."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.column = column
        self.message = message


NOT_IN_LINE = "this does not go on from the lines above; check the indentation, quotes and brackets"
SECOND_DOCUMENT = "a second document begins here (---); a config file is one document"
_NEVER_CLOSED = "what opens here is never closed; a quote or bracket is missing"
_NEEDS_QUOTES = "a value that holds any of [ ] { } , # needs quotes"

# (what the parser says, what it means, whether the place that counts is where the broken thing began)
_MEANINGS: tuple[tuple[str, str, bool], ...] = (
    (r"found character '\\t'", "a tab; YAML wants spaces here", False),
    (r"found character '(.)' that cannot start", "a value can't begin with {0} unless it is in quotes", False),
    (
        r"mapping values are not allowed",
        "a ':' too many; quote a value that holds one, write a space after that of a key, check the indentation",
        False,
    ),
    (r"sequence entries are not allowed", "a list with '-' begins on a line of its own, below its key", False),
    (r"end of stream|<stream end>", _NEVER_CLOSED, True),
    (r"document separator", _NEVER_CLOSED, True),
    (r"expected ',' or '([\]}])'", "expected ',' or '{0}' here; " + _NEEDS_QUOTES, False),
    (r"unknown escape character '(.)'", "\\{0} is no escape; between single quotes a backslash is just itself", False),
    (r"could not find expected ':'", "a line that is neither 'key: value' nor part of a value", True),
    (r"expected <block end>|expected '?<document start>", NOT_IN_LINE, False),
)


def explain(error: Exception, text: str) -> Broken:
    """Turn whatever the parser raised over `text` into a Broken."""
    if hasattr(error, "character") and hasattr(error, "position"):
        return _forbidden_character(error, text)
    problem = getattr(error, "problem", None) or str(error) or type(error).__name__
    mark = getattr(error, "problem_mark", None)
    context_mark = getattr(error, "context_mark", None)
    for pattern, meaning, at_context in _MEANINGS:
        if match := re.search(pattern, problem):
            place = context_mark if at_context and context_mark else mark
            return _broken(place, meaning.replace("{0}", match[1]) if match.groups() else meaning)
    context = getattr(error, "context", None)
    return _broken(mark or context_mark, f"not valid YAML: {problem}" + (f" ({context})" if context else ""))


def quoted(text: str) -> str:
    """The text as a message shows it: on one line, and not the whole of a long one."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def place_of(text: str) -> tuple[int, int]:
    """The line and column of the character that would come after `text`."""
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _broken(mark: Any, message: str) -> Broken:
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    return Broken(line, column, " ".join(message.split())[:300])


def _forbidden_character(error: Any, text: str) -> Broken:
    code = error.character if isinstance(error.character, int) else 0
    message = f"the control character U+{code:04X}, which YAML does not allow in a file"
    return Broken(*place_of(text[: error.position]), message)
