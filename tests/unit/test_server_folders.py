"""What lies on the disk for a job."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tinksched.server.folders import Folders


def test_a_result_is_kept_as_a_whole_once_and_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda one: (synced.append(os.readlink(f"/proc/self/fd/{one}")), real(one)))
    source, path = tmp_path / "stdout", tmp_path / "results" / "r.jsonl"
    path.parent.mkdir()
    source.write_text("first")
    Folders(tmp_path).keep(source, path)
    assert path.read_text() == "first" and synced[-1] == str(path.parent) and len(synced) == 2
    source.write_text("later")
    Folders(tmp_path).keep(source, path)
    assert path.read_text() == "first" and os.listdir(path.parent) == ["r.jsonl"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_holds_results_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    source, path = tmp_path / "stdout", tmp_path / "r.jsonl"
    for text in ("first", "later"):
        source.write_text(text)
        Folders(tmp_path).keep(source, path)
        assert path.read_text() == "first" and len(os.listdir(tmp_path)) == 2


def test_what_a_server_left_that_died_in_the_middle_is_gone_with_the_next_try(tmp_path: Path) -> None:
    source, path = tmp_path / "job" / "stdout", tmp_path / "results" / "r.jsonl"
    for file in (source, path):
        file.parent.mkdir()
    source.write_text("text")
    child = os.fork()
    if not child:
        os.link = lambda *_: os._exit(0)  # type: ignore[assignment]
        Folders(tmp_path).keep(source, path)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0 and len(os.listdir(path.parent)) == 1 and not path.exists()
    Folders(tmp_path).keep(source, path)
    assert os.listdir(path.parent) == ["r.jsonl"]
