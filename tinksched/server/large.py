"""Answers that may be large: JSON that is sent piece by piece, as fast as the client reads it."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import StreamingResponse

_CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Text:
    """What a text file holds, or of a longer one its last `most` bytes after a line that says so; empty without it."""

    path: Path
    most: int

    def parts(self) -> Iterator[str]:
        """It, piece by piece."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with open(descriptor, "rb") as stream:  # noqa: PTH123
            size = os.fstat(descriptor).st_size
            left = min(size, self.most)
            if left < size:
                stream.seek(size - left)
                yield f"[{size - left} bytes before this are left out]\n"
            while left and (found := stream.read(min(left, _CHUNK))):
                left -= len(found)
                yield decoder.decode(found, final=not left)


class LargeAnswer(StreamingResponse):
    """A JSON object, of whose values some are texts of files."""

    def __init__(self, answer: Mapping[str, object]) -> None:
        super().__init__(_json(answer), media_type="application/json")


def _json(answer: Mapping[str, object]) -> Iterator[str]:
    text, before = "", "{"
    for name, value in answer.items():
        text += f"{before}{_dumps(name)}:"
        before = ","
        if not isinstance(value, Text):
            text += _dumps(value)
            continue
        text += '"'
        for part in value.parts():
            yield text + _dumps(part)[1:-1]
            text = ""
        text += '"'
    yield text + "}"


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
