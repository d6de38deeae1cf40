"""What is printed. This file alone knows Rich, and imports the heavy parts of it only where they are used.

Colour is never the only signal, text of users is never taken for markup, and what goes into a pipe is not cut to a
terminal's width.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from ..config import Settings, plain
from ..core.model import Task, TaskState
from ..host.completion import signal_name
from ..operations.doctor import Check, Level
from ..operations.history import History, RunHistory
from ..operations.logs import last_lines
from ..operations.occupancy import Occupancy
from ..operations.start import Plan
from ..operations.status import GpuStatus, Status, TaskStatus
from ..operations.status import status as status_of
from ..operations.workspace import Workspace

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

PIPE_WIDTH = 10_000  # a table takes only what it needs of it
_LAST_WORDS = 6
_LOOKS = {  # sign, plain sign, style
    "completed": ("✔", "+", "green"),
    "failed": ("✘", "x", "bold red"),
    "lost": ("✘", "x", "bold red"),
    "timed_out": ("✘", "x", "bold red"),
    "cancelled": ("-", "-", "yellow"),
    "running": ("▶", ">", "cyan"),
    "starting": ("▶", ">", "cyan"),
    "queued": ("·", ".", "default"),
    "new": (" ", " ", "dim"),
}


_LEVELS = {Level.OK: ("✔", "ok", "green"), Level.WARN: ("!", "!", "yellow"), Level.BAD: ("✘", "x", "bold red")}


def names(tasks: Sequence[str]) -> str:
    """Names of tasks as a list, safe to print."""
    return ", ".join(map(_printable, tasks))


def message(text: str | None) -> None:
    """A message for a person, on standard error."""
    text = _printable(text) if text else None
    if text:
        sys.stdout.flush()  # so that the two streams keep their order where they end up together
        print(text, file=sys.stderr, flush=True)


def status(now: Status, *, last_words: bool = False) -> None:
    """The table of `status`; with `last_words` the ends of the logs of what failed."""
    console = _console()
    for part in status_parts(now, console):
        console.print(part)
    if last_words:
        _last_words(now, console)


def watch(workspace: Workspace) -> None:
    """`status`, shown anew at every change and every second, until Ctrl-C."""
    from rich.console import Group
    from rich.live import Live

    console = _console()
    if not console.is_terminal:
        status(status_of(workspace))
        return
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(Group(*status_parts(status_of(workspace), console)), refresh=True)
                time.sleep(1)  # the durations on the screen count seconds
    except KeyboardInterrupt:
        status(status_of(workspace))


def occupancy(now: Occupancy) -> None:
    """The table of `gpus`."""
    from rich.text import Text

    console = _console()
    table = _table("GPU", "since", "user", "task", "workspace")
    for gpu in now.gpus:
        label = _printable(f"GPU {gpu.index}" if gpu.index is not None else gpu.device)
        for held in gpu.holders:
            table.add_row(
                Text(label, style="bold"), Text(time.strftime("%m-%d %H:%M", time.localtime(held.claim.since))),
                Text(_printable(held.user)), Text(_printable(held.claim.task)), Text(_printable(held.claim.workspace)),
            )  # fmt: skip
            label = ""
        if not gpu.holders:
            table.add_row(Text(label, style="bold"), Text(""), Text("free", style="dim"), Text(""), Text(""))
    if now.gpus:
        console.print(table)
    for rival in now.waiting:
        count = sum(ask.count for ask in rival.asks)
        what = "1 task waits" if count == 1 else f"{count} tasks wait"
        print(f"{what} for a slot: {_printable(rival.user)}, {_printable(rival.workspace)}")
    if now.note:
        print(now.note if now.gpus else f"{now.note}; nobody holds a slot")


def plan(done: Plan, *, dry: bool) -> None:
    """What `start` did, or would do."""
    verb = "would queue" if dry else "queued"
    for warning in done.warnings:
        message(f"warning: {warning}")
    if done.queued:
        print(f"{verb} {len(done.queued)}: {names(done.queued)}")
    else:
        print(f"{verb} nothing new")
    left = done.sorted
    for tasks, what, how in (
        (left.busy, "queued or running already", ""),
        (left.completed, "completed", "--rerun runs them again"),
        (left.by_marker, "completed (their markers were there before any run of them)", "--rerun runs them"),
        (left.changed, "completed, and edited since", "--changed runs them again"),
        (left.failed, "failed or lost", "--failed runs them again"),
        (left.cancelled, "cancelled", "name them to run them again"),
    ):
        if tasks:
            print(f"left {len(tasks)} {what}: {names(tasks)}" + (f"   ({how})" if how else ""))
    if dry:
        for name, gpus in done.starts_now:
            print(f"would start first: {_printable(name)} on GPU {', '.join(map(str, gpus))}")
    message(done.gpu_note)


def checks(found: Sequence[Check]) -> None:
    """The table of `doctor`."""
    from rich.text import Text

    console = _console()
    table = _table()
    for check in found:
        sign, plain_sign, style = _LEVELS[check.level]
        what = _printable(check.what) + (f"\n→ {_printable(check.todo)}" if check.todo else "")
        table.add_row(Text(sign if _is_unicode(console) else plain_sign, style=style), check.name, Text(what))
    console.print(table)


def explanation(task: TaskStatus, sentences: Sequence[str]) -> None:
    """`explain`: the sentences, and of a failed task its last words."""
    print(f"{_printable(task.name)}: {task.state.replace('_', ' ')}")
    for sentence in sentences:
        print(f"  {_printable(sentence)}")
    if task.state in ("failed", "lost", "timed_out") and task.log:
        _print_tail(task)


def history(found: History) -> None:
    """`show`: the task, then each of its runs."""
    task = found.task
    state = (task.outcome or task.state).value.replace("_", " ")
    print(f"{_printable(task.name)}: {state}" + (f": {_printable(task.reason.text)}" if task.reason else ""))
    wants = [f"{task.spec.gpus} GPU{'s' * (task.spec.gpus > 1)}"] + ["alone"] * task.spec.exclusive
    facts = {
        "config": task.config,
        "wants": ", ".join(wants),
        "priority": str(task.priority) if task.priority else "",
        "after": ", ".join(task.spec.after),
        "time limit": _clock(task.spec.time_limit) if task.spec.time_limit else "",
        "retries": f"{task.failures} of {task.spec.max_retries} used" if task.spec.max_retries else "",
        "queued": _date(task.queued_at),
    }
    _print_facts(facts, 2)
    for item in found.runs:
        _print_run(item)


def _print_run(item: RunHistory) -> None:
    run, record = item.run, item.run.record
    state = (run.outcome or run.state).value.replace("_", " ")
    print(f"\nattempt {run.attempt}: {state}" + (f": {_printable(run.reason.text)}" if run.reason else ""))
    took = f" ({_clock(run.ended_at - run.created_at)})" if run.ended_at else ""
    name = signal_name(run.exit_code) if run.exit_code is not None else None
    code = "" if run.exit_code is None else f"{run.exit_code}" + (f" (signal {name})" if name else "")
    facts = {
        "run": run.id,
        "on": f"GPU {', '.join(map(str, run.gpus))} ({', '.join(run.devices)}) of {record.node}",
        "port": str(record.port or ""),
        "started": _date(run.created_at),
        "ended": f"{_date(run.ended_at)}{took}" if run.ended_at else "",
        "exit code": code,
        "command": shlex.join(record.command),
        "python": record.python,
        "in": run.work_dir,
        "commit": record.commit + (" (with uncommitted changes)" if record.dirty else ""),
        "config": f"sha256 {record.config_hash}" if record.config_hash else "",
        "session": run.session,
        "log": run.log or "",
    }
    _print_facts(facts, 2)
    for line in item.config_changes:
        print(f"    {_printable(line)}")


def _print_facts(facts: Mapping[str, str], indent: int) -> None:
    for name, value in facts.items():
        if value:
            print(f"{' ' * indent}{name:10} {_printable(value)}")


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


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
        sign, style = _look("running" if state == "active" else state, self._console)
        tail = f": {task.reason.text}" if task.reason and task.outcome else ""
        text = Text(f"{_clock(time.monotonic() - self._began):>7}  {done:>3}/{self._total}  ")
        text.append(f"{sign} {_printable(task.name)} {shown}", style=style)
        text.append(_printable(tail))
        self._console.print(text, soft_wrap=True)


@contextlib.contextmanager
def progress(total: int) -> Iterator[Progress]:
    """Show the progress of a batch, on standard error."""
    try:
        yield Progress(total, _console(sys.stderr))
    except KeyboardInterrupt:
        message("\nno longer waiting; the tasks go on (tinksched status)")
        raise


# -- the table of status


def status_parts(now: Status, console: Console) -> list[RenderableType]:
    from rich.text import Text

    parts: list[RenderableType] = [_heading(now), _gpu_table(now, console)]
    if now.gpu_note:
        parts.append(Text(f"       {now.gpu_note}", style="dim"))
    if now.tasks:
        parts += [Text(), _task_table(now, console), Text()]
    parts.append(Text(_tally(now)))
    hint = _hint(now)
    if hint:
        parts.append(Text(hint, style="dim"))
    return parts


def _heading(now: Status) -> Text:
    from rich.text import Text

    if now.scheduler_pid is not None:
        scheduler, style = "scheduler runs", "green"
    elif now.stopped:
        scheduler, style = f"scheduler stopped ({now.stopped})", "yellow"
    else:
        scheduler, style = "no scheduler runs", "dim"
    text = Text(overflow="fold")
    text.append(_printable(now.task_name), style="bold")
    text.append(f"  {_printable(now.workspace)}  ")
    text.append(scheduler, style=style)
    return text


def _gpu_table(now: Status, console: Console) -> Table:
    from rich.text import Text

    table = _table()
    for gpu in now.gpus:
        there = [_printable(name) for name in gpu.tasks]
        there += [f"{_printable(tenant.task)} ({tenant.user}, {_printable(tenant.workspace)})" for tenant in gpu.others]
        used = len(gpu.tasks) + len(gpu.others)
        table.add_row(
            Text(f"GPU {gpu.index}", style="bold"),
            Text(_bar(gpu, used, console)),
            Text(f"{used}/{gpu.slots}"),
            Text(", ".join(there) or "free", style="" if there else "dim"),
            Text(gpu.name or "", style="dim"),
        )
    return table


def _bar(gpu: GpuStatus, used: int, console: Console) -> str:
    full, empty = ("■", "□") if _is_unicode(console) else ("#", "-")
    return full * min(used, 16) + empty * min(max(gpu.slots - used, 0), 16)


def _task_table(now: Status, console: Console) -> Table:
    from rich.text import Text

    tried_again = any(task.attempt > 1 for task in now.tasks)
    table = _table("TASK", "STATE", "GPU", "TIME", *(["TRY"] if tried_again else []), "DETAIL")
    table.columns[0].overflow = "fold"
    for column in table.columns[1:-1]:
        column.no_wrap = True
    table.columns[3].justify = "right"
    for task in _in_order(now.tasks):
        sign, style = _look(task.state, console)
        cells = [
            Text(_printable(task.name)),
            Text(f"{sign} {task.state.replace('_', ' ')}", style=style),
            Text("-".join(map(str, task.gpus))),
            Text(_duration(task, now.at)),
            *([Text(str(task.attempt or ""))] if tried_again else []),
            Text(_printable(_detail(task)), style="" if task.state in ("failed", "lost") else "dim"),
        ]
        table.add_row(*cells)
    return table


def _in_order(tasks: Sequence[TaskStatus]) -> list[TaskStatus]:
    """What runs first, then what waits in its order, then what is done; each as it was queued."""
    rank = {"running": 0, "starting": 0, "queued": 1, "new": 2}
    return sorted(tasks, key=lambda task: (rank.get(task.state, 3), -task.priority if task.state == "queued" else 0))


def _detail(task: TaskStatus) -> str:
    parts = []
    if task.reason is not None:
        parts.append(task.reason.text)
    elif task.active and task.session:
        parts.append(task.attach)
    if task.state == "new":
        parts.append("not queued yet")
    if task.config_changed and task.state != "queued":
        parts.append("config edited since")
    return "; ".join(parts)


def _tally(now: Status) -> str:
    total = len(now.tasks)
    if not total:
        return "no tasks: put configs into the config folder, then `tinksched start`"
    order = [state for state in _LOOKS if now.counts.get(state)]
    counts = ", ".join(f"{now.counts[state]} {state.replace('_', ' ')}" for state in order)
    return f"{total} task{'s' * (total != 1)}: {counts}"


def _hint(now: Status) -> str:
    """The next command, where one suggests itself."""
    counts = now.counts
    waiting = counts.get("queued", 0) + counts.get("running", 0) + counts.get("starting", 0)
    if now.scheduler_pid is None and waiting:
        return "next: `tinksched start` goes on with these"
    if counts.get("new"):
        return "next: `tinksched start` queues what is new"
    failed = [task.name for task in now.tasks if task.state in ("failed", "lost", "timed_out")]
    if failed and not waiting:
        name = _printable(failed[0])
        return f"next: `tinksched logs {name}` shows what it printed, `tinksched retry {name}` runs it again"
    return ""


def _last_words(now: Status, console: Console) -> None:
    for task in now.tasks:
        if task.state == "failed" and task.log:
            print()
            _print_tail(task)


def _print_tail(task: TaskStatus) -> None:
    lines = last_lines(task.log or "", _LAST_WORDS)
    if lines:
        print(f"the last lines of {_printable(task.name)} ({task.log}):")
        for line in lines:
            print(f"  | {_printable(line)}")


# -- small things


def _console(file: TextIO | None = None) -> Console:
    from rich.console import Console

    stream = file or sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS", "").isdecimal() else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=bool(columns), padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column)
    return table


def _look(state: str, console: Console) -> tuple[str, str]:
    sign, plain_sign, style = _LOOKS.get(state, ("?", "?", "default"))
    return (sign if _is_unicode(console) else plain_sign), style


def _is_unicode(console: Console) -> bool:
    return (console.encoding or "").lower().replace("-", "") == "utf8"


def _duration(task: TaskStatus, now: float) -> str:
    if task.started_at is None:
        return ""
    return _clock((task.ended_at or now) - task.started_at)


def _clock(seconds: float) -> str:
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


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
    return _printable(str(shown)) or '""'


def _printable(text: str) -> str:
    """Text of a user without what could move the cursor or change the terminal. Line feeds of ours stay."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
