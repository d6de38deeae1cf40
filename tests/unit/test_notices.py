"""What schedulers that wait for slots say to each other."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tinksched.core.fairness import Ask
from tinksched.host import inotify
from tinksched.host.leases import user_name
from tinksched.host.notices import Notice, listen

ASKS = (Ask(("GPU-a", "GPU-b"), 1, 2, 7), Ask(("GPU-b",), 1, 1, 1))


@pytest.fixture
def notice(tmp_path: Path) -> Notice:
    return Notice(tmp_path, "w1")


def test_what_is_said_is_heard_by_others_and_not_by_oneself(tmp_path: Path, notice: Notice) -> None:
    notice.say("/ws", 5.5, ASKS)
    ((heard),) = listen(tmp_path, "waiting.w2")
    rival = heard.rival
    assert (rival.workspace_id, rival.workspace, rival.last_start, rival.asks) == ("w1", "/ws", 5.5, ASKS)
    assert rival.user == user_name(os.geteuid())
    assert listen(tmp_path, notice.name) == []


def test_news_replace_what_was_said_and_change_the_stamp(tmp_path: Path, notice: Notice) -> None:
    notice.say("/ws", 5.5, ASKS)
    (first,) = listen(tmp_path, "")
    notice.say("/ws", 5.5, ASKS)
    assert listen(tmp_path, "") == [first]
    notice.say("/ws", 6.0, ASKS[:1])
    (second,) = listen(tmp_path, "")
    assert second.rival.asks == ASKS[:1] and second.stamp != first.stamp


def test_memory_is_said_so_that_older_versions_understand_the_rest(tmp_path: Path, notice: Notice) -> None:
    asks = (ASKS[0], replace(ASKS[1], memory=20 * 2**30))
    notice.say("/ws", 5.5, asks)
    ((heard),) = listen(tmp_path, "")
    assert heard.rival.asks == asks
    said = json.loads((tmp_path / notice.name).read_text())
    assert all(len(words) == 4 for words in said["asks"]) and said["memory"] == [0, 20 * 2**30]


def test_others_are_woken_by_news_only(tmp_path: Path, notice: Notice) -> None:
    watch = inotify.Watch()
    watch.add(tmp_path, inotify.CLOSE_WRITE | inotify.DELETE)
    notice.say("/ws", 5.5, ASKS)
    assert watch.clear() == {"waiting.w1"}
    notice.say("/ws", 5.5, ASKS)
    listen(tmp_path, "")
    assert watch.clear() == set()
    notice.withdraw()
    assert watch.clear() == {"waiting.w1"}
    watch.close()


def test_a_notice_ends_with_its_scheduler_and_the_next_one_writes_it_anew(tmp_path: Path, notice: Notice) -> None:
    notice.say("/ws", 5.5, ASKS)
    os.close(notice._held)  # as the kernel does at the end of a process
    notice._held = -1
    assert listen(tmp_path, "") == []
    again = Notice(tmp_path, "w1")
    again.say("/ws", 7.0, ASKS)
    assert [heard.rival.last_start for heard in listen(tmp_path, "")] == [7.0]
    again.withdraw()
    again.withdraw()
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_scheduler_said_is_removed_by_the_next_one(tmp_path: Path, notice: Notice) -> None:
    notice.say("/ws", 5.5, ASKS)
    again = Notice(tmp_path, "w1")
    again.remove_former()
    again.remove_former()
    assert list(tmp_path.iterdir()) == []


def test_a_notice_that_a_cleaner_deleted_is_said_again(tmp_path: Path, notice: Notice) -> None:
    notice.say("/ws", 5.5, ASKS)
    (tmp_path / notice.name).unlink()
    assert listen(tmp_path, "") == []
    notice.say("/ws", 5.5, ASKS)
    assert len(listen(tmp_path, "")) == 1


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"workspace": "w", "last_start": "x", "asks": []}',
        b"\xff",
        b'{"workspace": "w", "last_start": 1, "asks": [], "memory": [1]}',
        b'{"asks": [], "memory": 5}',
        b"[" * 60_000,
    ],
)
def test_nonsense_is_nobodys_turn(tmp_path: Path, notice: Notice, text: bytes) -> None:
    notice.say("/ws", 5.5, ASKS)
    (tmp_path / notice.name).write_bytes(text)
    assert listen(tmp_path, "") == []


def test_links_pipes_and_folders_are_passed_by(tmp_path: Path, notice: Notice) -> None:
    (tmp_path / "waiting.a").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "waiting.b")
    (tmp_path / "waiting.c").mkdir()
    notice.say("/ws", 5.5, ASKS)
    assert [heard.rival.workspace_id for heard in listen(tmp_path, "")] == ["w1"]


def test_where_nothing_can_be_written_nothing_is_said(tmp_path: Path) -> None:
    notice = Notice(tmp_path / "missing", "w1")
    notice.say("/ws", 5.5, ASKS)
    notice.withdraw()
