"""What happens to the lease folder while tasks run: files deleted, the folder deleted, closed, read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import Bench, Gate, Lab
from tinksched.host.leases import Leases
from tinksched.host.processes import RUN_ID_VARIABLE

DEVICE = "index-0"


@pytest.fixture
def two(lab: Lab) -> tuple[Bench, Gate, Bench]:
    """A workspace whose task runs on the only slot, and another one whose task waits for it."""
    first = lab.workspace("first", gpu_count=1, max_jobs_per_gpu=1)
    gate = first.gate()
    first.add("long.yml", gate.config)
    first.run("start")
    first.wait_for_starts("long")
    second = lab.workspace("second", gpu_count=1, max_jobs_per_gpu=1, tasks={"next.yml": ""})
    second.run("start")
    second.wait_until(lambda: second.states() == {"next": "queued"})
    return first, gate, second


def leases(bench: Bench) -> list[Path]:
    return [path for path in bench.lab.leases.glob(f"{DEVICE}.*") if path.suffix != ".admission"]


def finish(first: Bench, gate: Gate, second: Bench) -> None:
    """The one that waits has not started; it does once the first one ends."""
    assert second.states() == {"next": "queued"}
    assert [line.task for line in first.record()] == ["long"]
    gate.open()
    first.wait_for_scheduler_end()
    second.wait_for_scheduler_end()
    assert (first.states(), second.states()) == ({"long": "completed"}, {"next": "completed"})
    lines = first.record()
    assert [line.task for line in lines] == ["long", "long", "next", "next"]


def test_a_lease_that_a_cleaner_deleted_is_restored(two: tuple[Bench, Gate, Bench]) -> None:
    first, gate, second = two
    (lease,) = leases(first)
    inode = lease.stat().st_ino
    lease.unlink()
    first.wait_until(lambda: lease.exists() and lease.stat().st_ino != inode and lease.stat().st_size)
    ((claim, _),) = Leases(first.lab.leases).holders(DEVICE)
    assert claim.task == "long" and claim.processes
    assert "restored" in (first.folder / "logs" / "T_scheduler.log").read_text()
    finish(first, gate, second)


def test_a_restored_lease_outlives_its_scheduler(two: tuple[Bench, Gate, Bench]) -> None:
    first, gate, second = two
    (lease,) = leases(first)
    lease.unlink()
    first.wait_until(lambda: lease.exists() and lease.stat().st_size)
    first.run("stop")
    first.wait_for_scheduler_end()
    ((claim, _),) = Leases(first.lab.leases).holders(DEVICE)
    assert claim.task == "long", "its processes prove it"
    second.run("start")  # looks at once
    first.run("start")
    finish(first, gate, second)


def test_a_lease_folder_that_was_deleted_is_made_again(two: tuple[Bench, Gate, Bench]) -> None:
    first, gate, second = two
    first.lab.leases.rename(first.lab.leases.with_name("elsewhere"))  # in one step; its content dies with it
    shutil.rmtree(first.lab.leases.with_name("elsewhere"))
    first.wait_until(lambda: first.lab.leases.is_dir() and leases(first))
    assert first.lab.leases.stat().st_mode & 0o7777 == 0o1777
    finish(first, gate, second)


def test_a_lease_folder_that_can_not_be_made_is_refused_before_anything_is_queued(lab: Lab) -> None:
    (lab.folder / "file").write_text("")
    lab.environment["TINKSCHED_LEASE_DIR"] = str(lab.folder / "file" / "leases")
    bench = lab.workspace(tasks={"a.yml": ""})
    answer = bench.run("start", code=2)
    assert "the folder for this host's GPU leases can't be made" in answer.err
    assert bench.states() == {"a": "new"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_read_only_lease_folder_is_named(lab: Lab) -> None:
    lab.leases.mkdir()
    bench = lab.workspace(tasks={"a.yml": ""})
    script = f"mount -t tmpfs -o ro none {lab.leases} && exec python -m tinksched start"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], cwd=bench.folder, env=lab.environment, capture_output=True, text=True
    )
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert done.returncode == 2
    assert f"{lab.leases}: the folder for this host's GPU leases is on a read-only file system" in done.stderr


def test_gpus_says_who_holds_what(two: tuple[Bench, Gate, Bench]) -> None:
    import json

    first, gate, second = two
    answer = json.loads(first.run("gpus", "--json", cwd=first.lab.folder).out)
    assert answer["version"] == 1
    (gpu,) = answer["gpus"]
    (holder,) = gpu["holders"]
    assert (gpu["index"], gpu["device"], gpu["present"]) == (0, DEVICE, None)
    assert (holder["task"], holder["workspace"], holder["limit"]) == ("long", str(first.folder), 1)
    assert holder["run"] in {
        part.removeprefix(f"{RUN_ID_VARIABLE}=")
        for pid, _ in first.lab.processes()
        for part in Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    }
    assert [(one["workspace"], one["tasks"]) for one in answer["waiting"]] == [(str(second.folder), 1)]
    shown = first.run("gpus").out
    assert "long" in shown and str(second.folder.name) in shown
    finish(first, gate, second)


def test_gpus_on_a_machine_without_any(lab: Lab) -> None:
    bench = lab.workspace()
    answer = bench.run("gpus", cwd=lab.folder)
    assert "no NVIDIA driver: slots only" in answer.text
    assert not lab.leases.exists(), "to look makes nothing"
