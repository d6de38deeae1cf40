"""Answers that may be large."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinksched.server import large
from tinksched.server.large import Text, _json


@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_a_text_arrives_as_it_is_however_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(large, "_CHUNK", chunk)
    file, whole = tmp_path / "stdout", 'aé€😀"\\\n\x00\u2028b'
    file.write_text(whole)
    answer = {"status": "completed", "stdout": Text(file, 1000), "stderr": Text(tmp_path / "none", 1000), "code": 0}
    assert json.loads("".join(_json(answer))) == {"status": "completed", "stdout": whole, "stderr": "", "code": 0}


def test_of_a_long_one_the_end_is_sent_and_that_is_said(tmp_path: Path) -> None:
    file = tmp_path / "stdout"
    file.write_bytes(b"x" * 100 + "é".encode() + b"end")
    assert "".join(Text(file, 4).parts()) == "[101 bytes before this are left out]\n\ufffdend"


def test_half_a_character_at_the_end_is_no_defect(tmp_path: Path) -> None:
    file = tmp_path / "stdout"
    file.write_bytes(b"a\xc3")
    assert json.loads("".join(_json({"stdout": Text(file, 100)}))) == {"stdout": "a\ufffd"}


def test_no_piece_is_larger_than_a_chunk(tmp_path: Path) -> None:
    file = tmp_path / "stdout"
    file.write_bytes(b"x" * 3_000_000)
    assert max(map(len, _json({"stdout": Text(file, 10**7)}))) < 300_000


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "stdout").symlink_to(tmp_path / "secret")
    assert "".join(Text(tmp_path / "stdout", 100).parts()) == ""
