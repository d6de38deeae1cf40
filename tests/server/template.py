"""templates/server.yml, made from the table of keys:  python -m tests.server.template >templates/server.yml"""

from __future__ import annotations

from tinksched.config.schema import Key
from tinksched.config.server import KEYS

HEAD = """\
# The settings of `tinksched serve`, in the folder where it is started, or named by --config.
# Each line shows a default; remove the # to change it. Without this file all defaults hold.
# Paths are relative to this file; times may be 30s, 10m, 4h or 30d, sizes 64KB, 10MB or 1GB.
"""
SECTIONS = {  # by the first key of each
    "host": "Where it listens, and what it keeps",
    "use_gpus": "What jobs run on",
    "max_expected_time": "How long, and how much",
    "submissions_per_minute": "How often",
    "server_script": "Service jobs: training and inference servers on demand (the OpenTinker API)",
    "enable_auth": "Who may call",
    "isolation": "What a job may see and use (tinksched serve says at its start which isolation there is)",
    "code_scan": "Looking at code before it is accepted",
    "notify": "Telling others",
}
WIDTH = 120


def text() -> str:
    """The whole file."""
    return HEAD + "".join(_section(key.name) + line(key) for key in KEYS.values())


def line(key: Key) -> str:
    """A key with its default, and what it means beside it, or above where that is long."""
    said = f"#{key.name}: {key.default_text}".rstrip()
    beside = f"{said:<40} # {key.doc}\n"
    return beside if len(beside) <= WIDTH else f"\n# {key.doc}\n{said}\n"


def _section(key: str) -> str:
    return f"\n# --- {SECTIONS[key]} ".ljust(WIDTH, "-") + "\n\n" if key in SECTIONS else ""


if __name__ == "__main__":
    print(text(), end="")
