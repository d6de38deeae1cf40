"""A workspace on what the kernel calls a network file system.

It is a real FUSE mount with the type of sshfs, of a folder of this machine: what other hosts would do there can't be
seen here.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_restart import kill_scheduler
from tests.support import Lab

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("bindfs") is None or not Path("/dev/fuse").exists(),
    reason="needs root, bindfs and /dev/fuse: mounts a file system of a network type",
)


@pytest.fixture
def mounted(lab: Lab) -> Iterator[Path]:
    place = lab.folder / "net"
    for folder in (lab.folder / "behind", place):
        folder.mkdir()
    subprocess.run(["bindfs", "-o", "subtype=sshfs", str(lab.folder / "behind"), str(place)], check=True)
    yield place
    lab.close()
    subprocess.run(["umount", "-l", str(place)], check=True)


def journal(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])
    finally:
        connection.close()


def test_the_state_is_kept_without_a_write_ahead_log(lab: Lab, mounted: Path) -> None:
    bench = lab.workspace(f"{mounted.name}/ws", gpu_count=1)
    gate = bench.gate("../../gate")
    bench.add("a.yml", gate.config)
    bench.add("b.yml")
    assert "is on a network file system" in bench.run("start").err
    bench.wait_for_starts("a")
    bench.wait_for_states(a="running", b="completed")
    assert not Path(f"{bench.state.database}-wal").exists()
    assert journal(bench.state.database) != "wal"
    assert "network file system (fuse.sshfs)" in bench.run("doctor").out
    assert kill_scheduler(bench)
    gate.open()
    bench.run("start")
    bench.wait_for_states(a="completed")
    assert bench.starts() == {"a": 1, "b": 1}


def test_a_local_state_dir_is_as_fast_as_ever(lab: Lab, mounted: Path) -> None:
    local = lab.folder / "local"
    bench = lab.workspace(
        f"{mounted.name}/ws", gpu_count=1, executor="local", state_dir=str(local), tasks={"a.yml": ""}
    )
    assert "network" not in bench.run("start", "--wait").err
    assert journal(local / "state.db") == "wal"
    assert bench.states() == {"a": "completed"}
