"""Values that are given on the command line, read as those of the configuration are, with the same messages."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from ..errors import UsageError
from . import schema, values
from .document import ScalarNode
from .values import BadValue, Context, Reader, Value

T = TypeVar("T")


def gpus(text: str, option: str) -> int:
    """A number of GPUs. Raises UsageError: it is none."""
    reader: Reader[int] = schema.TASK_OPTIONS["gpus"].read
    return _read(reader, text, option)


def size(text: str, option: str) -> int:
    """A size in bytes. Raises UsageError: it is none."""
    return _read(values.size_in_bytes(), text, option)


def _read(reader: Reader[T], text: str, option: str) -> T:
    is_number = text.removeprefix("-").isdecimal() and text.isascii()
    node = ScalarNode(1, 1, text, "int" if is_number else "text")
    try:
        return reader(Value(node, option, Context(Path())))
    except BadValue as bad:
        raise UsageError(bad.message) from None
