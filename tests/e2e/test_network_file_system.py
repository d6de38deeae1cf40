"""A workspace on what the kernel calls a network file system.

It is a real FUSE mount with the type of sshfs, of a folder of this machine: what other hosts would do there can't be
seen here.
"""

from __future__ import annotations

import json
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
    bench = lab.workspace(f"{mounted.name}/ws", gpu_count=1, state_dir=".tinksched")
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


def test_by_itself_the_state_lies_on_a_local_disk_and_other_hosts_are_told(lab: Lab, mounted: Path) -> None:
    bench = lab.workspace(f"{mounted.name}/ws", gpu_count=1, tasks={"a.yml": ""})
    assert "network" not in bench.run("start", "--wait").err
    assert bench.states() == {"a": "completed"}
    config = json.loads(bench.run("config", "--json").out)
    shown = config["settings"]["state_dir"]
    state = Path(shown["value"])
    assert state.parent == Path(lab.environment["HOME"]) / ".local" / "state" / "tinksched"
    assert "network file system" in shown["from"]
    assert journal(state / "state.db") == "wal"
    inside = bench.folder / ".tinksched"
    assert sorted(path.name for path in inside.iterdir()) == ["elsewhere", "home"]

    moved = bench.folder.with_name("moved")
    bench.folder.rename(moved)
    assert bench.run("status", "--workspace", str(moved), cwd=lab.folder).out.count("completed") >= 1
    moved.rename(bench.folder)

    home = json.loads((inside / "home").read_text())
    (inside / "home").write_text(json.dumps({**home, "machine": "another", "host": "elsewhere.example"}))
    for command in ("status", "start", "kill-all"):
        answer = bench.run(command, code=None)
        assert answer.code != 0 and "worked on by the host elsewhere.example" in answer.err, command


def test_state_that_is_in_the_workspace_already_stays_there(lab: Lab, mounted: Path) -> None:
    bench = lab.workspace(f"{mounted.name}/ws", gpu_count=1, state_dir=".tinksched", tasks={"a.yml": ""})
    bench.run("start", "--wait")
    settings = {key: value for key, value in bench.settings.items() if key != "state_dir"}
    bench.configure(**settings)
    assert bench.states() == {"a": "completed"}
