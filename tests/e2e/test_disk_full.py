"""Full and read-only disks: nothing that was accepted is lost, nothing runs twice, and it goes on by itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import TIMEOUT, Bench, Lab
from tinksched.host.rundir import RunDir
from tinksched.host.statedir import SchedulerLock

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small file system")


class Disk:
    """A small file system that the test can fill and empty."""

    def __init__(self, place: Path, options: str) -> None:
        self.place = place
        place.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=True)

    @property
    def free(self) -> int:
        """Bytes that are free."""
        status = os.statvfs(self.place)
        return status.f_bavail * status.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Use up all space but `leave` bytes."""
        room = self.free - leave
        descriptor = os.open(self.place / "filler", os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            if room > 0:
                os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, room)
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        """Give the space back."""
        (self.place / "filler").unlink(missing_ok=True)

    def use_inodes(self) -> None:
        """Make empty files until there can't be one more."""
        folder = self.place / "empty"
        folder.mkdir()
        with contextlib.suppress(OSError):
            for number in range(100_000):
                (folder / str(number)).touch()

    def free_inodes(self) -> None:
        """Delete them."""
        shutil.rmtree(self.place / "empty")

    def remount(self, option: str) -> None:
        """`ro` or `rw`."""
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.place)], check=True)

    def close(self) -> None:
        """Take it away."""
        subprocess.run(["umount", "-l", str(self.place)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk", "size=8m,nr_inodes=2000")
    yield made
    made.close()


def on(disk: Disk, lab: Lab, name: str = "ws", **settings: object) -> Bench:
    """A workspace on the disk; what the tasks record themselves lies elsewhere."""
    return lab.workspace(f"{disk.place.name}/{name}", min_free_disk=0, check_interval=3600, **settings)


def wait_for(true: Callable[[], object], what: str) -> None:
    """Look until it is true; nobody announces anything on a disk where no socket can be made."""
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)


def ended(bench: Bench) -> int:
    """How many runs have written down how they ended."""
    return sum(RunDir(entry).exit_status() is not None for entry in bench.state.runs.iterdir())


@pytest.mark.parametrize("executor", ["tmux", "local"])
def test_runs_that_end_on_a_full_disk_are_recorded_when_there_is_space_again(
    lab: Lab, disk: Disk, executor: str
) -> None:
    bench = on(disk, lab, gpu_count=1, executor=executor)
    gate = bench.gate("../../gate")
    bench.add("good.yml", gate.config)
    bench.add("bad.yml", gate.config + "code: 7\n")
    bench.add("later.yml")
    bench.run("start")
    bench.wait_for_starts("good", "bad")
    bench.wait_for_states(good="running", bad="running", later="queued")
    disk.fill()
    gate.open()
    bench.wait_until(lambda: ended(bench) == 2, "both ended")
    assert bench.states()["later"] == "queued", "status works on a full disk"
    disk.empty()
    bench.wait_for_states(good="completed", bad="failed", later="completed")
    assert bench.tasks()["bad"]["exit_code"] == 7
    assert bench.starts() == {"good": 1, "bad": 1, "later": 1}


def test_a_run_that_ends_on_a_disk_that_became_read_only_keeps_its_exit_code(lab: Lab, disk: Disk) -> None:
    bench = on(disk, lab, gpu_count=1, max_jobs_per_gpu=1, enable_logging=False)
    gate = bench.gate("../../gate")
    bench.add("bad.yml", gate.config + "code: 7\n")
    bench.add("later.yml")
    bench.run("start")
    bench.wait_for_starts("bad")
    bench.run("stop")
    disk.remount("ro")
    gate.open()
    wait_for(lambda: any(line.what == "end" for line in bench.record()), "the end of its command")
    assert bench.run("status").code == 0
    disk.remount("rw")
    wait_for(lambda: ended(bench) == 1, "its exit code")
    bench.run("start")
    bench.wait_for_states(bad="failed", later="completed")
    assert bench.tasks()["bad"]["exit_code"] == 7
    assert bench.starts() == {"bad": 1, "later": 1}


def test_everything_can_be_stopped_on_a_full_disk(lab: Lab, disk: Disk) -> None:
    bench = on(disk, lab, gpu_count=1)
    gate = bench.gate("../../gate")
    for name in ("a", "b", "c"):
        bench.add(f"{name}.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a", "b")
    bench.wait_for_states(a="running", b="running")
    disk.fill()
    answer = bench.run("cancel", "a", code=1)
    assert "ended: a; this could not be recorded" in answer.err and "No space left on device" in answer.err
    answer = bench.run("stop", code=1)
    assert "stopped: the scheduler; this could not be recorded" in answer.err
    assert not SchedulerLock(bench.state).is_held()
    answer = bench.run("kill-all", code=1)
    assert "killed: b; this could not be recorded" in answer.err
    assert "can't be written" in bench.run("kill-all", code=2).err, "and nothing was left to be killed"
    assert not lab.processes(exclude=("tmux",))
    assert bench.states() == {"a": "failed", "b": "failed", "c": "queued"}, "as their exit codes say"
    disk.empty()
    bench.run("kill-all")
    assert bench.states()["c"] == "cancelled"
    assert bench.starts() == {"a": 1, "b": 1}


def test_a_state_without_a_free_inode(lab: Lab, disk: Disk) -> None:
    bench = on(disk, lab, gpu_count=1, max_jobs_per_gpu=1)
    gate = bench.gate("../../gate")
    bench.add("a.yml", gate.config)
    bench.add("b.yml")
    bench.run("start")
    bench.wait_for_starts("a")
    bench.wait_for_states(a="running")
    disk.use_inodes()
    assert "No space left" in bench.run("start", code=2).err
    assert bench.states() == {"a": "running", "b": "queued"}
    gate.open()
    wait_for(lambda: ended(bench) == 1, "its exit code")
    disk.free_inodes()
    bench.wait_for_states(a="completed", b="completed")
    assert bench.starts() == {"a": 1, "b": 1}


@pytest.mark.timeout(300)
def test_every_amount_of_free_space(lab: Lab, disk: Disk) -> None:
    """`start` and its runs meet the end of the disk at each of their writes, one after the other."""
    for pages in (*range(16), 20, 28, 40):
        bench = on(disk, lab, f"ws{pages}", executor="local")
        for name in ("a", "b", "c"):
            bench.add(f"{pages}-{name}.yml")
        disk.fill(leave=pages * 4096)
        answer = bench.run("start", code=None)
        known = {name for name, state in bench.states().items() if state != "new"}
        assert answer.code in (0, 1, 2), answer.text
        assert answer.code != 0 or len(known) == 3, "what was accepted is on record"
        disk.empty()
        bench.run("start")
        wanted = {f"{pages}-{name}" for name in ("a", "b", "c")}
        bench.wait_for_states(**dict.fromkeys(wanted, "completed"))
        assert {name: bench.starts()[name] for name in wanted} == dict.fromkeys(wanted, 1), f"{pages} pages"
        bench.wait_for_scheduler_end()
        shutil.rmtree(bench.folder)
