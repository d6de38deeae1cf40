"""`report`: the past of a workspace on the terminal, as JSON, or as a page."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..core import instants
from ..errors import UsageError
from ..operations import report as reporting
from ..operations.report import Report, Span
from . import render, tables
from .finding import find
from .options import ConfigOption, JsonOption, WorkspaceOption
from .tables import Cell, Part, Table, clock, printable

_WIDTH = 60  # cells of a timeline where nobody says how wide it may be
_COLUMNS = 5  # metrics on a terminal
_ROWS = 50  # tasks with metrics on a terminal
_MOST_FAILURES = 10
_SHADES, _PLAIN_SHADES = " ░▒▓█", " .-=#"


def report(
    context: typer.Context,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only since 2h, 7d, or a date such as 2026-01-31.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures, all in one file.")
    ] = None,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what ran on which GPU when, and what it measured. Also how long GPUs and tasks waited, and what failed.

    \b
    Examples:
      tinksched report
      tinksched report --since 1d
      tinksched report --html report.html
    """
    made = reporting.report(find(context, workspace, config), since)
    if html is not None:
        from .page import page

        _write(html, page(made))
        render.message(f"written: {html}")
    if as_json:
        print(tables.as_json(made.json()))
    elif html is None:
        render.parts(_parts(made))


def _write(path: Path, text: str) -> None:
    """Aside, then renamed: whoever looks sees a whole page. What is no file (a pipe, /dev/null) stays what it is."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise UsageError(f"{path}: can't be written: {error.strerror}") from None


def _parts(made: Report) -> list[Part]:
    signs = tables.takes_signs(sys.stdout)
    if not made.runs:
        return [[("nothing ran in this time" if made.tasks else "nothing has run here yet", "")]]
    parts: list[Part] = [_heading(made), [], *_timeline(made, signs), [], *_facts(made)]
    if made.failures:
        parts += [[], *_failures(made)]
    if made.metrics:
        parts += [[], _metrics(made)]
        hidden = len(made.metrics) - _ROWS
        parts += [[(f"and {hidden} more tasks: --json and --html have all of them", "dim")]] if hidden > 0 else []
    return parts


def _heading(made: Report) -> list[Cell]:
    until = instants.clock(made.until, made.since)
    span = f"{instants.exact(made.since)[:-3]} to {until} ({instants.ago(made.until, time.time())})"
    return [(printable(made.task_name), "bold"), (f"  {printable(made.workspace)}  ", ""), (span, "dim")]


def _timeline(made: Report, signs: bool) -> list[Part]:
    width = max(20, shutil.get_terminal_size((_WIDTH + 40, 24)).columns - 40) if tables.has_width() else _WIDTH
    rows = []
    total = max(made.until - made.since, 1e-9)
    for gpu in made.gpus:
        bar = shades(gpu.busy, made.since, made.until, width, _SHADES if signs else _PLAIN_SHADES)
        gap = f"idle up to {clock(gpu.gaps[0][1] - gpu.gaps[0][0])}" if gpu.gaps else ""
        rows.append([
            (f"GPU {gpu.index}", "bold"), (f"|{bar}|", "cyan"), (f"{int(100 * gpu.busy_seconds / total)} %", ""),
            (gap, "dim"),
        ])  # fmt: skip
    return [Table((), rows, right=2)] if rows else []


def shades(spans: Sequence[Span], since: float, until: float, width: int, shade: str) -> str:
    """How busy each of the cells between two times is, as characters from empty to full."""
    cell = max(until - since, 1e-9) / width
    busy = [0.0] * width
    for begin, end in spans:
        first, last = (begin - since) / cell, (end - since) / cell
        for at in range(max(0, int(first)), min(width, int(last) + 1)):
            busy[at] += max(0.0, min(last, at + 1) - max(first, at))
    top = len(shade) - 1
    # Something is never shown as nothing.
    return "".join(shade[max(1, min(top, round(part * top)))] if part > 1e-6 else shade[0] for part in busy)


def _facts(made: Report) -> list[Part]:
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in made.counts.items())
    facts = [
        (
            "runs",
            f"{len(made.runs)}: {counts}"
            + (f"; {made.retries} {'retries' if made.retries > 1 else 'retry'}" if made.retries else ""),
        )
    ]
    facts.append(("GPU time", f"{made.gpu_hours:.2f} hours busy, {made.run_seconds / 3600:.2f} hours of runs"))
    if made.waits.count:
        longest = f"longest {clock(made.waits.longest)} ({printable(made.waits.longest_task)})"
        facts.append(("waits", f"{clock(made.waits.median)} in the median, {longest}"))
    return [Table((), [[(name, "bold"), (text, "")] for name, text in facts])]


def _failures(made: Report) -> list[Part]:
    rows = [
        [(str(item.runs), ""), (printable(item.reason), ""), (render.names(item.tasks[:8]), "dim")]
        for item in made.failures[:_MOST_FAILURES]
    ]
    more = len(made.failures) - len(rows)
    return [
        Table(("RUNS", "FAILED BECAUSE", "TASKS"), rows, right=0),
        *([[(f"and {more} more", "dim")]] if more else []),
    ]


def _metrics(made: Report) -> Table:
    names = made.metric_names[:_COLUMNS]
    rows = [
        [(printable(task), ""), *((number(numbers.get(name)), "") for name in names)]
        for task, numbers in list(made.metrics.items())[:_ROWS]
    ]
    return Table(("TASK", *(printable(name) for name in names)), rows)


def number(value: float | None) -> str:
    """A measured number, short."""
    return "" if value is None else f"{value:.4g}"
