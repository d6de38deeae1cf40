"""Points in time and durations on the command line."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from tinksched.errors import UsageError
from tinksched.operations.times import moment, span

NOW = datetime(2030, 5, 17, 16, 30, 0).timestamp()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("22:30", "2030-05-17 22:30:00"),
        ("22:30:15", "2030-05-17 22:30:15"),
        ("16:30", "2030-05-18 16:30:00"),
        ("9:05", "2030-05-18 09:05:00"),
        ("00:00", "2030-05-18 00:00:00"),
        ("2030-06-01", "2030-06-01 00:00:00"),
        ("2030-06-01T12:00", "2030-06-01 12:00:00"),
        ("2030-06-01 12:00:59", "2030-06-01 12:00:59"),
        ("+90s", "2030-05-17 16:31:30"),
        ("+2h", "2030-05-17 18:30:00"),
        (" +1d ", "2030-05-18 16:30:00"),
        ("+90", "2030-05-17 16:31:30"),
    ],
)
def test_a_time(text: str, meant: str) -> None:
    assert datetime.fromtimestamp(moment(text, "--at", NOW)).strftime("%Y-%m-%d %H:%M:%S") == meant


def test_a_time_zone_is_kept() -> None:
    assert moment("2030-06-01T12:00Z", "--at", NOW) == moment("2030-06-01T14:00+02:00", "--at", NOW)
    assert moment("2030-06-01T12:00+0000", "--at", NOW) == moment("2030-06-01T12:00Z", "--at", NOW)


@pytest.mark.parametrize(
    "text",
    ["", "soon", "25:00", "12:60", "12", "noon", "+", "+-1h", "+2 weeks", "2030-02-30", "2030-6-1", "1h", "-2h",
     "2030-06-01T12", "tomorrow", "12:30pm", "2030-06-01T12:00+99:00", "٢٢:٣٠"],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        moment(text, "--at", NOW)
    assert caught.value.message == f"--at must be a time, not {text!r}"
    assert caught.value.hint is not None and "22:30" in caught.value.hint and "+2h" in caught.value.hint


@pytest.mark.parametrize("text", ["2030-05-17", "2029-01-01T10:00", "+0"])
def test_a_time_that_is_over_is_refused_and_says_what_time_it_is(text: str) -> None:
    with pytest.raises(UsageError, match=r"is over: it is 2030-05-17 16:30:00 now"):
        moment(text, "--at", NOW)


def test_a_time_that_nobody_lives_to_see_is_refused() -> None:
    with pytest.raises(UsageError, match="ten years"):
        moment("+9999d", "--at", NOW)
    with pytest.raises(UsageError):
        moment("+1e400d", "--at", NOW)
    assert moment("+1s", "--at", time.time()) > time.time()


def test_durations() -> None:
    assert (span("90s", "--timeout"), span("2h", "--timeout"), span("30d", "--timeout")) == (90, 7200, 30 * 86400)
    with pytest.raises(UsageError, match="--timeout must be a duration such as 90s, 30m, 2h or 30d, not 'x'"):
        span("x", "--timeout")
