"""Lives through the day and writes the transcript: python -m tests.day [FILE]"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.day.story import tell
from tests.support import Lab

TRANSCRIPT = Path(__file__).parents[2] / "examples" / "day.md"
BEGINNING = """\
# A day with tinksched

Every command, with what it really printed, on a machine with two GPUs. Written by `python -m tests.day`, which lives
through it in half a minute: schedulers, tmux sessions and processes are real, the driver's library is the double of
`tests/nvml_double`, and the work is short. Names of the machine are left out. A test does the same, and sees that no
command of tinksched is missing.
"""


def record(lab: Lab) -> str:
    """The transcript."""
    return f"{BEGINNING}\n{tell(lab).text()}"


def main(path: Path) -> None:
    """Write the transcript to a file."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        try:
            path.write_text(record(lab), encoding="utf-8")
        finally:
            lab.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TRANSCRIPT)
