"""What the table of `status` says, and how it is printed where there is no terminal: in full width, and fast."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from ..core import instants, watching
from ..core.gpu import GpuProcess, GpuState
from ..operations.seen import memory_text, size_text
from ..operations.snapshot import GpuStatus, Status, TaskStatus
from . import colour

Cell = tuple[str, str]  # a text and its style


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells below the names of their columns, if these have any; one column may be flush right."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    right: int | None = None
    folded: int = 0  # the column that gives way where there is little room


Part = Table | Sequence[Cell]  # a table, or a line of texts that follow each other

_LOOKS = {  # sign, plain sign, style
    "completed": ("✔", "+", "green"),
    "failed": ("✘", "x", "bold red"),
    "lost": ("✘", "x", "bold red"),
    "timed_out": ("✘", "x", "bold red"),
    "cancelled": ("-", "-", "yellow"),
    "running": ("▶", ">", "cyan"),
    "starting": ("▶", ">", "cyan"),
    "queued": ("·", ".", ""),
    "new": (" ", " ", "dim"),
}


def status(now: Status, *, signs: bool) -> list[Part]:
    """The parts of `status`, one below the other; with `signs` it may hold more than ASCII."""
    parts: list[Part] = [_heading(now), _gpu_table(now, signs)]
    if now.gpu_note:
        parts.append([(f"       {now.gpu_note}", "dim")])
    if now.tasks:
        parts += [[], _task_table(now, signs), []]
    parts.append([(tally(now), "")])
    parts += [[(line, "dim")] for line in (_left_out(now), _hint(now)) if line]
    return parts


def show(now: Status) -> None:
    """Print `status` where nobody says how wide it may be."""
    for line in lines(status(now, signs=takes_signs(sys.stdout))):
        print(line)


def as_json(record: Mapping[str, object]) -> str:
    """The record as JSON with a line for each entry of its lists: many are written faster so, and found with grep."""
    encode = json.JSONEncoder(ensure_ascii=False).encode
    entries = []
    for name, value in record.items():
        if isinstance(value, list) and value:
            text = ",\n    ".join(map(encode, value)).join(("[\n    ", "\n  ]"))
        else:
            text = encode(value)
        entries.append(f"  {encode(name)}: {text}")
    return ",\n".join(entries).join(("{\n", "\n}"))


def has_width(stream: TextIO | None = None) -> bool:
    """Whether somebody says how wide what is printed may be."""
    return (stream or sys.stdout).isatty() or os.environ.get("COLUMNS", "").isdecimal()


def wants_rich() -> bool:
    """Whether the output has colours or a width."""
    return has_width() or colour.chosen() == "always"


def takes_signs(stream: TextIO) -> bool:
    """Whether more than ASCII may be printed."""
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def lines(parts: Iterable[Part]) -> Iterator[str]:
    """The parts as plain text."""
    for part in parts:
        if not isinstance(part, Table):
            yield "".join(text for text, _ in part)
            continue
        rows = [[text for text, _ in row] for row in part.rows]
        rows = [list(part.columns), *rows] if part.columns else rows
        columns = [_padded(column, right=number == part.right) for number, column in enumerate(zip(*rows, strict=True))]
        for cells in zip(*columns, strict=True):
            yield "  ".join(cells).rstrip()


def _padded(column: Sequence[str], *, right: bool) -> list[str]:
    """The texts of a column, all as wide as the widest. Thousands of rows say much the same: each text is done once."""
    widths = {text: width_of(text) for text in set(column)}
    widest = max(widths.values())
    spaces = {text: " " * (widest - width) for text, width in widths.items()}
    return [spaces[text] + text if right else text + spaces[text] for text in column]


def printable(text: str) -> str:
    """Text of a user without what could move the cursor or change the terminal. Line feeds of ours stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def look(state: str, *, signs: bool) -> tuple[str, str]:
    """The sign of a state, and its style."""
    sign, plain_sign, style = _LOOKS.get(state, ("?", "?", ""))
    return (sign if signs else plain_sign), style


def clock(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def width_of(text: str) -> int:
    """How many columns of a terminal the text takes: East Asian characters two, combining ones none."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def _heading(now: Status) -> list[Cell]:
    if now.scheduler_pid is not None:
        scheduler, style = "scheduler runs", "green"
    elif now.stopped:
        scheduler, style = f"scheduler stopped ({now.stopped})", "yellow"
    else:
        scheduler, style = "no scheduler runs", "dim"
    paused = [(f", {printable(now.paused.said(now.at))}", "yellow")] if now.paused else []
    return [(printable(now.task_name), "bold"), (f"  {printable(now.workspace)}  ", ""), (scheduler, style), *paused]


def _gpu_table(now: Status, signs: bool) -> Table:
    rows = []
    known = any(gpu.state is not None for gpu in now.gpus)
    for gpu in now.gpus:
        there = [printable(name) for name in gpu.tasks]
        there += [f"{printable(tenant.task)} ({tenant.user}, {printable(tenant.workspace)})" for tenant in gpu.others]
        there += [f"{whose(one)}, {one.standing}" for one in (gpu.state.strangers if gpu.state else ())]
        used = len(gpu.tasks) + len(gpu.others)
        rows.append([
            (f"GPU {gpu.index}", "bold"),
            (_bar(gpu, used, signs), ""),
            (f"{used}/{gpu.slots}", ""),
            (", ".join(there) or "free", "" if there else "dim"),
            *([_doing(gpu.state)] if known else []),
            (gpu.name or "", "dim"),
        ])  # fmt: skip
    return Table((), rows)


def whose(process: GpuProcess) -> str:
    """A process in few words: its owner, its program, what it holds."""
    return f"{printable(process.program)} of {printable(process.user or '?')} ({size_text(process.memory)})"


def _doing(state: GpuState | None) -> Cell:
    """What a GPU does: its memory and how busy it is, or that it is lost."""
    if state is None:
        return "", ""
    if state.lost:
        return "lost", "bold red"
    busy = "" if state.utilization is None else f"{state.utilization} %"
    return "  ".join(filter(None, [memory_text(state), busy])), "dim"


def _bar(gpu: GpuStatus, used: int, signs: bool) -> str:
    full, empty = ("■", "□") if signs else ("#", "-")
    return full * min(used, 16) + empty * min(max(gpu.slots - used, 0), 16)


def _task_table(now: Status, signs: bool) -> Table:
    tried_again = any(task.attempt > 1 for task in now.tasks)
    seen = any(task.usage is not None and task.usage.gpu_memory_peak is not None for task in now.tasks)
    numbered = any(task.number is not None for task in now.tasks)
    sometimes = [*(["TRY"] if tried_again else []), *(["GPU MEMORY"] if seen else [])]
    columns = (*(["#"] if numbered else []), "TASK", "STATE", "GPU", "TIME", *sometimes, "DETAIL")
    rows = []
    for task in in_order(now.tasks):
        sign, style = look(task.state, signs=signs)
        rows.append([
            *([("" if task.number is None else str(task.number), "dim")] if numbered else []),
            (printable(task.name), ""),
            (f"{sign} {task.state.replace('_', ' ')}", style),
            ("-".join(map(str, task.gpus)) or ("cpu" if task.started_at and not task.wanted_gpus else ""), ""),
            (duration(task, now.at), ""),
            *([(str(task.attempt or ""), "")] if tried_again else []),
            *([(_memory(task), "")] if seen else []),
            (printable(detail(task, now.at)), "" if task.state in ("failed", "lost") else "dim"),
        ])  # fmt: skip
    return Table(columns, rows, right=columns.index("TIME"), folded=columns.index("TASK"))


def in_order(tasks: Sequence[TaskStatus]) -> list[TaskStatus]:
    """What runs first, then what waits in its order, then what is done; each as it was queued."""
    rank = {"running": 0, "starting": 0, "queued": 1, "new": 2}
    return sorted(tasks, key=lambda task: (rank.get(task.state, 3), -task.priority if task.state == "queued" else 0))


def duration(task: TaskStatus, now: float) -> str:
    """How long its run has taken so far, or took."""
    if task.started_at is None:
        return ""
    return clock((task.ended_at or now) - task.started_at)


def _memory(task: TaskStatus) -> str:
    """What its run has on a GPU, and had at its peak; only that when it has ended."""
    if task.usage is None or task.usage.gpu_memory_peak is None:
        return ""
    peak = size_text(task.usage.gpu_memory_peak)
    return f"peak {peak}" if not task.active else f"{size_text(task.usage.gpu_memory)}, peak {peak}"


def detail(task: TaskStatus, now: float) -> str:
    """Why it is as it is, or how to see it, and when it ended."""
    parts = [watching.said(flag, now) for flag in task.usage.flags] if task.usage is not None and task.active else []
    if task.reason is not None:
        parts.append(task.reason.said(now))
    elif task.active and task.session:
        parts.append(task.attach)
    if task.ended_at is not None and task.state != "queued":
        parts.append(instants.ago(task.ended_at, now))
    if task.state == "new":
        parts.append("not queued yet")
    if task.config_changed and task.state != "queued":
        parts.append("config edited since")
    return "; ".join(parts)


def tally(now: Status) -> str:
    """How many tasks are in which state, and when all will be done."""
    if not now.total:
        return "no tasks: put configs into the config folder, then `tinksched start`"
    order = [state for state in _LOOKS if now.counts.get(state)]
    counts = ", ".join(f"{now.counts[state]} {state.replace('_', ' ')}" for state in order)
    return f"{now.total} task{'s' * (now.total != 1)}: {counts}{_estimate(now)}"


def _estimate(now: Status) -> str:
    """When all will be done, where that is known."""
    ends = expected_end(now)
    return "" if ends is None else f"; about {clock(ends - now.at)} left, ends ~{instants.clock(ends, now.at)}"


def expected_end(now: Status) -> float | None:
    """When all will be done; None if nobody knows, as when what runs has taken longer than everything before it."""
    overdue = now.batch_ends is not None and now.batch_ends - now.at < 1
    return None if overdue else now.batch_ends


def _left_out(now: Status) -> str:
    left_out = now.total - len(now.tasks)
    return f"{left_out} of them are not listed here: `tinksched status --all` lists every one" if left_out else ""


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
        name = printable(failed[0])
        return f"next: `tinksched logs {name}` shows what it printed, `tinksched retry {name}` runs it again"
    return ""
