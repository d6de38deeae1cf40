"""Durations, and the order in which people count."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinksched.config import natural_key
from tinksched.config.units import duration


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


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_numbers_compare_as_numbers(one: int, other: int) -> None:
    assert (natural_key(f"exp{one}_x") < natural_key(f"exp{other}_x")) == (one < other)


@given(st.text(), st.text())
def test_different_names_have_different_keys(one: str, other: str) -> None:
    assert (natural_key(one) == natural_key(other)) == (one == other)
