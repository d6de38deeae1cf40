"""Placeholders such as `{config}` in the texts that a run is made of.

`{name}` stands for a value, and `{{name}}` is `{name}`. Every other brace is just a brace (`{"a": 1}`, `{a,b}`, `{}`),
and `${name}` belongs to the shell. With more braces it goes as in Python's format: `{{{name}}}` is a value in braces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

NAMES = ("python", "script", "config", "task", "gpus", "ngpus", "port", "attempt", "workspace", "output_dir")
SHELL = ("/bin/sh", "-c")  # what a shell command of the config begins with; its text comes next

_SPOT = re.compile(r"(?<!\{)(\{+)([^\W\d]\w*)(\}+)")
_QUOTING = re.compile(r"\\.|['\"]", re.DOTALL)
# How a shell variable is written between no quotes, double ones and single ones, so that it stays one word.
_AS_ONE_WORD = {"": '"${%d}"', '"': "${%d}", "'": "'\"${%d}\"'"}


def unknown(text: str) -> list[str]:
    """The names that stand where a placeholder stands and are none, in order."""
    return list(dict.fromkeys(name for name in _names(text) if name not in NAMES))


def used(texts: Iterable[str]) -> set[str]:
    """The placeholders that the texts hold."""
    return {name for text in texts for name in _names(text) if name in NAMES}


def expand(text: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders replaced, once. A name without a value stays as it is."""

    def replaced(match: re.Match[str]) -> str:
        depth = _depth(match)
        name = match[2]
        if not depth or (depth % 2 and name not in values):
            return match[0]
        spent = depth - depth // 2  # of each pair of braces one stays
        return match[1][spent:] + (values[name] if depth % 2 else name) + match[3][spent:]

    return _SPOT.sub(replaced, text)


def expand_command(command: Sequence[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """The arguments with their placeholders replaced.

    In the text of a shell command (`/bin/sh -c TEXT`) each becomes a variable of the shell, quoted as its place needs,
    and the values follow as arguments: whatever they hold (spaces, quotes, `$(...)`), the shell never reads it as code.
    """
    if len(command) != 3 or tuple(command[:2]) != SHELL:
        return tuple(expand(argument, values) for argument in command)
    given = sorted(used(command[2:]) & set(values))
    text = _shell_text(command[2], {name: number for number, name in enumerate(given, start=1)})
    return (*SHELL, text, *([SHELL[0], *(values[name] for name in given)] if given else []))


def literal(text: str) -> str:
    """The text such that `expand` gives it back: with the braces of what looks like a placeholder doubled."""

    def doubled(match: re.Match[str]) -> str:
        depth = _depth(match)
        return "{" * depth + match[0] + "}" * depth

    return _SPOT.sub(doubled, text)


def _shell_text(text: str, numbers: Mapping[str, int]) -> str:
    """The text with shell variables in place of placeholders; pieces are expanded with what quotes are open there."""
    quote, shown = "", 0
    pieces: list[str] = []
    for match in _SPOT.finditer(text):
        quote = _quote_after(text[shown : match.start()], quote)
        variables = {name: _AS_ONE_WORD[quote] % number for name, number in numbers.items()}
        pieces += text[shown : match.start()], expand(match[0], variables) if _depth(match) else match[0]
        shown = match.end()
    return "".join([*pieces, text[shown:]])


def _quote_after(text: str, quote: str) -> str:
    """The quote that is open after the text, where `quote` was open before it."""
    for match in _QUOTING.finditer(text):
        ends_single = quote == "'" and match[0].endswith("'")  # a backslash before it is no escape there
        if quote and (match[0] == quote or ends_single):
            quote = ""
        elif not quote and match[0] in ("'", '"'):
            quote = match[0]
    return quote


def _names(text: str) -> Iterator[str]:
    return (match[2] for match in _SPOT.finditer(text) if _depth(match) % 2)


def _depth(match: re.Match[str]) -> int:
    """How many pairs of braces are around the name: an odd number makes a placeholder, 0 is a shell's `${name}`."""
    start = match.start()
    is_of_the_shell = match[1] == "{" and match.string[start - 1 : start] == "$"
    return 0 if is_of_the_shell else min(len(match[1]), len(match[3]))
