"""How instants are said."""

from __future__ import annotations

import time
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.test_watchscreen import task
from tinksched.cli import tables
from tinksched.cli.waiting import _Changes
from tinksched.core.instants import ago, both, clock, exact
from tinksched.core.model import Hold, Outcome, Reason, ReasonCode, TaskState

NOON = datetime(2030, 5, 17, 12, 0, 0).timestamp()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "just now"), (4.9, "just now"), (5, "5 s ago"), (59.4, "59 s ago"), (59.6, "1 min ago"), (200, "3 min ago"),
        (3570, "1 h ago"), (7500, "2 h 5 min ago"), (7 * 3600 + 600, "7 h ago"), (86_000, "1 day ago"),
        (6 * 86_400, "6 days ago"), (-2, "now"), (-10, "in 10 s"), (-7199.9, "in 2 h"), (-3 * 86_400, "in 3 days"),
    ],
)  # fmt: skip
def test_how_far_it_is_from_now(seconds: float, said: str) -> None:
    assert ago(NOON - seconds, NOON) == said


def test_by_the_clock() -> None:
    assert clock(NOON + 3600, NOON) == "13:00" and both(NOON + 3600, NOON) == "13:00 (in 1 h)"
    assert clock(NOON + 86_400, NOON) == "Sat 12:00", "a day to come has a name"
    assert clock(NOON - 86_400, NOON) == "2030-05-16 12:00", "one that is over could be any"
    assert exact(NOON) == "2030-05-17 12:00:00"


def test_a_reason_is_relative_for_people_and_stays_true_on_record() -> None:
    held, later = Hold("ann", NOON - 180).reason, Hold("ann", NOON - 180, NOON + 7200).reason
    assert held.said(NOON) == "held by ann 3 min ago: `tinksched release` lets it go"
    assert held.text == "held by ann since 2030-05-17 11:57: `tinksched release` lets it go"
    assert later.said(NOON) == "not before 14:00 (in 2 h), says ann"
    assert later.text == "not before 2030-05-17 14:00:00, says ann"
    delay = Reason(ReasonCode.STARTUP_DELAY, {"gpu": 0, "until": NOON + 10})
    assert delay.said(NOON).endswith("next start in 10 s") and delay.text.endswith("next start at 12:00:10")


def test_the_tables_say_when_a_task_ended_and_wait_says_what_is_old_news(capsys: pytest.CaptureFixture[str]) -> None:
    done = task("exp1", "failed", reason=Reason(ReasonCode.EXIT_CODE, {"code": 1}), ended_at=NOON - 200)
    assert tables.detail(done, NOON) == "exit code 1; 3 min ago"
    assert tables.detail(task("exp1", "completed", ended_at=NOON), NOON) == "just now"
    changes = _Changes(as_json=False, quiet=False)
    for at in (time.time() - 200, time.time()):
        changed: Any = SimpleNamespace(name=f"at{at}", state=TaskState.DONE, outcome=Outcome.COMPLETED, reason=None,
                                       changed_at=at)  # fmt: skip
        changes.show([changed])
    old, new = capsys.readouterr().out.splitlines()
    assert old.endswith("completed (3 min ago)") and new.endswith("completed")
