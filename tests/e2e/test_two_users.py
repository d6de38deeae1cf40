"""Two Unix users with schedulers of their own on the GPUs of one host: never beside each other, and in turns."""

from __future__ import annotations

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

from tests.support import Bench, Lab

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
