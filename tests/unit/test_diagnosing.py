"""When the end of a log is read: at once, a moment later where the decision hangs on it, and once more afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.test_diagnosis import OOM_NOW, TORCH
from tests.unit.test_store import SPEC, add, begin, finish
from tinksched.core.diagnosis import Kind
from tinksched.core.model import Outcome, Reason, ReasonCode, Run, Task
from tinksched.host.completion import with_diagnosis
from tinksched.host.logfile import tail
from tinksched.scheduler import diagnosing
from tinksched.scheduler.diagnosing import Diagnosing
from tinksched.scheduler.endings import Ending
from tinksched.scheduler.journal import Journal
from tinksched.store import Store

WORDS = TORCH + OOM_NOW
CODE = Reason(ReasonCode.EXIT_CODE, {"code": 1})
RETRIES = replace(SPEC, max_retries=3, retry_on=("oom",))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "state.db", create=True) as opened:
        yield opened


@pytest.fixture
def judge(store: Store, tmp_path: Path) -> Iterator[Diagnosing]:
    journal = Journal(tmp_path / "journal.log", screen=False)
    yield Diagnosing(store, journal)
    journal.close()


def ended(run: Run, **given: object) -> Ending:
    return replace(Ending(run, Outcome.FAILED, CODE, 1, time.time()), **given)  # type: ignore[arg-type]


def started(store: Store, log: Path, *, session: str = "T_a_gpu0", spec: object = SPEC) -> tuple[Task, Run]:
    (task,) = add(store, "a", spec=spec)  # type: ignore[arg-type]
    return begin(store, task, log=str(log), session=session)


def test_the_end_of_the_log_is_read_and_no_more(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * 100_000 + b"end")
    assert tail(log, 5) == b"xxend"
    assert len(tail(log, 65536)) == 65536
    assert tail(tmp_path / "missing", 5) == tail(tmp_path, 5) == tail("a\0b", 5) == b""


def test_a_log_that_is_whole_is_diagnosed_at_once(store: Store, judge: Diagnosing, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text(WORDS)
    task, run = started(store, log, spec=RETRIES)
    found = judge.of(ended(run), task)
    assert found is not None and found.reason is not None and found.reason.found is not None
    assert found.reason.found.kind is Kind.CUDA_MEMORY
    assert judge.wake_at is None


def test_where_the_decision_hangs_on_it_the_end_waits_a_moment(
    store: Store, judge: Diagnosing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(diagnosing.time, "monotonic", lambda: now)
    log = tmp_path / "a.log"
    log.write_text(TORCH)
    task, run = started(store, log, spec=RETRIES)
    assert judge.of(ended(run), task) is None
    assert judge.wake_at == 100.0 + diagnosing.LOG_SECONDS
    now += 0.1
    assert judge.of(ended(run), task) is None
    assert judge.wake_at == 100.0 + diagnosing.LOG_SECONDS, "not longer than that"
    log.write_text(WORDS)
    found = judge.of(ended(run), task)
    assert found is not None and found.reason is not None and found.reason.found is not None
    judge.recorded([found])
    assert judge.wake_at is None


def test_it_waits_no_longer_than_that(
    store: Store, judge: Diagnosing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(diagnosing.time, "monotonic", lambda: now)
    task, run = started(store, tmp_path / "missing.log", spec=RETRIES)
    assert judge.of(ended(run), task) is None
    now += diagnosing.LOG_SECONDS
    ending = ended(run)
    assert judge.of(ending, task) == ending


@pytest.mark.parametrize(
    ("spec", "failures", "session"),
    [
        (SPEC, 0, "s"),  # no retries
        (RETRIES, 3, "s"),  # none left
        (replace(RETRIES, retry_on=(75,)), 0, "s"),  # not after this exit code
        (RETRIES, 0, ""),  # without tmux the log is whole
    ],
)
def test_everywhere_else_no_end_waits(
    store: Store, judge: Diagnosing, tmp_path: Path, spec: object, failures: int, session: str
) -> None:
    task, run = started(store, tmp_path / "missing.log", session=session, spec=spec)
    ending = ended(run)
    assert judge.of(ending, replace(task, failures=failures)) == ending


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome.COMPLETED, None),
        (Outcome.CANCELLED, Reason(ReasonCode.INTERRUPTED)),
        (Outcome.TIMED_OUT, Reason(ReasonCode.TIME_LIMIT)),
        (Outcome.LOST, Reason(ReasonCode.NO_EXIT_STATUS)),
        (Outcome.FAILED, Reason(ReasonCode.NO_MARKER)),
        (Outcome.FAILED, Reason(ReasonCode.TERMINAL_CLOSED)),
        (None, Reason(ReasonCode.NEVER_BEGAN)),
    ],
)
def test_only_what_ended_by_itself_is_diagnosed(
    store: Store, judge: Diagnosing, tmp_path: Path, outcome: Outcome | None, reason: Reason | None
) -> None:
    log = tmp_path / "a.log"
    log.write_text(WORDS)
    task, run = started(store, log, spec=RETRIES)
    ending = ended(run, outcome=outcome, reason=reason)
    assert judge.of(ending, task) is ending
    assert with_diagnosis(replace(run, log=None), Outcome.FAILED, CODE, 1) == CODE


def test_a_log_that_came_late_explains_the_end_that_is_on_record(
    store: Store, judge: Diagnosing, tmp_path: Path
) -> None:
    log = tmp_path / "a.log"
    log.write_text(TORCH)
    task, run = started(store, log)
    ending = judge.of(ended(run), task)
    assert ending is not None and ending.reason == CODE
    finish(store, task, run, Outcome.FAILED)
    judge.recorded([ending])
    log.write_text(WORDS)
    judge.look_again()
    done = store.task("a")
    assert done is not None and done.reason is not None and done.reason.found is not None
    assert done.reason.text == "CUDA out of memory (exit code 1)"
    assert "CUDA out of memory" in (tmp_path / "journal.log").read_text()
    log.write_text("")
    judge.look_again()
    assert store.task("a") == done, "it is looked at once more, and not for ever"
