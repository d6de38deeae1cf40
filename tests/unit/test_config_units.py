"""Durations, sizes, and the order in which people count."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinksched.config import natural_key
from tinksched.config.units import duration, size, size_text, with_usual_case


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("30", 30),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5),
        ("1e3", 1000),
        ("90s", 90),
        ("90 s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1d", 86400),
        ("1.5h", 5400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "+1", "1w", "1ms", "1H", "1h30m", "1:30", "1_0", "nan", "inf", "1s\n", "٣"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0", 0),
        ("0.0", 0),
        ("0MB", 0),
        ("1B", 1),
        ("64kB", 64_000),
        ("64KB", 64_000),
        ("1KiB", 1024),
        ("500MB", 500_000_000),
        ("8GiB", 8 * 2**30),
        ("8 GiB", 8 * 2**30),
        ("1.5TB", 1_500_000_000_000),
        (".5GB", 500_000_000),
        ("5.MB", 5_000_000),
        ("0.1GB", 100_000_000),
        ("1PB", 10**15),
        ("1PiB", 2**50),
    ],
)
def test_sizes(text: str, found: int) -> None:
    assert size(text) == found


@pytest.mark.parametrize(
    "text",
    [
        *["", "MB", "1", "200", "-1MB", "+1MB", "1M", "1G", "1mb", "1KIB", "1Kib", "1  MB", "1MB\n"],
        *["1e3MB", "1_0MB", "infMB", "٣MB", "9" * 400 + "MB"],
    ],
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        size(text)


@given(st.integers(0, 2**52) | st.integers(0, 10**6).map(lambda number: number * 10**6))
def test_a_size_as_text_is_that_size(number: int) -> None:
    assert size(size_text(number)) == number


def test_sizes_are_written_short() -> None:
    texts = ["0", "1B", "1023B", "1KiB", "64kB", "200MB", "1GB", "1500GB", "8GiB", "1PB"]
    assert [size_text(size(text)) for text in texts] == texts


def test_the_usual_case_of_a_unit() -> None:
    assert [with_usual_case(text) for text in ("8gib", "200mb", "1.5Kb", "1b", "8g", "8", "mb", "x")] == [
        "8GiB",
        "200MB",
        "1.5kB",
        "1B",
        "",
        "",
        "",
        "",
    ]


def test_natural_order() -> None:
    ordered = [
        "",
        "2",
        "10",
        "Exp1",
        "_base",
        "exp",
        "exp0",
        "exp01",
        "exp1",
        "exp1b1",
        "exp1b2",
        "exp1b10",
        "exp2",
        "exp2.5",
        "exp2.10",
        "exp10",
        "exp10" + "0" * 5000,
        "exp_a",
        "é",
    ]
    shuffled = random.Random(1).sample(ordered, len(ordered))
    assert sorted(shuffled, key=natural_key) == ordered


def test_natural_order_of_decimals() -> None:
    ordered = [
        "lr0.001_seed1", "lr0.01_seed1", "lr0.01_seed2", "lr0.015_seed1", "lr0.02_seed1", "lr0.1_seed1",
        "lr0.1_seed2", "lr0.1_seed10", "lr0.25_seed1", "lr0.3_seed1", "lr1.05_seed1", "lr1.5_seed1",
        "v1.9", "v1.10", "v1.10.0", "v1.10.1", "v10.1",
    ]  # fmt: skip
    shuffled = random.Random(1).sample(ordered, len(ordered))
    assert sorted(shuffled, key=natural_key) == ordered
    assert natural_key("lr0.01_x")[0] < natural_key("lr0.1_x")[0], "not by the whole name alone"


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_numbers_compare_as_numbers(one: int, other: int) -> None:
    assert (natural_key(f"exp{one}_x") < natural_key(f"exp{other}_x")) == (one < other)


@given(st.text(), st.text())
def test_different_names_have_different_keys(one: str, other: str) -> None:
    assert (natural_key(one) == natural_key(other)) == (one == other)


_PIECE = re.compile(r"([^0-9]*)([0-9]*)")


def by_its_words(name: str) -> Any:
    """The order as it is meant: text, then a number by its length without leading zeros and its digits, and so on."""
    return [(text, len(found.lstrip("0")), found.lstrip("0")) for text, found in _PIECE.findall(name)], name


@given(st.lists(st.text("ab-0019.²٣\x01A", max_size=7)))
def test_names_come_in_the_order_of_their_texts_and_numbers(names: list[str]) -> None:
    assert sorted(names, key=natural_key) == sorted(names, key=by_its_words)
