"""The benchmarks' report: made of results alone, so it can be made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.__main__ import BENCHMARKS
from tests.bench.aims import verdicts
from tests.bench.cold import PYTHON
from tests.bench.report import described, markdown, number
from tests.bench.results import Results
from tests.bench.running import FLOOR


@pytest.fixture
def results() -> Results:
    made = Results(machine={"processor": "a fast one"}, setup={"hand-over": "2 tasks"})
    for samples in ([0.010, 0.012], [0.020]):
        made.add("handover", "tinksched", samples)
    made.add("handover", FLOOR, [0.004])
    made.add("enqueue 10000", "tinksched", [4.5])
    made.add("cold", "tinksched status", [0.2])
    made.add("cold", PYTHON, [0.01])
    made.missing["gflow"] = "not measured: gflowd not found (pip install runqd)"
    made.note("A slot is a slot.")
    return made


def test_a_table_shows_medians_spreads_and_ratios(results: Results) -> None:
    text = markdown(results)
    assert "### Hand-over\n" in text
    assert "| tinksched | 12.0 | 10.2 – 19.2 | 11.0 – 20.0 | 3 | 3.00 |" in text
    assert f"| {FLOOR} | 4.00 | 4.00 – 4.00 | 4.00 – 4.00 | 1 | 1.00 |" in text
    assert "### Queueing 10,000 tasks\n" in text


def test_a_single_sample_has_no_spread(results: Results) -> None:
    assert "|  | s | × tinksched |\n| --- | ---: | ---: |\n| tinksched | 4.50 | 1.00 |" in markdown(results)


def test_what_was_not_measured_is_named_in_each_table(results: Results) -> None:
    text = markdown(results)
    assert (
        text.count("| gflow | not measured: gflowd not found (pip install runqd) |") == 2
    )  # nobody's start is cold but ours
    assert "**gflow: not measured" in text.partition("## The figures")[0]


def test_each_row_of_a_table_has_as_many_cells_as_its_head(results: Results) -> None:
    tables = [part for part in markdown(results).split("\n\n") if part.startswith("|")]
    assert len(tables) == 6
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_the_machine_and_the_notes_stand_in_it(results: Results) -> None:
    text = markdown(results, "## What we saw\n\nMuch.\n", "results.svg")
    assert "| processor | a fast one |" in text
    assert "A slot is a slot." in text
    assert "## What we saw\n\nMuch.\n\n## The machine" in text
    assert "(results.svg)" in text


def test_aims_are_reached_or_missed_by_something_or_not_measured(results: Results) -> None:
    said = {verdict.aim: verdict.words for verdict in verdicts(results)}
    assert said["hand-over, beside bare `tmux new-session`"] == "reached"
    assert said["10,000 configs queued"] == "missed by 50 %"
    assert said["`tinksched status`, beside `python3 -c pass`"] == "missed: 2.0 times as much"
    assert said["idle, memory"] == ""
    assert "| idle, memory | 60.0 MB | not measured |  |" in markdown(results)


def test_a_benchmark_that_was_cut_short_is_named(results: Results) -> None:
    results.failed["scale"] = "no process serve-workspace runs"
    assert "**The benchmark scale was cut short: no process serve-workspace runs.**" in markdown(results)


def test_an_empty_run_makes_a_report_too() -> None:
    assert "not measured" in markdown(Results())


def test_results_survive_their_file(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "results.json")
    again = Results.load(tmp_path / "results.json")
    assert again == results
    assert markdown(again) == markdown(results)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0123, "0.012"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12345.6, "12,346"),
        (-2.5, "-2.50"),
    ],
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_a_metric_that_nobody_knows_has_no_table(results: Results) -> None:
    results.add("a riddle", "tinksched", [1.0])
    assert described("a riddle") is None
    assert "riddle" not in markdown(results)


def test_each_benchmark_has_a_word_on_the_command_line() -> None:
    assert list(BENCHMARKS) == [
        "handover",
        "steps",
        "launch",
        "queueing",
        "scale",
        "idle",
        "sampling",
        "cold",
        "commands",
    ]
