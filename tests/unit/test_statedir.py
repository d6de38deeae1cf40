"""The state folder: whose it is, where it may be used, and the lock that only one scheduler holds."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tinksched.errors import WorkspaceError
from tinksched.host import processes, statedir
from tinksched.host.statedir import Home, SchedulerLock, StateDir, check_home, prepare, read_home

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user, or become one")
NOBODY = 65534


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "ws"
    folder.mkdir()
    return folder


@pytest.fixture
def open_workspace() -> Iterator[Path]:
    """A workspace that other users can reach, which the folders of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="tinksched-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def home_file(workspace: Path) -> Path:
    return workspace / ".tinksched" / "home"


def rewrite(workspace: Path, **changes: str) -> None:
    record = json.loads(home_file(workspace).read_text())
    home_file(workspace).write_text(json.dumps({**record, **changes}))


def as_user(uid: int, body: str, *arguments: object) -> str:
    """What a program prints that has loaded everything as root and then works as this user."""
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tinksched.errors import WorkspaceError\n"
        "from tinksched.host import statedir\n"
        f"os.setgroups([]); os.setgid({uid}); os.setuid({uid})\n"
        f"try:\n    exec({body!r})\n"
        "except WorkspaceError as error:\n    print(error.message, error.hint, sep='\\n')\n"
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------- making it


def test_a_fresh_workspace_gets_its_state_folder_and_everything_in_it_is_private(workspace: Path) -> None:
    previous = os.umask(0)
    try:
        state, home = prepare(workspace)
    finally:
        os.umask(previous)
    assert state == StateDir(workspace / ".tinksched")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (state.path, *state.path.iterdir())}
    assert modes == {".tinksched": 0o700, "runs": 0o700, "environments": 0o700, "home": 0o600}
    assert home.path == str(workspace)
    assert len(home.workspace_id) == 8
    assert read_home(state) == home
    assert not state.exists, "nothing was queued yet"


def test_the_paths_in_it(workspace: Path) -> None:
    state = StateDir(workspace / ".tinksched")
    names = [path.relative_to(state.path).as_posix() for path in
             (state.database, state.lock, state.runs, state.environments)]  # fmt: skip
    assert names == ["state.db", "lock", "runs", "environments"]


def test_it_exists_once_there_is_a_database(workspace: Path) -> None:
    state, _ = prepare(workspace)
    state.database.touch()
    assert not state.exists, "a crash at the first start may leave it without a byte"
    state.database.write_bytes(b"SQLite")
    assert state.exists


def test_a_state_folder_that_may_not_be_read_is_an_error_for_the_user(open_workspace: Path) -> None:
    state, _ = prepare(open_workspace)
    state.database.write_bytes(b"SQLite")
    if os.geteuid() == 0:
        answer = as_user(NOBODY, "statedir.StateDir(Path(sys.argv[1])).exists", state.path)
    else:
        state.path.chmod(0)
        try:
            with pytest.raises(WorkspaceError) as caught:
                assert state.exists
        finally:
            state.path.chmod(0o700)
        answer = caught.value.message
    assert str(state.path) in answer


def test_a_file_in_the_place_of_the_state_is_an_error_for_those_who_only_read(workspace: Path) -> None:
    (workspace / ".tinksched").write_text("")
    with pytest.raises(WorkspaceError):
        assert not StateDir(workspace / ".tinksched").exists


def test_preparing_again_changes_nothing(workspace: Path) -> None:
    state, home = prepare(workspace)
    before = home_file(workspace).stat()
    assert prepare(workspace) == (state, home)
    assert home_file(workspace).stat() == before
    assert sorted(entry.name for entry in state.path.iterdir()) == ["environments", "home", "runs"]


def test_two_workspaces_have_two_ids(tmp_path: Path) -> None:
    ids = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        ids.add(prepare(tmp_path / name)[1].workspace_id)
    assert len(ids) == 2


@pytest.mark.parametrize("name", ["a b", "ä", "new\nline", '"', "\\", "%s"])
def test_a_workspace_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    _, home = prepare(folder)
    assert prepare(folder)[1] == home
    assert home.path == str(folder)


def test_a_workspace_whose_name_is_not_utf8_is_known_again(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    _, home = prepare(folder)
    assert prepare(folder)[1] == home


def test_a_file_in_its_place_is_an_error_for_the_user(workspace: Path) -> None:
    (workspace / ".tinksched").write_text("")
    with pytest.raises(WorkspaceError) as caught:
        prepare(workspace)
    assert str(workspace / ".tinksched") in caught.value.message


def test_a_workspace_that_is_gone_is_an_error_for_the_user(workspace: Path) -> None:
    workspace.rmdir()
    with pytest.raises(WorkspaceError):
        prepare(workspace)


def test_a_workspace_that_may_not_be_written_is_an_error_for_the_user(open_workspace: Path) -> None:
    if os.geteuid() == 0:
        os.chown(open_workspace, NOBODY, NOBODY)
        open_workspace.chmod(0o555)
        answer = as_user(NOBODY, "statedir.prepare(Path(sys.argv[1]))", open_workspace)
    else:
        open_workspace.chmod(0o555)
        with pytest.raises(WorkspaceError) as caught:
            prepare(open_workspace)
        answer = f"{caught.value.message}\n{caught.value.hint}"
        open_workspace.chmod(0o755)
    assert "can't be written: Permission denied" in answer
    assert str(open_workspace) in answer
    assert list(open_workspace.iterdir()) == []


# ---------------------------------------------------------------- whose it is


@needs_root
def test_a_workspace_of_somebody_else_is_refused_even_for_root(workspace: Path) -> None:
    os.chown(workspace, NOBODY, NOBODY)
    with pytest.raises(WorkspaceError, match=r"belongs to (nobody|uid 65534), and you are root"):
        prepare(workspace)
    assert list(workspace.iterdir()) == []


@needs_root
def test_a_state_folder_of_somebody_else_is_refused(workspace: Path) -> None:
    state, _ = prepare(workspace)
    os.chown(state.path, 12345, 12345)
    with pytest.raises(WorkspaceError, match="belongs to uid 12345"):
        prepare(workspace)


@needs_root
def test_another_user_is_told_whose_it_is(open_workspace: Path) -> None:
    prepare(open_workspace)
    answer = as_user(NOBODY, "statedir.prepare(Path(sys.argv[1]))", open_workspace)
    assert "belongs to root" in answer
    assert "run it as root" in answer


@needs_root
def test_a_user_without_a_name_is_told_whose_it_is(open_workspace: Path) -> None:
    assert "belongs to root" in as_user(54321, "statedir.prepare(Path(sys.argv[1]))", open_workspace)


# ---------------------------------------------------------------- where it may be used


def test_another_host_is_refused_and_told_which_one_works_on_it(workspace: Path) -> None:
    state, _ = prepare(workspace)
    rewrite(workspace, machine="0123456789", host="gpu7")
    before = home_file(workspace).read_bytes()
    for attempt in (lambda: prepare(workspace), lambda: check_home(state)):
        with pytest.raises(WorkspaceError, match="gpu7") as caught:
            attempt()
        assert "use it on gpu7" in str(caught.value.hint)
    assert home_file(workspace).read_bytes() == before


def test_a_host_that_got_another_name_is_the_same_host(workspace: Path) -> None:
    _, home = prepare(workspace)
    rewrite(workspace, host="its-old-name")
    assert prepare(workspace)[1].workspace_id == home.workspace_id


def test_state_without_a_home_belongs_to_nobody_yet(workspace: Path) -> None:
    state = StateDir(workspace / ".tinksched")
    assert read_home(state) is None
    check_home(state)


def test_a_moved_workspace_keeps_its_id(workspace: Path, tmp_path: Path) -> None:
    _, home = prepare(workspace)
    moved = workspace.rename(tmp_path / "elsewhere")
    assert prepare(moved)[1] == replace(home, path=str(moved))
    assert prepare(moved)[1] == replace(home, path=str(moved))


def test_a_copied_workspace_is_refused_for_it_would_be_two_with_one_identity(workspace: Path, tmp_path: Path) -> None:
    prepare(workspace)
    copy = tmp_path / "copy"
    shutil.copytree(workspace, copy)
    with pytest.raises(WorkspaceError, match="is a copy of the workspace") as caught:
        prepare(copy)
    assert str(workspace) in caught.value.message
    assert str(copy / ".tinksched") in str(caught.value.hint)
    assert prepare(workspace)
    shutil.rmtree(copy / ".tinksched")
    assert prepare(copy)[1].workspace_id != prepare(workspace)[1].workspace_id


def test_the_same_workspace_by_another_path_is_no_copy(workspace: Path, tmp_path: Path) -> None:
    """`load` resolves links, but a folder that is mounted in two places has two paths all the same."""
    _, home = prepare(workspace)
    (tmp_path / "mounted").symlink_to(workspace)
    assert prepare(tmp_path / "mounted")[1].workspace_id == home.workspace_id


def test_a_moved_workspace_is_no_copy_of_the_next_one_that_is_made_in_its_old_place(
    workspace: Path, tmp_path: Path
) -> None:
    """`mv exp exp_old`, a new exp, and then back to exp_old: the hint is to delete the only state that it has."""
    _, home = prepare(workspace)
    moved = workspace.rename(tmp_path / "old")
    workspace.mkdir()
    assert prepare(workspace)[1].workspace_id != home.workspace_id
    assert prepare(moved)[1].workspace_id == home.workspace_id


DAMAGED = [b"", b"{", b"[]", b"null", b'{"host": "a"}', b"\xff\xff", b'"text"', b"3"]


@pytest.mark.parametrize("content", DAMAGED, ids=repr)
def test_a_damaged_home_is_refused_by_name_and_not_replaced_by_a_new_identity(workspace: Path, content: bytes) -> None:
    """The id is what sessions and log folders are known by; a state file that is damaged is never replaced unasked."""
    state, _ = prepare(workspace)
    home_file(workspace).write_bytes(content)
    for attempt in (lambda: prepare(workspace), lambda: check_home(state), lambda: read_home(state)):
        with pytest.raises(WorkspaceError) as caught:
            attempt()
        assert str(home_file(workspace)) in caught.value.message
        assert str(home_file(workspace)) in str(caught.value.hint)
    assert home_file(workspace).read_bytes() == content


@pytest.mark.parametrize("now", ["a file", "a file in the place of the state", "a damaged home"])
def test_a_moved_workspace_does_not_care_what_is_in_its_old_place_now(
    workspace: Path, tmp_path: Path, now: str
) -> None:
    _, home = prepare(workspace)
    moved = workspace.rename(tmp_path / "moved")
    if now == "a file":
        workspace.write_text("")
    else:
        workspace.mkdir()
        (workspace / ".tinksched").write_text("") if "place" in now else home_of_garbage(workspace)
    assert prepare(moved)[1].workspace_id == home.workspace_id


def home_of_garbage(workspace: Path) -> None:
    (workspace / ".tinksched").mkdir()
    home_file(workspace).write_text("{")


def test_two_that_prepare_a_fresh_workspace_at_once_agree_on_its_id(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The instant is chosen: the other process makes the home after this one has found none."""
    original = statedir.machine_id
    others: list[Home] = []

    def machine_id() -> str:
        if not others:
            monkeypatch.setattr(statedir, "machine_id", original)
            others.append(prepare(workspace)[1])
        return original()

    monkeypatch.setattr(statedir, "machine_id", machine_id)
    _, mine = prepare(workspace)
    assert others, "this test knows that the home is made with machine_id()"
    assert mine.workspace_id == others[0].workspace_id


def test_the_machine_is_named_by_something_that_stays() -> None:
    assert statedir.machine_id()
    assert statedir.machine_id() == statedir.machine_id()
    assert statedir.machine_id() == statedir.machine_id().strip()


# ---------------------------------------------------------------- the lock of the scheduler


def test_a_python_that_was_built_with_an_old_c_library_has_the_lock_too(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("F_OFD_GETLK", "F_OFD_SETLK", "F_OFD_SETLKW"):
        monkeypatch.delattr(fcntl, name)
    lock = SchedulerLock(state)
    assert lock.acquire()
    assert lock.is_held()
    lock.release()


HOLDER = (
    "import sys; from pathlib import Path\n"
    "from tinksched.host.statedir import SchedulerLock, StateDir\n"
    "lock = SchedulerLock(StateDir(Path(sys.argv[1])))\n"
    "print(lock.acquire(), flush=True)\n"
    "sys.stdin.readline()\n"
)


@pytest.fixture
def state(workspace: Path) -> StateDir:
    return prepare(workspace)[0]


def hold(state: StateDir, *, more: str = "") -> subprocess.Popen[str]:
    """Another process that has tried to take the lock, and says so before this returns."""
    command = [sys.executable, "-c", HOLDER + more, str(state.path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_nobody_holds_the_lock_of_a_fresh_state(state: StateDir, tmp_path: Path) -> None:
    for place in (state, StateDir(tmp_path / "no")):
        lock = SchedulerLock(place)
        assert not lock.is_held()
        assert lock.holder() is None
        lock.release()
    assert not state.lock.exists(), "to ask makes nothing"


def test_whoever_acquires_it_is_its_holder_until_the_release(state: StateDir) -> None:
    lock, asking = SchedulerLock(state), SchedulerLock(state)
    assert lock.acquire()
    assert asking.is_held()
    assert lock.is_held()
    assert asking.holder() == processes.identify(os.getpid())
    assert not asking.acquire()
    assert not lock.acquire(), "not twice in one process either"
    assert asking.is_held(), "neither question nor attempt took it away"
    lock.release()
    lock.release()
    assert not asking.is_held()
    assert asking.holder() is None
    assert asking.acquire()
    asking.release()


def test_the_lock_is_private_and_not_inherited(state: StateDir) -> None:
    previous = os.umask(0)
    try:
        lock = SchedulerLock(state)
        assert lock.acquire()
    finally:
        os.umask(previous)
    assert stat.S_IMODE(state.lock.stat().st_mode) == 0o600
    assert not os.get_inheritable(lock._descriptor)
    lock.release()


def test_another_process_is_kept_out_and_named(state: StateDir) -> None:
    lock = SchedulerLock(state)
    with hold(state) as child:
        assert said(child) == "True"
        assert lock.is_held()
        assert not lock.acquire()
        assert lock.holder() == processes.identify(child.pid)
        child.communicate("", timeout=30)
    assert not lock.is_held()
    assert lock.acquire()
    with hold(state) as child:
        assert said(child) == "False"
        child.communicate("", timeout=30)
    lock.release()


def test_a_killed_holder_lets_go_at_once(state: StateDir) -> None:
    lock = SchedulerLock(state)
    with hold(state) as child:
        assert said(child) == "True"
        child.send_signal(signal.SIGKILL)
        child.wait(30)
        assert not lock.is_held()
        assert lock.holder() is None, "its pid is still in the file"
        assert state.lock.read_text() != ""
        assert lock.acquire()
    assert state.lock.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_a_program_that_the_holder_started_does_not_keep_the_lock(state: StateDir) -> None:
    program = (
        "import subprocess, sys; from pathlib import Path\n"
        "from tinksched.host.statedir import SchedulerLock, StateDir\n"
        "lock = SchedulerLock(StateDir(Path(sys.argv[1])))\n"
        "assert lock.acquire()\n"
        "child = subprocess.Popen(['/bin/sh', '-c', 'echo up; read -r _'], close_fds=False)\n"
        "import os; os.write(1, f'{child.pid}\\n'.encode()); os._exit(0)\n"  # in one write, whatever else writes there
    )
    read, write = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", program, str(state.path)], stdin=read, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert {said(holder).isdigit(), said(holder).isdigit()} == {True, False}, "the child runs"
        holder.wait(30)
        assert not SchedulerLock(state).is_held()
        os.close(write)  # the child's input ends, and so does the child
    os.close(read)


@pytest.mark.parametrize("content", [b"", b"x\n", b"-1\n", b"999999999\n", b"\xff\xfe"])
def test_a_holder_whose_pid_can_not_be_read_is_not_named(state: StateDir, content: bytes) -> None:
    lock = SchedulerLock(state)
    assert lock.acquire()
    state.lock.write_bytes(content)
    assert lock.is_held()
    assert lock.holder() is None
    lock.release()


def test_many_that_ask_at_once_do_not_disturb_one_that_acquires(state: StateDir) -> None:
    """A question must never make somebody else believe that a scheduler runs."""
    program = (
        "import sys; from pathlib import Path\n"
        "from tinksched.host.statedir import SchedulerLock, StateDir\n"
        "lock = SchedulerLock(StateDir(Path(sys.argv[1])))\n"
        "print('up', flush=True)\n"
        "while not Path(sys.argv[1], 'enough').exists(): lock.is_held()\n"
    )
    lock = SchedulerLock(state)
    assert lock.acquire()  # the file is there from now on
    lock.release()
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(state.path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        assert [said(child) for child in children] == ["up", "up"]
        for _ in range(500):
            assert lock.acquire()
            lock.release()
    finally:
        (state.path / "enough").touch()
        for child in children:
            child.communicate(timeout=30)
