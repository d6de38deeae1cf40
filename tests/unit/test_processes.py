"""Processes: who is alive, who belongs to a run, and that a run can be ended for certain."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tinksched.core.model import Run, RunState
from tinksched.executors import base
from tinksched.executors.base import handle_of
from tinksched.executors.local import LocalExecutor
from tinksched.host import processes
from tinksched.host.leases import Claim, Leases
from tinksched.host.processes import (
    RUN_ID_VARIABLE,
    Moment,
    Process,
    boot_id,
    end,
    identify,
    of_runs,
    open_pidfd,
    send,
    wait_for,
)
from tinksched.host.rundir import RunDir

PATH = {"PATH": os.environ["PATH"]}
LONG = 60.0  # seconds that nothing here takes


class Started:
    """A child of the test that lives until the test lets it go, unless somebody ends it before.

    It and everything that it starts read from its standard input, and end with it. It prints pids, or that it is up.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env={**PATH, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        # `Popen` returns in the middle of the exec: for a few microseconds more, the process has no environment.
        # (It may also have none at all, by `env -i`.)
        late = time.monotonic() + 0.05
        with contextlib.suppress(OSError):  # it has ended already
            while time.monotonic() < late and not Path(f"/proc/{self.process.pid}/environ").read_bytes():
                os.sched_yield()

    @property
    def identity(self) -> Process:
        found = identify(self.process.pid)
        assert found is not None
        return found

    def lines(self, count: int) -> list[str]:
        """Its next lines. It prints them when it is where the test wants it."""
        assert self.process.stdout is not None
        return [self.process.stdout.readline().strip() for _ in range(count)]

    def let_go(self) -> int:
        """Let it and all that it started end, and wait for it. Returns its exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(LONG)


@pytest.fixture
def run_id() -> str:
    """Of this test alone, for others run at the same time."""
    return uuid.uuid4().hex[:16]


@pytest.fixture
def started() -> Iterator[Any]:
    """Start children; at the end they are let go, and those that don't go are killed."""
    children: list[Started] = []

    def start(*command: str, **environment: str) -> Started:
        children.append(Started(command, environment))
        return children[-1]

    yield start
    for child in children:
        try:
            child.let_go()
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
            raise


def pids(found: Sequence[Process]) -> set[int]:
    return {process.pid for process in found}


def stop(process: Process) -> None:
    """Have a child stopped, as Ctrl-Z does; it is when this returns."""
    os.kill(process.pid, signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


# ---------------------------------------------------------------- who is alive


def test_this_process_is_alive_and_always_the_same() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert me.alive()
    assert me == identify(os.getpid())


def test_the_start_time_is_in_ticks_since_boot() -> None:
    me = identify(os.getpid())
    assert me is not None
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 < me.started / os.sysconf("SC_CLK_TCK") <= uptime


@pytest.mark.parametrize("pid", [2**22 + 1, 2**40, -1])
def test_a_pid_that_nobody_has_is_nobody(pid: int) -> None:
    assert identify(pid) is None


def test_a_process_that_ended_is_not_alive(started: Any) -> None:
    child = started("cat")
    process = child.identity
    assert process.alive()
    child.let_go()
    assert not process.alive()
    assert identify(process.pid) != process


def test_a_zombie_is_not_alive(started: Any) -> None:
    child = started("true")
    process = Process(child.process.pid, 0)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z"
    assert identify(process.pid) is None
    assert open_pidfd(process) is None


def test_another_process_with_the_pid_is_not_the_one_that_was_meant(started: Any) -> None:
    child = started("cat")
    earlier = replace(child.identity, started=child.identity.started - 1)
    assert not earlier.alive()
    assert open_pidfd(earlier) is None
    assert not send(earlier, signal.SIGKILL)
    assert wait_for([earlier], LONG)
    assert child.identity.alive(), "it was not hit"
    assert child.let_go() == 0


@pytest.mark.parametrize("name", [") Z 1 (", "a b", "((", "))) 0 0", "x\\ny", "ä"])
def test_a_name_can_not_confuse(started: Any, name: str) -> None:
    program = "import sys; open('/proc/self/comm', 'w').write(sys.argv[1]); print('up', flush=True); sys.stdin.read()"
    child = started(sys.executable, "-c", program, name)
    before = child.identity
    assert child.lines(1) == ["up"]
    assert child.identity == before
    assert before.name != "?"


def test_a_process_has_a_name_for_messages_while_it_lives(started: Any) -> None:
    child = started("cat")
    process = child.identity
    assert process.name != "?"
    child.let_go()
    assert process.name == "?"


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can't open anything any more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 3, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        yield
    finally:
        for descriptor in spare:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_who_can_not_look_does_not_say_that_there_is_nobody(started: Any, run_id: str) -> None:
    child = started("cat", TINKSCHED_RUN_ID=run_id)
    process = child.identity
    with no_descriptors():
        for look in (process.alive, lambda: identify(process.pid), lambda: of_runs([run_id])):
            with pytest.raises(OSError, match="Too many open files"):
                look()
    assert process.alive()


def test_the_boot_has_an_identity() -> None:
    assert boot_id() == boot_id()
    assert uuid.UUID(boot_id())


# ---------------------------------------------------------------- descriptors of processes


def test_a_pidfd_becomes_readable_when_the_process_ends(started: Any) -> None:
    child = started("cat")
    descriptor = open_pidfd(child.identity)
    assert descriptor is not None
    assert not os.get_inheritable(descriptor)
    assert select.select([descriptor], [], [], 0)[0] == []
    child.let_go()
    assert select.select([descriptor], [], [], LONG)[0] == [descriptor]
    os.close(descriptor)


def test_no_pidfd_is_lost(started: Any) -> None:
    child = started("cat")
    process = child.identity
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        open_pidfd(replace(process, started=1))
        send(process, signal.SIGCONT)
        wait_for([process], 0)
        of_runs(["0"])
    assert len(os.listdir("/proc/self/fd")) == len(before)


def without_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel before 5.3, or a sandbox that refuses the call."""

    def refused(*_: object) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refused)


def test_without_pidfds_everything_works_by_polling(started: Any, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pidfds(monkeypatch)
    child = started("sh", "-c", "trap 'exit 7' TERM; echo up; read -r _", TINKSCHED_RUN_ID=run_id)
    child.lines(1)
    process = child.identity
    assert open_pidfd(process) is None
    assert not wait_for([process], 0)
    reaper = threading.Thread(target=child.process.wait)
    reaper.start()
    assert end(run_id, grace=LONG) == ([process], [])
    reaper.join(LONG)
    assert child.process.returncode == 7
    assert not send(process, signal.SIGTERM)


def test_a_python_that_was_built_without_pidfds_polls_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """See https://github.com/python-trio/trio/blob/main/src/trio/_subprocess.py for who builds it so."""
    me = identify(os.getpid())
    assert me is not None
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.delattr(signal, "pidfd_send_signal")
    assert open_pidfd(me) is None
    assert not wait_for([me], 0)
    assert send(me, signal.SIGCONT)


# ---------------------------------------------------------------- signals and waiting


def test_a_signal_goes_to_exactly_this_process(started: Any) -> None:
    child = started("cat")
    process = child.identity
    assert send(process, signal.SIGKILL)
    assert child.process.wait(LONG) == -signal.SIGKILL
    assert not send(process, signal.SIGKILL)


def test_term_wakes_a_stopped_process_up_to_hear_it(started: Any) -> None:
    child = started("sh", "-c", "trap 'exit 7' TERM; echo up; read -r _")
    child.lines(1)
    stop(child.identity)
    assert send(child.identity, signal.SIGTERM)
    assert child.process.wait(LONG) == 7


@pytest.mark.skipif(os.geteuid() == 0, reason="root may send signals to everybody")
def test_a_signal_to_somebody_else_is_refused_and_said() -> None:
    init = identify(1)
    assert init is not None
    assert not send(init, signal.SIGTERM)


def test_waiting_ends_with_the_last_of_them(started: Any) -> None:
    children = [started("cat") for _ in range(3)]
    all_of_them = [child.identity for child in children]
    assert not wait_for(all_of_them, 0)
    children[0].let_go()
    assert not wait_for(all_of_them, 0)
    goers = [threading.Thread(target=child.let_go) for child in children[1:]]
    for goer in goers:
        goer.start()
    assert wait_for(all_of_them, LONG)
    for goer in goers:
        goer.join(LONG)


def test_waiting_for_nobody_is_over_at_once() -> None:
    assert wait_for([], LONG)
    assert wait_for([Process(2**22 + 1, 1)], LONG)


def test_waiting_has_one_deadline_for_all(started: Any) -> None:
    all_of_them = [started("cat").identity for _ in range(5)]
    before = time.monotonic()
    assert not wait_for(all_of_them, 0.1)
    assert 0.1 <= time.monotonic() - before < 0.4


# ---------------------------------------------------------------- who belongs to a run

FAMILY = """
exec 3<&0  # what runs in the background gets another standard input
echo $$
cat <&3 & echo $!
env -i cat <&3 & echo $!
setsid cat <&3 & echo $!
sh -c 'echo $$; sh -c "echo \\$\\$; exec env -i cat <&3" & wait' &
(setsid sh -c 'echo $$; exec cat <&3' &)
exec cat <&3
"""


def test_the_processes_of_a_run_are_found_wherever_they_went(started: Any, run_id: str) -> None:
    """The main one, children that cleared their environment or left the session, grandchildren, an orphan."""
    child = started("sh", "-c", FAMILY, TINKSCHED_RUN_ID=run_id)
    family = {int(line) for line in child.lines(7)}
    assert len(family) == 7
    found = of_runs([run_id])[run_id]
    assert pids(found) == family
    assert all(process.alive() for process in found)
    assert len(found) == len(set(found))
    child.let_go()
    assert wait_for(found, LONG)
    assert of_runs([run_id]) == {run_id: []}


def test_others_are_never_found(started: Any, run_id: str) -> None:
    children = [
        started("cat", TINKSCHED_RUN_ID=run_id),
        started("cat", TINKSCHED_RUN_ID=f"{run_id}0"),
        started("cat", TINKSCHED_RUN_ID=run_id[:-1]),
        started("cat", TINKSCHED_RUN_ID=""),
        started("cat", X_TINKSCHED_RUN_ID=run_id),
        started("cat", TINKSCHED_RUN=f"ID={run_id}"),
        started("cat", NOTE=f"TINKSCHED_RUN_ID={run_id}"),
        started("sh", "-c", "exec cat", f"TINKSCHED_RUN_ID={run_id}"),
    ]
    assert pids(of_runs([run_id])[run_id]) == {children[0].process.pid}
    assert os.getpid() not in pids(of_runs([run_id])[run_id])


def test_several_runs_are_told_apart_in_one_look(started: Any, run_id: str) -> None:
    ids = [f"{run_id}{number}" for number in range(3)]
    children = {one: started("cat", TINKSCHED_RUN_ID=one) for one in ids[:2]}
    found = of_runs(iter(ids))
    assert {one: pids(members) for one, members in found.items()} == {
        ids[0]: {children[ids[0]].process.pid}, ids[1]: {children[ids[1]].process.pid}, ids[2]: set(),
    }  # fmt: skip
    assert of_runs([]) == {}


def test_a_run_within_a_run_has_its_own_processes(started: Any, run_id: str) -> None:
    """As where a run starts a workspace of its own: asked for both, each process belongs to the nearest."""
    inner = f"{run_id}-inner"
    nested = f"env {RUN_ID_VARIABLE}={inner} sh -c 'echo $$; env -i cat <&3 & echo $!; wait'"
    script = f"exec 3<&0; echo $$; {nested} & exec cat"
    child = started("sh", "-c", script, TINKSCHED_RUN_ID=run_id)
    main, root, below = (int(line) for line in child.lines(3))
    found = of_runs([run_id, inner])
    assert pids(found[run_id]) == {main}
    assert pids(found[inner]) == {root, below}


def test_what_descends_from_a_wrapper_is_its_runs_without_a_look_into_it(started: Any, run_id: str) -> None:
    """Neither the wrapper itself, nor what stands beside it."""
    below = "echo $$; env -i sh -c 'echo $$; exec cat' <&3 & wait"
    script = 'exec 3<&0; echo $$; sh -c "$0" & wait'
    wrapper, beside = started("sh", "-c", script, below), started("sh", "-c", "echo up; exec cat")
    main, child, grandchild = (int(line) for line in wrapper.lines(3))
    beside.lines(1)
    assert of_runs([run_id])[run_id] == [], "nothing about them tells"
    known = identify(main)
    assert known is not None
    assert pids(of_runs([run_id], wrappers={known: run_id})[run_id]) == {child, grandchild}
    assert of_runs([run_id], wrappers={replace(known, started=1): run_id})[run_id] == [], "another had this pid"


def test_zombies_of_a_run_are_not_counted(started: Any, run_id: str) -> None:
    """A main process that never waits for its children keeps them as zombies."""
    program = (
        "import os, sys\n"
        "if os.fork() == 0: os._exit(0)\n"
        "os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = started(sys.executable, "-c", program, TINKSCHED_RUN_ID=run_id)
    child.lines(1)
    assert pids(of_runs([run_id])[run_id]) == {child.process.pid}


@pytest.mark.parametrize("before", [{"OLD_TINKSCHED_RUN_ID": "x"}, {"NOTE": "see TINKSCHED_RUN_ID="}])
def test_other_variables_that_mention_the_name_hide_nothing(started: Any, run_id: str, before: dict[str, str]) -> None:
    child = started("sh", "-c", "echo up; read -r _", **before, TINKSCHED_RUN_ID=run_id)
    child.lines(1)  # in the middle of an exec, a process has no environment
    assert pids(of_runs([run_id])[run_id]) == {child.process.pid}


# What setproctitle does (Ray, vLLM, PostgreSQL): it writes over the memory that /proc/PID/environ shows.
WIPE = """
import ctypes, os, signal, sys
fields = open('/proc/self/stat').read().rpartition(')')[2].split()
start, end = int(fields[47]), int(fields[48])
ctypes.memset(start, 0, end - start)
"""


def test_a_child_that_wiped_its_environment_is_found_through_its_parent(started: Any, run_id: str) -> None:
    program = f"{WIPE}\nprint(os.getpid(), flush=True)\nsys.stdin.read()"
    script = 'exec 3<&0; "$0" -c "$1" <&3 & exec cat'
    child = started("sh", "-c", script, sys.executable, program, TINKSCHED_RUN_ID=run_id)
    (pid,) = child.lines(1)
    assert not Path(f"/proc/{pid}/environ").read_bytes().strip(b"\0")
    assert int(pid) in pids(of_runs([run_id])[run_id])


def test_a_main_process_that_wiped_its_environment_is_found_and_ended(
    run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the real wrapper, as a training script with a process title of its own runs."""
    monkeypatch.setattr(base, "WRAPPER_SECONDS", 0.5)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = f"{WIPE}\nopen({str(fifo)!r}, 'w').write(str(os.getpid()))\nsignal.pause()"
    run = prepared(tmp_path, run_id, [sys.executable, "-c", program])
    outcome = asyncio.run(_launch_and_stop(run, fifo))
    assert outcome == (True, True, False), "it is found, said to be dead, and alive all the same"


def test_a_scheduler_that_happens_to_hold_a_lease_under_the_same_number_is_no_process_of_the_run(
    started: Any, run_id: str, tmp_path: Path
) -> None:
    """Ending the run would end the scheduler. Its descriptors, unlike those that a run inherits, close on exec."""
    lease = tmp_path / f"index-0.{run_id}"
    lease.write_text("x")
    program = "import os, sys; os.dup2(os.open(sys.argv[1], os.O_RDWR), 9, inheritable=False)\n"
    child = started(sys.executable, "-c", f"{program}print('up', flush=True)\nsys.stdin.read()", str(lease))
    child.lines(1)
    assert of_runs([run_id])[run_id] == []


def test_who_holds_the_lease_of_another_run_is_not_of_this_one(started: Any, run_id: str, tmp_path: Path) -> None:
    for name in (f"index-0.{run_id}0", f"index-0.{run_id[1:]}", f"index-0.{run_id}.x", "x"):
        (tmp_path / name).write_text("x")
        child = started("sh", "-c", 'exec 9<>"$0"; echo up; exec cat', str(tmp_path / name))
        assert child.lines(1) == ["up"]
    assert of_runs([run_id])[run_id] == []


def test_who_inherited_the_lease_is_of_the_run_and_so_is_what_it_starts(
    started: Any, run_id: str, tmp_path: Path
) -> None:
    """Even where the file was removed meanwhile."""
    lease = tmp_path / f"index-0.{run_id}"
    lease.write_text("x")
    script = 'exec 9<>"$0"; exec 3<&0; echo $$; env -i cat <&3 9<&- & echo $!; exec env -i cat'
    child = started("sh", "-c", script, str(lease))
    family = {int(line) for line in child.lines(2)}
    assert pids(of_runs([run_id])[run_id]) == family
    lease.unlink()
    assert pids(of_runs([run_id])[run_id]) == family


def prepared(folder: Path, run_id: str, command: Sequence[str]) -> Run:
    """A run that has its lease and its files, as the scheduler makes one."""
    leases = Leases(folder / "leases")
    with leases.admission(["index-0"]) as desk:
        lease = desk.grant(["index-0"], Claim(run_id, "a", "/w", 1, 0.0))
    directory = folder / "run"
    RunDir(directory).prepare(command, {**PATH, RUN_ID_VARIABLE: run_id})
    run = Run(
        id=run_id, task_id=1, task="a", attempt=1, state=RunState.STARTING, gpus=(0,), devices=("index-0",),
        executor="local", session="", directory=str(directory), work_dir=str(folder), log=None, lease=str(lease.path),
        marker="", marker_before=None, boot_id=boot_id(), created_at=0.0,
    )  # fmt: skip
    lease.close()
    return run


async def _launch_and_stop(run: Run, fifo: Path) -> tuple[bool, bool, bool]:
    """Whether the main process was found, whether `stop` says that it is dead, and whether it is alive all the same."""
    executor = LocalExecutor(lambda: None)
    await executor.launch([run])
    main = identify(int(fifo.read_text()))
    assert main is not None
    try:
        found = main.pid in pids(of_runs([run.id])[run.id])
        stopped = await executor.stop(handle_of(run), grace=1.0)
        return found, stopped, main.alive()
    finally:
        send(main, signal.SIGKILL)
        await asyncio.to_thread(wait_for, [main], LONG)
        for child in executor._children.values():
            child.wait(LONG)
        executor.close()


# ---------------------------------------------------------------- ending a run


def reaped(child: Started) -> threading.Thread:
    """Somebody has to wait for the child, as the executor does: a zombie would not stay in the way, but in the test."""
    thread = threading.Thread(target=child.process.wait)
    thread.start()
    return thread


def test_a_run_that_obeys_gets_term_alone_and_its_time(started: Any, run_id: str) -> None:
    """It is over when the process is, not when the grace is; KILL would have given another code."""
    child = started("sh", "-c", "trap 'echo tidy; exit 7' TERM; echo up; read -r _", TINKSCHED_RUN_ID=run_id)
    child.lines(1)
    process, thread = child.identity, reaped(child)
    before = time.monotonic()
    assert end(run_id, grace=LONG) == ([process], [])
    assert time.monotonic() - before < LONG / 2
    assert child.lines(1) == ["tidy"]
    thread.join(LONG)
    assert child.process.returncode == 7


def test_a_run_that_ignores_term_is_killed_after_the_grace(started: Any, run_id: str) -> None:
    child = started("sh", "-c", "trap '' TERM; echo up; exec cat", TINKSCHED_RUN_ID=run_id)
    child.lines(1)
    process, thread = child.identity, reaped(child)
    before = time.monotonic()
    assert end(run_id, grace=0.2) == ([process], [])
    assert time.monotonic() - before >= 0.2
    thread.join(LONG)
    assert child.process.returncode == -signal.SIGKILL


def test_no_grace_is_kill_at_once(started: Any, run_id: str) -> None:
    child = started("sh", "-c", "trap 'exit 7' TERM; echo up; read -r _", TINKSCHED_RUN_ID=run_id)
    child.lines(1)
    thread = reaped(child)
    assert end(run_id, grace=0)[1] == []
    thread.join(LONG)
    assert child.process.returncode == -signal.SIGKILL


HYDRA = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def head():
    if os.fork() == 0:
        os.setsid()
        os.read(0, 1)
        os._exit(0)
for _ in range(3):
    head()
print('up', flush=True)
while True:
    os.wait()
    head()
"""


def test_a_run_that_replaces_what_is_killed_is_ended_all_the_same(started: Any, run_id: str) -> None:
    child = started(sys.executable, "-c", HYDRA, TINKSCHED_RUN_ID=run_id)
    child.lines(1)
    thread = reaped(child)
    signalled, left = end(run_id, grace=0.1)
    assert left == []
    assert len(signalled) >= 4
    thread.join(LONG)
    assert of_runs([run_id])[run_id] == []
    assert child.process.returncode == -signal.SIGKILL


def test_a_whole_family_is_ended(started: Any, run_id: str) -> None:
    child = started("sh", "-c", FAMILY, TINKSCHED_RUN_ID=run_id)
    family = {int(line) for line in child.lines(7)}
    thread = reaped(child)
    signalled, left = end(run_id, grace=LONG)
    assert left == []
    assert family <= pids(signalled)
    assert not any(process.alive() for process in signalled)
    thread.join(LONG)


def test_a_stopped_run_is_ended_within_its_grace(started: Any, run_id: str) -> None:
    child = started("sh", "-c", "trap 'exit 7' TERM; echo up; read -r _", TINKSCHED_RUN_ID=run_id)
    child.lines(1)
    stop(child.identity)
    thread = reaped(child)
    assert end(run_id, grace=LONG)[1] == []
    thread.join(LONG)
    assert child.process.returncode == 7


def test_a_stopped_run_that_ignores_term_is_killed(started: Any, run_id: str) -> None:
    child = started("sh", "-c", "trap '' TERM; echo up; exec cat", TINKSCHED_RUN_ID=run_id)
    child.lines(1)
    stop(child.identity)
    thread = reaped(child)
    assert end(run_id, grace=0.05)[1] == []
    thread.join(LONG)
    assert child.process.returncode == -signal.SIGKILL


def test_what_is_not_of_the_run_survives_its_end(started: Any, run_id: str) -> None:
    other = started("cat", TINKSCHED_RUN_ID=f"{run_id}x")
    child = started("cat", TINKSCHED_RUN_ID=run_id)
    thread = reaped(child)
    assert end(run_id, grace=LONG)[1] == []
    thread.join(LONG)
    assert other.identity.alive()
    assert other.let_go() == 0


def test_a_run_without_processes_is_ended_at_once(run_id: str) -> None:
    assert end(run_id, grace=LONG) == ([], [])


def test_what_a_run_starts_when_it_is_asked_to_end_is_ended_too(started: Any, run_id: str) -> None:
    """The first look can't have found it."""
    script = """
    exec 3<&0
    trap 'setsid sh -c "echo \\$\\$; exec cat" <&3 & exit 7' TERM
    echo up
    read -r _
    """
    child = started("sh", "-c", script, TINKSCHED_RUN_ID=run_id)
    child.lines(1)
    thread = reaped(child)
    signalled, left = end(run_id, grace=1.0)
    assert left == []
    assert len(signalled) >= 2
    assert of_runs([run_id])[run_id] == []
    thread.join(LONG)
    assert child.process.returncode == 7
    (late,) = child.lines(1)
    assert not late or int(late) in pids(signalled)


def test_the_wrapper_is_no_process_of_the_run(run_id: str, tmp_path: Path) -> None:
    """It must live to write down how the command ended."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    run = prepared(tmp_path, run_id, ["sh", "-c", f"echo $$ >{fifo}; exec cat {fifo}"])

    async def scenario() -> tuple[set[int], set[int]]:
        executor = LocalExecutor(lambda: None)
        (handle,) = (await executor.launch([run])).values()
        main = int(fifo.read_text())
        found = pids(of_runs([run_id])[run_id])
        assert await executor.stop(handle, grace=LONG)  # type: ignore[arg-type]
        for child in executor._children.values():
            child.wait(LONG)
        executor.close()
        return found, {main}

    found, main = asyncio.run(scenario())
    assert found == main
    status = RunDir(run.directory).exit_status()
    assert status is not None
    assert status.code == 128 + signal.SIGTERM


def test_this_module_says_which_variable_it_is() -> None:
    assert processes.RUN_ID_VARIABLE == "TINKSCHED_RUN_ID"


# ---------------------------------------------------------------- who is younger than a moment


def moment_at(monkeypatch: pytest.MonkeyPatch, last: int, forks: int, threads: int = 100, most: int = 32768) -> None:
    """From here on, the kernel says this."""
    texts = {
        "loadavg": f"0.1 0.2 0.3 2/{threads} {last}\n",
        "stat": f"cpu 1\nctxt 5\nbtime 3\nprocesses {forks}\nprocs_running 1\n",
        "sys/kernel/pid_max": f"{most}\n",
    }
    monkeypatch.setattr(processes, "_read", lambda name: texts[name].encode())


@pytest.mark.parametrize(
    ("last", "forks", "younger", "older"),
    [
        (1200, 300, [1001, 1200], [1, 999, 1000, 1201, 32767]),
        (1000, 0, [], [1, 1000, 1001]),
        (40, 2000, [1001, 32767, 1, 40], [41, 1000]),  # the numbers came round
        (1200, 9000, [1, 1000, 1001, 1200, 32767], []),  # so many that they may have come round unseen
    ],
)
def test_pids_tell_who_is_younger(
    monkeypatch: pytest.MonkeyPatch, last: int, forks: int, younger: list[int], older: list[int]
) -> None:
    moment_at(monkeypatch, last, forks)
    test = Moment(1000, 0, 100).younger()
    assert [pid for pid in younger if not test(pid)] == [] and [pid for pid in older if test(pid)] == []


def test_where_the_kernel_does_not_tell_everybody_may_be_younger(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = Moment(1000, 0, 100)
    monkeypatch.setattr(processes, "_read", lambda name: b"")
    assert Moment.now() is None and moment.younger()(1)


def test_a_process_of_a_run_that_began_after_the_moment_is_found() -> None:
    before = Moment.now()
    assert before is not None
    run_id = uuid.uuid4().hex
    child = Started(["cat"], {RUN_ID_VARIABLE: run_id})
    try:
        assert of_runs([run_id], before)[run_id] == of_runs([run_id])[run_id] == [child.identity]
        assert os.getpid() not in processes._own_processes(before)
    finally:
        child.process.communicate()
