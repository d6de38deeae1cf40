"""The page: a table with a row for each job and a column for each tool, and what stands behind it."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from .day import Done, Said, shown
from .jobs import Cell, Job

OURS = "tinksched"
FIRST = 70  # characters of what was printed that stand in the table
LINES, WIDTH = 12, 118  # of a transcript


@dataclass
class Page:
    """What was seen, by job and tool: what was done, or in words why not."""

    jobs: Sequence[Job]
    tools: Sequence[str]
    versions: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    seen: dict[tuple[str, str], Done | str] = field(default_factory=dict)

    def text(self) -> str:
        """The whole page in Markdown."""
        parts = [HEAD, *self._about(), "", self._summary(), "", *self._table(), "", TRANSCRIPTS]
        for number, job in enumerate(self.jobs, 1):
            parts += ["", f"### {number}. {job.title}", ""]
            for tool in self.tools:
                parts += self._transcript(tool, job)
        return "\n".join(parts).rstrip() + "\n"

    def problems(self) -> list[str]:
        """Where a tool did not do what jobs.yml says of it."""
        found = ((job, tool, self._trouble(job, tool)) for job in self.jobs for tool in self.tools)
        return [f"{tool}: {job.title}: {trouble}" for job, tool, trouble in found if trouble]

    def _trouble(self, job: Job, tool: str) -> str:
        done, cell = self.seen.get((job.title, tool)), job.cells[tool]
        if isinstance(done, str):
            return f"it could not be tried: {done.splitlines()[0]}"
        if done is None or not cell.sees or re.search(cell.sees, done.text, re.DOTALL):
            return ""
        return f"{cell.sees!r} was not seen"

    def _about(self) -> list[str]:
        lines = []
        for tool in self.tools:
            state = f"left out: {self.absent[tool]}" if tool in self.absent else self.versions[tool]
            lines.append(f"- {tool}: {state}")
        return lines

    def _summary(self) -> str:
        verdicts = [self._keys(job) for job in self.jobs]
        behind = sum("more than" in verdict for verdict in verdicts)
        worse = sum(job.worse for job in self.jobs)
        return (
            f"Of {len(self.jobs)} jobs tinksched takes more keystrokes than a peer that does the whole of the job in "
            f"{behind}, and what it prints is poorer in {worse}."
        )

    def _table(self) -> list[str]:
        rows = [["", "job", *self.tools, "verdict on tinksched"], ["---:", *["---"] * (len(self.tools) + 2)]]
        for number, job in enumerate(self.jobs, 1):
            rows.append([str(number), job.title, *(self._cell(job, tool) for tool in self.tools), self._verdict(job)])
        return [f"| {' | '.join(row)} |" for row in rows]

    def _cell(self, job: Job, tool: str) -> str:
        cell = job.cells[tool]
        if not cell.typed:
            return f"- {_safe(cell.note)}"
        parts = [f"<code>{_safe(line)}</code>" for line in cell.typed]
        parts.append(f"**{cell.keystrokes}**{self._outcome(job, tool)}")
        parts += [f"*not all of it: {_safe(cell.partly)}*"] if cell.partly else []
        parts += [_safe(cell.note)] if cell.note else []
        return "<br>".join(parts)

    def _outcome(self, job: Job, tool: str) -> str:
        """The exit code and the first line."""
        done = self.seen.get((job.title, tool))
        if done is None:
            return ", not run here"
        if isinstance(done, str) or (trouble := self._trouble(job, tool)):
            return f", **{_safe(trouble if isinstance(done, Done) else self._trouble(job, tool))}**"
        first = next((line for said in done.typed for line in said.text.splitlines() if line.strip()), "")
        return f", {_code(done.typed[-1])}: {_safe(_cut(first, FIRST)) if first else '(silent)'}"

    def _verdict(self, job: Job) -> str:
        return f"{'**poorer**: ' if job.worse else ''}{self._keys(job)}; {_safe(job.words)}"

    def _keys(self, job: Job) -> str:
        """The keystrokes against those of the tools that do all of the job."""
        if job.error:
            return "not compared"
        ours = job.cells[OURS].keystrokes
        others = {tool: job.cells[tool].keystrokes for tool in self.tools if tool != OURS and _whole(job.cells[tool])}
        if not others:
            return "alone"
        best = min(others, key=lambda tool: others[tool])
        if ours > others[best]:
            return f"**{ours - others[best]} more than {best}**"
        return f"as few as {best}" if ours == others[best] else f"{others[best] - ours} fewer than {best}"

    def _transcript(self, tool: str, job: Job) -> list[str]:
        done = self.seen.get((job.title, tool))
        if done is None:
            return []
        if isinstance(done, str):
            return [f"{tool}: could not be tried", "", "```text", *shown(done.splitlines(), LINES, WIDTH), "```", ""]
        lines = [line for said in done.typed for line in _told(said, "$")]
        lines += [line for said in done.after for line in _told(said, "#")]
        return [f"{tool}:", "", "```text", *lines, "```", ""]


def _whole(cell: Cell) -> bool:
    return bool(cell.typed) and not cell.partly


def _told(said: Said, prompt: str) -> list[str]:
    """One line, what it printed, and its exit code if it says something."""
    end = [] if said.code == 0 else [f"[{_code(said)}]"]
    line = said.line.removeprefix("? ")
    printed = [line.rstrip() for line in said.text.splitlines() if line.strip()]
    return [f"{prompt} {line}", *shown(printed, LINES, WIDTH), *end]


def _code(said: Said) -> str:
    return "goes on" if said.code is None else f"exit code {said.code}"


def _cut(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _safe(text: str) -> str:
    """Inside of a cell of a Markdown table."""
    return html.escape(text, quote=False).replace("|", "&#124;").replace("*", "&#42;").replace("`", "&#96;")


HEAD = """\
# Everyday jobs, side by side

Written by `sh tests/everyday/run.sh`, which performed each of them. In a cell: what is typed, its keystrokes with enter
(of the shortest documented form), the exit code, and the first line that was printed; what is behind it stands below
the table. The verdict compares keystrokes with the tools that do the *whole* of the job; the words behind it are ours
and say what is printed, and what happens on an error. `tk` is tinksched's short name, installed with it.

Two GPUs (pretended: a small NVML of the tests, for Slurm two files), one user, nothing configured but what is said.
"""
TRANSCRIPTS = """\
## What was printed

Lines behind `$` were typed and are counted, those behind `#` only looked at what came of it."""
