"""The results as Markdown: a table for each metric, what it means, and the aims beside what was reached."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .aims import verdicts
from .cold import PYTHON
from .measure import Spread, spread
from .results import Results
from .running import FLOOR


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is shown. `scale` makes the unit of the samples; ratios are to the row `beside`."""

    pattern: str
    title: str
    unit: str
    scale: float
    means: str
    beside: str | None = None
    peers: bool = True  # whether others are measured by it, too


METRICS = (
    Metric("handover", "Hand-over", "ms", 1e3,
           "From a task's last instruction to the first one of the task that takes its slot, by the tasks' own clocks. "
           "A start takes the slot that has been free for longest. Nobody watches the systems meanwhile. The floor is "
           "bare `tmux new-session -d`, one after another on an idle server.", FLOOR),
    Metric("steps", "One hand-over, step by step", "µs", 1e6,
           "What was done since the step before, medians over tasks that follow each other on one slot, in tmux. The "
           "scheduler writes down when it reaches each step, which costs it some microseconds.", peers=False),
    Metric("makespan", "Makespan", "× ideal", 1,
           "First start to last end of the same batches, as a multiple of what it takes if a slot is never free.",
           "task-spooler"),
    Metric("whole", "From the command to the last end", "× ideal", 1,
           "The same from the moment at which the first command is given: with the start of the scheduler or daemon "
           "(gflow's was started before) and the queueing.", "task-spooler"),
    Metric(r"launch (\d+)", "Launch rate on {0} slots", "tasks/s", 1,
           "Tasks that end at once: their number by the time from the first start to the last end.", "task-spooler"),
    Metric(r"enqueue (\d+)", "Queueing {0} tasks", "s", 1,
           "All slots are taken. tinksched: one `start` with so many new configs; gflow: one `gbatch --array`; "
           "task-spooler: one call for each.", "tinksched"),
    Metric(r"status (\d+)", "Listing {0} tasks", "ms", 1e3,
           "The command that lists the queue, with its output thrown away.", "tinksched status --json"),
    Metric("scale handover", "Hand-over, long queue and history", "ms", 1e3,
           "As above, in workspaces that take turns.", "empty", peers=False),
    Metric("scale start", "`tinksched start` with them", "s", 1,
           "The wall time of the command, which reads all configs and starts the scheduler.", "empty",
           peers=False),
    Metric("scale first", "From `start` to the first task", "s", 1,
           "From the moment at which the command is given to the first task's first instruction: with the scheduler's "
           "own start.", "empty", peers=False),
    Metric("scale memory", "Memory of the scheduler with them", "MB", 1e-6, "Resident set.", "empty", peers=False),
    Metric("scale database", "Database per finished task", "bytes", 1, "By what the file grew.", peers=False),
    Metric("idle cpu", "Idle: processor time", "% of a core", 1e2,
           "User and system time of the scheduler (daemon, server) with its children, while four long tasks run and a "
           "hundred wait and nothing changes."),
    Metric("idle wakes", "Idle: wake-ups", "per minute", 60, "Voluntary context switches of all its threads."),
    Metric("idle rss", "Idle: memory of the scheduler", "MB", 1e-6, "Resident set of the same process."),
    Metric("idle pss", "Idle: proportional memory of the scheduler", "MB", 1e-6,
           "Pages that it shares with others count by their share."),
    Metric("idle all", "Idle: proportional memory of all that it needs", "MB", 1e-6,
           "With tmux, wrappers, shells and waiting clients; without the tasks themselves."),
    Metric("sampling", "A round of looking", "ms of CPU", 1e3,
           "Eight runs on each of eight GPUs of the NVML double, and a process of somebody else; a round every second: "
           "all that the scheduler does in a second, its children included, less what the double takes to answer. "
           "NVIDIA's driver takes its own time.", peers=False),
    Metric("cold", "Cold start", "ms", 1e3, "Commands in alternation, on a workspace with ten tasks.", PYTHON,
           peers=False),
    Metric(r"commands (\d+)", "Every command with {0} tasks", "ms", 1e3,
           "Half of the tasks are completed, one in twenty failed, one in twenty held, the others queued. Four run, a "
           "scheduler works. In each round every command is called once, in the order of the table: what `hold` "
           "changes `release` changes back. Its output is thrown away. A sweep writes a file for each point aside and "
           "then puts all of them in their places; the last row is the same from a bare program.", PYTHON, peers=False),
    Metric(r"commands (\d+) processor", "Every command with {0} tasks: processor time", "ms", 1e3,
           "Of the command itself, without the scheduler that it starts or waits for: about what is left of the above "
           "where nobody else is at work.", PYTHON, peers=False),
)  # fmt: skip


def markdown(results: Results, notes: str = "", plot: str | None = None) -> str:
    """The whole report."""
    parts = ["# How fast tinksched is", _intro(results)]
    if plot:
        parts.append(f"![The medians of this run]({plot})")
    parts += ["## The aims", _aims(results), "## The figures", _legend()]
    for name in results.samples:
        if (found := described(name)) is not None:
            metric, title = found
            parts += [f"### {title}", metric.means, _table(results, name, metric)]
    if notes.strip():
        parts.append(notes.strip())
    parts += ["## The machine", _facts(results.machine), "## The run", _facts(results.setup)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _intro(results: Results) -> str:
    lines = ["Written by `sh tests/bench/run.sh --record`, from one run in which the systems took turns."]
    lines += [f"**{system}: {why}.**" for system, why in results.missing.items()]
    lines += [f"**The benchmark {name} was cut short: {why}.**" for name, why in results.failed.items()]
    return "\n\n".join([*lines, *results.notes])


def _legend() -> str:
    return (
        "Median and spread of all samples (nine in ten lie between the two numbers), the lowest and highest median of "
        "a round, and the number of samples. All tasks run the same small program, which writes its own times."
    )


def described(name: str) -> tuple[Metric, str] | None:
    """How a metric is shown, and its title."""
    for metric in METRICS:
        if (match := re.fullmatch(metric.pattern, name)) is not None:
            return metric, metric.title.format(*(f"{int(group):,}" for group in match.groups()))
    return None


def _table(results: Results, name: str, metric: Metric) -> str:
    rows = {system: spread(rounds) for system, rounds in results.samples[name].items() if any(rounds)}
    reference = rows.get(metric.beside or "")
    many = any(row.count > 1 for row in rows.values())
    head = ["", *([f"median, {metric.unit}", "5–95 %", "rounds", "samples"] if many else [metric.unit])]
    head += [f"× {metric.beside}"] if reference else []
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for system, row in rows.items():
        cells = list(_cells(row, metric.scale))
        ratio = [number(row.median / reference.median) if reference.median else ""] if reference else []
        lines.append([system, *(cells if many else cells[:1]), *ratio])
    missing = results.missing if metric.peers else {}
    lines += [[system, why, *[""] * (len(head) - 2)] for system, why in missing.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Spread, scale: float) -> Iterator[str]:
    def show(value: float) -> str:
        return number(value * scale)

    yield show(row.median)
    yield f"{show(row.low)} – {show(row.high)}"
    yield f"{show(row.lowest_round)} – {show(row.highest_round)}"
    yield str(row.count)


def number(value: float) -> str:
    """Three digits that count, never in powers of ten."""
    if value == 0:
        return "0"
    size = abs(value)
    places = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{places}f}"


def _aims(results: Results) -> str:
    lines = [["aim", "at most", "measured", "verdict"], ["---", "---:", "---:", "---"]]
    for verdict in verdicts(results):
        measured = "not measured" if verdict.measured is None else f"{number(verdict.measured)} {verdict.unit}".strip()
        lines.append([verdict.aim, f"{number(verdict.limit)} {verdict.unit}".strip(), measured, verdict.words])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _facts(facts: dict[str, str]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items())])
