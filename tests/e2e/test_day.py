"""The recorded day in examples/day.md: it can be lived through again, and no command is missing."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.day.__main__ import TRANSCRIPT
from tests.day.story import tell
from tests.support import Lab
from tinksched.cli.app import COMMANDS


@pytest.mark.timeout(300)
def test_the_day_can_be_lived_through_again(lab: Lab) -> None:
    day = tell(lab)
    text = day.text()
    for name in (str(lab.folder), lab.environment["TMUX_TMPDIR"], socket.gethostname(), str(Path.cwd())):
        assert name not in text, "names of this machine are left out"
    recorded = re.findall(r"(?m)^\$ (.*)", TRANSCRIPT.read_text())
    assert day.commands == recorded, "`python -m tests.day` writes it again"


SERVER = ("serve", "token", "remote", "db", "scan", "register", "dashboard")  # another day: examples/server


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in SERVER])
def test_the_transcript_shows_every_command(name: str) -> None:
    assert re.search(rf"(?m)^\$ tinksched {name}\b(?!-)", TRANSCRIPT.read_text())


def test_the_transcript_names_no_folder_of_a_machine() -> None:
    assert not re.search(r"/(?:tmp/(?!\w*tmux)|home/|root\b|work/)", TRANSCRIPT.read_text())
