"""What `watch` has on its screen, as lines of texts and styles: pure, for any size of terminal.

Colour is never the only signal: states have signs and words, what is selected is shown in reverse and named above its
log, and foreign processes are marked with `!`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..core import instants, watching
from ..core.gpu import GpuState
from ..operations.live import Meter, Seen
from ..operations.seen import memory_text, size_text
from ..operations.snapshot import GpuStatus, Status, TaskStatus
from .tables import Cell, duration, expected_end, in_order, look, printable, tally, whose, width_of

Line = list[Cell]

FAILED = ("failed", "timed_out", "lost")
LEAST_WIDTH, LEAST_HEIGHT = 40, 8
PLAIN = frozenset("■□█░▁▂▃▄▅▆▇─…✔✘▶·")  # the signs that are used here; each takes one column
_ROOM_FOR_LOG = 16  # lines of a terminal that also shows the log
_ROOM_FOR_METERS = 78  # columns that a GPU takes with bars for memory and use
_NEAR = 200
_DENSE = 39  # columns that it takes with shorter ones, two beside each other
_LONGEST_METER = 60  # marks: ten minutes
_STATE_WIDTH, _TIME_WIDTH, _MEMORY_WIDTH = 11, 6, 8
_KEYS = (
    ("q", "quit"), ("?", "help"), ("c", "cancel"), ("r", "retry"), ("a", "attach"), ("/", "filter"), ("f", "failed"),
    ("h", "hold"), ("enter", "log"),
)  # fmt: skip
_HELP = """
up down j k   select a task (also page up, page down, home, end)
enter         the log on the whole screen; up and down scroll it, esc goes back
c             cancel the selected task; asks first
r             run it again when it is done
h             hold it while it is queued; if it is held, release it
a             attach to its session, read-only; Ctrl-b d comes back here
              (inside of tmux: Ctrl-b Ctrl-b d)
/             only tasks whose name has this text or matches this glob; esc: all
f             only failed ones (also timed out and lost); esc: all
q             quit; everything goes on

A GPU's line: its slots, memory, how busy it is and was (a mark is 10 seconds).
! a process that no run of tinksched owns    + a run of another workspace
"""


@dataclass
class View:
    """What a user has chosen to see. `draw` keeps the selection and the scrolling within what there is."""

    selected: str | None = None
    top: int = 0  # the first task that is shown
    wanted: str = ""  # the filter
    failed_only: bool = False
    zoomed: bool = False
    back: int = 0  # lines that the log is scrolled back
    typing: bool = False  # what is typed goes into the filter
    helping: bool = False
    question: str = ""
    message: str = ""
    page: int = 10  # rows of tasks that there is room for
    _place: int = field(default=0, repr=False)  # where the selected one was
    _found: tuple[int, str, bool, list[TaskStatus]] | None = field(default=None, repr=False)

    @property
    def chooses(self) -> bool:
        """Whether only some tasks are wanted."""
        return self.failed_only or bool(self.wanted)

    def listed(self, now: Status | None) -> Sequence[TaskStatus]:
        """The tasks that are wanted, in the order of `status`. Found once for each status, not at every second."""
        if now is None:
            return ()
        if self._found is None or self._found[:3] != (id(now), self.wanted, self.failed_only):
            matches = _matcher(self.wanted)
            kept = [
                task for task in now.tasks
                if matches(task.name) and (task.state in FAILED or not self.failed_only)
            ]  # fmt: skip
            self._found = (id(now), self.wanted, self.failed_only, in_order(kept))
        return self._found[3]

    def choose(self, tasks: Sequence[TaskStatus]) -> int:
        """The place of the selected task; another one is selected if it isn't there any more."""
        found = next((place for place, task in enumerate(tasks) if task.name == self.selected), None)
        if found is None:
            found = max(0, min(self._place, len(tasks) - 1))
            self.selected = tasks[found].name if tasks else None
        self._place = found
        return found

    def move(self, tasks: Sequence[TaskStatus], by: int) -> None:
        """Select the task that is so many rows below."""
        if tasks:
            place = max(0, min(self.choose(tasks) + by, len(tasks) - 1))
            self.selected, self._place = tasks[place].name, place


def draw(view: View, seen: Seen, width: int, height: int, at: float, *, signs: bool) -> list[Line]:
    """Exactly `height` lines, none of which is wider than `width`. `at` is now, in seconds since the epoch."""
    if width < LEAST_WIDTH or height < LEAST_HEIGHT:
        lines = _too_small(width, height)
    elif view.helping:
        lines = [[(part, "")] for line in _HELP.strip("\n").splitlines() for part in wrapped(line, width)]
    else:
        lines = _screen(view, seen, width, height - 1, at, signs)
        lines += [[] for _ in range(height - 1 - len(lines))]
        lines.append(_footer(view, width))
    return [cut(line, width, signs) for line in lines[:height]] + [[] for _ in range(height - len(lines))]


def _too_small(width: int, height: int) -> list[Line]:
    words = f"This terminal has {width}x{height}; watch needs {LEAST_WIDTH}x{LEAST_HEIGHT}. Make it larger, or q: quit"
    return [[(line, "")] for line in wrapped(words, max(1, width))]


def _screen(view: View, seen: Seen, width: int, height: int, at: float, signs: bool) -> list[Line]:
    now = seen.status
    if now is None:
        return [[(_flat(seen.trouble) or "looking", "bold red" if seen.trouble else "dim")]]
    lines = [_heading(now, width)]
    if seen.trouble:
        said = f"! {_flat(seen.trouble)}; this is what was seen last"
        lines += [[(part, "bold red")] for part in wrapped(said, width)[:3]]
    tasks = view.listed(now)
    place = view.choose(tasks)
    chosen = tasks[place] if tasks else None
    if not view.zoomed:
        lines += _gpus(now, seen, width, max(1, (height - 6) // 3), signs)
        lines += _tasks(view, tasks, place, width, _rows_for_tasks(height, len(lines), tasks), at, signs)
        lines.append(_tally(view, tasks, now, width, signs))
    room = height - len(lines)
    if chosen is not None and room >= 2:
        lines.append(_title(chosen, at, width, signs))
        lines += _log(view, seen, chosen, width, room - 1)
    return lines


def _heading(now: Status, width: int) -> Line:
    if now.scheduler_pid is not None:
        scheduler, style = "scheduler runs", "green"
    elif now.stopped:
        scheduler, style = f"scheduler stopped ({now.stopped})", "yellow"
    else:
        scheduler, style = "no scheduler runs", "yellow"
    paused = [(f", {_flat(now.paused.said(now.at))}", "yellow")] if now.paused else []
    line = [(_flat(now.task_name), "bold"), ("  ", ""), (scheduler, style), *paused]
    room = width - sum(width_of(text) for text, _ in line) - 2
    place = _flat(now.workspace)
    if room >= 8:
        line.append((f"  {place if width_of(place) <= room else '...' + place[-(room - 3) :]}", "dim"))
    return line


def _rows_for_tasks(height: int, above: int, tasks: Sequence[TaskStatus]) -> int:
    """The rows for tasks, of those that they share with the names of the columns, the tally, and the log."""
    room = height - above - 2
    return room if height < _ROOM_FOR_LOG - 1 else max(3, min(len(tasks), room * 6 // 10))


# ---------------------------------------------------------------- GPUs


def _gpus(now: Status, seen: Seen, width: int, most: int, signs: bool) -> list[Line]:
    """The GPUs, in as many lines as there are, or beside each other in fewer."""
    known = [(gpu, seen.states.get(gpu.device) or gpu.state, seen.meters.get(gpu.device, Meter())) for gpu in now.gpus]
    if now.gpu_note:
        most = max(1, most - 1)
    if len(known) <= most and (width >= _ROOM_FOR_METERS or not any(state for _, state, _ in known)):
        lines = [_gpu(gpu, state, meter, width, signs) for gpu, state, meter in known]
        lines += _others(known, most - len(lines))
    else:
        beside = max(1, width // _DENSE)
        cells = [_dense(gpu, state, signs) for gpu, state, _ in known]
        lines = [_side_by_side(cells[start : start + beside]) for start in range(0, len(cells), beside)]
        if len(lines) > most:
            left = len(known) - (most - 1) * beside
            lines = [*lines[: most - 1], [(f"and {left} more GPUs: `tinksched gpus` shows all", "dim")]]
    if now.gpu_note:
        lines.append([(f"       {_flat(now.gpu_note)}", "dim")])
    return lines


def _gpu(gpu: GpuStatus, state: GpuState | None, meter: Meter, width: int, signs: bool) -> Line:
    used = len(gpu.tasks) + len(gpu.others)
    line: Line = [(f"GPU {gpu.index}".ljust(6), "bold"), (f" {_slots(used, gpu.slots, signs)} {used}/{gpu.slots}", "")]
    if state is None:
        there = [_flat(name) for name in gpu.tasks]
        there += [f"+ {_flat(tenant.task)} of {_flat(tenant.user)}" for tenant in gpu.others]
        return [*line, (f"  {', '.join(there) or 'free'}", "")]
    if state.lost:
        return [*line, ("  ! lost: nothing is started there", "bold red")]
    memory = _share(state)
    line += [("  mem ", "dim"), (_bar(memory, 10, signs), "cyan"), (f" {memory_text(state):>11}", "")]
    line += [("  busy ", "dim"), (_bar(state.utilization, 6, signs), "green"), (f" {_percent(state.utilization)}", "")]
    mark = _mark(gpu, state)
    room = width - sum(width_of(text) for text, _ in line) - 1 - (len(mark) + 1 if mark else 0)
    line.append((" " + _curve(meter.busy, min(room, _LONGEST_METER), signs), "green"))
    room -= _LONGEST_METER + 6
    if room >= 10:
        line += [("  mem ", "dim"), (_curve(meter.memory, min(room, _LONGEST_METER), signs), "cyan")]
    return [*line, (f" {mark}", "yellow")] if mark else line


def _dense(gpu: GpuStatus, state: GpuState | None, signs: bool) -> Line:
    used = len(gpu.tasks) + len(gpu.others)
    line: Line = [(f"{gpu.index:>3} ", "bold"), (f"{used}/{gpu.slots}", "")]
    if state is None:
        return line
    if state.lost:
        return [*line, (" ! lost", "bold red")]
    memory = _share(state)
    line += [(" mem ", "dim"), (_bar(memory, 5, signs), "cyan"), (_percent(memory), "")]
    line += [(" use ", "dim"), (_bar(state.utilization, 5, signs), "green"), (_percent(state.utilization), "")]
    return [*line, (_mark(gpu, state), "yellow")]


def _side_by_side(cells: Sequence[Line]) -> Line:
    line: Line = []
    for number, cell in enumerate(cells):
        line += cell
        if number < len(cells) - 1:
            line.append((" " * max(1, _DENSE - sum(width_of(text) for text, _ in cell)), ""))
    return line


def _others(known: Sequence[tuple[GpuStatus, GpuState | None, Meter]], most: int) -> list[Line]:
    """Who is on the GPUs besides our own runs, in as many lines as there is room for."""
    lines: list[Line] = []
    for gpu, state, _ in known:
        there = [f"! {whose(one)}, {one.standing}" for one in (state.strangers if state else ())]
        if state is not None:
            there += [f"+ {_flat(tenant.task)} of {_flat(tenant.user)}" for tenant in gpu.others]
        lines += [[(f"  on GPU {gpu.index}: {one}", "yellow")] for one in there]
    if len(lines) > most > 0:
        return [*lines[: most - 1], [(f"  and {len(lines) - most + 1} more: `tinksched gpus`", "yellow")]]
    return lines[: max(0, most)]


def _mark(gpu: GpuStatus, state: GpuState) -> str:
    foreign = len(state.strangers)
    return (f"!{foreign}" if foreign else "") + (f"+{len(gpu.others)}" if gpu.others else "")


def _share(state: GpuState) -> float | None:
    if state.memory_used is None or not state.memory_total:
        return None
    return 100.0 * state.memory_used / state.memory_total


def _slots(used: int, slots: int, signs: bool) -> str:
    """A box for each slot where there are few, so that the columns stay in their places."""
    full, empty = ("■", "□") if signs else ("#", "-")
    boxes = full * used + empty * max(0, slots - used) if max(used, slots) <= 4 else ""
    return boxes.ljust(min(max(slots, 1), 4))


def _bar(percent: float | None, width: int, signs: bool) -> str:
    full, empty = ("█", "░") if signs else ("#", "-")
    count = 0 if percent is None else max(0, min(width, round(percent * width / 100)))
    return (full * count + empty * (width - count)) if percent is not None else " " * width


def _percent(value: float | None) -> str:
    return f"{value:3.0f}%" if value is not None else "  ? "


def _curve(values: Sequence[float | None], width: int, signs: bool) -> str:
    """The newest values as marks, the newest at the right."""
    steps = "▁▂▃▄▅▆▇█" if signs else "_.-=+*#%"
    marks = [" " if value is None else steps[min(7, int(value * 8 / 100))] for value in values]
    return "".join(marks[-width:]).rjust(width) if width > 0 else ""


# ---------------------------------------------------------------- tasks


def _tasks(
    view: View, tasks: Sequence[TaskStatus], place: int, width: int, rows: int, at: float, signs: bool
) -> list[Line]:
    """The names of the columns, and the rows around the selected task."""
    rows = max(1, rows)
    view.page = rows
    view.top = max(0, min(view.top, place, len(tasks) - rows))
    view.top = max(view.top, place - rows + 1)
    if not tasks:
        nothing = "no task is like that: esc shows all" if view.wanted or view.failed_only else "no tasks yet"
        return [[(nothing, "dim")], *([] for _ in range(rows))]
    near = tasks[max(0, view.top - _NEAR) : view.top + _NEAR]  # the columns fit to these: there may be thousands
    seen = any(task.usage is not None and task.usage.gpu_memory_peak is not None for task in near) and width >= 60
    gpus = max(3, *(len(_places(task)) for task in near))
    longest = max(4, *(width_of(task.name) for task in near))
    fixed = _STATE_WIDTH + gpus + _TIME_WIDTH + 8 + ((_MEMORY_WIDTH + 2) if seen else 0)
    names = max(8, min(longest, (width - fixed) * (6 if width < 100 else 5) // 10))
    widths = [_STATE_WIDTH, names, gpus, -_TIME_WIDTH, *([-_MEMORY_WIDTH] if seen else [])]
    heads = ["STATE", "TASK", "GPU", "TIME", *(["MEMORY"] if seen else []), "DETAIL"]
    lines = [_row([(head, "bold") for head in heads], widths, width, signs)]
    for number, task in enumerate(tasks[view.top : view.top + rows], view.top):
        line = _row(_cells(task, at, seen, signs), widths, width, signs)
        lines.append([(text, f"{style} reverse".strip()) for text, style in line] if number == place else line)
    return lines


def _cells(task: TaskStatus, at: float, seen: bool, signs: bool) -> Line:
    sign, style = look(task.state, signs=signs)
    memory = task.usage.gpu_memory if task.usage and task.active else task.usage.gpu_memory_peak if task.usage else None
    return [
        (f"{sign} {task.state.replace('_', ' ')}", style),
        (_flat(task.name), ""),
        (_places(task), ""),
        (duration(task, at), ""),
        *([(size_text(memory) if memory is not None else "", "")] if seen else []),
        (_flat(_detail(task, at)), "" if task.state in FAILED else "dim"),
    ]


def _row(cells: Line, widths: Sequence[int], width: int, signs: bool) -> Line:
    """The cells in their columns; negative widths are flush right, and the last cell takes what is left."""
    line: Line = []
    for (text, style), room in zip(cells, widths, strict=False):
        short = "".join(part for part, _ in cut([(text, style)], abs(room), signs))
        space = " " * (abs(room) - width_of(short))
        line.append((f"{space}{short}  " if room < 0 else f"{short}{space}  ", style))
    line.append(cells[-1])
    line = cut(line, width, signs)
    return [*line, (" " * (width - sum(width_of(text) for text, _ in line)), "")]


def _places(task: TaskStatus) -> str:
    return "-".join(map(str, task.gpus)) or ("cpu" if task.started_at and not task.wanted_gpus else "")


def _detail(task: TaskStatus, at: float) -> str:
    parts = [watching.said(flag, at) for flag in task.usage.flags] if task.usage is not None and task.active else []
    if task.reason is not None:
        parts.append(task.reason.said(at))
    if task.state == "new":
        parts.append("not queued yet")
    if task.state == "queued" and task.expected_start is not None:
        parts.append(f"starts ~{instants.clock(task.expected_start, at)}")
    if task.active and task.expected_end is not None:
        parts.append(f"ends ~{instants.clock(task.expected_end, at)}")
    if task.ended_at is not None and task.state != "queued":
        parts.append(instants.ago(task.ended_at, at))
    if task.attempt > 1:
        parts.append(f"attempt {task.attempt}")
    if task.config_changed and task.state != "queued":
        parts.append("config edited since")
    return "; ".join(parts)


def _tally(view: View, tasks: Sequence[TaskStatus], now: Status, width: int, signs: bool) -> Line:
    chosen = [f"/{view.wanted}/" if view.wanted else "", "failed ones only" if view.failed_only else ""]
    words = ", ".join(filter(None, map(_flat, chosen)))
    line: Line = [(f"{len(tasks)} with {words}; " if words else "", "bold")]
    left = now.total - len(now.tasks)
    rest = f"; {left} not listed here: / finds them" if left else ""
    room = width - width_of(line[0][0])
    counts = tally(now).partition("; ")[0]
    ends = f"; ends ~{instants.clock(end, now.at)}" if (end := expected_end(now)) is not None else ""
    few = "  ".join(f"{look(state, signs=signs)[0]} {count}" for state, count in now.counts.items())
    texts = (tally(now) + rest, counts + ends + rest, few + ends + rest)
    return [*line, (next((text for text in texts if width_of(text) <= room), texts[-1]), "")]


# ---------------------------------------------------------------- the log


def _title(task: TaskStatus, at: float, width: int, signs: bool) -> Line:
    line = "─" if signs else "-"
    where = f" on GPU {_places(task)}" if task.gpus else ""
    said = f"{_flat(task.name)}: {task.state.replace('_', ' ')}{where}"
    detail = _flat(_detail(task, at))
    text = f"{line * 2} {said}{': ' + detail if detail else ''} "
    return [(text, "bold"), (line * max(0, width - width_of(text)), "dim")]


def _log(view: View, seen: Seen, task: TaskStatus, width: int, room: int) -> list[Line]:
    """The end of the log, or what is so many lines before it."""
    log = seen.tail
    if task.log is None:
        return [[("it has not run, so there is no log" if not task.started_at else "it has no log", "dim")]]
    if log.path != task.log:
        return []
    if not any(log.lines):
        return [[("nothing printed so far" if log.there or task.active else f"{log.path} is gone", "dim")]]
    rows: list[str] = []
    for line in reversed(log.lines):
        rows[:0] = wrapped(_flat(line.expandtabs()), width)
        if len(rows) >= room + view.back:
            break
    view.back = max(0, min(view.back, len(rows) - room))
    end = len(rows) - view.back
    return [[(row, "")] for row in rows[max(0, end - room) : end]]


# ---------------------------------------------------------------- the last line


def _footer(view: View, width: int) -> Line:
    if view.question:
        return [(_flat(view.question), "bold reverse")]
    if view.typing:
        return [("/", "bold"), (_flat(view.wanted), ""), (" ", "reverse"), ("  enter: keep, esc: all tasks", "dim")]
    if view.message:
        return [(_flat(view.message), "bold")]
    keys = [("esc", "back"), ("q", "quit"), ("a", "attach")] if view.zoomed else _KEYS
    line: Line = []
    for key, what in keys:
        if sum(width_of(text) for text, _ in line) + len(f"{key} {what}") <= width:
            line += [(key, "bold"), (f" {what}  ", "dim")]
    return line


# ---------------------------------------------------------------- texts


def _flat(text: str) -> str:
    """A text of a user for a line that can be no other."""
    return printable(text.replace("\n", " "))


def cut(line: Line, width: int, signs: bool = True) -> Line:
    """The line, shortened to so many columns; what is missing is marked at its end."""
    if sum(width_of(text) for text, _ in line) <= width:
        return line
    mark = "…" if signs else "~"
    room, short = width - 1, []
    for text, style in line:
        part = text if width_of(text) <= room else next(_pieces(text, room), "")
        short.append((part, style))
        room -= width_of(part)
        if part != text:
            break
    return [*short, (mark, short[-1][1] if short else "")] if width > 0 else []


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of so many columns."""
    return [*_pieces(text, width)] or [""]


def _pieces(text: str, width: int) -> Iterator[str]:
    while text and width > 0:
        if width_of(text) <= width:
            yield text
            return
        end = min(width, len(text))
        while width_of(text[:end]) > width:
            end -= 1
        if not end:  # a wide character, and room for a narrow one
            return
        yield text[:end]
        text = text[end:]


def _matcher(wanted: str) -> Callable[[str], bool]:
    if set(wanted) & set("*?["):
        return lambda name: fnmatch.fnmatchcase(name, wanted)
    return lambda name: wanted.lower() in name.lower()
