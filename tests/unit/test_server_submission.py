"""What a client submits, read and checked without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinksched.config.server import load_server
from tinksched.server.submission import ID, Form, Refused, Wanted, check, read_form

SETTINGS = load_server(None)
TOKEN = "a-token-of-alice"
GOOD: dict[str, Any] = {
    "competition_id": "c", "project_id": "p", "user_id": "alice", "expected_time": 60, "token": TOKEN,
}  # fmt: skip


def read(text: str | bytes, *, has_header: bool = False) -> Form:
    """A config file as it was sent."""
    return read_form(text if isinstance(text, bytes) else text.encode(), SETTINGS, has_header=has_header)


def wanted(code: bytes = b"print(1)", **fields: Any) -> Wanted:
    """The submission with these fields."""
    return check(read(json.dumps({**GOOD, **fields})), code, SETTINGS, TOKEN)


def test_yaml_and_json_are_the_same() -> None:
    text = "".join(f"{name}: {value}\n" for name, value in GOOD.items())
    assert read(text).fields == read(json.dumps(GOOD)).fields == GOOD
    assert check(read(text), b"x = 1", SETTINGS, TOKEN) == Wanted("alice", "c", "p", 60, "x = 1")


def test_an_id_is_the_text_that_was_written() -> None:
    form = read("competition_id: 007\nproject_id: 1.10\nuser_id: 42\nexpected_time: 5\ntoken: 12345678\n")
    found = check(form, b"x", SETTINGS, "12345678")
    assert (found.competition, found.project, found.user, found.expected_time) == ("007", "1.10", "42", 5)
    assert form.token(None) == form.token("12345678") == "12345678"


@pytest.mark.parametrize("name", list(GOOD))
def test_every_required_field_is_required(name: str) -> None:
    for values in ({**GOOD, name: None}, {key: value for key, value in GOOD.items() if key != name}):
        with pytest.raises(Refused, match=f"^Missing required fields: {name}$"):
            read(json.dumps(values))


def test_the_token_may_be_in_the_header_alone() -> None:
    values = {key: value for key, value in GOOD.items() if key != "token"}
    assert read(json.dumps(values), has_header=True).token("from-the-header") == "from-the-header"
    with pytest.raises(Refused) as refused:
        read(json.dumps(GOOD), has_header=True).token("another-one")
    assert refused.value.status == 401 and TOKEN not in refused.value.detail


@given(st.text(max_size=140))
def test_ids_hold_nothing_but_what_is_allowed(text: str) -> None:
    allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
    assert bool(ID.fullmatch(text)) == (0 < len(text) <= 128 and set(text) <= set(allowed))


@pytest.mark.parametrize("value", [0, -5, 1.5, True, "60", [1], {}, 604_801, 10**30])
def test_the_expected_time_is_a_whole_number_within_bounds(value: Any) -> None:
    with pytest.raises(Refused, match=r"^expected_time: must be a whole number of seconds from 1 to 604800$"):
        wanted(expected_time=value)
    assert wanted(expected_time=604_800).expected_time == 604_800


def test_the_token_is_redacted_wherever_it_stands() -> None:
    more = {"note": f"x{TOKEN}y", "deep": [{"a": [TOKEN, {TOKEN: 1}]}], "é": f"Bearer {TOKEN}"}
    kept = read(json.dumps({**GOOD, **more})).redacted(TOKEN)
    assert TOKEN not in kept and kept.count("[redacted]") == 4 and "token" not in kept.replace("[redacted]", "")
    again = read(kept, has_header=True)
    assert again.fields["note"] == "x[redacted]y" and again.fields["user_id"] == "alice"


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40))
def test_whatever_the_token_is_it_is_not_kept(token: str) -> None:
    form = Form({**GOOD, "note": f"it is {token}, really", "token": token})
    kept = form.redacted(token)
    assert token not in kept or token in json.dumps({**GOOD, "note": "it is [redacted], really"})
    assert json.loads(kept.splitlines()[-1].removeprefix('"note": ')) == "it is [redacted], really"


def test_an_id_that_holds_the_token_is_refused() -> None:
    for name in ("competition_id", "project_id"):
        with pytest.raises(Refused, match=f"^{name}: must not hold the token$"):
            wanted(**{name: f"x.{TOKEN}"})


def test_a_local_results_path_is_ignored_and_that_is_said() -> None:
    assert wanted().warning is None and wanted(local_results_path=None).warning is None
    assert "ignored" in str(wanted(local_results_path="/etc/passwd").warning)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_form_or_refused(content: bytes) -> None:
    try:
        form = read(content)
    except Refused as refused:
        assert refused.status == 400
    else:
        assert set(GOOD) <= set(form.fields)


@given(st.dictionaries(st.sampled_from(list(GOOD)), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)))  # fmt: skip
def test_any_values_are_a_job_or_refused(values: dict[str, Any]) -> None:
    try:
        found = wanted(**values)
    except Refused as refused:
        assert refused.status == 400 and refused.detail
    else:
        assert ID.fullmatch(found.user) and ID.fullmatch(found.competition) and found.expected_time >= 1


@pytest.mark.parametrize(
    ("code", "said"),
    [(b"", "is empty"), (b" \n\t", "is empty"), (b"\xff", "not UTF-8"), (b"a\0b", "NUL"), (b"x" * 1048577, "larger")],
)
def test_code_that_is_none(code: bytes, said: str) -> None:
    with pytest.raises(Refused, match=f"^code: .*{said}"):
        wanted(code)


def test_code_may_be_as_large_as_it_says() -> None:
    assert len(wanted(b"#" * 1048576).code) == 1048576
