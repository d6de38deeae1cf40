"""The table of everyday jobs: its command lines are those of this version, and RESULTS.md shows them."""

from __future__ import annotations

import html
import shlex

import pytest
import typer.main

from tests.everyday.__main__ import RESULTS
from tests.everyday.day import Done, Said
from tests.everyday.jobs import Cell, Job, load
from tests.everyday.report import Page
from tests.everyday.tools import TOOLS
from tinksched.cli.app import app

JOBS = load()


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.title)
def test_what_is_typed_with_tinksched_is_understood(job: Job) -> None:
    assert set(job.cells) == {tool.name for tool in TOOLS}
    for line in job.cells["tinksched"].typed:
        program, *words = shlex.split(line)
        assert program == "tk"
        if not words or words == ["statsu"]:  # the one that is mistyped
            continue
        group = typer.main.get_command(app)
        context = group.make_context("tk", words)
        name, command, rest = group.resolve_command(context, words)  # type: ignore[attr-defined]
        command.make_context(name, rest, parent=context)


def test_the_results_are_those_of_these_jobs() -> None:
    text = RESULTS.read_text()
    for number, job in enumerate(JOBS, 1):
        assert f"| {number} | {job.title} |" in text, "run sh tests/everyday/run.sh"
        for cell in job.cells.values():
            for line in cell.typed:
                assert f"<code>{html.escape(line, quote=False)}</code>" in text.replace("&#42;", "*"), line


def page(ours: Cell, other: Cell, **about: bool) -> Page:
    job = Job("a job", {"tinksched": ours, "other": other}, "in words", **about)
    found = Page([job], ["tinksched", "other"], {"tinksched": "1", "other": "2"})
    found.seen["a job", "tinksched"] = Done((Said("tk x", "it says | this", 3),), ())
    return found


@pytest.mark.parametrize(
    ("other", "verdict"),
    [
        (Cell(("tspx",)), "as few as other"),
        (Cell(("tsp",)), "**1 more than other**"),
        (Cell(("tsp", "-w")), "2 fewer than other"),
        (Cell(("t",), partly="half of it"), "alone"),
        (Cell(note="it can't"), "alone"),
    ],
)
def test_keystrokes_are_compared_with_those_who_do_all_of_it(other: Cell, verdict: str) -> None:
    text = page(Cell(("tk x",)), other).text()
    assert f"| {verdict}; in words |" in text
    assert "**5**, exit code 3: it says &#124; this<br>" not in text
    assert "**5**, exit code 3: it says &#124; this |" in text


def test_what_is_not_so_is_said() -> None:
    wrong = page(Cell(("tk x",), sees="queued"), Cell(("o",)), worse=True)
    assert wrong.problems() == ["tinksched: a job: 'queued' was not seen"]
    assert "**'queued' was not seen**" in wrong.text() and "**poorer**" in wrong.text()
    assert "more keystrokes than a peer that does the whole of the job in 1," in wrong.text()
    wrong.seen["a job", "other"] = "its daemon did not start\nat all"
    assert "other: a job: it could not be tried: its daemon did not start" in wrong.problems()
    assert "1 " not in page(Cell(("tk x",)), Cell(("o",)), error=True)._summary().split("whole")[1][:20]
