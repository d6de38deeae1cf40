"""All that the page shows of one job."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...core.model import Run
from ...core.usage import Usage
from ...errors import TinkschedError
from ...store import Store
from . import measures
from .cards import Card

LONGEST_CONFIG = 256 * 1024


@dataclass(frozen=True, slots=True)
class Facts:
    """What is on record of a job."""

    card: Card
    runs: Sequence[Run] = ()
    usage: Usage | None = None
    config: str | None = None  # as it was submitted; None: it is the file
    config_file: Path | None = None
    measured: Sequence[Path] = ()  # where its numbers may be
    logs: Mapping[str, Path] = field(default_factory=dict)  # by what the page calls them


def facts_of(store: Store, card: Card) -> Facts:
    """What the store knows of a job.

    Raises:
        TinkschedError: it is gone by now, or can't be read.
    """
    with store.snapshot():
        task = store.task(card.task)
        if task is None:
            raise TinkschedError("the job is gone")
        runs = store.runs_of(task)
        usage = store.usage_of([runs[-1].id]).get(runs[-1].id) if runs else None
    return Facts(card, runs, usage, config_file=Path(task.config) if task.config else None)


def answer(facts: Facts, *, with_command: bool) -> str:
    """The job as JSON. Reads its files."""
    card, last = facts.card, facts.runs[-1] if facts.runs else None
    reason = last.reason if last is not None else None
    more = {
        "runs": [_run(card, run) for run in facts.runs],
        "config": facts.config if facts.config is not None else _text(facts.config_file),
        "command": list(last.record.command) or None if last is not None and with_command else None,
        "metrics": measures.table(facts.measured),
        "usage": asdict(facts.usage) if facts.usage is not None else None,
        "diagnosis": reason.diagnosis.text if reason is not None and reason.diagnosis is not None else None,
    }
    return f'{{"job": {card.text}, {json.dumps(more, allow_nan=False)[1:]}'


def _run(card: Card, run: Run) -> dict[str, Any]:
    return {
        "run": run.id,
        "job": card.id,
        "name": card.name,
        "gpus": run.gpus,
        "from": run.created_at,
        "to": run.ended_at,
        "outcome": run.outcome.value if run.outcome else "running",
        "attempt": run.attempt,
        "exit_code": run.exit_code,
        "reason": run.reason.text if run.reason is not None else None,
    }


def _text(file: Path | None) -> str | None:
    try:
        if file is None:
            return None
        with file.open("rb") as stream:
            return stream.read(LONGEST_CONFIG).decode(errors="replace")
    except OSError:
        return None
