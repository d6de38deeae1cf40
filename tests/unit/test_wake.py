"""Waking each other up: what is sent arrives, the dead are forgotten, and file events are heard."""

from __future__ import annotations

import os
import resource
import select
import socket
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinksched.host import inotify, wake


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[wake.Receiver]:
    found = wake.Receiver(tmp_path, wake.WAKE)
    yield found
    found.close()


def readable(thing: wake.Receiver | inotify.Watch, seconds: float = 0) -> bool:
    poller = select.poll()
    poller.register(thing.fileno(), select.POLLIN)
    return bool(poller.poll(seconds * 1000))


# ---------------------------------------------------------------- one receiver


def test_a_datagram_makes_the_receiver_readable_until_it_is_cleared(receiver: wake.Receiver, tmp_path: Path) -> None:
    assert not readable(receiver)
    assert wake.send(tmp_path, wake.WAKE)
    assert readable(receiver)
    assert receiver.clear() == [b""]
    assert not readable(receiver)
    assert receiver.clear() == []


def test_messages_arrive_in_order(receiver: wake.Receiver, tmp_path: Path) -> None:
    for message in (b"one", b"", b"\xff\0two"):
        wake.send(tmp_path, wake.WAKE, message)
    assert receiver.clear() == [b"one", b"", b"\xff\0two"]


def test_a_full_queue_is_no_failure_and_blocks_nobody(receiver: wake.Receiver, tmp_path: Path) -> None:
    assert all(wake.send(tmp_path, wake.WAKE, b"x") for _ in range(2000))
    assert receiver.clear()


def test_sending_from_another_process_arrives(receiver: wake.Receiver, tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from tinksched.host import wake\n"
    program += "sys.exit(not wake.send(Path(sys.argv[1]), 'wake', b'hello'))"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)
    assert receiver.clear() == [b"hello"]


def test_nobody_there_is_said(tmp_path: Path) -> None:
    assert not wake.send(tmp_path, wake.WAKE)
    assert not wake.send(tmp_path / "no", wake.WAKE)
    (tmp_path / "file").write_text("")
    assert not wake.send(tmp_path, "file")
    assert not wake.send(tmp_path / "file", wake.WAKE)


def test_the_socket_is_private_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        receiver = wake.Receiver(tmp_path, wake.WAKE)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / wake.WAKE).stat().st_mode) == 0o600
    receiver.close()


def test_a_closed_receiver_leaves_nothing_and_can_be_closed_again(tmp_path: Path) -> None:
    receiver = wake.Receiver(tmp_path, wake.WAKE)
    receiver.close()
    receiver.close()
    assert list(tmp_path.iterdir()) == []
    assert not wake.send(tmp_path, wake.WAKE)


def test_one_that_a_crash_left_behind_is_replaced(tmp_path: Path) -> None:
    program = "import os, sys; from pathlib import Path; from tinksched.host import wake\n"
    program += "r = wake.Receiver(Path(sys.argv[1]), 'wake'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    assert (tmp_path / wake.WAKE).is_socket()
    assert not wake.send(tmp_path, wake.WAKE), "nobody is behind it"
    receiver = wake.Receiver(tmp_path, wake.WAKE)
    assert wake.send(tmp_path, wake.WAKE, b"x")
    assert receiver.clear() == [b"x"]
    receiver.close()


def test_a_receiver_that_is_closed_late_does_not_remove_its_successor(tmp_path: Path) -> None:
    """As when one scheduler is still tidying up while the next one listens already."""
    first = wake.Receiver(tmp_path, wake.WAKE)
    second = wake.Receiver(tmp_path, wake.WAKE)
    try:
        first.close()
        assert wake.send(tmp_path, wake.WAKE, b"x")
        assert second.clear() == [b"x"]
    finally:
        second.close()


def test_a_path_may_be_longer_than_a_socket_address(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["deep" * 15] * 8)
    folder.mkdir(parents=True)
    assert len(str(folder)) > 400
    receiver = wake.Receiver(folder, wake.WAKE)
    assert wake.send(folder, wake.WAKE, b"x")
    assert receiver.clear() == [b"x"]
    listener = wake.listen(folder)
    wake.announce(folder, b"y")
    assert listener.clear() == [b"y"]
    listener.close()
    receiver.close()


@pytest.mark.parametrize("name", ["a b", "ä", "new\nline", "\udce9", "%s"])
def test_a_path_may_hold_any_character(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    receiver = wake.Receiver(folder, wake.WAKE)
    assert wake.send(folder, wake.WAKE, b"x")
    assert receiver.clear() == [b"x"]
    receiver.close()


def test_descriptors_are_not_inherited_and_not_lost(tmp_path: Path) -> None:
    receiver = wake.Receiver(tmp_path, wake.WAKE)
    assert not os.get_inheritable(receiver.fileno())
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        wake.send(tmp_path, wake.WAKE)
        wake.send(tmp_path, "nobody")
        wake.announce(tmp_path)
        wake.listen(tmp_path).close()
    receiver.clear()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    receiver.close()


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # see the next test
        with pytest.raises(OSError, match="No such file"):
            wake.Receiver(tmp_path / "no", wake.WAKE)


def test_a_receiver_that_could_not_be_made_leaves_no_socket_open(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        with pytest.raises(OSError, match="No such file"):
            wake.Receiver(tmp_path / "no", wake.WAKE)
    assert [str(warning.message) for warning in caught] == []


# ---------------------------------------------------------------- listeners


def test_an_announcement_reaches_every_listener(tmp_path: Path) -> None:
    listeners = [wake.listen(tmp_path) for _ in range(3)]
    wake.announce(tmp_path, b"ready")
    assert [listener.clear() for listener in listeners] == [[b"ready"]] * 3
    assert stat.S_IMODE((tmp_path / wake.LISTENERS).stat().st_mode) == 0o700
    for listener in listeners:
        listener.close()
    assert list((tmp_path / wake.LISTENERS).iterdir()) == []


def test_an_announcement_to_nobody_is_fine(tmp_path: Path) -> None:
    wake.announce(tmp_path)
    wake.announce(tmp_path / "no")
    assert list(tmp_path.iterdir()) == []


def test_listeners_that_are_gone_are_forgotten_and_the_others_hear_it(tmp_path: Path) -> None:
    alive = wake.listen(tmp_path)
    gone = wake.listen(tmp_path)
    gone._socket.close()  # as a killed process leaves it
    wake.announce(tmp_path, b"x")
    assert alive.clear() == [b"x"]
    assert [entry.name for entry in (tmp_path / wake.LISTENERS).iterdir()] == [alive.path.name]
    alive.close()


def test_a_listener_that_does_not_listen_holds_up_nobody_and_is_not_forgotten(tmp_path: Path) -> None:
    lazy, busy = wake.listen(tmp_path), wake.listen(tmp_path)
    for _ in range(1000):
        wake.announce(tmp_path, b"x")
        assert busy.clear() == [b"x"]
    assert lazy.path.exists()
    assert lazy.clear()
    wake.announce(tmp_path, b"y")
    assert lazy.clear() == [b"y"]
    lazy.close()
    busy.close()


def test_an_announcer_without_descriptors_forgets_nobody(tmp_path: Path) -> None:
    listener = wake.listen(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare: list[int] = []
    try:
        names = (tmp_path / wake.LISTENERS).iterdir()
        assert len(list(names)) == 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 3, limits[1]))
        while True:
            try:
                spare.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            except OSError:
                break
        os.close(spare.pop())  # one is left: enough to list the folder, not to send
        wake.announce(tmp_path, b"x")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in spare:
            os.close(descriptor)
    exists = listener.path.exists()
    listener.close()
    assert exists


def test_a_foreign_file_among_the_listeners_does_no_harm(tmp_path: Path) -> None:
    listener = wake.listen(tmp_path)
    (tmp_path / wake.LISTENERS / "folder").mkdir()
    (tmp_path / wake.LISTENERS / "stream").write_text("")
    wake.announce(tmp_path, b"x")
    assert listener.clear() == [b"x"]
    listener.close()


def test_a_stream_socket_in_its_place_is_nobody(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        here = os.getcwd()
        os.chdir(tmp_path)
        try:
            stream.bind(wake.WAKE)
        finally:
            os.chdir(here)
        stream.listen()
        assert not wake.send(tmp_path, wake.WAKE)


# ---------------------------------------------------------------- file events


@pytest.fixture
def watch() -> Iterator[inotify.Watch]:
    found = inotify.Watch()
    yield found
    found.close()


def test_a_file_that_is_closed_after_writing_is_heard_and_one_that_was_only_read_is_not(
    watch: inotify.Watch, tmp_path: Path
) -> None:
    file = tmp_path / "lease"
    file.write_text("x")
    watch.add(tmp_path, inotify.CLOSE_WRITE | inotify.DELETE)
    file.read_text()
    assert not readable(watch)
    assert not watch.clear()
    descriptor = os.open(file, os.O_RDWR)
    assert not readable(watch)
    os.close(descriptor)
    assert readable(watch)
    assert watch.clear()
    assert not watch.clear()
    file.unlink()
    assert watch.clear()


@pytest.mark.parametrize("name", ["a", "x" * 255, "ä b", "\udce9", "sixteen-letters!"], ids=ascii)
def test_events_in_a_folder_come_with_the_names_of_the_files(watch: inotify.Watch, tmp_path: Path, name: str) -> None:
    watch.add(tmp_path, inotify.CLOSE_WRITE)
    for one in (name, "other", name):
        (tmp_path / one).write_text("")
    assert watch.clear() == {name, "other"}
    assert watch.clear() == set()


def test_an_event_of_a_watched_file_has_no_name_but_is_one(watch: inotify.Watch, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    watch.add(tmp_path / "a", inotify.MODIFY)
    watch.add(tmp_path / "a", inotify.MODIFY)
    (tmp_path / "a").write_text("x")
    assert watch.clear()


def test_more_events_than_one_read_holds_are_all_cleared(watch: inotify.Watch, tmp_path: Path) -> None:
    watch.add(tmp_path, inotify.CREATE)
    for number in range(3000):
        (tmp_path / f"{'x' * 200}{number}").touch()
    assert watch.clear()
    assert not readable(watch)


def test_several_paths_are_heard_by_one_watch(watch: inotify.Watch, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        watch.add(tmp_path / name, inotify.CREATE)
    (tmp_path / "a" / "x").touch()
    assert watch.clear()
    (tmp_path / "b" / "x").touch()
    assert watch.clear()
    (tmp_path / "c").touch()
    assert not watch.clear()


def test_a_path_that_is_not_there_is_an_error_with_its_name(watch: inotify.Watch, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        watch.add(tmp_path / "no", inotify.CREATE)
    assert caught.value.filename == str(tmp_path / "no")


def test_a_watch_wakes_who_waits_for_another_process(watch: inotify.Watch, tmp_path: Path) -> None:
    watch.add(tmp_path, inotify.CLOSE_WRITE)
    with subprocess.Popen(["/bin/sh", "-c", "read -r _; : >lease"], stdin=subprocess.PIPE, cwd=tmp_path) as child:
        assert not readable(watch)
        assert child.stdin is not None
        child.stdin.close()
        assert readable(watch, 30)
    assert watch.clear()


def test_a_closed_watch_can_be_closed_again_and_is_not_inherited() -> None:
    watch = inotify.Watch()
    assert not os.get_inheritable(watch.fileno())
    watch.close()
    watch.close()
    assert watch.fileno() == -1
