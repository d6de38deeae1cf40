"""Leases: real locks of real processes. What holds one keeps its slot, and what died has let go."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import resource
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tinksched.core.model import Tenant
from tinksched.errors import TinkschedError, UsageError
from tinksched.executors.base import WRAPPER
from tinksched.host import inotify, leases, processes
from tinksched.host.leases import FOLDER_VARIABLE, Claim, Desk, Leases, default_folder, lease_file, tenant_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOBODY = 65534
LONG = 60.0  # seconds that nothing here takes
OPEN = 0x20  # IN_OPEN of inotify(7)
ME = pwd.getpwuid(os.geteuid()).pw_name
GPU0, GPU1 = "GPU-aaaa", "GPU-bbbb"

# Another process that works with the same folder: it does what it is told line by line, and answers.
AGENT = """
import contextlib, json, os, sys
from pathlib import Path
from tinksched.host.leases import Claim, Leases

if int(sys.argv[2]) >= 0:
    os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
leases = Leases(Path(sys.argv[1]))
stack = contextlib.ExitStack()
held = {}

def do(what, *given):
    global desk
    if what == "enter":
        desk = stack.enter_context(leases.admission(given))
    elif what == "leave":
        stack.close()
    elif what == "grant":
        devices, run, limit = given
        held[run] = desk.grant(devices, Claim(run, f"task-{run}", "/ws", limit, 5.0))
        return str(held[run].path)
    elif what == "hold":
        held[given[0]] = leases.hold(Path(given[0]))
        return held[given[0]] is not None
    elif what == "close":
        held.pop(given[0]).close()
    elif what == "tenants":
        return [held.claim.task for held in desk.occupants() if held.device == given[0]]
    elif what == "holders":
        return [[claim.run_id, user] for claim, user in leases.holders(given[0])]

print(json.dumps("up"), flush=True)
for line in sys.stdin:
    print(json.dumps(do(*json.loads(line))), flush=True)
"""


def tenants_of(desk: Desk, device: str, own: Sequence[str]) -> list[Tenant]:
    """Who else is on a GPU, as placement sees it."""
    there = desk.occupants(own)
    return [tenant_of(held) for held in there if held.device == device and held.claim.run_id not in own]


class Agent:
    def __init__(self, folder: Path, uid: int = -1) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", AGENT, str(folder), str(uid)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        assert self.answer() == "up"

    def begin(self, *words: Any) -> None:
        """Tell it what to do, and don't wait until it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")

    def answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, *words: Any) -> Any:
        self.begin(*words)
        return self.answer()

    def has_answered(self, seconds: float = 0) -> bool:
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LONG)

    def close(self) -> None:
        self.process.communicate(timeout=LONG)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A lease folder that every user can reach, which the folders of pytest are not."""
    outer = Path(tempfile.mkdtemp(prefix="tinksched-test-"))
    outer.chmod(0o755)
    yield outer / "leases"
    shutil.rmtree(outer)


@pytest.fixture
def host(folder: Path) -> Leases:
    return Leases(folder)


@pytest.fixture
def agent(host: Leases) -> Iterator[Callable[..., Agent]]:
    """Start other processes on the same folder; they are ended with the test."""
    agents: list[Agent] = []

    def start(uid: int = -1) -> Agent:
        agents.append(Agent(host.folder, uid))
        return agents[-1]

    yield start
    for one in agents:
        one.close()


def claim(run: str = "r1", *, limit: int = 2) -> Claim:
    return Claim(run, f"task-{run}", "/ws", limit, 5.0)


def grant(host: Leases, run: str = "r1", *devices: str, limit: int = 2) -> leases.Lease:
    """A lease, as a scheduler writes it, on GPU0 if nothing else is said."""
    devices = devices or (GPU0,)
    with host.admission(devices) as desk:
        return desk.grant(devices, claim(run, limit=limit))


def tenants(host: Leases, device: str = GPU0, own: tuple[str, ...] = ()) -> list[str]:
    """The tasks of those who are on a GPU, as a scheduler sees it when it decides."""
    with host.admission([device]) as desk:
        return [tenant.task for tenant in tenants_of(desk, device, own)]


def taking_over() -> str:
    """The lines of wrapper.sh that take the lease over."""
    text = WRAPPER.read_text()
    begin, end = text.index('    [ -s "$lease" ] ||'), text.index("'its lease was revoked'\n")
    return text[begin:end] + "'its lease was revoked'\n"


def wrapper(lease: Path | str, *, more: str = "echo held; read -r _") -> subprocess.Popen[str]:
    """A shell that takes the lease over as the wrapper does, says so, and holds it until its input ends."""
    script = f'never() {{ echo "never: $1"; exit; }}\nlease=$1 flock=flock\n{taking_over()}\n{more}'
    command = ["/bin/sh", "-c", script, "sh", str(lease)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def names(host: Leases) -> list[str]:
    return sorted(entry.name for entry in host.folder.iterdir())


# ---------------------------------------------------------------- the folder


def test_the_folder_is_made_for_everybody_whatever_the_umask(folder: Path) -> None:
    previous = os.umask(0o077)
    try:
        host = Leases(folder)
    finally:
        os.umask(previous)
    assert host.folder == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777


def test_a_folder_that_is_there_is_taken_as_it_is(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    before = folder.stat()
    Leases(folder)
    assert folder.stat() == before


def test_folders_above_it_are_made_too(folder: Path) -> None:
    Leases(folder / "a" / "b")
    assert (folder / "a" / "b").is_dir()


def test_a_file_in_its_place_is_an_error_for_the_user(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(UsageError) as caught:
        Leases(folder)
    assert str(folder) in caught.value.message
    assert "mkdir -m 1777" in str(caught.value.hint)


@pytest.mark.parametrize("mode", [0o755, 0o700, 0])
def test_a_folder_that_is_closed_to_us_is_an_error_that_says_who_can_open_it(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    if os.geteuid() == 0:
        body = "import os, sys; from pathlib import Path; from tinksched.host.leases import Leases\n"
        body += f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        body += "try: Leases(Path(sys.argv[1]))\nexcept Exception as error: print(error.message, error.hint)"
        command = [sys.executable, "-c", body, str(folder)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=True).stdout
    else:
        folder.chmod(mode & 0o555)
        with pytest.raises(UsageError) as caught:
            Leases(folder)
        answer = f"{caught.value.message} {caught.value.hint}"
        folder.chmod(0o755)
    assert str(folder) in answer
    assert f"chmod 1777 {folder}" in answer


def test_the_folder_can_be_named_by_a_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    assert default_folder() == folder
    assert Leases().folder == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777


def test_without_the_variable_the_folder_depends_on_the_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    found = default_folder()
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    assert default_folder() == found
    assert str(found) in ("/var/lib/tinksched/leases", "/run/lock/tinksched", "/var/tmp/tinksched-leases")
    assert found.is_absolute()


# ---------------------------------------------------------------- a lease and what it says


def test_a_lease_says_who_holds_the_slot(host: Leases) -> None:
    lease = grant(host, "r1", GPU0, limit=3)
    assert host.holders(GPU0) == [(claim("r1", limit=3), ME)]
    assert tenants(host) == ["task-r1"]
    assert lease.path == host.folder / lease_file(GPU0, "r1")
    assert stat.S_IMODE(lease.path.stat().st_mode) == 0o666, "whoever finds it dead must be able to empty it"
    lease.close()
    lease.close()


def test_a_tenant_has_the_name_of_its_user_and_its_limit(host: Leases) -> None:
    lease = grant(host, "r1", limit=7)
    with host.admission([GPU0]) as desk:
        (tenant,) = tenants_of(desk, GPU0, [])
    assert (tenant.user, tenant.workspace, tenant.task, tenant.limit, tenant.since) == (ME, "/ws", "task-r1", 7, 5.0)
    lease.close()


def test_a_lease_is_for_its_gpu_alone(host: Leases) -> None:
    held = [grant(host, "r1", "index-1"), grant(host, "r2", "index-11"), grant(host, "r3", "index-")]
    assert tenants(host, "index-1") == ["task-r1"]
    assert tenants(host, "index-11") == ["task-r2"]
    assert tenants(host, "index-2") == []
    for lease in held:
        lease.close()


def test_ones_own_runs_are_no_tenants(host: Leases) -> None:
    held = [grant(host, "r1"), grant(host, "r2")]
    assert tenants(host, own=("r1",)) == ["task-r2"]
    assert tenants(host, own=("r1", "r2", "r3")) == []
    assert len(host.holders(GPU0)) == 2
    for lease in held:
        lease.close()


@pytest.mark.parametrize("text", ["ä", "a\nb", '"', "x" * 5000, "🚀", "{}"])
def test_a_lease_can_say_anything(host: Leases, text: str) -> None:
    mine = Claim("r1", text, f"/{text}", 1, 1_700_000_000.123456)
    with host.admission([GPU0]) as desk:
        lease = desk.grant([GPU0], mine)
    assert host.holders(GPU0) == [(mine, ME)]
    lease.close()


def test_a_workspace_whose_path_is_not_utf8_gets_its_lease(host: Leases) -> None:
    with host.admission([GPU0]) as desk:
        lease = desk.grant([GPU0], Claim("r1", "a", os.fsdecode(b"/caf\xe9"), 1, 0.0))
    assert len(host.holders(GPU0)) == 1
    lease.close()


def test_a_lease_of_several_gpus_is_one_file_with_several_names(host: Leases) -> None:
    lease = grant(host, "r1", GPU0, GPU1)
    paths = [host.folder / lease_file(device, "r1") for device in (GPU0, GPU1)]
    assert os.path.samefile(*paths)
    assert lease.path == paths[0]
    assert [tenants(host, device) for device in (GPU0, GPU1, "GPU-c")] == [["task-r1"], ["task-r1"], []]
    lease.close()
    assert [tenants(host, device) for device in (GPU0, GPU1)] == [[], []]
    host.release(paths[0], [GPU0, GPU1], "r1")
    assert [path.exists() for path in paths] == [False, False]


def test_a_lease_of_several_gpus_that_was_found_dead_on_one_can_not_be_held_on_the_other(host: Leases) -> None:
    grant(host, "r1", GPU0, GPU1).close()
    other = host.folder / lease_file(GPU1, "r1")
    assert tenants(host, GPU0) == []
    assert other.exists(), "that name is under another admission lock"
    assert other.stat().st_size == 0
    assert host.hold(other) is None


def test_to_release_removes_the_names_and_is_safe_to_repeat(host: Leases) -> None:
    lease = grant(host, "r1", GPU0, GPU1)
    another = grant(host, "r2", GPU0)
    lease.close()
    for _ in range(2):
        host.release(lease.path, [GPU0, GPU1], "r1")
    assert names(host) == sorted([f"{GPU0}.admission", f"{GPU0}.r2", f"{GPU1}.admission"])
    another.close()


def test_a_lease_can_not_be_granted_twice(host: Leases) -> None:
    lease = grant(host, "r1")
    with pytest.raises(TinkschedError) as caught:
        grant(host, "r1")
    assert str(lease.path) in caught.value.message
    assert tenants(host) == ["task-r1"], "the first one is as it was"
    lease.close()


def test_a_lease_that_can_not_be_written_leaves_nothing(host: Leases) -> None:
    (host.folder / lease_file(GPU1, "r1")).write_text("in the way")
    with pytest.raises(TinkschedError):
        grant(host, "r1", GPU0, GPU1)
    assert f"{GPU0}.r1" not in names(host)
    assert tenants(host) == []


def test_a_full_disk_is_an_error_for_the_user_and_leaves_nothing(host: Leases) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = os.listdir("/proc/self/fd")
    with host.admission([GPU0]) as desk:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            with pytest.raises(TinkschedError, match="can't be written"):
                desk.grant([GPU0], claim())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(host) == [f"{GPU0}.admission"]
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_folder_that_was_deleted_meanwhile_is_an_error_for_the_user(host: Leases) -> None:
    with host.admission([GPU0]) as desk:
        shutil.rmtree(host.folder)
        with pytest.raises(TinkschedError):
            desk.grant([GPU0], claim())


# ---------------------------------------------------------------- live is what somebody holds


def test_a_lease_is_live_while_its_holder_lives_and_dead_at_once_when_it_is_killed(
    host: Leases, agent: Callable[..., Agent]
) -> None:
    other = agent()
    other.ask("enter", GPU0)
    other.ask("grant", [GPU0], "r1", 2)
    other.ask("leave")
    assert tenants(host) == ["task-r1"]
    other.kill()
    assert host.holders(GPU0) == []
    assert tenants(host) == []
    assert names(host) == [f"{GPU0}.admission"], "and its file is cleared away"


def test_the_wrapper_takes_over_without_a_gap(host: Leases, agent: Callable[..., Agent]) -> None:
    """The scheduler grants, the wrapper takes over, the scheduler is killed: live all the time."""
    scheduler = agent()
    scheduler.ask("enter", GPU0)
    path = scheduler.ask("grant", [GPU0], "r1", 2)
    scheduler.ask("leave")
    with wrapper(path) as shell:
        assert said(shell) == "held"
        assert tenants(host) == ["task-r1"]
        scheduler.kill()
        assert tenants(host) == ["task-r1"]
        assert host.holders(GPU0) == [(claim(), ME)]
        shell.kill()
        shell.wait(LONG)
    assert tenants(host) == []


def test_what_the_run_started_keeps_the_lease_when_the_wrapper_is_killed(host: Leases) -> None:
    lease = grant(host)
    with wrapper(lease.path, more="exec 3<&0; cat <&3 & echo held; wait") as shell:
        assert said(shell) == "held"
        lease.close()
        shell.kill()
        shell.wait(LONG)
        assert tenants(host) == ["task-r1"], "cat has inherited descriptor 9"
        watch = inotify.Watch()
        watch.add(lease.path, inotify.CLOSE_WRITE)
        assert shell.stdin is not None
        shell.stdin.close()
        assert select.select([watch.fileno()], [], [], LONG)[0], "it ends, and those who wait for a slot hear it"
        watch.close()
    assert tenants(host) == []


def test_a_scheduler_that_comes_back_holds_the_lease_of_a_run_again(host: Leases) -> None:
    lease = grant(host)
    with wrapper(lease.path) as shell:
        assert said(shell) == "held"
        lease.close()
        again = host.hold(lease.path)
        assert again is not None
        shell.kill()
        shell.wait(LONG)
        assert tenants(host) == ["task-r1"]
        again.close()
    assert tenants(host) == []


def test_holding_is_not_inherited_by_programs(host: Leases) -> None:
    lease = grant(host)
    again = host.hold(lease.path)
    assert again is not None
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        lease.close()
        again.close()
        assert tenants(host) == []
        assert child.stdin is not None
        child.stdin.close()


# ---------------------------------------------------------------- dead is revoked


def test_a_lease_that_was_found_dead_can_not_be_held_any_more(host: Leases) -> None:
    lease = grant(host)
    late = os.open(lease.path, os.O_RDWR)  # opened in time, and then held up
    lease.close()
    assert tenants(host) == []
    assert host.hold(lease.path) is None
    assert os.fstat(late).st_size == 0
    os.close(late)


def test_to_look_without_deciding_revokes_nothing(host: Leases) -> None:
    lease = grant(host)
    lease.close()
    assert host.holders(GPU0) == []
    again = host.hold(lease.path)
    assert again is not None
    assert host.holders(GPU0) == [(claim(), ME)]
    again.close()


def test_a_wrapper_that_comes_after_the_revocation_never_begins(host: Leases) -> None:
    lease = grant(host)
    lease.close()
    assert tenants(host) == []
    with wrapper(lease.path) as shell:
        assert said(shell) == "never: its lease is gone"


@pytest.mark.parametrize("remove", [True, False], ids=["removed", "emptied"])
def test_a_wrapper_that_is_overtaken_by_the_revocation_never_begins(host: Leases, remove: bool) -> None:
    """It has opened the lease, and waits for its lock, when somebody who looks finds the lease dead."""
    lease = grant(host)
    lease.close()
    looking = os.open(lease.path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_EX)
    watch = inotify.Watch()
    watch.add(lease.path, OPEN)
    with wrapper(lease.path) as shell:
        assert select.select([watch.fileno()], [], [], LONG)[0]  # now it has
        os.truncate(lease.path, 0)
        if remove:
            lease.path.unlink()
        os.close(looking)
        assert said(shell) == "never: its lease was revoked"
    watch.close()


def test_a_wrapper_whose_lease_was_replaced_by_a_cleaner_never_begins(host: Leases) -> None:
    """The file that it locks must be the one that the others look at."""
    lease = grant(host)
    content = lease.path.read_bytes()
    lease.close()
    looking = os.open(lease.path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_EX)
    watch = inotify.Watch()
    watch.add(lease.path, OPEN)
    with wrapper(lease.path) as shell:
        assert select.select([watch.fileno()], [], [], LONG)[0]
        lease.path.unlink()
        lease.path.write_bytes(content)
        os.close(looking)
        assert said(shell) == "never: its lease was revoked"
    watch.close()


def test_a_lease_that_is_replaced_while_it_is_taken_is_not_held(host: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instant is chosen: just after the lock was had, it is one of a file that nobody looks at any more."""
    lease = grant(host)
    content, original = lease.path.read_bytes(), fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        original(descriptor, operation)
        lease.path.unlink()
        lease.path.write_bytes(content)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert host.hold(lease.path) is None
    monkeypatch.undo()
    lease.close()


def test_what_is_no_lease_can_not_be_held(host: Leases, tmp_path: Path) -> None:
    assert host.hold(host.folder / "GPU-aaaa.none") is None
    assert host.hold(host.folder) is None
    empty = tmp_path / "empty"
    empty.touch()
    assert host.hold(empty) is None
    locked = tmp_path / "locked"
    locked.write_text("x")
    with locked.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert host.hold(locked) is None


def test_no_descriptor_is_lost(host: Leases) -> None:
    lease = grant(host)
    before = os.listdir("/proc/self/fd")
    for number in range(10):
        grant(host, f"x{number}").close()
        host.hold(host.folder / "none")
        host.holders(GPU0)
        tenants(host)
        again = host.hold(lease.path)
        assert again is not None
        again.close()
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1, "one for the lease that was seen"
    host.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    lease.close()


def test_without_descriptors_no_lease_is_taken_for_dead(host: Leases) -> None:
    lease = grant(host)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with host.admission([GPU0]) as desk:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            with pytest.raises(TinkschedError, match="the GPU leases can't be read: Too many open files"):
                desk.occupants()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert [held.claim.run_id for held in desk.occupants()] == ["r1"]
    lease.close()


def test_a_lease_that_was_seen_and_then_deleted_still_counts_until_its_run_ends(host: Leases) -> None:
    lease = grant(Leases(host.folder))
    assert tenants(host) == ["task-r1"]
    lease.path.unlink()
    assert tenants(host) == ["task-r1"]
    assert tenants(Leases(host.folder)) == [], "who comes later can't know"
    lease.close()
    assert tenants(host) == []


def test_a_lease_that_was_written_anew_is_live_while_its_processes_are(host: Leases) -> None:
    child = subprocess.Popen(["sleep", "1000"])
    process = processes.identify(child.pid)
    assert process is not None
    lease = grant(host)
    lease.path.unlink()
    again = Claim("r1", "task-r1", "/ws", 1, 5.0, (process,))
    with host.admission([GPU0]) as desk:
        desk.restore([GPU0], again).close()
    lease.close()
    other = Leases(host.folder)
    assert other.holders(GPU0) == [(again, ME)]
    assert tenants(other) == ["task-r1"]
    child.kill()
    child.wait()
    assert tenants(other) == []


def test_a_lease_that_nobody_may_read_counts_unless_it_is_empty(host: Leases) -> None:
    path = host.folder / lease_file(GPU0, "r9")
    path.write_text("closed")
    status = path.lstat()
    assert host._unreadable(path) == (Claim("r9", "an unreadable lease", str(path), 1, 0.0), status.st_uid)
    path.write_text("")
    assert host._unreadable(path) is None


def test_admission_locks_that_were_deleted_meanwhile_grant_nothing(host: Leases) -> None:
    with host.admission([GPU0]) as desk:
        (host.folder / f"{GPU0}.admission").unlink()
        with pytest.raises(TinkschedError, match="somebody deleted this lock"):
            desk.grant([GPU0], claim())
    assert names(host) == []


def test_a_lease_says_what_memory_its_run_reserves_and_for_how_long(host: Leases) -> None:
    with host.admission([GPU0]) as desk:
        lease = desk.grant([GPU0], replace(claim("young"), memory=20 * 2**30, warmup=90.0))
        ((held),) = desk.occupants()
    there = leases.tenant_of(held)
    assert (there.run, there.memory, there.warmup) == ("young", 20 * 2**30, 90.0)
    lease.close()


def test_a_lease_of_an_older_version_reserves_nothing_and_an_absurd_one_not_for_ever(host: Leases) -> None:
    held = [grant(host, run) for run in ("old", "mad")]
    assert "memory" not in json.loads(held[0].path.read_text())
    mad = {**json.loads(held[1].path.read_text()), "memory": -5, "warmup": 1e300}
    held[1].path.write_text(json.dumps(mad))
    claims = {one.claim.run_id: one.claim for one in host.look([GPU0])}
    assert (claims["old"].memory, claims["old"].warmup) == (0, 0.0)
    assert (claims["mad"].memory, claims["mad"].warmup) == (0, 86400.0)
    for lease in held:
        lease.close()


def test_files_of_dead_processes_are_cleared_away(host: Leases) -> None:
    for number in range(5):
        grant(host, f"dead{number}").close()
    alive = grant(host, "alive")
    assert tenants(host) == ["task-alive"]
    assert names(host) == [f"{GPU0}.admission", f"{GPU0}.alive"]
    alive.close()


# ---------------------------------------------------------------- files that say nothing sensible

GARBAGE = [
    b"", b"\n", b"{", b"[]", b"null", b"3", b'"x"', b"\xff\xfe\0", b"{}", b'{"run": "r9"}',
    b'{"run": "r9", "task": "t", "workspace": "w", "limit": "many", "since": 0}',
    b'{"run": "r9", "task": "t", "workspace": "w", "limit": null, "since": 0}',
    b'{"run": "r9", "task": "t", "workspace": "w", "limit": NaN, "since": 0}',
    b'{"run": "r9", "task": "t", "workspace": "w", "limit": 1',
    b'{"run": "r9", "task": "' + b"x" * 70_000 + b'", "workspace": "w", "limit": 9, "since": 0}',
]  # fmt: skip
WORSE = [
    b'{"run": "r9", "task": "t", "workspace": "w", "limit": 1e999, "since": 0}',
    b'{"run": "r9", "task": "t", "workspace": "w", "limit": 1, "since": 1' + b"0" * 400 + b"}",
    b"[" * 60_000,
]


def garbled(host: Leases, content: bytes) -> None:
    path = host.folder / lease_file(GPU0, "r9")
    path.write_bytes(content)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        ((found, user),) = host.holders(GPU0)
        assert (found.run_id, found.limit, user) == ("r9", 1, ME)
        with host.admission([GPU0]) as desk:
            (tenant,) = tenants_of(desk, GPU0, [])
            assert tenant.limit == 1, "alone on its GPU, to be safe"
            assert tenants_of(desk, GPU0, ["r9"]) == [], "its owner knows it by the name of the file"
    assert tenants(host) == []
    assert not path.exists()


@pytest.mark.parametrize("content", GARBAGE, ids=lambda content: repr(content[:30]))
def test_a_lease_that_can_not_be_understood_counts_while_it_is_held_and_not_after(host: Leases, content: bytes) -> None:
    garbled(host, content)


@pytest.mark.parametrize("content", WORSE, ids=["infinite limit", "huge time", "deep nesting"])
def test_a_lease_that_can_not_even_be_converted_counts_too(host: Leases, content: bytes) -> None:
    garbled(host, content)


def test_a_pipe_that_somebody_made_there_holds_up_nobody(host: Leases, agent: Callable[..., Agent]) -> None:
    other = agent()
    os.mkfifo(host.folder / lease_file(GPU0, "r9"))
    other.begin("holders", GPU0)
    if not other.has_answered(1.0):
        other.kill()
        pytest.fail("it waits for somebody who writes")
    assert other.answer() == []


@pytest.mark.parametrize("limit", [0, -5])
def test_a_limit_below_one_admits_nobody_and_breaks_nothing(host: Leases, limit: int) -> None:
    lease = grant(host, "r1", limit=limit)
    with host.admission([GPU0]) as desk:
        (tenant,) = tenants_of(desk, GPU0, [])
    assert tenant.limit == limit
    lease.close()


def test_what_lies_in_the_folder_besides_is_left_alone(host: Leases, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (host.folder / f"{GPU0}.link").symlink_to(target)
    (host.folder / f"{GPU0}.folder").mkdir()
    (host.folder / f"{GPU0}.two.dots").write_text("not ours")
    (host.folder / f"{GPU0}").write_text("not ours")
    (host.folder / "README").write_text("not ours")
    before = names(host)
    assert tenants(host) == []
    assert host.holders(GPU0) == []
    assert target.read_text() == "precious"
    assert names(host) == sorted([*before, f"{GPU0}.admission"])


# ---------------------------------------------------------------- who waits for a slot


def test_letting_go_wakes_those_who_wait_and_looking_wakes_nobody(host: Leases) -> None:
    tenants(host)
    first, second = grant(host, "r1"), grant(host, "r2")
    watch = inotify.Watch()
    watch.add(host.folder, inotify.CLOSE_WRITE | inotify.DELETE)  # as the scheduler does
    for _ in range(3):
        tenants(host)
        host.holders(GPU0)
    assert not watch.clear()
    first.close()
    assert watch.clear()
    tenants(host)
    assert watch.clear(), "the dead one was removed"
    tenants(host)
    assert not watch.clear()
    second.close()
    watch.close()


# ---------------------------------------------------------------- one after the other


def test_admission_excludes_others_until_it_is_given_back(host: Leases, agent: Callable[..., Agent]) -> None:
    other = agent()
    watch = inotify.Watch()
    with host.admission([GPU0]):
        watch.add(host.folder / f"{GPU0}.admission", OPEN)
        other.begin("enter", GPU0)
        assert select.select([watch.fileno()], [], [], LONG)[0]  # it wants the lock
        assert not other.has_answered(0.05)
    assert other.answer() is None, "it is in"
    watch.close()


def test_a_killed_holder_of_the_admission_lets_the_next_one_in(host: Leases, agent: Callable[..., Agent]) -> None:
    other = agent()
    other.ask("enter", GPU0)
    other.kill()
    assert tenants(host) == []


def test_the_admission_is_given_back_after_an_exception(host: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "ADMISSION_SECONDS", 0.0)
    with pytest.raises(ZeroDivisionError), host.admission([GPU0, GPU1]):
        raise ZeroDivisionError
    assert tenants(host) == []
    assert tenants(host, GPU1) == []


def test_an_admission_that_can_not_be_had_is_an_error_that_names_the_lock(
    host: Leases, agent: Callable[..., Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "ADMISSION_SECONDS", 0.05)
    other = agent()
    other.ask("enter", GPU1)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(TinkschedError) as caught, host.admission([GPU0, GPU1]):
        pytest.fail("it is not free")
    assert f"{GPU1}.admission" in caught.value.message
    assert len(os.listdir("/proc/self/fd")) == len(before), "the first lock is given back"
    assert tenants(host, GPU0) == []
    other.ask("leave")
    assert tenants(host, GPU1) == []


def test_other_gpus_are_not_held_up(host: Leases, agent: Callable[..., Agent]) -> None:
    other = agent()
    other.ask("enter", GPU1)
    assert tenants(host, GPU0) == []


def test_a_gpu_that_is_named_twice_is_locked_once(host: Leases) -> None:
    with host.admission([GPU0, GPU1, GPU0]) as desk:
        assert tenants_of(desk, GPU0, []) == []


def test_no_gpu_is_no_lock(host: Leases) -> None:
    with host.admission([]):
        assert names(host) == []


def test_two_that_want_the_same_gpus_in_another_order_don_t_wait_for_each_other(
    host: Leases, agent: Callable[..., Agent]
) -> None:
    other = agent()
    for _ in range(100):
        other.begin("enter", GPU1, GPU0)
        other.begin("leave")
        with host.admission([GPU0, GPU1]):
            pass
        assert other.answer() is None
        assert other.answer() is None


@pytest.mark.parametrize("remade", [True, False])
def test_an_admission_file_that_is_deleted_meanwhile_admits_nobody_beside_the_new_one(
    host: Leases, agent: Callable[..., Agent], remade: bool
) -> None:
    """A cleaner of old files deletes it while somebody holds it and somebody waits for it."""
    waiting = agent()
    path = host.folder / f"{GPU0}.admission"
    watch = inotify.Watch()
    with host.admission([GPU0]):
        watch.add(path, OPEN)
        waiting.begin("enter", GPU0)
        assert select.select([watch.fileno()], [], [], LONG)[0]  # it has opened the old file
        path.unlink()
        if remade:
            third = agent()
            third.ask("enter", GPU0)
            assert path.exists(), "it has made a new one, and holds it"
    # The waiting one gets the lock of the old file now, which guards nothing any more.
    if remade:
        assert not waiting.has_answered(0.05)
        third.ask("leave")
    assert waiting.answer() is None
    with path.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    waiting.ask("leave")
    assert tenants(host) == []
    watch.close()


def test_an_admission_file_that_is_a_link_is_not_followed(host: Leases, tmp_path: Path) -> None:
    (host.folder / f"{GPU0}.admission").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TinkschedError, match="symbolic"), host.admission([GPU0]):
        pytest.fail("a lock that somebody else's link names")
    assert not (tmp_path / "elsewhere").exists()


SHARE = """
import os, sys
from pathlib import Path
from tinksched.host.leases import Claim, Leases, tenant_of

folder, rounds, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
leases, held, most, got = Leases(folder), [], 0, 0
print("up", flush=True)
sys.stdin.readline()
for number in range(rounds):
    device = f"GPU-{number % 2}"
    with leases.admission([device]) as desk:
        live = [tenant_of(held) for held in desk.occupants() if held.device == device]
        if all(len(live) < tenant.limit for tenant in live) and len(live) < limit:
            run = f"{os.getpid()}x{number}"
            held.append(desk.grant([device], Claim(run, "t", "/w", limit, 0.0)))
            live = [tenant_of(held) for held in desk.occupants() if held.device == device]
            got += 1
            assert run in {path.name.rpartition(".")[2] for path in folder.iterdir()}
        most = max(most, len(live))
        assert len(live) <= limit, len(live)
    if len(held) > 1:
        held.pop(0).close()
print(most, got, flush=True)
"""


def test_a_gpu_never_carries_more_than_is_allowed_however_many_want_it(host: Leases) -> None:
    """Four schedulers take and give back slots of two GPUs as fast as they can; then one of them is killed."""
    command = [sys.executable, "-c", SHARE, str(host.folder), "150", "2"]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [said(child) for child in children] == ["up"] * 4
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    children[0].send_signal(signal.SIGKILL)
    answers = [child.communicate(timeout=LONG)[0].split() for child in children]
    assert [child.returncode for child in children[1:]] == [0, 0, 0]
    assert all(int(most) <= 2 and int(got) > 0 for most, got in answers[1:])
    assert tenants(host, "GPU-0") == tenants(host, "GPU-1") == []
    assert names(host) == ["GPU-0.admission", "GPU-1.admission"]


# ---------------------------------------------------------------- other users


@needs_root
def test_another_user_sees_roots_lease_as_live_and_then_as_dead(host: Leases, agent: Callable[..., Agent]) -> None:
    lease = grant(host)
    other = agent(NOBODY)
    other.ask("enter", GPU0)
    assert other.ask("tenants", GPU0) == ["task-r1"]
    assert other.ask("holders", GPU0) == [["r1", "root"]]
    lease.close()
    assert other.ask("tenants", GPU0) == []
    other.ask("leave")
    assert lease.path.exists(), "in a sticky folder only its owner can remove it"
    assert lease.path.stat().st_size == 0, "so it was emptied"
    assert host.hold(lease.path) is None
    with wrapper(lease.path) as shell:
        assert said(shell) == "never: its lease is gone"
    assert tenants(host) == []
    assert not lease.path.exists()


@needs_root
def test_root_sees_the_leases_of_others_and_whose_they_are(host: Leases, agent: Callable[..., Agent]) -> None:
    other = agent(NOBODY)
    other.ask("enter", GPU0, GPU1)
    path = Path(other.ask("grant", [GPU0, GPU1], "r1", 3))
    other.ask("leave")
    assert path.stat().st_uid == NOBODY
    user = host.holders(GPU0)[0][1]
    assert user in ("nobody", "65534")
    assert tenants(host, GPU1) == ["task-r1"]
    other.kill()
    assert tenants(host, GPU1) == []


@needs_root
def test_users_share_the_admission_lock_whoever_made_it(host: Leases, agent: Callable[..., Agent]) -> None:
    one, two = agent(NOBODY), agent(12345)
    for device, first, second in ((GPU0, one, two), (GPU1, two, one)):
        first.ask("enter", device)
        second.begin("enter", device)
        assert not second.has_answered(0.05)
        first.ask("leave")
        assert second.answer() is None
        second.ask("leave")
    assert {path.stat().st_uid for path in host.folder.iterdir()} == {NOBODY, 12345}
    assert tenants(host) == tenants(host, GPU1) == []


@needs_root
def test_a_user_without_a_name_is_called_by_its_number(host: Leases, agent: Callable[..., Agent]) -> None:
    other = agent(54321)
    other.ask("enter", GPU0)
    other.ask("grant", [GPU0], "r1", 1)
    assert host.holders(GPU0)[0][1] == "54321"


@needs_root
def test_a_private_umask_of_one_user_shuts_out_nobody(folder: Path) -> None:
    previous = os.umask(0o077)
    try:
        host = Leases(folder)
        lease = grant(host)
    finally:
        os.umask(previous)
    other = Agent(folder, NOBODY)
    other.ask("enter", GPU0)
    assert other.ask("tenants", GPU0) == ["task-r1"]
    lease.close()
    assert other.ask("tenants", GPU0) == []
    other.close()
    assert lease.path.stat().st_size == 0
