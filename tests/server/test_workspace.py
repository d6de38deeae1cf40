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


def test_a_repair_would_lose_what_is_the_servers_and_is_refused(server: Serving) -> None:
    server.token("alice")
    assert server.stop() == 0
    database = server.state / ".tinksched" / "state.db"
    change(database, "PRAGMA application_id = 7")
    before = os.listdir(database.parent)
    assert "tinksched db restore" in server.workspace("doctor", "--repair", code=2).err
    assert os.listdir(database.parent) == before
    change(database, f"PRAGMA application_id = {0x74_69_6E_6B}")
