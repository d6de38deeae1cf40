"""What `executors/base.py` promises, once for every executor of this machine, with real tmux and real processes.

A run speaks to its test through a named pipe (`echo >"$SAY"`) and waits for it on another (`read _ <"$HEAR"`). The end
of a run is noticed through the executor's `wake` alone, so every test that waits for an end tests the waking too.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import pickle
import pty
import resource
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import MARK, Lab
from tinksched.core.model import Run, RunState
from tinksched.executors import registry
from tinksched.executors.base import (
    Exited,
    Gone,
    Handle,
    NeverBegan,
    Observation,
    Refused,
    Running,
    Unreachable,
    began_process,
    handle_of,
)
from tinksched.executors.local import LocalExecutor
from tinksched.executors.tmux import TmuxExecutor
from tinksched.host import inotify, processes
from tinksched.host.leases import Claim, Lease, Leases
from tinksched.host.processes import RUN_ID_VARIABLE, Process
from tinksched.host.rundir import RunDir
from tinksched.host.tmux import RUN_OPTION, WORKSPACE_OPTION

SECONDS = 20.0  # how long anything may take; nothing takes a tenth of it
DEVICE = "index-0"
EVERY_BYTE = os.fsdecode(bytes(range(1, 256)))

# Launches a run and dies without a word to anybody: a scheduler that is killed before it has recorded the answer.
LAUNCHER = """
import asyncio, os, pathlib, pickle, signal, sys
from tinksched.executors import registry
run = pickle.loads(pathlib.Path(sys.argv[2]).read_bytes())
executor = registry.make(sys.argv[1], lambda: None, tmux_socket="", workspace_id="w1")
async def launch():
    await executor.launch([run])
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(launch())
"""

# A scheduler that happens to hold the lease of its run under the same number as the run itself does.
HOLDER = """
import os, pathlib, sys
from tinksched.host import processes
from tinksched.host.leases import Leases
leases = Leases()
while (descriptor := os.open(os.devnull, os.O_RDONLY)) < 8:
    pass
lease = leases.hold(pathlib.Path(sys.argv[1]))
assert descriptor == 8 and lease is not None
print(processes.identify(os.getpid()) in processes.of_runs([sys.argv[2]])[sys.argv[2]])
"""

# What setproctitle does (ray, vLLM and many training programs call it): the title goes where the environment was.
SETPROCTITLE = """
import ctypes, os, signal, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
say = os.environ["SAY"]
fields = open("/proc/self/stat").read().rpartition(")")[2].split()
start, end = int(fields[47]), int(fields[48])  # env_start and env_end, see proc(5)
ctypes.memset(start, 0, end - start)
print(os.getpid(), file=open(say, "w"))
time.sleep(1000)
"""
DEAF = SETPROCTITLE.replace("ctypes.memset", "print")


class Pipe:
    """A named pipe between a run and its test."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._text = b""

    async def line(self) -> str:
        """The next line that a run writes."""
        loop = asyncio.get_running_loop()
        while b"\n" not in self._text:
            readable = asyncio.Event()
            loop.add_reader(self._descriptor, readable.set)
            try:
                await asyncio.wait_for(readable.wait(), SECONDS)
            finally:
                loop.remove_reader(self._descriptor)
            self._text += os.read(self._descriptor, 65536)
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()

    async def process(self) -> Process:
        """The process whose pid is the next line."""
        found = processes.identify(int(await self.line()))
        assert found is not None
        return found

    def empty(self) -> bool:
        """Whether nothing more was written."""
        with contextlib.suppress(BlockingIOError):
            self._text += os.read(self._descriptor, 65536)
        return not self._text

    def tell(self) -> None:
        """Let one run that waits go on."""
        os.write(self._descriptor, b"\n")

    def close(self) -> None:
        os.close(self._descriptor)


class Site:
    """One executor with everything around it, in a laboratory of its own."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name
        self.folder = lab.folder
        self.leases = Leases(lab.leases)
        self.held: dict[str, Lease] = {}
        self.said = Pipe(lab.folder / "said")
        self.told = Pipe(lab.folder / "told")
        self.woken = asyncio.Event()
        self._executors: list[TmuxExecutor | LocalExecutor] = []
        self.executor = self.another()

    # -- before a run

    def another(self, workspace: str = "w1") -> TmuxExecutor | LocalExecutor:
        """One more executor, as a scheduler makes it that starts after a crash."""
        made = registry.make(self.name, self.woken.set, tmux_socket="", workspace_id=workspace)
        self._executors.append(made)
        return made

    def run(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        session: str = "T_exp1_gpu0",
        work_dir: Path | None = None,
        log: Path | None = None,
        devices: Sequence[str] = (DEVICE,),
        **files: Any,
    ) -> Run:
        """A run with its lease and its folder, ready to be launched. `environment` comes before what tests need."""
        run_id = secrets.token_hex(8)
        with self.leases.admission(devices) as desk:
            self.held[run_id] = desk.grant(devices, Claim(run_id, "exp1", "w1", 9, time.time()))
        run = Run(
            id=run_id,
            task_id=1,
            task="exp1",
            attempt=1,
            state=RunState.STARTING,
            gpus=tuple(range(len(devices))),
            devices=tuple(devices),
            executor=self.name,
            session=session if self.name == "tmux" else "",
            directory=str(self.folder / "runs" / run_id),
            work_dir=str(work_dir or self.folder),
            log=str(log or self.folder / f"{run_id}.log"),
            lease=str(self.held[run_id].path),
            marker="",
            marker_before=None,
            boot_id=processes.boot_id(),
            created_at=time.time(),
        )
        RunDir(run.directory).prepare(command, {**(environment or {}), **self.environment(run_id)}, **files)
        return run

    def sh(self, script: str, *arguments: str, **others: Any) -> Run:
        """A run of a few lines of shell."""
        return self.run("/bin/sh", "-c", script, "sh", *arguments, **others)

    def environment(self, run_id: str) -> dict[str, str]:
        """What every run of these tests finds in its environment."""
        return {
            "PATH": os.environ["PATH"],
            "SAY": str(self.said.path),
            "HEAR": str(self.told.path),
            MARK: self.lab.id,
            RUN_ID_VARIABLE: run_id,
        }

    # -- while it runs

    async def launch(self, run: Run, executor: TmuxExecutor | LocalExecutor | None = None) -> Handle:
        answer = (await (executor or self.executor).launch([run]))[run.id]
        assert isinstance(answer, Handle), answer
        return answer

    async def see(self, handle: Handle, executor: TmuxExecutor | LocalExecutor | None = None) -> Observation:
        return (await (executor or self.executor).observe([handle]))[handle]

    async def begun(self, run: Run) -> Handle:
        """Launch a run whose command says its pid, and wait until it has."""
        handle = await self.launch(run)
        await self.said.line()
        return handle

    async def end_of(self, handle: Handle) -> Observation:
        """What is seen of a run when it runs no more; looked at only when the executor says so."""
        while True:
            self.woken.clear()
            seen = await self.see(handle)
            if not isinstance(seen, Running):
                return seen
            await asyncio.wait_for(self.woken.wait(), SECONDS)

    async def result(self, run: Run) -> Observation:
        return await self.end_of(await self.launch(run))

    def live_leases(self, device: str = DEVICE) -> list[str]:
        """The runs that hold a lease of the device."""
        return [claim.run_id for claim, _ in self.leases.holders(device)]

    async def freed(self, run: Run) -> None:
        """Until the kernel has freed a lease: the wrapper closes it a moment after it wrote how its run ended."""
        descriptor = os.open(run.lease, os.O_RDONLY | os.O_CLOEXEC)
        try:
            await asyncio.wait_for(asyncio.to_thread(fcntl.flock, descriptor, fcntl.LOCK_EX), SECONDS)
        finally:
            os.close(descriptor)

    def let_go(self, run: Run) -> None:
        """Give up this process's part of the lease, as the end of a scheduler does."""
        self.held[run.id].close()

    async def until(self, folder: Path, true: Callable[[], object]) -> None:
        """Until something is true of the files of a folder."""
        watch = inotify.Watch()
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(watch.fileno(), changed.set)
        try:
            watch.add(folder, inotify.CREATE | inotify.MODIFY | inotify.CLOSE_WRITE)
            while not true():
                await asyncio.wait_for(changed.wait(), SECONDS)
                changed.clear()
                watch.clear()
        finally:
            loop.remove_reader(watch.fileno())
            watch.close()

    async def log_has(self, run: Run, *lines: str) -> None:
        """Until the log consists of these lines. A terminal ends its lines with CR LF."""
        assert run.log is not None
        log = Path(run.log)
        await self.until(
            log.parent, lambda: log.exists() and log.read_bytes().splitlines() == list(map(os.fsencode, lines))
        )

    def tmux(self, *arguments: str) -> str:
        done = self.lab.tmux(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")

    def of_session(self, name: str, text: str) -> str:
        """What tmux says of the pane of the session with exactly this name."""
        return self.tmux("display-message", "-p", "-t", f"={name}:", text)

    # -- afterwards

    async def close(self) -> None:
        """End all that was started, whatever the test did."""
        everything = [process for process in map(processes.identify, self._wrapper_pids()) if process]
        for process in everything:
            processes.send(process, signal.SIGKILL)
        self.lab.close()
        assert await asyncio.to_thread(processes.wait_for, everything, SECONDS)
        for executor in self._executors:
            await executor.observe([])  # reaps the children
            executor.close()
        for lease in self.held.values():
            lease.close()
        self.said.close()
        self.told.close()

    def _wrapper_pids(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if any(word.startswith(os.fsencode(self.folder / "runs")) for word in words):
                    found.append(int(entry.name))
        return found


def drives(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test in one asyncio.run, which leaves nothing behind."""

    @functools.wraps(test)
    def run(site: Site, **others: object) -> None:
        async def main() -> None:
            try:
                await test(site, **others)
            finally:
                await site.close()

        asyncio.run(main())

    return run


def make_site(name: str, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Site:
    for variable in ("TMUX", "TMUX_PANE", RUN_ID_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("TMUX_TMPDIR", "HOME", MARK):
        monkeypatch.setenv(variable, lab.environment[variable])
    return Site(lab, name)


@pytest.fixture(params=registry.NAMES)
def site(request: pytest.FixtureRequest, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Site:
    return make_site(request.param, lab, monkeypatch)


only_tmux = pytest.mark.parametrize("site", ["tmux"], indirect=True)
only_local = pytest.mark.parametrize("site", ["local"], indirect=True)


def shells(handle: Handle) -> tuple[Process, Process]:
    """The two shells of the wrapper of a run that has begun: the one that was launched and the one that waits."""
    inner = began_process(handle)
    assert handle.wrapper is not None and inner is not None and inner != handle.wrapper
    return handle.wrapper, inner


async def kill(*victims: Process) -> None:
    """`kill -9`, until they are dead."""
    for process in victims:
        processes.send(process, signal.SIGKILL)
    assert await asyncio.to_thread(processes.wait_for, victims, SECONDS)


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Keep the wrapper of a run waiting for its lease."""
    descriptor = os.open(run.lease, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def file_descriptors(free: int) -> Iterator[None]:
    """Let this process open so many files and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + free + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(free):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


SAY_PID = 'echo $$ >"$SAY"; '
WAIT = 'read _ <"$HEAR"; '
SLEEP = "while :; do sleep 1000; done"


# -- launching


@drives
async def test_launch_returns_before_the_run_has_begun(site: Site) -> None:
    run = site.sh(SAY_PID)
    site.let_go(run)
    with locked(run):
        handle = await site.launch(run)
        assert RunDir(run.directory).began() is None
        assert isinstance(await site.see(handle), Running)
    assert await site.said.line()
    assert isinstance(await site.end_of(handle), Exited)


@drives
async def test_a_run_that_is_launched_twice_runs_once(site: Site) -> None:
    run = site.sh(SAY_PID + WAIT)
    first = await site.begun(run)
    again = await site.launch(run)
    assert (again.run_id, again.session) == (first.run_id, first.session)
    assert set((await site.executor.observe([first, again])).values()) == {Running()}
    site.told.tell()
    assert isinstance(await site.end_of(first), Exited)
    assert site.said.empty()


@drives
async def test_a_run_that_is_launched_again_before_it_has_begun_runs_once(site: Site) -> None:
    run = site.sh(SAY_PID + WAIT)
    site.let_go(run)
    with locked(run):
        handles = [await site.launch(run, executor) for executor in (site.executor, site.executor, site.another())]
    await site.said.line()
    assert {type(await site.see(handle)) for handle in handles} == {Running}
    site.told.tell()
    ends = [await site.end_of(handle) for handle in handles]
    assert {getattr(end, "code", end) for end in ends} == {0}
    assert site.said.empty()


@drives
async def test_a_new_executor_finds_a_run_that_runs_instead_of_starting_it(site: Site) -> None:
    run = site.sh(SAY_PID + WAIT)
    first = await site.begun(run)
    second = site.another()
    found = await site.launch(run, second)
    assert isinstance(await site.see(found, second), Running)
    assert found.session == first.session
    site.told.tell()
    assert isinstance(await site.end_of(found), Exited)
    assert site.said.empty()


@drives
async def test_four_executors_that_launch_one_run_at_once_start_one_process(site: Site) -> None:
    run = site.sh(SAY_PID + WAIT)
    executors = [site.another() for _ in range(4)]

    async def launch(executor: TmuxExecutor | LocalExecutor) -> Handle:
        try:
            return await site.launch(run, executor)
        finally:
            executor.close()

    with ThreadPoolExecutor(4) as pool:
        handles = list(pool.map(lambda executor: asyncio.run(launch(executor)), executors))
    await site.said.line()
    assert {type(seen) for seen in (await site.executor.observe(handles)).values()} == {Running}
    site.told.tell()
    ends = [await site.end_of(handle) for handle in handles]
    assert [getattr(end, "code", end) for end in ends] == [0] * 4
    assert site.said.empty()


@drives
async def test_a_launch_whose_answer_was_lost_is_found_again(site: Site) -> None:
    run = site.sh(SAY_PID + WAIT)
    record = site.folder / "run.pickle"
    record.write_bytes(pickle.dumps(run))
    command = [sys.executable, "-c", LAUNCHER, site.name, str(record)]
    done = await asyncio.to_thread(subprocess.run, command, env=site.lab.environment, timeout=SECONDS)
    assert done.returncode == -signal.SIGKILL
    await site.said.line()
    assert isinstance(await site.see(handle_of(run)), Running)
    handle = await site.launch(run)
    assert isinstance(await site.see(handle), Running)
    site.told.tell()
    assert isinstance(await site.end_of(handle), Exited)
    assert site.said.empty()


@drives
async def test_a_run_that_has_ended_is_not_run_again(site: Site) -> None:
    run = site.sh(SAY_PID + "exit 4")
    await site.end_of(await site.begun(run))
    for executor in (site.executor, site.another()):
        seen = await site.end_of(await site.launch(run, executor))
        assert isinstance(seen, Exited) and seen.code == 4
    assert site.said.empty()


@drives
async def test_a_batch_is_launched_and_observed_in_one_call_each(site: Site) -> None:
    runs = [site.sh(f"exit {number}", session=f"T_exp{number}_gpu0") for number in range(5)]
    launched = await site.executor.launch(runs)
    assert list(launched) == [run.id for run in runs]
    handles = [handle for handle in launched.values() if isinstance(handle, Handle)]
    for handle in handles:
        await site.end_of(handle)
    seen = await site.executor.observe(handles)
    assert [getattr(seen[handle], "code", None) for handle in handles] == [0, 1, 2, 3, 4]


# -- runs that never begin


@drives
async def test_a_run_whose_lease_was_revoked_never_begins(site: Site) -> None:
    run = site.sh(SAY_PID)
    site.let_go(run)
    with site.leases.admission([DEVICE]) as desk:
        assert desk.occupants() == []
    seen = await site.result(run)
    assert isinstance(seen, NeverBegan) and "lease" in seen.why
    assert site.said.empty()


@drives
async def test_a_run_whose_lease_is_revoked_while_it_waits_for_it_never_begins(site: Site) -> None:
    run = site.sh(SAY_PID)
    site.let_go(run)
    with locked(run):
        handle = await site.launch(run)
        os.truncate(run.lease, 0)
    seen = await site.end_of(handle)
    assert isinstance(seen, NeverBegan) and "lease" in seen.why
    assert site.said.empty()


@drives
async def test_a_run_whose_lease_was_deleted_never_begins_though_somebody_holds_it(site: Site) -> None:
    run = site.sh(SAY_PID)
    Path(run.lease).unlink()
    assert isinstance(await site.result(run), NeverBegan)
    assert site.said.empty()


@drives
async def test_a_run_that_was_taken_back_never_begins(site: Site) -> None:
    run = site.sh(SAY_PID)
    assert RunDir(run.directory).take_back()
    seen = await site.result(run)
    assert site.said.empty()
    assert isinstance(seen, NeverBegan), "a run that never began is not lost"


@drives
async def test_a_run_that_was_taken_back_stays_so_when_that_is_asked_again(site: Site) -> None:
    """A scheduler that dies between taking a run back and recording it must not find that the run has begun."""
    run = site.sh(SAY_PID)
    assert RunDir(run.directory).take_back()
    assert RunDir(run.directory).take_back()


@drives
async def test_a_run_that_has_begun_is_not_taken_back(site: Site) -> None:
    run = site.sh(SAY_PID + WAIT)
    handle = await site.begun(run)
    assert not RunDir(run.directory).take_back()
    site.told.tell()
    seen = await site.end_of(handle)
    assert isinstance(seen, Exited) and seen.code == 0


@drives
async def test_any_number_of_threads_may_ask_at_once_whether_a_run_is_taken_back(site: Site) -> None:
    begun, new = site.sh(SAY_PID + WAIT), site.sh(SAY_PID)
    handle = await site.begun(begun)
    with ThreadPoolExecutor(8) as pool:
        for run, answer in ((begun, False), (new, True)):
            folder = RunDir(run.directory)
            assert set(pool.map(lambda _, folder=folder: folder.take_back(), range(200))) == {answer}
    site.told.tell()
    assert isinstance(await site.end_of(handle), Exited)


@drives
async def test_a_run_whose_folder_is_gone_runs_nothing(site: Site) -> None:
    run = site.sh(SAY_PID)
    RunDir(run.directory).remove()
    assert isinstance(await site.result(run), NeverBegan | Gone)
    assert site.said.empty()


# -- how runs end


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 3", 3),
        ("exit 126", 126),
        ("exit 127", 127),
        ("exit 255", 255),
        ("kill -9 $$", 137),
        ("kill -15 $$", 143),
        ("kill -1 $$", 129),
        ("kill -11 $$", 139),
    ],
)
@drives
async def test_the_exit_status_is_that_of_the_command(site: Site, script: str, code: int) -> None:
    before = time.time()
    seen = await site.result(site.sh(script))
    assert isinstance(seen, Exited) and seen.code == code and seen.leftovers == ()
    assert before - 0.1 <= seen.at <= time.time() + 0.1  # file times come from a coarser clock


@drives
async def test_what_it_prints_may_go_to_two_files_and_all_is_there_when_it_has_ended(site: Site) -> None:
    streams = site.folder / "output"
    streams.mkdir()
    run = site.sh("seq 20000; echo trouble >&2; exit 3", streams=str(streams))
    seen = await site.result(run)
    assert isinstance(seen, Exited) and seen.code == 3
    assert (streams / "stdout").read_text() == "".join(f"{number}\n" for number in range(1, 20001))
    assert (streams / "stderr").read_text() == "trouble\n"


@pytest.mark.parametrize("pre_run", [(), ("true",)], ids=["alone", "after a pre_run"])
@drives
async def test_a_command_whose_files_can_not_be_opened_does_not_run_and_has_not_completed(
    site: Site, pre_run: tuple[str, ...]
) -> None:
    ran = site.folder / "ran"
    seen = await site.result(site.sh('touch "$1"', str(ran), streams=str(site.folder / "nowhere"), pre_run=pre_run))
    assert isinstance(seen, Exited) and seen.code == 126 and not ran.exists()


@drives
async def test_a_command_that_does_not_exist_ends_with_127_and_says_so(site: Site) -> None:
    run = site.run("/no/such/program", "argument")
    seen = await site.result(run)
    assert isinstance(seen, Exited) and seen.code == 127
    await site.until(site.folder, lambda: b"/no/such/program" in read(run.log) and b"not found" in read(run.log))


@drives
async def test_a_command_that_may_not_be_executed_ends_with_126(site: Site) -> None:
    (site.folder / "text").write_text("not a program")
    seen = await site.result(site.run(str(site.folder / "text")))
    assert isinstance(seen, Exited) and seen.code == 126


@drives
async def test_a_program_whose_path_has_an_equals_sign_is_run_as_any_other(site: Site) -> None:
    program = site.folder / "lr=0.1" / "copy"
    program.parent.mkdir()
    program.symlink_to("/bin/cp")
    others = {"BASH_FUNC_module%%": "() {  eval `/usr/bin/modulecmd bash $*`\n}", "with.dot": "kept"}
    run = site.run(str(program), "/proc/self/environ", str(site.folder / "environ"), environment=others)
    seen = await site.result(run)
    assert isinstance(seen, Exited) and seen.code == 0
    assert_environment(site.folder / "environ", {**others, **site.environment(run.id)})


def assert_environment(file: Path, expected: Mapping[str, str]) -> None:
    entries = file.read_bytes().split(b"\0")
    assert sorted(entries) == sorted([b"", *(os.fsencode(f"{name}={value}") for name, value in expected.items())])


@drives
async def test_a_run_is_running_until_it_has_ended(site: Site) -> None:
    handle = await site.begun(site.sh(SAY_PID + WAIT + "exit 9"))
    for _ in range(20):
        assert await site.see(handle) == Running()
    site.told.tell()
    seen = await site.end_of(handle)
    assert isinstance(seen, Exited) and seen.code == 9
    assert await site.see(handle) == seen


@drives
async def test_the_end_of_a_run_is_noticed_at_once(site: Site) -> None:
    late = []
    for number in range(7):
        run = site.sh(WAIT + "date +%s.%N >ended", session=f"T_exp{number}_gpu0")
        site.woken.clear()
        handle = await site.launch(run)  # and nobody looks until something happens
        site.told.tell()
        while not (site.folder / "ended").exists() or isinstance(seen := await site.see(handle), Running):
            await asyncio.wait_for(site.woken.wait(), SECONDS)
            site.woken.clear()
        assert isinstance(seen, Exited)
        late.append(time.time() - float((site.folder / "ended").read_text()))
        (site.folder / "ended").unlink()
    assert sorted(late)[3] < 0.15, late  # the median is about 0.01 on an idle machine


@drives
async def test_the_last_words_of_a_run_are_in_its_log(site: Site) -> None:
    runs = [site.sh(f"echo first; echo last {n}", session=f"T_exp{n}_gpu0") for n in range(40)]
    for handle in (await site.executor.launch(runs)).values():
        assert isinstance(handle, Handle) and isinstance(await site.end_of(handle), Exited)
    for number, run in enumerate(runs):
        await site.log_has(run, "first", f"last {number}")


@drives
async def test_children_that_outlive_the_command_are_seen_until_they_are_gone(site: Site) -> None:
    handle = await site.launch(site.sh(f"setsid sh -c '{SAY_PID} exec sleep 1000' & {WAIT} exit 3"))
    child = await site.said.process()
    assert await site.see(handle) == Running()
    site.told.tell()
    seen = await site.end_of(handle)
    assert isinstance(seen, Exited) and seen.code == 3 and seen.leftovers == (child,)
    site.woken.clear()
    await kill(child)
    await asyncio.wait_for(site.woken.wait(), SECONDS)
    assert await site.see(handle) == replace(seen, leftovers=())


@drives
async def test_a_run_whose_wrapper_and_command_were_killed_is_gone_and_so_is_its_lease(site: Site) -> None:
    run = site.sh(SAY_PID + "exec sleep 1000")
    handle = await site.launch(run)
    command = await site.said.process()
    site.let_go(run)
    outer, inner = shells(handle)
    await kill(inner, outer, command)  # the inner one first: it would write down how the command ended
    seen = await site.end_of(handle)
    assert isinstance(seen, Gone) and seen.lost == ""
    assert seen.signal == signal.SIGKILL or (site.name == "tmux" and seen.signal is None), "tmux may not know it yet"
    await site.freed(run)
    assert site.live_leases() == []


@drives
async def test_a_command_that_lost_its_wrapper_is_running_and_holds_its_lease(site: Site) -> None:
    run = site.sh("trap '' HUP; " + SAY_PID + WAIT)
    handle = await site.begun(run)
    site.let_go(run)
    await kill(*reversed(shells(handle)))
    assert await site.see(handle) == Running()
    assert await site.see(handle_of(run), site.another()) == Running()
    assert site.live_leases() == [run.id]
    site.told.tell()
    assert isinstance(await site.end_of(handle), Gone)
    await site.freed(run)
    assert site.live_leases() == []


@drives
async def test_a_run_that_lost_the_outer_shell_only_keeps_its_exit_status(site: Site) -> None:
    handle = await site.begun(site.sh("trap '' HUP; " + SAY_PID + WAIT + "exit 6"))
    outer, _ = shells(handle)
    await kill(outer)
    assert await site.see(handle) == Running()
    site.told.tell()
    seen = await site.end_of(handle)
    assert isinstance(seen, Exited) and seen.code == 6


@drives
async def test_signals_to_the_waiting_shell_of_the_wrapper_do_not_end_it(site: Site) -> None:
    handle = await site.begun(site.sh(SAY_PID + WAIT + "exit 6"))
    _, inner = shells(handle)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        processes.send(inner, number)
    site.told.tell()
    seen = await site.end_of(handle)
    assert isinstance(seen, Exited) and seen.code == 6


@drives
async def test_a_run_is_not_taken_for_dead_when_this_process_may_open_no_more_files(site: Site) -> None:
    handle = await site.begun(site.sh("trap '' HUP; " + SAY_PID + SLEEP))
    await kill(*reversed(shells(handle)))
    seen: list[Observation | OSError] = []
    for free in range(5):
        with file_descriptors(free):
            try:
                seen.append(await site.see(handle))
            except OSError as error:
                seen.append(error)
    assert not [what for what in seen if isinstance(what, Gone | Exited | NeverBegan)], seen


@drives
async def test_an_executor_that_could_not_watch_is_not_blind_for_ever(site: Site) -> None:
    handle = await site.begun(site.sh(SAY_PID + WAIT))
    executor = site.another()
    with file_descriptors(1):  # enough to look, too few to watch
        assert isinstance(await site.see(handle, executor), Running | Unreachable)
    site.told.tell()
    assert isinstance(await site.end_of(handle), Exited)
    assert isinstance(await site.see(handle, executor), Exited)
    assert not executor.blind


# -- handles


@drives
async def test_a_handle_made_from_the_record_sees_the_same_as_the_one_from_launch(site: Site) -> None:
    run = site.sh(SAY_PID + WAIT + "exit 2")
    launched = await site.begun(run)
    assert launched.wrapper is not None
    recorded = replace(run, pid=launched.wrapper.pid, pid_started=launched.wrapper.started, session=launched.session)
    stale = replace(run, pid=os.getpid(), pid_started=1)
    handles = [launched, handle_of(run), handle_of(recorded), handle_of(stale)]
    assert handle_of(recorded) == launched
    other = site.another()
    assert set((await other.observe(handles)).values()) == {Running()}
    site.told.tell()
    end = await site.end_of(launched)
    assert isinstance(end, Exited) and end.code == 2
    assert set((await other.observe(handles)).values()) == {end}


@drives
async def test_a_handle_made_from_the_record_finds_a_run_that_is_about_to_begin(site: Site) -> None:
    run = site.sh(SAY_PID + WAIT)
    site.let_go(run)
    with locked(run):
        launched = await site.launch(run)
        assert await site.see(launched) == Running()
        assert not isinstance(await site.see(handle_of(run)), Gone), "it begins as soon as it has its lease"
    await site.said.line()


# -- stopping


@drives
async def test_stop_sends_term_and_the_program_may_end_in_its_own_way(site: Site) -> None:
    handle = await site.begun(site.sh(f"trap 'exit 7' TERM; {SAY_PID} sleep 1000 & wait"))
    assert await site.executor.stop(handle, grace=SECONDS)
    seen = await site.see(handle)
    assert isinstance(seen, Exited) and seen.code == 7 and seen.leftovers == ()


@drives
async def test_stop_kills_what_ignores_term_but_not_before_the_grace_is_over(site: Site) -> None:
    handle = await site.begun(site.sh(f"trap '' TERM HUP; {SAY_PID} {SLEEP}"))
    before = time.monotonic()
    assert await site.executor.stop(handle, grace=0.3)
    assert time.monotonic() - before >= 0.3
    seen = await site.see(handle)
    assert isinstance(seen, Exited) and seen.code == 137 and seen.leftovers == ()


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("sleep 1000 & sh -c 'sleep 1000 & wait' & {say} wait", id="children"),
        pytest.param("trap '' TERM; {say} while :; do sh -c 'trap \"\" TERM; sleep 1000'; done", id="that come again"),
        pytest.param("setsid sh -c 'trap \"\" TERM HUP; {say} exec sleep 1000' & wait", id="in a session of its own"),
        pytest.param("(setsid sleep 1000 &) ; nohup sleep 1000 >/dev/null & {say} exit 0", id="that outlive it"),
        pytest.param("env -i sleep 1000 & {say} wait", id="without environment"),
        pytest.param("{say} kill -STOP $$", id="stopped"),
        pytest.param("trap '' TERM; {say} kill -STOP $$; {sleep}", id="stopped and deaf"),
        pytest.param("{say} exec 9>&- 1>&- 2>&-; {sleep}", id="with its files closed"),
    ],
)
@drives
async def test_stop_leaves_no_process_of_the_run(site: Site, script: str) -> None:
    run = site.sh(script.replace("{say}", SAY_PID).replace("{sleep}", SLEEP))
    handle = await site.begun(run)
    assert await site.executor.stop(handle, grace=0.2)
    assert isinstance(await site.see(handle), Exited)
    assert processes.of_runs([run.id])[run.id] == []
    left = [line for _, line in site.lab.processes(exclude=("tmux",)) if not line.startswith(("cat", "sh -c exec cat"))]
    assert left == []


@drives
async def test_stop_finds_a_program_that_has_overwritten_its_environment(site: Site) -> None:
    await assert_stop_kills(site, site.run(sys.executable, "-I", "-S", "-c", SETPROCTITLE))


@drives
async def test_stop_finds_a_program_with_the_name_of_the_run_id_elsewhere_in_its_environment(site: Site) -> None:
    others = {"NOTE": f"unset {RUN_ID_VARIABLE}=", f"OLD_{RUN_ID_VARIABLE}": "abc"}
    await assert_stop_kills(site, site.run(sys.executable, "-I", "-S", "-c", DEAF, environment=others))


async def assert_stop_kills(site: Site, run: Run) -> None:
    handle = await site.launch(run)
    program = await site.said.process()
    try:
        assert await site.executor.stop(handle, grace=0.2)
        assert not program.alive(), "stop says that all is dead, and the program lives"
    finally:
        await kill(program)


@drives
async def test_stop_of_a_run_that_has_ended_changes_nothing_and_is_quick(site: Site) -> None:
    run = site.sh(SAY_PID + "exit 8")
    handle = await site.begun(run)
    end = await site.end_of(handle)
    before = time.monotonic()
    assert await site.executor.stop(handle, grace=SECONDS)
    assert await site.another().stop(handle_of(run), grace=SECONDS)
    assert time.monotonic() - before < SECONDS / 4
    assert await site.see(handle) == end


@drives
async def test_two_stops_at_once_both_end_it(site: Site) -> None:
    run = site.sh(f"trap '' TERM; {SAY_PID} {SLEEP}")
    handle = await site.begun(run)
    stops = site.executor.stop(handle, grace=0.2), site.another().stop(handle_of(run), grace=0.2)
    assert await asyncio.gather(*stops) == [True, True]
    seen = await site.see(handle)
    assert isinstance(seen, Exited) and seen.code == 137


@drives
async def test_stop_of_a_run_that_has_not_begun_keeps_it_from_beginning(site: Site) -> None:
    run, never_launched = site.sh(SAY_PID), site.sh(SAY_PID, session="T_exp2_gpu0")
    assert await site.executor.stop(handle_of(never_launched), grace=0)
    site.let_go(run)
    with locked(run):
        handle = await site.launch(run)
        stopping = asyncio.create_task(site.executor.stop(handle, grace=0))
        began = Path(run.directory) / "began"
        await site.until(began.parent, began.exists)
    assert await stopping
    assert not isinstance(await site.end_of(handle), Exited)
    assert not isinstance(await site.result(never_launched), Exited)
    assert site.said.empty()


# -- leases


@drives
async def test_the_lease_is_live_from_launch_to_end_on_every_gpu_of_the_run(site: Site) -> None:
    devices = ("index-0", "GPU-1234")
    run = site.sh(SAY_PID + WAIT, devices=devices)
    handle = await site.begun(run)
    site.let_go(run)
    assert [site.live_leases(device) for device in devices] == [[run.id], [run.id]]
    site.told.tell()
    await site.end_of(handle)
    await site.freed(run)
    assert [site.live_leases(device) for device in devices] == [[], []]


@drives
async def test_a_scheduler_that_holds_a_lease_is_no_process_of_the_run(site: Site) -> None:
    run = site.sh(SAY_PID + WAIT)
    handle = await site.begun(run)
    command = [sys.executable, "-c", HOLDER, run.lease, run.id]
    output = await asyncio.to_thread(subprocess.check_output, command, env=site.lab.environment, timeout=SECONDS)
    assert output == b"False\n", "stopping the run would kill the scheduler"
    site.told.tell()
    await site.end_of(handle)


# -- what a run gets


@drives
async def test_the_environment_is_exactly_what_was_prepared(site: Site) -> None:
    hostile = {
        "NEWLINES": "one\ntwo\n\n",
        "QUOTES": "'\"`\\'\\\\",
        "EXPANSIONS": "$(touch pwned) ${HOME} $HOME `touch pwned` !! ~ * #{pane_id} #(touch pwned) %d %% ;",
        "SEMICOLON": ";",
        "EMPTY": "",
        "UNICODE": "ünïcode ✓ 👩‍👩‍👧 \u2028",
        "EVERY_BYTE": EVERY_BYTE,
        "LONG": "x" * 100_000,
        "BASH_FUNC_module%%": "() {  eval `/usr/bin/modulecmd bash $*`\n}",
        "with.dots and spaces-": "kept",
        "IFS": "x",
        "CDPATH": "/",
        "ENV": "/no/such/file",
    }
    run = site.run("cp", "/proc/self/environ", str(site.folder / "environ"), environment=hostile)
    seen = await site.result(run)
    assert isinstance(seen, Exited) and seen.code == 0
    assert_environment(site.folder / "environ", {**hostile, **site.environment(run.id)})
    assert not list(site.folder.rglob("pwned"))


@drives
async def test_the_arguments_are_exactly_what_was_prepared(site: Site) -> None:
    hostile = [
        "",
        " ",
        "a b",
        "'",
        '"',
        ";",
        "a;",
        "\\;",
        "a\nb\n",
        "$(touch pwned)",
        "#{pane_id}",
        "-n",
        "--",
        "*",
        "~",
    ]
    hostile += ["A=b", EVERY_BYTE, "é✓", "x" * 100_000]
    await site.result(site.sh("cat /proc/$$/cmdline >arguments", *hostile))
    words = (site.folder / "arguments").read_bytes().split(b"\0")
    assert words[4:-1] == [os.fsencode(word) for word in hostile]
    assert not list(site.folder.rglob("pwned"))


HOSTILE_NAMES = (
    "with spaces", "it's \"quoted\"", "#(touch pwned)", "$(touch pwned)", "`touch pwned`", "#{session_name}", "##",
    "{mouse}", "-dash", "semicolon;", "back\\", "%d#S%%", "new\nline", "ünïcode✓", "\udcff\udcfe", "~", "$HOME", "&",
)  # fmt: skip


@drives
async def test_any_name_of_a_folder_may_be_work_dir_and_log(site: Site) -> None:
    runs = {}
    for number, name in enumerate(HOSTILE_NAMES):
        folder = site.folder / "work" / name
        folder.mkdir(parents=True)
        runs[name] = site.sh(
            "pwd -P >here; echo said", work_dir=folder, log=folder / f"{name}.log", session=f"s{number}"
        )
    for handle in (await site.executor.launch(list(runs.values()))).values():
        assert isinstance(handle, Handle)
        seen = await site.end_of(handle)
        assert isinstance(seen, Exited) and seen.code == 0
    for run in runs.values():
        assert (Path(run.work_dir) / "here").read_bytes() == os.fsencode(run.work_dir) + b"\n"
        await site.log_has(run, "said")
    assert not list(site.folder.rglob("pwned"))


@drives
async def test_a_log_may_lie_in_a_folder_named_like_a_tmux_style(site: Site) -> None:
    folder = site.folder / "sweep#[1]"
    folder.mkdir()
    run = site.sh("echo said", work_dir=folder, log=folder / "exp1.log")
    await site.result(run)
    await asyncio.wait_for(site.log_has(run, "said"), 2)


@drives
async def test_a_work_dir_that_does_not_exist_gives_127_and_a_message(site: Site) -> None:
    run = site.sh(SAY_PID, work_dir=site.folder / "no such folder")
    seen = await site.result(run)
    assert isinstance(seen, Exited) and seen.code == 127
    await site.until(site.folder, lambda: b"no such folder" in read(run.log))
    assert site.said.empty()


@drives
async def test_the_log_has_all_output_in_order_and_keeps_what_was_there(site: Site) -> None:
    log = site.folder / "kept.log"
    log.write_text("of before\n")
    run = site.sh(
        "echo out; echo err >&2; printf 'é✓\\n'; i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo $i; done", log=log
    )
    await site.result(run)
    await site.log_has(run, "of before", "out", "err", "é✓", *map(str, range(1, 2001)))


@drives
async def test_a_run_without_a_log_runs(site: Site) -> None:
    run = replace(site.sh("echo said; exit 3"), log=None)
    seen = await site.result(run)
    assert isinstance(seen, Exited) and seen.code == 3


@drives
async def test_standard_input_is_empty_and_no_file_but_the_lease_is_open(site: Site) -> None:
    script = "readlink /proc/$$/fd/0 >input; ls /proc/$$/fd >files; readlink /proc/$$/fd/9 >lease; cat"
    run = site.sh(script)
    seen = await site.result(run)
    assert isinstance(seen, Exited) and seen.code == 0, "cat meets the end of its input at once"
    assert (site.folder / "input").read_text() == "/dev/null\n"
    assert (site.folder / "lease").read_text() == f"{run.lease}\n"
    files = set((site.folder / "files").read_text().split())
    assert {"0", "1", "2", "9"} <= files <= {"0", "1", "2", "9", "10"}  # 10 is the shell's own


@drives
async def test_only_tmux_gives_a_terminal(site: Site) -> None:
    seen = await site.result(site.sh("test -t 1 && test -t 2 && test ! -t 0"))
    assert isinstance(seen, Exited)
    assert (seen.code == 0) is (site.name == "tmux")


# -- forgetting


@drives
async def test_forget_gives_back_what_is_kept_and_may_be_asked_twice(site: Site) -> None:
    run, other = site.sh("exit 0"), site.sh(SAY_PID + WAIT, session="T_exp2_gpu0")
    ended, running = await site.launch(run), await site.begun(other)
    await site.end_of(ended)
    for _ in range(2):
        await site.executor.forget([ended])
    assert not Path(run.directory).exists() and Path(other.directory).exists()
    assert await site.see(running) == Running()
    if site.name == "tmux":
        assert site.lab.sessions() == ["T_exp2_gpu0"]
    site.told.tell()
    await site.end_of(running)


@drives
async def test_closing_an_executor_lets_its_runs_go_on(site: Site) -> None:
    handle = await site.begun(site.sh(SAY_PID + WAIT + "exit 3"))
    site.executor.close()
    assert await site.see(handle, site.another()) == Running()
    site.told.tell()
    seen = await site.end_of(handle)
    assert isinstance(seen, Exited) and seen.code == 3


# -- tmux: sessions


@only_tmux
@drives
async def test_the_session_has_the_name_the_options_and_the_size(site: Site) -> None:
    run = site.sh(SAY_PID + WAIT)
    handle = await site.begun(run)
    assert handle.session == "T_exp1_gpu0" and site.lab.sessions() == ["T_exp1_gpu0"]
    fields = (
        "pane_pid",
        RUN_OPTION,
        WORKSPACE_OPTION,
        "remain-on-exit",
        "destroy-unattached",
        "window_width",
        "pane_pipe",
    )
    answer = site.of_session("T_exp1_gpu0", " ".join(f"#{{{field}}}" for field in fields))
    assert handle.wrapper is not None
    assert answer == f"{handle.wrapper.pid} {run.id} w1 on 0 200 1"
    site.told.tell()
    await site.end_of(handle)
    assert site.of_session("T_exp1_gpu0", f"#{{{RUN_OPTION}}}") == run.id, "the session is kept for whoever looks"


HOSTILE_CONF = """
set -g destroy-unattached on
set -g remain-on-exit off
set -g default-shell /bin/false
set -g default-command "exec false"
set -g base-index 1
set -g pane-base-index 1
set -g status off
set -g history-limit 0
set -g default-size 20x5
set -g automatic-rename on
set -g set-titles on
set -g detach-on-destroy off
set -g update-environment "TMUX_TMPDIR"
set-environment -g PATH /nonexistent
set-hook -g session-created "rename-window mine"
source-file /no/such/file
run-shell "true"
"""


@only_tmux
@drives
async def test_a_hostile_tmux_conf_changes_nothing(site: Site) -> None:
    (site.folder / "home" / ".tmux.conf").write_text(HOSTILE_CONF)
    run = site.sh("echo said; " + SAY_PID + WAIT + "exit 3")
    handle = await site.begun(run)
    assert site.of_session("T_exp1_gpu0", "#{status} #{base-index} #{window_width} #{pane_pipe}") == "off 1 200 1"
    await site.log_has(run, "said")
    attach_and_detach(site, "T_exp1_gpu0")
    assert await site.see(handle) == Running()
    site.told.tell()
    seen = await site.end_of(handle)
    assert isinstance(seen, Exited) and seen.code == 3
    assert site.lab.sessions() == ["T_exp1_gpu0"]


def attach_and_detach(site: Site, session: str) -> None:
    """Look at a session on a terminal of its own, and go away again."""
    master, slave = pty.openpty()
    try:
        command = ["tmux", "-u", "-L", "default", "attach-session", "-t", f"={session}"]
        client = subprocess.Popen(command, env={**site.lab.environment, "TERM": "xterm"}, stdin=slave, stdout=slave)
        os.close(slave)
        os.read(master, 1)  # it draws: it is attached
        site.tmux("detach-client", "-s", f"={session}")
        with contextlib.suppress(OSError):  # the terminal ends when its client has ended
            while os.read(master, 65536):
                pass
        assert client.wait(SECONDS) == 0
    finally:
        os.close(master)


@only_tmux
@drives
async def test_a_server_that_wants_to_exit_unattached_ends_no_run(site: Site) -> None:
    (site.folder / "home" / ".tmux.conf").write_text("set -s exit-unattached on\n")
    run = site.sh(SAY_PID + WAIT + "exit 3")
    handle = (await site.executor.launch([run]))[run.id]
    if isinstance(handle, Refused):  # that would do, too, if it says why
        assert "exit-unattached" in handle.why
        return
    await site.said.line()
    assert site.lab.sessions() == ["T_exp1_gpu0"]
    assert await site.see(handle) == Running()
    site.told.tell()
    seen = await site.end_of(handle)
    assert isinstance(seen, Exited) and seen.code == 3


@only_tmux
@pytest.mark.parametrize("command", [("kill-session", "-t", "=T_exp1_gpu0"), ("kill-server",)])
@drives
async def test_a_session_that_is_closed_from_outside_ends_the_run_with_129(
    site: Site, command: tuple[str, ...]
) -> None:
    handle = await site.begun(site.sh(SAY_PID + SLEEP))
    site.tmux(*command)
    seen = await site.end_of(handle)
    assert isinstance(seen, Exited) and seen.code == 129
    await asyncio.to_thread(processes.wait_for, seen.leftovers, SECONDS)
    assert await site.see(handle) == replace(seen, leftovers=())


@only_tmux
@pytest.mark.parametrize("command", [("kill-session", "-t", "=T_exp1_gpu0"), ("kill-server",)])
@drives
async def test_a_program_that_survives_the_end_of_its_session_is_running(site: Site, command: tuple[str, ...]) -> None:
    run = site.sh("trap '' HUP; " + SAY_PID + WAIT + "exit 3")
    handle = await site.begun(run)
    site.let_go(run)
    outer, _ = shells(handle)
    site.tmux(*command)
    assert await asyncio.to_thread(processes.wait_for, [outer], SECONDS)
    assert await site.see(handle) == Running()
    assert site.live_leases() == [run.id]
    site.told.tell()
    seen = await site.end_of(handle)
    assert isinstance(seen, Exited) and seen.code == 3


@only_tmux
@pytest.mark.parametrize(("key", "code"), [("C-c", 130), ("C-\\", 131)])
@drives
async def test_keys_that_end_programs_end_the_run_with_their_signal(site: Site, key: str, code: int) -> None:
    handle = await site.begun(site.run("/bin/sh", "-c", SAY_PID + "exec sleep 1000"))
    site.tmux("send-keys", "-t", "=T_exp1_gpu0:", key)
    seen = await site.end_of(handle)
    assert isinstance(seen, Exited) and seen.code == code


@only_tmux
@drives
async def test_the_key_that_suspends_programs_does_nothing(site: Site) -> None:
    handle = await site.begun(site.sh(SAY_PID + WAIT + SAY_PID + "exit 3"))
    site.tmux("send-keys", "-t", "=T_exp1_gpu0:", "C-z")
    site.told.tell()
    await site.said.line()
    seen = await site.end_of(handle)
    assert isinstance(seen, Exited) and seen.code == 3


@only_tmux
@drives
async def test_a_session_of_somebody_else_keeps_its_name_and_its_life(site: Site) -> None:
    site.tmux("new-session", "-d", "-s", "T_exp1_gpu0", "cat")
    site.tmux("new-session", "-d", "-s", "T_exp1_gpu0_2", "cat")
    run = site.sh("echo said; exit 3")
    handle = await site.launch(run)
    assert handle.session == "T_exp1_gpu0_3"
    assert (await site.launch(run, site.another())).session == "T_exp1_gpu0_3"
    await site.end_of(handle)
    await site.log_has(run, "said")
    await site.executor.forget([handle, handle_of(run)])
    assert site.lab.sessions() == ["T_exp1_gpu0", "T_exp1_gpu0_2"]
    assert site.of_session("T_exp1_gpu0", "#{pane_dead} #{pane_pipe} #{remain-on-exit}") == "0 0 off"


@only_tmux
@drives
async def test_a_session_whose_name_begins_the_same_is_not_confused_with_ours(site: Site) -> None:
    site.tmux("new-session", "-d", "-s", "T_exp1_gpu0-1", "cat")
    run = site.sh("echo said")
    handle = await site.launch(run)
    assert handle.session == "T_exp1_gpu0"
    await site.end_of(handle)
    await site.log_has(run, "said")
    await site.executor.forget([handle])
    assert site.lab.sessions() == ["T_exp1_gpu0-1"]
    assert site.of_session("T_exp1_gpu0-1", "#{pane_pipe} #{remain-on-exit}") == "0 off"


@only_tmux
@drives
async def test_the_kept_session_of_an_earlier_run_makes_way_but_not_that_of_another_workspace(site: Site) -> None:
    site.tmux("new-session", "-d", "-s", "another", "cat")
    earlier, later, foreign = site.sh("exit 0"), site.sh(SAY_PID + WAIT), site.sh("exit 0")
    await site.result(earlier)
    await dead_pane(site, "T_exp1_gpu0")
    handle = await site.begun(later)
    assert handle.session == "T_exp1_gpu0"
    assert (await site.launch(foreign, site.another("w2"))).session == "T_exp1_gpu0_2"
    assert await site.see(handle) == Running()
    site.told.tell()
    await site.end_of(handle)
    await dead_pane(site, "T_exp1_gpu0")
    again = await site.launch(site.sh("exit 0"), site.another("w2"))
    assert again.session != "T_exp1_gpu0", "the kept session of the other workspace's run stays"


@only_tmux
@drives
async def test_the_kept_session_makes_way_also_if_it_is_the_last_one_of_its_server(site: Site) -> None:
    for _ in range(20):  # a server whose last session is closed may be about to exit
        handle = await site.launch(site.sh("exit 0"))
        assert handle.session == "T_exp1_gpu0"
        assert isinstance(await site.end_of(handle), Exited)
        await dead_pane(site, "T_exp1_gpu0")


async def dead_pane(site: Site, session: str) -> None:
    """Until tmux has noticed that the command of a session has ended; it tells nobody."""
    deadline = time.monotonic() + SECONDS
    while site.of_session(session, "#{pane_dead}") != "1":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@only_tmux
@drives
async def test_forget_finds_a_session_by_its_run_whatever_it_is_called(site: Site) -> None:
    run = site.sh("echo said")
    handle = await site.launch(run)
    await site.end_of(handle)
    await site.log_has(run, "said")
    site.tmux("rename-session", "-t", "=T_exp1_gpu0", "mine now")
    site.tmux("new-session", "-d", "-s", "T_exp1_gpu0", "cat")
    writers = writers_of(run)
    await site.executor.forget([handle])
    assert site.lab.sessions() == ["T_exp1_gpu0"]
    assert await asyncio.to_thread(processes.wait_for, writers, SECONDS), "no pipe outlives its session"
    assert writers_of(run) == []


def writers_of(run: Run) -> list[Process]:
    """The processes that have the log of a run open."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/fd/1"):
        with contextlib.suppress(OSError):
            if str(entry.readlink()) == run.log:
                found.append(processes.identify(int(entry.parts[2])))
    return [process for process in found if process is not None]


@only_tmux
@drives
async def test_a_session_that_was_renamed_does_not_make_the_run_begin_twice(site: Site) -> None:
    run = site.sh(SAY_PID + WAIT)
    handle = await site.begun(run)
    site.tmux("rename-session", "-t", "=T_exp1_gpu0", "mine")
    again = await site.launch(run, site.another())
    assert await site.see(again) == Running()
    site.told.tell()
    await site.end_of(handle)
    assert isinstance(await site.end_of(again), Exited)
    assert site.said.empty()


# -- tmux: servers


@only_tmux
@drives
async def test_a_tmux_variable_that_names_another_server_misleads_nobody(site: Site) -> None:
    site.lab.tmux("new-session", "-d", "-s", "elsewhere", "cat", socket="other")
    where = site.lab.tmux("display-message", "-p", "#{socket_path},#{pid},0", socket="other").stdout.strip()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMUX", where)
        patch.setenv("TMUX_PANE", "%0")
        run = site.sh("echo said")
        handle = await site.launch(run)
        await site.end_of(handle)
        await site.log_has(run, "said")
        assert site.lab.sessions() == ["T_exp1_gpu0"]
        await site.executor.forget([handle])
    names = site.lab.tmux("list-sessions", "-F", "#{session_name} #{pane_pipe} #{remain-on-exit}", socket="other")
    assert names.stdout.splitlines() == ["elsewhere 0 off"]


@only_tmux
@drives
async def test_a_caller_that_sits_inside_tmux_logs_its_runs_and_not_itself(site: Site) -> None:
    run = site.sh("echo said; " + SAY_PID + WAIT)
    record = site.folder / "run.pickle"
    record.write_bytes(pickle.dumps(run))
    script = '"$@"; echo done >"$SAY"; echo my own screen; cat'
    words = ["sh", "-c", script, "sh", sys.executable, "-c", LAUNCHER, "tmux", str(record)]
    site.tmux(
        "new-session", "-d", "-s", "caller", "-e", f"SAY={site.said.path}", *(word.replace("#", "##") for word in words)
    )
    assert "done" in {await site.said.line(), await site.said.line()}
    assert site.of_session("caller", f"#{{pane_pipe}} #{{remain-on-exit}} [#{{{RUN_OPTION}}}]") == "0 off []"
    assert site.of_session("T_exp1_gpu0", f"#{{pane_pipe}} #{{{RUN_OPTION}}}") == f"1 {run.id}"
    site.told.tell()
    assert isinstance(await site.end_of(handle_of(run)), Exited)
    await site.log_has(run, "said")


@only_tmux
@drives
async def test_a_server_that_is_started_from_inside_a_run_is_no_process_of_that_run(site: Site) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUN_ID_VARIABLE, "the run around")
        await site.result(site.sh("exit 0"))
        assert os.environ[RUN_ID_VARIABLE] == "the run around"
    assert processes.of_runs(["the run around"]) == {"the run around": []}


@only_tmux
@drives
async def test_a_tmux_that_can_not_be_used_refuses_the_run_and_nothing_is_left(site: Site) -> None:
    sockets = Path(site.lab.environment["TMUX_TMPDIR"]) / f"tmux-{os.getuid()}"
    sockets.mkdir()
    sockets.chmod(0o777)  # tmux wants a folder that nobody else can write
    run = site.sh(SAY_PID)
    answer = (await site.executor.launch([run]))[run.id]
    assert isinstance(answer, Refused) and "unsafe permissions" in answer.why
    assert RunDir(run.directory).began() is None and site.said.empty()


@only_tmux
@drives
async def test_a_tmux_that_has_vanished_refuses_the_run(site: Site) -> None:
    run = site.sh(SAY_PID)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(site.folder))
        answer = (await site.executor.launch([run]))[run.id]
    assert isinstance(answer, Refused) and "tmux" in answer.why


# -- local


@only_local
@drives
async def test_a_run_that_can_not_be_spawned_is_refused_and_never_begins(site: Site) -> None:
    run = site.sh(SAY_PID, log=site.folder / "no such folder" / "log")
    answer = (await site.executor.launch([run]))[run.id]
    assert isinstance(answer, Refused) and "no such folder" in answer.why
    assert site.said.empty()


@only_local
@drives
async def test_ended_children_are_reaped(site: Site) -> None:
    handle = await site.begun(site.sh(SAY_PID + WAIT))
    assert handle.wrapper is not None
    site.told.tell()
    await site.end_of(handle)
    await asyncio.to_thread(processes.wait_for, [handle.wrapper], SECONDS)
    await site.executor.observe([])
    assert not Path(f"/proc/{handle.wrapper.pid}").exists()


def read(log: str | None) -> bytes:
    path = Path(log or os.devnull)
    return path.read_bytes() if path.exists() else b""
