"""The benchmarks' temporary folder: what was started there is gone with it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench.place import HERE, BenchError, Place, marked


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_everything_is_gone_afterwards(place: Place) -> None:
    with place:
        corner = place.corner("one")
        corner.call("sh", "-c", "setsid sleep 1000 </dev/null >/dev/null 2>&1 & exit 0")
        assert corner.processes()
    assert not marked(place.folder.name)
    assert not place.folder.exists()


def test_a_corner_ends_only_what_is_its_own(place: Place) -> None:
    with place, place.corner("one") as one:
        one.call("sh", "-c", "setsid sleep 1000 </dev/null >/dev/null 2>&1 & exit 0")
        with place.corner("two") as two:
            two.call("sh", "-c", "setsid sleep 1001 </dev/null >/dev/null 2>&1 & exit 0")
        assert not two.processes()
        assert one.processes()


def test_the_user_s_own_tmux_and_folders_are_not_touched(place: Place) -> None:
    with place:
        environment = place.corner("one").environment
        for name in ("HOME", "TMUX_TMPDIR", "TINKSCHED_LEASE_DIR", "TS_SOCKET", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
            assert Path(environment[name]).is_relative_to(place.folder), name
        assert "TMUX" not in environment


def test_a_command_that_fails_says_what_it_said(place: Place) -> None:
    with place:
        corner = place.corner("one")
        with pytest.raises(BenchError, match="exit code 3\nso it is"):
            corner.call("sh", "-c", "echo so it is >&2; exit 3")
        with pytest.raises(BenchError, match="no-such-program is not installed"):
            corner.call("no-such-program")


@pytest.mark.parametrize("task", ["compiled", "interpreted"])
def test_a_task_writes_its_own_times(place: Place, task: str) -> None:
    with place, place.corner("one") as corner:
        record = corner.record()
        words = place.task if task == "compiled" else [sys.executable, "-I", "-S", str(HERE / "task.py")]
        before = time.monotonic()
        for _ in range(2):
            corner.call(*words, record.path, "0.01")
        after = time.monotonic()
        (start, end), (later, last) = record.read(2)
        assert before <= start < end <= later < last <= after
        assert end - start >= 0.01


def test_what_was_not_read_can_be_forgotten(place: Place) -> None:
    with place, place.corner("one") as corner:
        record = corner.record()
        record.path.write_text("1 2\n3 4\n")
        record.drain()
        record.path.write_text("5 6\n")
        assert record.read(1) == [(5.0, 6.0)]


def test_a_task_that_can_t_write_fails(place: Place, tmp_path: Path) -> None:
    with place:
        assert subprocess.run([*place.task, tmp_path / "nowhere", "0"], check=False).returncode != 0
