"""The workspace in which a server's jobs run, and the commands that work on it as on any other."""

from __future__ import annotations

import os
from pathlib import Path

from tests.server.test_faults import change
from tests.serving import Serving, until
from tests.support import TIMEOUT

COUNT = """
with open('count', 'a+') as count:
    count.write('x')
    count.seek(0)
    text = count.read()
print(len(text), flush=True)
if len(text) == 2:
    import time
    while not __import__('os').path.exists('gate'):
        time.sleep(0.02)
"""


def test_the_results_of_a_job_that_is_run_again_are_written_too(server: Serving) -> None:
    token = server.token("alice")
    first = server.submit(token, COUNT).json()
    server.workspace("retry", first["job_id"])
    server.wait_for(token, first["job_id"], "running")
    assert server.process is not None
    with (
        server.client(token) as client,
        client.stream("GET", f"/api/logs/{first['job_id']}", timeout=TIMEOUT) as stream,
    ):
        text = stream.iter_text()
        seen = next(text)
        (server.state / "jobs" / first["job_id"] / "gate").touch()
        seen += "".join(text)
    assert seen.count("still there") == 0, "nobody spins"
    assert '"status": "completed"' in seen
    again = until(lambda: server.job(token, first["job_id"], "results"), lambda job: job["results_file"])
    assert again["results_file"] != first["results_file"] and again["stdout"].endswith("2\n")
    assert all(Path(job["results_file"]).read_text() for job in (first, again))


def test_stop_is_a_pause_that_is_no_secret(server: Serving) -> None:
    token = server.token("alice")
    said = server.workspace("stop", code=1).err
    assert "a server works here" in said and "kill -TERM" in said and "kill -9" not in said
    job = server.submit(token, wait=False).json()["job_id"]
    assert server.job(token, job)["reason"] == "the administrator has stopped the start of jobs"
    with server.client() as client:
        health = client.get("/health")
        assert health.status_code == 503 and health.json()["scheduler"].startswith("stopped by ")
        server.workspace("start")
        server.wait_for(token, job, "completed")
        assert client.get("/health").status_code == 200


def test_a_pause_and_a_hold_are_no_secret_either(server: Serving) -> None:
    token = server.token("alice")
    server.workspace("pause")
    job = server.submit(token, wait=False).json()["job_id"]
    with server.client() as client:
        health = client.get("/health")
        assert health.status_code == 503 and health.json()["scheduler"].startswith("paused by ")
        assert "resume goes on" in health.json()["scheduler"]
        assert server.job(token, job)["reason"] == "the administrator has stopped the start of jobs"
        server.workspace("hold", job)
        server.workspace("resume")
        assert client.get("/health").status_code == 200
        assert server.job(token, job)["reason"] == "the administrator has it wait"
        server.workspace("release", job, "--at", "+2h")
        assert server.job(token, job)["reason"].startswith("the administrator has it wait until 20")
        server.workspace("release", job)
        server.wait_for(token, job, "completed")


def test_kill_all_ends_every_job_and_the_server_goes_on(server: Serving) -> None:
    token = server.token("alice")
    running, waiting = (
        server.submit(token, "import time\ntime.sleep(600)\n", wait=False).json()["job_id"] for _ in range(2)
    )
    server.wait_for(token, running, "running")
    said = server.workspace("kill-all", code=1)
    assert f"killed: {running}" in said.out and f"cancelled in the queue: {waiting}" in said.out
    assert "a server works here" in said.err and "kill -TERM" in said.err
    for job in (running, waiting):
        assert server.job(token, job)["status"] == "cancelled"
    server.workspace("start")
    assert server.submit(token).json()["status"] == "completed"


def test_a_record_that_is_cleaned_takes_the_job_with_it(server: Serving) -> None:
    token = server.token("alice")
    job = server.submit(token).json()["job_id"]
    server.workspace("clean", job, "--yes")
    with server.client(token) as client:
        assert client.get(f"/api/status/{job}").status_code == 404
    assert f"jobs/{job}: belongs to no job" in server.run("db", "check", code=1).out
    server.run("db", "clean", "--older-than", "0s", "--yes")
    assert server.run("db", "check").out.startswith("ok: 0 jobs")
    assert not (server.state / "output" / job).exists()


def test_a_repair_would_lose_what_is_the_servers_and_is_refused(server: Serving) -> None:
    server.token("alice")
    assert server.stop() == 0
    database = server.state / ".tinksched" / "state.db"
    change(database, "PRAGMA application_id = 7")
    before = os.listdir(database.parent)
    assert "tinksched db restore" in server.workspace("doctor", "--repair", code=2).err
    assert os.listdir(database.parent) == before
    change(database, f"PRAGMA application_id = {0x74_69_6E_6B}")
