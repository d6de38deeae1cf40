"""The README's tables of keys and of events, from the code: python -m tests.keys rewrites them."""

from __future__ import annotations

import re
from pathlib import Path

from tinksched.config import KEYS, TASK_OPTIONS
from tinksched.core.news import OF_ALL, OF_BATCHES, OF_TASKS

README = Path(__file__).parents[1] / "README.md"
EVENTS = re.compile(r"(?s)(<!-- events: [^>]*-->\n).*?(<!-- end of events -->)")
BLOCK = re.compile(r"(?s)(<!-- keys: [^>]*-->\n).*?(<!-- end of keys -->)")


def table() -> str:
    """Every key, and every option of a task, as Markdown."""
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    lines += [_line(key.name, key.default_text, key.note or key.doc) for key in KEYS.values()]
    lines += ["", "| option in `tasks` | default | meaning |", "| --- | --- | --- |"]
    lines += [_line(option.name, option.default_text, option.doc) for option in TASK_OPTIONS.values()]
    return "\n".join(lines) + "\n"


def events() -> str:
    """What an event holds, as Markdown."""
    lines = ["| events | field | |", "| --- | --- | --- |"]
    for which, fields in (("all", OF_ALL), ("of a task", OF_TASKS), ("`batch_done`", OF_BATCHES)):
        lines += [f"| {which} | `{name}` | {meaning} |" for name, meaning in fields.items()]
    return "\n".join(lines) + "\n"


def _line(name: str, default: str, doc: str) -> str:
    shown = f"`{default}`" if default else ("required" if name == "task_name" else "none")
    return f"| `{name}` | {shown} | {doc} |"


if __name__ == "__main__":
    text = BLOCK.sub(lambda match: match[1] + table() + match[2], README.read_text())
    README.write_text(EVENTS.sub(lambda match: match[1] + events() + match[2], text))
