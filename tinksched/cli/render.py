"""What is printed. This file alone prints with Rich, and imports the heavy parts of it only where they are used.

Colour is never the only signal, text of users is never taken for markup, and what goes into a pipe is not cut to a
terminal's width.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from ..config import Settings, placeholders, plain
from ..core import instants
from ..core.model import Task, TaskState, in_words, spot
from ..core.usage import Usage
from ..host.completion import signal_name
from . import colour, tables
from .tables import Part, Table, clock, look, printable

if TYPE_CHECKING:  # every command prints with this file, and each needs a few of these
    from rich.console import Console, RenderableType
    from rich.table import Table as RichTable

    from ..operations.doctor import Check
    from ..operations.history import History, RunHistory
    from ..operations.occupancy import Occupancy
    from ..operations.selection import Wanted
    from ..operations.snapshot import Status, TaskStatus
    from ..operations.start import Plan, Sorted
    from ..operations.workspace import Workspace

PIPE_WIDTH = 10_000  # a table takes only what it needs of it
_LAST_WORDS = 6
_MOST_NAMES, _FIRST_NAMES = 200, 20  # names in a list; those of a list that would be longer
_LEVELS = {"ok": ("✔", "ok", "green"), "warn": ("!", "!", "yellow"), "bad": ("✘", "x", "bold red")}


def names(tasks: Sequence[str]) -> str:
    """Names of tasks as a list, safe to print; of very many only the first."""
    shown = ", ".join(map(printable, tasks[: _MOST_NAMES if len(tasks) <= _MOST_NAMES else _FIRST_NAMES]))
    return shown if len(tasks) <= _MOST_NAMES else f"{shown} and {len(tasks) - _FIRST_NAMES} more"


def message(text: str | None) -> None:
    """A message for a person, on standard error."""
    text = printable(text) if text else None
    if text:
        sys.stdout.flush()  # so that the two streams keep their order where they end up together
        print(text, file=sys.stderr, flush=True)


def left(tasks: Sequence[tuple[str, str]]) -> None:
    """The tasks that a command did nothing about, and why, on standard error."""
    if tasks:
        more = len(tasks) - _FIRST_NAMES
        shown = ", ".join(f"{name} {why}" for name, why in tasks[:_FIRST_NAMES])
        message(f"left: {shown}" + (f" and {more} more" if more > 0 else ""))


def status(now: Status, *, last_words: bool = False) -> None:
    """The table of `status`; with `last_words` the ends of the logs of what failed."""
    if not tables.wants_rich():
        tables.show(now)
    else:
        console = _console()
        for part in tables.status(now, signs=tables.takes_signs(sys.stdout)):
            console.print(rich_part(part))
    if last_words:
        _last_words(now)


def parts(found: Sequence[Part]) -> None:
    """Tables and lines, one below the other."""
    if not tables.has_width():
        for line in tables.lines(found):
            print(line)
        return
    console = _console()
    for part in found:
        console.print(rich_part(part))


def watch(workspace: Workspace, wanted: Wanted | None = None) -> None:
    """`status` of all tasks or those that are `wanted`, shown anew at every change and every second, until Ctrl-C."""
    from rich.console import Group
    from rich.live import Live

    from ..operations.status import MOST
    from ..operations.status import status as status_of

    console, signs = _console(), tables.takes_signs(sys.stdout)  # which Live puts another stream in the place of
    if not console.is_terminal:
        status(status_of(workspace, MOST, wanted=wanted))
        return
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                parts = tables.status(status_of(workspace, MOST, wanted=wanted), signs=signs)
                live.update(Group(*map(rich_part, parts)), refresh=True)
                time.sleep(1)  # the durations on the screen count seconds
    except KeyboardInterrupt:
        status(status_of(workspace, MOST, wanted=wanted))


def occupancy(now: Occupancy) -> None:
    """The tables of `gpus`."""
    from . import gputables

    console = _console()
    for part in gputables.occupancy(now, width=console.width):
        console.print(rich_part(part))


def plan(done: Plan, *, dry: bool) -> None:
    """What `start` did, or would do."""
    verb = "would queue" if dry else "queued"
    for warning in done.warnings:
        message(f"warning: {warning}")
    if done.queued:
        print(f"{verb} {len(done.queued)}: {names(done.queued)}")
    else:
        print(f"{verb} nothing new")
    for tasks, what, how in left_by(done.sorted):
        if tasks:
            print(f"left {len(tasks)} {what}: {names(tasks)}" + (f"   ({how})" if how else ""))
    if dry:
        for name, gpus in done.starts_now:
            print(f"would start first: {printable(name)} on {spot(gpus)}")
    message(done.gpu_note)


def left_by(found: Sorted) -> Sequence[tuple[Sequence[str], str, str]]:
    """The tasks that `start` leaves as they are: why, and what would queue them."""
    return (
        (found.busy, "queued or running already", ""),
        (found.completed, "completed", "--rerun runs them again"),
        (found.by_marker, "completed (their markers were there before any run of them)", "--rerun runs them"),
        (found.changed, "completed, and edited since", "--changed runs them again"),
        (found.failed, "failed or lost", "--failed runs them again"),
        (found.cancelled, "cancelled", "name them to run them again"),
    )


def checks(found: Sequence[Check]) -> None:
    """The table of `doctor`."""
    from rich.text import Text

    console = _console()
    table = _table()
    for check in found:
        sign, plain_sign, style = _LEVELS[check.level.value]
        what = printable(check.what) + (f"\n→ {printable(check.todo)}" if check.todo else "")
        table.add_row(Text(sign if tables.takes_signs(sys.stdout) else plain_sign, style=style), check.name, Text(what))
    console.print(table)


def explanation(task: TaskStatus, sentences: Sequence[str]) -> None:
    """`explain`: the sentences, and of a failed task its last words."""
    print(f"{printable(task.name)}: {task.state.replace('_', ' ')}")
    for sentence in sentences:
        print(f"  {printable(sentence)}")
    if task.state in ("failed", "lost", "timed_out") and task.log:
        _print_tail(task)


def history(found: History) -> None:
    """`show`: the task, then each of its runs."""
    task = found.task
    state = in_words((task.outcome or task.state).value)
    print(f"{printable(task.name)}: {state}" + (f": {printable(task.reason.said(time.time()))}" if task.reason else ""))
    wants = [f"{task.spec.gpus} GPU{'s' * (task.spec.gpus > 1)}"] + ["alone"] * task.spec.exclusive
    facts = {
        "config": task.config,
        "command": "" if task.config else shlex.join(placeholders.expand(word, {}) for word in task.spec.command),
        "wants": ", ".join(wants),
        "priority": str(task.priority) if task.priority else "",
        "after": ", ".join(task.spec.after),
        "time limit": clock(task.spec.time_limit) if task.spec.time_limit else "",
        "retries": f"{task.failures} of {task.spec.max_retries} used" if task.spec.max_retries else "",
        "queued": _moment(task.queued_at),
        "starts": f"about {_moment(found.expected_start)}" if found.expected_start else "",
        "ends": f"about {_moment(found.expected_end)}" if found.expected_end else "",
        "held": task.hold.reason.said(time.time()) if task.hold else "",
    }
    _print_facts(facts, 2)
    for item in found.runs:
        _print_run(item)


def _print_run(item: RunHistory) -> None:
    run, record = item.run, item.run.record
    state = (run.outcome or run.state).value.replace("_", " ")
    print(f"\nattempt {run.attempt}: {state}" + (f": {printable(run.reason.text)}" if run.reason else ""))
    took = f", after {clock(run.ended_at - run.created_at)}" if run.ended_at else ""
    name = signal_name(run.exit_code) if run.exit_code is not None else None
    code = "" if run.exit_code is None else f"{run.exit_code}" + (f" (signal {name})" if name else "")
    on = f" ({', '.join(run.devices)})" if run.gpus else ""
    facts = {
        "run": run.id,
        "on": f"{spot(run.gpus)}{on} of {record.node}",
        "port": str(record.port or ""),
        "started": _moment(run.created_at),
        "ended": f"{_moment(run.ended_at)}{took}" if run.ended_at else "",
        "exit code": code,
        "command": shlex.join(record.command),
        "python": record.python,
        "in": run.work_dir,
        "commit": record.commit + (" (with uncommitted changes)" if record.dirty else ""),
        "config": f"sha256 {record.config_hash}" if record.config_hash else "",
        "session": run.session,
        "used": _usage_text(item.usage) if item.usage else "",
        "log": run.log or "",
    }
    _print_facts(facts, 2)
    for line in item.config_changes:
        print(f"    {printable(line)}")
    for line in item.last_lines:
        print(f"  | {printable(line)}")


def _usage_text(usage: Usage) -> str:
    """What a run was seen to use, as far as that is known."""
    known = [
        ("GPU memory up to {}", usage.gpu_memory_peak, _size),
        ("GPU {} busy", usage.gpu_utilization, "{:.0f} %".format),
        ("{} of CPU time", usage.cpu_seconds, "{:.0f} s".format),
        ("memory up to {}", usage.memory_peak, _size),
    ]
    said = [text.format(form(value)) for text, value, form in known if value is not None]
    return ", ".join([*said, *usage.flags])


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _print_facts(facts: Mapping[str, str], indent: int) -> None:
    for name, value in facts.items():
        if value:
            print(f"{' ' * indent}{name:10} {printable(value)}")


def _moment(at: float) -> str:
    return f"{instants.exact(at)} ({instants.ago(at, time.time())})"


def settings(found: Settings) -> None:
    """The table of `config`."""
    from rich.text import Text

    table = _table("KEY", "VALUE", "FROM")
    table.columns[0].no_wrap = True
    for key, value, origin in found.rows():
        where = Text(str(origin), style="dim" if origin.kind == "default" else "")
        table.add_row(Text(key), Text(_value_text(value)), where)
    _console().print(table)


def settings_json(found: Settings) -> dict[str, object]:
    """`config --json`."""
    rows = {key: {"value": plain(value), "from": str(origin)} for key, value, origin in found.rows()}
    return {"version": 1, "workspace": str(found.workspace), "file": str(found.file), "settings": rows}


class Progress:
    """What `start --wait` shows: a live line on a terminal, a line for each change elsewhere."""

    def __init__(self, total: int, console: Console) -> None:
        self._total = total
        self._console = console
        self._seen: dict[str, str] = {}
        self._began = time.monotonic()

    def show(self, tasks: Sequence[Task]) -> None:
        """Report what has changed since the last time."""
        for task in tasks:
            state = task.outcome.value if task.outcome else task.state.value
            if self._seen.get(task.name, "queued") != state:
                self._line(task, state)
            self._seen[task.name] = state

    def _line(self, task: Task, state: str) -> None:
        from rich.text import Text

        shown = "started" if state == "active" else state.replace("_", " ")
        done = sum(1 for seen in self._seen.values() if seen not in ("active", "queued"))
        done += task.state is TaskState.DONE
        sign, style = look("running" if state == "active" else state, signs=tables.takes_signs(sys.stderr))
        tail = f": {task.reason.text}" if task.reason and task.outcome else ""
        text = Text(f"{clock(time.monotonic() - self._began):>7}  {done:>3}/{self._total}  ")
        text.append(f"{sign} {printable(task.name)} {shown}", style=style)
        text.append(printable(tail))
        self._console.print(text, soft_wrap=True)


@contextlib.contextmanager
def progress(total: int) -> Iterator[Progress]:
    """Show the progress of a batch, on standard error."""
    try:
        yield Progress(total, _console(sys.stderr))
    except KeyboardInterrupt:
        message("\nno longer waiting; the tasks go on (tinksched status)")
        raise


def rich_part(part: Part) -> RenderableType:
    """A part of `status` as Rich prints it."""
    from rich.text import Text

    if not isinstance(part, Table):
        return Text.assemble(*part, overflow="fold")
    table = _table(*part.columns)
    if part.columns:
        table.columns[part.folded].overflow = "fold"
        for column in (*table.columns[: part.folded], *table.columns[part.folded + 1 : -1]):
            column.no_wrap = True
    for row in part.rows:
        table.add_row(*(Text(text, style=style) for text, style in row))
    if part.right is not None and table.columns:  # without names they are there with their rows
        table.columns[part.right].justify = "right"
    return table


def _last_words(now: Status) -> None:
    for task in now.tasks:
        if task.state == "failed" and task.log:
            print()
            _print_tail(task)


def _print_tail(task: TaskStatus) -> None:
    from ..operations import logs

    _print_lines(f"{printable(task.name)} ({task.log})", logs.last_lines(task.log or "", _LAST_WORDS))


def last_lines(task: str, lines: Sequence[str]) -> None:
    """The end of what a task printed, marked as such; nothing if it printed nothing."""
    _print_lines(printable(task), lines)


def _print_lines(whose: str, lines: Sequence[str]) -> None:
    if lines:
        print(f"the last lines of {whose}:")
        for line in lines:
            print(f"  | {printable(line)}")


# -- small things


def _console(file: TextIO | None = None) -> Console:
    from rich.console import Console

    stream = file or sys.stdout
    return Console(
        file=stream,
        width=None if tables.has_width(stream) else PIPE_WIDTH,
        force_terminal=True if colour.chosen() == "always" else None,
        no_color=False if colour.chosen() == "always" else None,
        color_system=None if colour.chosen() == "never" else "auto",
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )


def _table(*columns: str) -> RichTable:
    from rich.table import Table as RichTable

    table = RichTable(box=None, pad_edge=False, show_header=bool(columns), padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column)
    return table


def _value_text(value: object) -> str:
    shown = plain(value)
    if shown is None:
        return "-"
    if isinstance(shown, bool):
        return "true" if shown else "false"
    if isinstance(shown, list):
        return ", ".join(_value_text(entry) for entry in shown) or "-"
    if isinstance(shown, dict):
        return ", ".join(f"{key}: {_value_text(entry)}" for key, entry in shown.items()) or "-"
    return printable(str(shown)) or '""'
