"""What was measured: for each metric and system the samples of each round. Kept as JSON beside the report."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .place import BenchError

Rounds = list[list[float]]


@dataclass(slots=True)
class Results:
    """Everything that the report is made of."""

    machine: dict[str, str] = field(default_factory=dict)
    setup: dict[str, str] = field(default_factory=dict)  # what was asked for: sizes and rounds
    samples: dict[str, dict[str, Rounds]] = field(default_factory=dict)  # by metric and system
    missing: dict[str, str] = field(default_factory=dict)  # system: why it was not measured
    failed: dict[str, str] = field(default_factory=dict)  # benchmark: what went wrong before it was complete
    notes: list[str] = field(default_factory=list)

    def add(self, metric: str, system: str, samples: Sequence[float]) -> None:
        """Add the samples of one round."""
        self.samples.setdefault(metric, {}).setdefault(system, []).append(list(samples))

    def note(self, text: str) -> None:
        """Something that a reader of the tables must know, once."""
        if text not in self.notes:
            self.notes.append(text)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read it from JSON.

        Raises:
            BenchError: it is something else.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise BenchError(f"{path}: there are no results in it: {error}") from None


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
