"""From a header to a caller, and whose things that one may see."""

from __future__ import annotations

import pytest

from tinksched.server.auth import Caller, bearer, generate
from tinksched.server.submission import Refused
from tinksched.server.tables import Token

ALICE, ROOT = Caller("alice", False), Caller("root", True)


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER   abc  ", "  Bearer abc"])
def test_a_header_holds_a_token(header: str) -> None:
    assert bearer([header]) == "abc"


@pytest.mark.parametrize("headers", [[""], ["Bearer"], ["abc"], ["Basic abc"], ["Bearer a b"], ["Bearerabc"],
                                     ["Bearer abc", "Bearer abc"], ["Bearer abc", ""]])  # fmt: skip
def test_any_other_header_is_refused(headers: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        bearer(headers)
    assert refused.value.status == 401 and "abc" not in refused.value.detail


def test_no_header_is_no_token() -> None:
    assert bearer([]) is None


def test_whose_things_are_meant() -> None:
    assert (ALICE.whom(None), ALICE.whom("alice")) == ("alice", "alice")
    assert (ROOT.whom(None), ROOT.whom("root"), ROOT.whom("bob")) == (None, None, "bob")
    for somebody in ("bob", "", "Alice", "alice "):
        with pytest.raises(Refused) as refused:
            ALICE.whom(somebody)
        assert refused.value.status == 403


def test_a_token_is_good_until_it_expires_or_is_revoked() -> None:
    token = Token("alice", "queue", False, 0.0, 100.0, None)
    assert token.is_good(99.9) and not token.is_good(100.0)
    assert not Token("alice", "queue", False, 0.0, 100.0, 50.0).is_good(60.0)
    assert Token("alice", "key", False, 0.0, None, None).is_good(1e12)


def test_made_tokens_differ() -> None:
    assert len({generate() for _ in range(1000)}) == 1000


def test_a_token_that_is_made_is_never_taken_for_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    made = iter(["-q", "--help", "good"])
    monkeypatch.setattr("secrets.token_urlsafe", lambda size: next(made))
    assert generate() == "good"
