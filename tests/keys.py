"""The README's table of keys, from the code: python -m tests.keys rewrites it."""

from __future__ import annotations

import re
from pathlib import Path

from tinksched.config import KEYS, TASK_OPTIONS

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"(?s)(<!-- keys: [^>]*-->\n).*?(<!-- end of keys -->)")


def table() -> str:
    """Every key, and every option of a task, as Markdown."""
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    lines += [_line(key.name, key.default_text, key.note or key.doc) for key in KEYS.values()]
    lines += ["", "| option in `tasks` | default | meaning |", "| --- | --- | --- |"]
    lines += [_line(option.name, option.default_text, option.doc) for option in TASK_OPTIONS.values()]
    return "\n".join(lines) + "\n"


def _line(name: str, default: str, doc: str) -> str:
    shown = f"`{default}`" if default else ("required" if name == "task_name" else "none")
    return f"| `{name}` | {shown} | {doc} |"


if __name__ == "__main__":
    README.write_text(BLOCK.sub(lambda match: match[1] + table() + match[2], README.read_text()))
