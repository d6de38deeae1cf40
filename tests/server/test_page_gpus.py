"""The GPUs on the page: what they do now and did, whose runs are on them, and who else is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nvml_double import GIB, Gpu, NvmlDouble, Process
from tests.server.test_page import FOREVER, following
from tests.serving import Serving, until
from tests.support import Lab


@pytest.fixture
def double(lab: Lab, tmp_path: Path) -> NvmlDouble:
    """A machine with two GPUs, which the server sees."""
    found = NvmlDouble(tmp_path)
    found.write(Gpu("GPU-a"), Gpu("GPU-b"))
    lab.environment.update(found.environment())
    return found


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody who does not use tinksched."""
    process = subprocess.Popen(["sleep", "987"], env={})
    yield process
    process.kill()
    process.wait()


def test_gpus_with_their_runs_and_strangers(
    serving: Callable[..., Serving], double: NvmlDouble, stranger: subprocess.Popen[bytes]
) -> None:
    taken = Gpu("GPU-a", utilization=90, temperature=61, power=300.0, processes=(Process(stranger.pid, 5 * GIB),))
    double.write(taken, Gpu("GPU-b"))
    server = serving().start()
    alice, bob, root = server.token("alice"), server.token("bob"), server.token("root", admin=True)
    job = server.submit(alice, FOREVER, wait=False).json()["job_id"]
    server.wait_for(alice, job, "running")
    server.submit(alice, FOREVER, wait=False)

    def gpus(token: str) -> list[dict[str, Any]]:
        with server.client(token) as client:
            found: list[dict[str, Any]] = client.get("/dashboard/api/state").json()["gpus"]
        return found

    first, second = until(lambda: gpus(alice), lambda gpus: gpus and gpus[1]["runs"])
    assert (first["uuid"], first["slots"], first["runs"], first["utilization"]) == ("GPU-a", 1, [], 90)
    assert first["foreign"] == [{"user": None, "command": None, "memory": 5 * GIB}], "it may be a job that hides"
    assert first["history"]["memory"][-1] == 5 * GIB and first["history"]["utilization"][-1] == 90
    (run,) = second["runs"]
    assert (run["job"], run["user"], run["name"]) == (job, "alice", "comp/proj") and run["since"]
    assert gpus(root)[0]["foreign"][0]["command"] == "sleep 987"
    (run,) = gpus(bob)[1]["runs"]
    assert (run["job"], run["user"], run["name"]) == (None, None, None)
    with server.client(alice) as client:
        waiting = until(
            lambda: client.get("/dashboard/api/state").json()["jobs"][1], lambda job: "GPU 0" in (job["reason"] or "")
        )
    assert "other people's processes" in waiting["reason"] and waiting["place"] == 1
    with following(server, alice) as events:
        next(events)
        double.write(Gpu("GPU-a", utilization=10), Gpu("GPU-b"))
        seen: list[dict[str, Any]] = []
        while not seen or seen[0]["foreign"] or not seen[0]["runs"]:  # it starts once the stranger has gone
            seen = next(events)[1].get("gpus", seen)
