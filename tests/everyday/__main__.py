"""`python -m tests.everyday`: performs the everyday jobs with every tool that is here, and writes RESULTS.md."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.place import BenchError, Place

from .day import Done, perform
from .jobs import Cell, Job, load
from .report import Page
from .tools import TOOLS, Tool

RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    """Exit code 1 if what jobs.yml says of a tool is not what was seen."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    jobs = [job for job in load() if not arguments.jobs or any(word in job.title for word in arguments.jobs)]
    page = Page(jobs, [tool.name for tool in arguments.tools])
    with Place(arguments.folder) as place:
        for tool in arguments.tools:
            if why := tool.missing():
                page.absent[tool.name] = why
                _say(f"{tool.name}: {why}")
            else:
                _perform(place, tool, jobs, page)
    text = page.text()
    print(text) if arguments.output is None else arguments.output.write_text(text)
    for problem in page.problems():
        _say(problem)
    return 1 if page.problems() else 0


def _perform(place: Place, tool: Tool, jobs: Sequence[Job], page: Page) -> None:
    """All jobs with one tool."""
    with place.corner("version") as corner:
        page.versions[tool.name] = tool.said_version(corner)
    for job in jobs:
        cell = job.cells[tool.name]
        if cell.typed:
            _say(f"{tool.name}: {job.title}")
            page.seen[job.title, tool.name] = _try(place, tool, cell)


def _try(place: Place, tool: Tool, cell: Cell) -> Done | str:
    """What came of it, or why nothing did: a peer's trouble ends only its own cell."""
    try:
        return perform(place, tool, cell)
    except BenchError as error:
        return str(error)


def _arguments() -> argparse.Namespace:
    known = {tool.name: tool for tool in TOOLS}
    parser = argparse.ArgumentParser(prog="python -m tests.everyday", description=__doc__)
    parser.add_argument("--tools", nargs="+", choices=known, default=[*known], metavar="TOOL", help=", ".join(known))
    parser.add_argument("--jobs", nargs="+", metavar="WORD", help="only jobs whose title has one of these words")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the page goes (default: printed)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where all of it happens")
    arguments = parser.parse_args()
    arguments.tools = [known[name] for name in known if name in arguments.tools]
    return arguments


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
