"""How a run ended, from its exit status and its marker."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinksched.core.model import Outcome, ReasonCode
from tinksched.host.completion import conclude, file_hash, is_fresh, marker_identity, signal_name

OPTIONS = [*itertools.product((True, False), repeat=3)]


def outcome(code: int, *, fresh: bool = False, require: bool = False, strict: bool = False) -> tuple[str, str]:
    found, reason = conclude(code, fresh_marker=fresh, require_marker=require, strict_exit=strict)
    return found.value, reason.text if reason else ""


# ---------------------------------------------------------------- from the evidence to the outcome


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("fresh", "require", "expected"),
    [
        (True, True, ("completed", "")),
        (True, False, ("completed", "")),
        (False, False, ("completed", "")),
        (False, True, ("failed", "exit code 0, but no fresh completion marker (require_marker)")),
    ],
)
def test_exit_code_0_is_completed_unless_a_marker_is_required(
    fresh: bool, require: bool, strict: bool, expected: tuple[str, str]
) -> None:
    assert outcome(0, fresh=fresh, require=require, strict=strict) == expected


@pytest.mark.parametrize("require", [True, False])
@pytest.mark.parametrize(
    ("code", "fresh", "strict", "expected"),
    [
        (1, False, False, ("failed", "exit code 1")),
        (1, False, True, ("failed", "exit code 1")),
        (1, True, True, ("failed", "exit code 1")),
        (1, True, False, ("completed", "it wrote its completion marker and then ended with exit code 1")),
        (139, True, False, ("completed", "it wrote its completion marker and then ended with exit code 139")),
        (139, False, False, ("failed", "exit code 139 (signal SEGV)")),
        (137, False, False, ("failed", "exit code 137 (signal KILL)")),
        (143, True, True, ("failed", "exit code 143 (signal TERM)")),
        (130, False, False, ("cancelled", "interrupted with Ctrl-C in its session")),
        (130, True, True, ("cancelled", "interrupted with Ctrl-C in its session")),
        (130, True, False, ("completed", "it wrote its completion marker and then ended with exit code 130")),
        (126, False, False, ("failed", "exit code 126")),
        (127, False, False, ("failed", "exit code 127")),
        (128, False, False, ("failed", "exit code 128")),
        (255, False, False, ("failed", "exit code 255")),
    ],
)
def test_another_exit_code_is_failed_unless_there_is_a_fresh_marker(
    code: int, fresh: bool, strict: bool, require: bool, expected: tuple[str, str]
) -> None:
    assert outcome(code, fresh=fresh, require=require, strict=strict) == expected


@given(st.integers(0, 255), st.sampled_from(OPTIONS))
def test_every_status_has_an_outcome_and_only_a_clean_one_has_no_reason(
    code: int, options: tuple[bool, bool, bool]
) -> None:
    fresh, require, strict = options
    found, reason = conclude(code, fresh_marker=fresh, require_marker=require, strict_exit=strict)
    assert found in (Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED)
    assert (reason is None) is (found is Outcome.COMPLETED and code == 0)
    assert reason is None or (reason.text and not set("{}") & set(reason.text))
    assert reason is None or reason.code is not ReasonCode.MARKER_DESPITE_EXIT or found is Outcome.COMPLETED
    assert found is not Outcome.CANCELLED or code == 130


@given(st.integers(0, 255))
def test_a_fresh_marker_never_makes_it_worse(code: int) -> None:
    for require, strict in itertools.product((True, False), repeat=2):
        with_marker, _ = conclude(code, fresh_marker=True, require_marker=require, strict_exit=strict)
        without, _ = conclude(code, fresh_marker=False, require_marker=require, strict_exit=strict)
        assert with_marker is without or with_marker is Outcome.COMPLETED


@pytest.mark.parametrize("number", sorted(signal.Signals))
def test_a_signal_is_called_by_its_name(number: signal.Signals) -> None:
    assert signal_name(128 + number) == number.name.removeprefix("SIG")


@pytest.mark.parametrize("code", [0, 1, 127, 128, 160, 161, 193, 255, 256, 10_000, -9])
def test_what_is_no_signal_has_no_name(code: int) -> None:
    assert signal_name(code) is None


# ---------------------------------------------------------------- markers


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    path = tmp_path / "a_completed.txt"
    path.write_text("done\n")
    return path


def test_no_marker_is_not_fresh(tmp_path: Path) -> None:
    path = tmp_path / "a_completed.txt"
    assert marker_identity(path) is None
    assert not is_fresh(path, None)
    assert not is_fresh(path, "1:2:3")


def test_a_marker_that_was_not_there_at_launch_is_fresh(marker: Path) -> None:
    assert is_fresh(marker, None)
    assert is_fresh(str(marker), None)


def test_the_marker_that_was_there_at_launch_is_not_fresh(marker: Path) -> None:
    before = marker_identity(marker)
    assert not is_fresh(marker, before)
    marker.read_bytes()
    marker.chmod(0o600)
    assert not is_fresh(marker, before), "to read it or to change its permissions writes nothing"


def test_a_marker_that_was_written_again_is_fresh(marker: Path) -> None:
    os.utime(marker, ns=(0, 1_000_000_000))
    before = marker_identity(marker)
    marker.write_text("done\n")
    assert is_fresh(marker, before), "the same text, another time"


def test_a_marker_with_the_old_time_but_another_size_or_inode_is_fresh(marker: Path, tmp_path: Path) -> None:
    before, times = marker_identity(marker), marker.stat()
    marker.write_text("done, and more\n")
    os.utime(marker, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert is_fresh(marker, before)
    copy = tmp_path / "copy"
    copy.write_text("done\n")
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    copy.replace(marker)
    assert is_fresh(marker, before), "as rsync -t would leave it"


def test_a_marker_that_was_deleted_is_not_fresh_and_one_made_again_is(marker: Path) -> None:
    os.utime(marker, ns=(0, 1_000_000_000))
    before = marker_identity(marker)
    marker.unlink()
    assert not is_fresh(marker, before)
    marker.write_text("done\n")
    assert is_fresh(marker, before)


def test_times_are_told_apart_to_the_nanosecond(marker: Path) -> None:
    os.utime(marker, ns=(0, 1_700_000_000_000_000_001))
    before = marker_identity(marker)
    os.utime(marker, ns=(0, 1_700_000_000_000_000_002))
    assert is_fresh(marker, before)


def test_an_empty_marker_counts(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.touch()
    assert is_fresh(path, None)


def test_a_link_stands_for_what_it_points_to(marker: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(marker)
    assert marker_identity(link) == marker_identity(marker)
    marker.unlink()
    assert marker_identity(link) is None


@pytest.mark.parametrize("path", ["a\0b", "/dev/null/x", "x" * 300, "/proc/self/nothing", "a\ud800"])
def test_a_path_that_can_not_be_is_no_marker(path: str) -> None:
    assert marker_identity(path) is None
    assert not is_fresh(path, None)


def test_a_marker_in_a_loop_of_links_is_none(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert marker_identity(tmp_path / "loop") is None


# ---------------------------------------------------------------- the hash of a config


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_bytes(b"lr: 0.1\n\xff")
    assert file_hash(path) == hashlib.sha256(b"lr: 0.1\n\xff").hexdigest()
    assert file_hash(str(path)) == file_hash(path)


def test_what_can_not_be_read_has_no_hash(tmp_path: Path) -> None:
    assert file_hash(tmp_path / "missing") is None
    assert file_hash(tmp_path) is None
    (tmp_path / "loop").symlink_to("loop")
    assert file_hash(tmp_path / "loop") is None
