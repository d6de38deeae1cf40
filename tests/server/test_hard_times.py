"""A full disk, a state that is deleted, an engine that dies: what was accepted is kept, and the server says so."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_disk_full import Disk
from tests.server.test_faults import change
from tests.server.test_stopping import gated
from tests.serving import Serving, until
from tests.support import TIMEOUT, Lab


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk", "size=8m,nr_inodes=2000")
    yield made
    made.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small file system")
def test_a_full_disk_refuses_jobs_and_keeps_those_that_run(
    serving: Callable[..., Serving], disk: Disk, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    server = serving(state_dir=str(disk.place / "state"), cpu_slots=1).start()
    server.state = disk.place / "state"
    token = server.token("alice")
    running = server.submit(token, gated(gate), wait=False).json()["job_id"]
    pending = server.submit(token, wait=False).json()["job_id"]
    server.wait_for(token, running, "running")
    disk.fill()
    answer = server.submit(token, wait=False)
    assert (answer.status_code, answer.json()) == (507, {"detail": "The server's disk is full"})
    assert server.job(token, running)["status"] == "running", "looking works"
    gate.touch()
    disk.empty()
    assert server.wait_for(token, running, "completed")["exit_code"] == 0
    server.wait_for(token, pending, "completed")
    assert server.job(token, running, "results")["stdout"] == "through\n"
    assert set(os.listdir(server.state / "jobs")) == {running, pending}, "what was refused left nothing behind"
    with server.client(token) as client:
        assert len(client.get("/api/jobs").json()) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small file system")
def test_results_that_can_not_be_written_are_answered_and_written_later(
    serving: Callable[..., Serving], disk: Disk
) -> None:
    results = disk.place / "results"
    server = serving(results_dir=str(results)).start()
    token = server.token("alice")
    disk.fill()
    answer = server.submit(token, "print('x' * 100_000)").json()
    assert (answer["status"], len(answer["stdout"])) == ("completed", 100_001), "nobody waits for the disk"
    assert "its results can't be written yet" in server.log() and not list(results.iterdir())
    assert server.job(token, answer["job_id"], "results")["stdout"] == answer["stdout"]
    assert answer["results_file"] is None, "it is not there"
    disk.empty()
    server.submit(token).raise_for_status()
    file = Path(until(lambda: server.job(token, answer["job_id"], "results")["results_file"], bool))
    until(lambda: file.exists() and file.read_text() == answer["stdout"], bool)
    assert len(list(results.iterdir())) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small file system")
def test_less_free_space_than_is_wanted_refuses_jobs(serving: Callable[..., Serving], disk: Disk) -> None:
    server = serving(state_dir=str(disk.place / "state"), min_free_disk="6MB").start()
    server.state = disk.place / "state"
    token = server.token("alice")
    assert server.submit(token).status_code == 200
    disk.fill(leave=5_000_000)
    assert server.submit(token).status_code == 507
    disk.empty()
    assert server.submit(token).status_code == 200


def test_a_state_that_is_deleted_is_put_back_and_nobody_notices(
    serving: Callable[..., Serving], lab: Lab, tmp_path: Path
) -> None:
    lab.environment["SECRET"] = "of the server"
    server = serving().start()
    token = server.token("alice")
    gate = tmp_path / "gate"
    running = server.submit(token, gated(gate), wait=False).json()["job_id"]
    server.wait_for(token, running, "running")
    pending = server.submit(token, "import json, os\nprint(json.dumps(dict(os.environ)))\n", wait=False).json()[
        "job_id"
    ]
    shutil.rmtree(server.state / ".tinksched")
    until(lambda: (server.state / ".tinksched" / "state.db").exists(), bool)
    after = until(lambda: server.submit(token, wait=False), lambda answer: answer.status_code == 200).json()["job_id"]
    gate.touch()
    for job in (running, pending, after):
        assert server.wait_for(token, job, "completed")["exit_code"] == 0
    assert server.job(token, running, "results")["stdout"] == "through\n"
    assert "SECRET" not in json.loads(server.job(token, pending, "results")["stdout"])
    with server.client() as client:
        assert client.get("/health").status_code == 200
    assert "another server works here" in server.run("serve", code=2).err, "the lock is held again"
    assert server.stop() == 0


def test_an_end_that_can_not_be_put_on_record_keeps_up_nobody(server: Serving) -> None:
    token = server.token("alice")
    change(
        server.state / ".tinksched" / "state.db",
        "CREATE TRIGGER defect BEFORE UPDATE OF collected ON server_jobs WHEN NEW.competition_id = 'bad' "
        "BEGIN SELECT RAISE(ABORT, 'a defect'); END",
    )
    assert server.submit(token, competition_id="bad").json()["stdout"] == "hello\n"
    assert server.submit(token).json()["stdout"] == "hello\n"
    assert server.log().count("a defect") == 1


def test_an_engine_that_has_died_is_no_secret(serving: Callable[..., Serving], tmp_path: Path) -> None:
    server = serving().start()
    token = server.token("alice")
    waiting: list[dict[str, Any]] = []
    client = threading.Thread(target=lambda: waiting.append(server.submit(token, gated(tmp_path / "gate")).json()))
    client.start()
    with server.client(token) as http:
        job = until(lambda: http.get("/api/jobs").json(), bool)[0]["job_id"]
        server.wait_for(token, job, "running")
        assert http.get("/health").status_code == 200
        server.state.rename(server.state.with_name("moved away"))
        client.join(TIMEOUT)
        assert waiting[0]["status"] == "running", "nobody waits for what will not come"
        health = http.get("/health")
        assert health.status_code == 503 and health.json()["status"] == "unhealthy"
        assert "was deleted" in health.json()["scheduler"]
    answer = server.submit(token, wait=False)
    assert answer.status_code == 503 and answer.headers["retry-after"]
    assert server.stop() == 0
    (tmp_path / "gate").touch()
    server.state.with_name("moved away").rename(server.state)
    server.start()
    assert server.wait_for(token, job, "completed")["exit_code"] == 0
