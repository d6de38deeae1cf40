"""The past of a workspace in figures, on a terminal and as a page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.unit.test_store import SPEC, add, begin
from tinksched.cli.page import page
from tinksched.cli.report import shades
from tinksched.core.lifecycle import Ended, Finished
from tinksched.core.model import Outcome, Reason, ReasonCode
from tinksched.errors import UsageError
from tinksched.operations import metrics
from tinksched.operations.report import Report, of_runs, time_of
from tinksched.store import Ran, Store

NOW = 1_700_000_000.0
WICKED = '<script>alert("x")</script>&\x1b[31m\n'


def ran(task: str, begin: float, end: float | None, *gpus: int, **given: object) -> Ran:
    fields: dict[str, object] = {
        "attempt": 1, "outcome": Outcome.COMPLETED if end is not None else None, "reason": None, "exit_code": 0,
        "queued_at": NOW, **given,
    }  # fmt: skip
    return Ran(
        task=task, gpus=gpus or (0,), started_at=NOW + begin, ended_at=None if end is None else NOW + end,
        **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def made(*runs: Ran, begin: float = 0.0, now: float = NOW + 100, **measured: dict[str, float]) -> Report:
    return of_runs("/w", "T", runs, {"completed": len(runs)}, measured, begin, now)


def test_busy_time_gaps_and_hours() -> None:
    found = made(ran("a", 10, 30), ran("b", 20, 40), ran("c", 60, 70, 0, 1))
    assert (found.since, found.until) == (NOW + 10, NOW + 70)
    zero, one = found.gpus
    assert zero.busy == [(NOW + 10, NOW + 40), (NOW + 60, NOW + 70)] and zero.busy_seconds == 40 and zero.runs == 3
    assert zero.gaps == [(NOW + 40, NOW + 60)] and one.gaps == [(NOW + 10, NOW + 60)]
    assert found.gpu_hours == 50 / 3600 and found.run_seconds == 60


def test_what_goes_on_and_what_began_before_counts_within_the_time() -> None:
    found = made(ran("a", 0, 40), ran("b", 50, None), begin=NOW + 20)
    assert (found.since, found.until) == (NOW + 20, NOW + 100)
    assert found.gpus[0].busy == [(NOW + 20, NOW + 40), (NOW + 50, NOW + 100)]
    assert found.counts == {"completed": 1, "running": 1}


def test_waits_count_from_the_queue_to_the_first_run() -> None:
    found = made(ran("a", 10, 20), ran("a", 50, 60, attempt=2), ran("b", 30, 40), ran("old", -5, 40))
    assert (found.waits.count, found.waits.median, found.waits.longest, found.waits.longest_task) == (2, 20, 30, "b")
    assert found.retries == 1


def test_failures_are_grouped_by_their_reason() -> None:
    bad = {"outcome": Outcome.FAILED, "reason": Reason(ReasonCode.EXIT_CODE, {"code": 3})}
    lost = {"outcome": Outcome.LOST, "reason": None}
    cut = {"outcome": Outcome.CANCELLED}
    found = made(ran("x", 0, 1, **lost), ran("a", 0, 1, **bad), ran("a", 2, 3, attempt=2, **bad), ran("c", 0, 1, **cut))
    assert [(item.reason, item.tasks, item.runs) for item in found.failures] == [
        ("exit code 3", ("a",), 2), ("lost", ("x",), 1),
    ]  # fmt: skip


def test_nothing_at_all() -> None:
    found = made()
    assert json.loads(json.dumps(found.json()))["runs"] == [] and "Nothing ran" in page(found)


def test_a_bar_shows_the_least_thing_and_never_fills_what_is_not_full() -> None:
    assert shades([(0, 50), (75, 75.01)], 0, 100, 4, " .-=#") == "## ."[:2] + " ."
    assert shades([(0, 100)], 0, 100, 5, " .-=#") == "#####"
    assert shades([], 0, 0, 3, " .-=#") == "   "
    assert shades([(0, 12.5)], 0, 100, 4, " .-=#") == "-   "


def test_a_time_is_a_duration_or_a_date() -> None:
    assert time_of("2h", NOW) == NOW - 7200
    assert time_of("2026-01-31 08:00", NOW) == time_of("2026-01-31T08:00:00", NOW)
    with pytest.raises(UsageError, match="'yesterday' is no time"):
        time_of("yesterday", NOW)


def test_the_store_tells_of_runs_since_a_time(store: Store) -> None:
    first, second, third = add(store, "a", "b", "c")
    for task, end in ((first, NOW + 10), (second, NOW + 20)):
        active, run = begin(store, task)
        with store.transaction("scheduler", end) as tx:
            tx.apply_run(run, Ended(Outcome.COMPLETED, None, 0, end))
            tx.apply(active, Finished(Outcome.COMPLETED, None))
    begin(store, third)
    assert [(run.task, run.outcome) for run in store.ran()] == [
        ("a", Outcome.COMPLETED), ("b", Outcome.COMPLETED), ("c", None),
    ]  # fmt: skip
    assert [run.task for run in store.ran(NOW + 15)] == ["b", "c"] and SPEC.gpus == 1
    assert store.ran()[0].gpus == (0,)


# ---------------------------------------------------------------- metrics


def test_metrics_of_every_form(tmp_path: Path) -> None:
    (tmp_path / "a_metrics.json").write_text(
        '{"task": "a", "accuracy": 0.5, "best": true, "config": {"lr": 1}, "val": {"loss": 2}, "list": [1], "n": NaN}'
    )
    (tmp_path / "b_metrics.jsonl").write_text('{"loss": 1, "lr": 0.1}\n{"loss": 0.5}\nbroken')
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "metrics.csv").write_text("epoch,train,val\n0,1.5,\n0,,2.5\n1,1.0,\n")
    (tmp_path / "d_metrics.json").write_text("[" * 100_000)
    (tmp_path / "e_metrics.json").mkdir()
    found = metrics.of_tasks(tmp_path, ["a", "b", "c", "d", "e", "none"])
    assert found.pop("a").items() >= {"accuracy": 0.5, "val.loss": 2.0}.items()
    assert found == {"b": {"loss": 0.5, "lr": 0.1}, "c": {"epoch": 1.0, "train": 1.0, "val": 2.5}}
    assert metrics.of_tasks(tmp_path / "none", ["a"]) == {}


def test_a_number_that_is_none_is_null_in_json() -> None:
    text = json.dumps(made(ran("a", 0, 1), a={"loss": float("nan"), "x": 1.0}).json(), allow_nan=False)
    assert json.loads(text)["metrics"] == {"a": {"loss": None, "x": 1.0}}


# ---------------------------------------------------------------- the page


class Reader(HTMLParser):
    """The elements of a page, and its text; every one must be closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        assert not any(value and "//" in value for name, value in attrs if name in ("href", "src"))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_texts_of_users_are_never_markup() -> None:
    reason = Reason(ReasonCode.LAUNCH_FAILED, {"why": WICKED})
    found = made(ran(WICKED, 0, 5, outcome=Outcome.FAILED, reason=reason), ran("b", 1, None), **{WICKED: {WICKED: 0.5}})
    text = page(found)
    reader = Reader(text)
    assert "script" not in reader.seen and reader.open == []
    assert {"svg", "table", "title", "style"} <= set(reader.seen)
    assert reader.text.count('<script>alert("x")</script>') >= 4 and "\x1b" not in text


def test_a_page_of_a_thousand_runs_is_small_and_one_of_many_stays_so() -> None:
    reason = Reason(ReasonCode.EXIT_CODE, {"code": 3})
    runs = [
        ran(f"experiment_with_a_long_name_{at}", at, at + 3, at % 8, outcome=Outcome.FAILED if at % 9 == 0 else
            Outcome.COMPLETED, reason=reason if at % 9 == 0 else None) for at in range(20_000)
    ]  # fmt: skip
    few = {run.task: {"accuracy": 0.5, "loss": 1.25} for run in runs[:1000]}
    thousand = page(made(*runs[:1000], **few))
    assert len(thousand.encode()) < 1_000_000 and thousand.count("<title>") > 1000 and Reader(thousand).open == []
    many = page(made(*runs, **few))
    assert len(many.encode()) < 2_500_000
    assert "the newest 1000 of 20000" in many


def test_it_is_light_and_dark_and_colour_is_not_the_only_sign() -> None:
    text = page(made(ran("a", 0, 50, outcome=Outcome.FAILED), ran("b", 0, 50, 1)))
    assert "prefers-color-scheme:dark" in text and "✘" in text and "✔" in text
    assert re.search(r'class="bad".*class="stripe"', text)
