"""Two Unix users with schedulers of their own on the GPUs of one host: never beside each other, and in turns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.nvml_double import GIB, Gpu, NvmlDouble
from tests.support import Bench, Lab
from tinksched.host.owners import Owners
from tinksched.host.processes import identify

TASKS = int(os.environ.get("TINKSCHED_FAIR_TASKS", "40"))
USERS = (61001, 61002)
TASK = """#!/bin/sh
begin=$(date +%s.%N)
sleep 0.02
end=$(date +%s.%N)
echo "$(id -u) $TINKSCHED_GPUS $begin $end" >>"$RECORD"
"""

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become two other users"
)


def become(uid: int) -> list[str]:
    """What starts a program as another user, who may read the Python of whoever runs the tests, and no more."""
    caps = ["--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search"]
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", *caps]


def workspace(lab: Lab, uid: int, tasks: int, **settings: object) -> tuple[Bench, dict[str, str]]:
    """A workspace that belongs to the user, and the environment of that user."""
    bench = lab.workspace(f"ws{uid}", check_interval=120, **settings)
    (bench.folder / "train.sh").write_text(TASK)
    for number in range(tasks):
        bench.add(f"t{number:03}.yml")
    home = lab.folder / f"home{uid}"
    sockets = Path(lab.environment["TMUX_TMPDIR"]) / str(uid)
    for folder in (home, sockets):
        folder.mkdir()
    everything = [home, sockets, bench.folder, *bench.folder.rglob("*")]
    for path in everything:
        os.chown(path, uid, uid)
    return bench, {**lab.environment, "HOME": str(home), "TMUX_TMPDIR": str(sockets), "USER": str(uid)}


@pytest.fixture
def shared() -> Iterator[Lab]:
    """A laboratory that other users may enter, which the folders of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="tinksched-users-", ignore_cleanup_errors=True) as folder:
        lab = _opened(Lab(Path(folder)))
        yield lab
        lab.close()
        assert not lab.processes()


def _opened(lab: Lab) -> Lab:
    for folder in (lab.folder, Path(lab.environment["TMUX_TMPDIR"])):
        folder.chmod(0o755)
    lab.leases.mkdir()
    lab.leases.chmod(0o1777)
    record = Path(lab.environment["RECORD"])
    record.touch()
    record.chmod(0o666)
    return lab


def run_all(shared: Lab, slots: int, executors: tuple[str, str]) -> list[tuple[int, str, float, float]]:
    """Both users' tasks, all of them. Returns who ran on what GPU from when to when, in the order of their starts."""
    running = []
    for uid, executor in zip(USERS, executors, strict=True):
        settings = {"gpu_count": 1, "max_jobs_per_gpu": slots, "executor": executor}
        bench, environment = workspace(shared, uid, TASKS, **settings)
        command = [*become(uid), sys.executable, "-m", "tinksched", "start", "--foreground"]
        running.append(
            subprocess.Popen(
                command, cwd=bench.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    for scheduler in running:
        output, _ = scheduler.communicate(timeout=110)
        assert scheduler.returncode == 0, output
    lines = [line.split() for line in Path(shared.environment["RECORD"]).read_text().splitlines()]
    return sorted(((int(u), gpu, float(b), float(e)) for u, gpu, b, e in lines), key=lambda line: line[2])


@needs_root
@pytest.mark.parametrize("executors", [("tmux", "tmux"), ("tmux", "local")])
def test_two_users_share_a_slot_evenly_and_never_overlap(shared: Lab, executors: tuple[str, str]) -> None:
    ran = run_all(shared, 1, executors)
    assert Counter(uid for uid, *_ in ran) == dict.fromkeys(USERS, TASKS)
    overlaps = [(a, b) for a, b in pairwise(ran) if b[2] < a[3]]
    assert overlaps == []
    order = [uid for uid, *_ in ran]
    first = max(order.index(uid) for uid in USERS)  # both are there
    last = min(len(order) - order[::-1].index(uid) for uid in USERS)  # both still have tasks
    both = Counter(order[first:last])
    print(f"of {last - first} starts while both had tasks: {dict(both)}; overlaps: {len(overlaps)}")
    assert last - first >= TASKS
    assert abs(both[USERS[0]] - both[USERS[1]]) <= 0.1 * (last - first)


@needs_root
def test_two_users_on_two_slots_are_never_more_than_two(shared: Lab) -> None:
    ran = run_all(shared, 2, ("tmux", "tmux"))
    assert Counter(uid for uid, *_ in ran) == dict.fromkeys(USERS, TASKS)
    events = sorted([(begin, 1) for *_, begin, _ in ran] + [(end, -1) for *_, end in ran])
    now = most = 0
    for _, change in events:
        now += change
        most = max(most, now)
    assert most == 2


# ---------------------------------------------------------------- where /proc hides the processes of others

ALICE, BOB = USERS
# Holds 30 GiB of its GPU until the file `end` is there.
HOLDS = """#!/bin/sh
echo "process $CUDA_VISIBLE_DEVICES compute $$ $((30 << 30))" >"$NVML_DOUBLE_PROCESSES/$$"
until [ -e end ]; do sleep 0.05; done
"""


def hidden(level: int) -> list[str]:
    """What starts a program where /proc is mounted so; everywhere else it stays as it is."""
    return ["unshare", "--mount", "sh", "-c", f'mount -t proc -o hidepid={level} proc /proc && exec "$@"', "sh"]


def looks_at_root(level: int) -> bool:
    """Whether a user can look at root's first process there."""
    command = [*hidden(level), *become(ALICE), "cat", "/proc/self/stat", "/proc/1/stat"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return not done.stdout or not done.returncode  # without any output nothing could be mounted


def needs_hidden(level: int) -> None:
    if Owners().look([1]) is None:
        pytest.skip("in a container without the host's pids nobody can tell processes apart")
    if looks_at_root(level):
        pytest.skip("/proc can't be mounted with hidepid here")


@pytest.fixture
def double(shared: Lab) -> NvmlDouble:
    """One GPU that all users see."""
    double = NvmlDouble(shared.folder)
    shared.environment.update(double.environment())
    double.library.chmod(0o755)
    double.processes.chmod(0o1777)
    double.write(Gpu("GPU-aaaaaaaa-0000"))
    return double


def of(shared: Lab, uid: int, *prefix: str) -> Bench:
    """A workspace of that user with one task, which holds memory of the GPU."""
    settings = {"gpu_count": 1, "max_jobs_per_gpu": 4, "executor": "local"}
    bench, environment = workspace(shared, uid, 1, **settings)
    (bench.folder / "train.sh").write_text(HOLDS)
    home = [f"{name}={environment[name]}" for name in ("HOME", "TMUX_TMPDIR", "USER")]
    bench.prefix = [*prefix, *become(uid), "env", *home]
    return bench


@needs_root
@pytest.mark.parametrize("level", [1, 2])
def test_a_hidden_run_of_somebody_else_is_no_stranger(shared: Lab, double: NvmlDouble, level: int) -> None:
    needs_hidden(level)
    his, hers = of(shared, BOB), of(shared, ALICE, *hidden(level))
    his.run("start")
    his.wait_until(lambda: list(double.processes.iterdir()), "his run holds memory")
    hers.run("start")
    hers.wait_for_states(t000="running")
    hers.wait_until(lambda: len(list(double.processes.iterdir())) == 2, "her run beside it")
    (gpu,) = json.loads(hers.run("gpus", "--json").out)["gpus"]
    owners = {process["user"]: (process["command"] is None, process["run"]) for process in gpu["state"]["processes"]}
    assert owners.pop(str(BOB) if level == 1 else None) == (True, None)
    assert list(owners) == [str(ALICE)], "her own ones she sees"
    assert "may be tinksched's" in hers.run("gpus", COLUMNS="200").out
    for bench in (his, hers):
        (bench.folder / "end").touch()
        bench.wait_for_scheduler_end()


@needs_root
def test_a_hidden_process_where_nobody_has_a_run_is_respected(shared: Lab, double: NvmlDouble) -> None:
    needs_hidden(2)
    hers = of(shared, ALICE, *hidden(2))
    (hers.folder / "end").touch()
    with subprocess.Popen([*become(BOB), "sleep", "600"]) as stranger:
        double.hold(stranger.pid, GIB)
        hers.run("start")
        said = f"a process whose owner can't be seen is on GPU 0 (pid {stranger.pid})"
        hers.wait_until(lambda: said in str(hers.tasks()["t000"]["reason"]), "the reason")
        checks = json.loads(hers.run("doctor", "--json", code=None).out)["checks"]
        (found,) = [check for check in checks if check["name"] == "processes"]
        assert found["level"] == "warn" and "hidepid" in found["what"] and "remount,hidepid=0" in found["todo"]
        stranger.kill()
    hers.wait_for_states(t000="completed")


@needs_root
def test_a_hidden_process_that_proves_a_lease_is_not_taken_for_dead() -> None:
    """A lease that was written anew is not locked by its run: the run's processes prove that it lives."""
    needs_hidden(2)
    look = (
        "import sys; from tinksched.host.processes import Process; print(Process(*map(int, sys.argv[1:])).may_live())"
    )
    with subprocess.Popen([*become(BOB), "sleep", "600"]) as process:
        known = identify(process.pid)
        assert known is not None and known.may_live()
        command = [*hidden(2), *become(ALICE), sys.executable, "-c", look, str(known.pid), str(known.started)]
        assert subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout == b"True\n"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not known.may_live(), "a zombie has given back what it held"
    assert subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout == b"False\n"
