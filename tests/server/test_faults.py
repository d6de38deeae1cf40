"""The server is killed at random instants while clients submit: each accepted job ends exactly once.

TINKSCHED_SERVER_FAULTS=100 sh tests/run.sh tests/server/test_faults.py   so many instants (default 8)
TINKSCHED_SEED=7 sh tests/run.sh tests/server/test_faults.py              the same choices again
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.check import rows
from tests.serving import QUICK, Serving, until
from tests.support import TIMEOUT
from tinksched.server.folders import CODE, CONFIG, Folders

FAULTS = int(os.environ.get("TINKSCHED_SERVER_FAULTS") or 8)
SEED = os.environ.get("TINKSCHED_SEED") or str(random.randrange(10**6))
CLIENTS = 4
LIFE = 1.0  # the longest that a server lives once it has answered somebody, in seconds
STARTS_UP = 0.25  # of the servers are killed before that

JOB = """
import os, sys, time
def say(what):
    descriptor = os.open({record!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{{what}} {{os.environ['JOB_ID']}}\\n".encode())
say("start")
time.sleep({seconds})
print("result of {name}", flush=True)
say("end")
"""


class Crowd:
    """Clients that submit jobs, wait for them, lose the server, and come back."""

    def __init__(self, server: Serving, token: str, record: Path) -> None:
        self.server = server
        self.headers = {"Authorization": f"Bearer {token}"}
        self.record = record
        self.answered: dict[str, str] = {}  # name to job id: the server had said that it has the job
        self.wrong: list[str] = []
        self.served = threading.Event()  # somebody has got an answer from the server of now
        self.over = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(number,)) for number in range(CLIENTS)]

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive(), "a client never got its answer"

    def _live(self, number: int) -> None:
        chance = random.Random(f"{SEED} {number}")
        count = 0
        while not self.over.is_set():
            count += 1
            self._one(f"c{number}-{count}", waits=chance.random() < 0.6, seconds=chance.random() * 0.3)

    def _one(self, name: str, *, waits: bool, seconds: float) -> None:
        code = JOB.format(record=str(self.record), seconds=seconds, name=name)
        with self._client() as client:
            answer = None
            try:
                answer = client.post("/api/submit", params={"wait": str(waits).lower()}, files=_form(code, name))
            except httpx.TransportError:
                self.over.wait(0.02)
        if answer is not None:
            self.served.set()
        if answer is not None and answer.status_code == 200:
            self.answered[name] = answer.json()["job_id"]
        elif answer is not None and answer.status_code != 503:
            self.wrong.append(f"{name}: {answer.status_code} {answer.text}")
        if waits:
            self._come_back(name)

    def _come_back(self, name: str) -> None:
        """Whoever waited finds the job by its name, if it was accepted, and waits for its results."""
        found = self._ask("/api/jobs", params={"limit": 1000}, good=lambda _: True)
        job = next((job["job_id"] for job in found if job["competition_id"] == name), None)
        if job is None:
            if name in self.answered:
                self.wrong.append(f"{name}: {self.answered[name]} was accepted, and is gone")
            return
        answer = self._ask(f"/api/results/{job}", good=lambda one: one["status"] not in ("pending", "running"))
        if (answer["status"], answer["stdout"]) != ("completed", f"result of {name}\n"):
            self.wrong.append(f"{name}: {answer}")

    def _ask(self, path: str, *, good: Callable[[Any], bool], **more: Any) -> Any:
        def look() -> Any:
            with self._client() as client:
                try:
                    answer = client.get(path, **more)
                except httpx.TransportError:
                    return None
            return answer.json() if answer.status_code == 200 else None

        return until(look, lambda found: found is not None and good(found), TIMEOUT * FAULTS)

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.server.url, headers=self.headers, timeout=TIMEOUT, trust_env=False)


def _form(code: str, name: str) -> dict[str, Any]:
    config = f"competition_id: {name}\nproject_id: p\nuser_id: alice\nexpected_time: 60\n"
    return {"code": ("solution.py", code.encode()), "config_file": ("config.yaml", config.encode())}


@pytest.mark.timeout(120 + 20 * FAULTS)
def test_every_accepted_job_ends_exactly_once(
    serving: Callable[..., Serving], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    print(f"TINKSCHED_SEED={SEED} TINKSCHED_SERVER_FAULTS={FAULTS}")
    chance = random.Random(SEED)
    server = serving(port=free_port(), cpu_slots=CLIENTS).start()
    crowd = Crowd(server, server.token("alice"), tmp_path / "record")
    crowd.begin()
    try:
        took = 0.5
        for _ in range(FAULTS):
            server.stop(signal.SIGKILL)
            while chance.random() < STARTS_UP:
                server.launch()
                time.sleep(chance.random() * took)  # the instant is what is random
                server.stop(signal.SIGKILL)
            crowd.served.clear()
            begun = time.monotonic()
            server.start()
            took = time.monotonic() - begun
            assert crowd.served.wait(TIMEOUT), "nobody got an answer"
            time.sleep(chance.random() * LIFE)
    finally:
        crowd.end()
    with server.client(crowd.headers["Authorization"].removeprefix("Bearer ")) as client:
        jobs = until(
            lambda: client.get("/api/jobs", params={"limit": 1000}).json(),
            lambda jobs: all(job["status"] not in ("pending", "running") for job in jobs),
        )
    assert server.stop() == 0
    record_property("accepted", len(jobs))
    wrong = crowd.wrong + violations(server, crowd)
    assert not wrong, (
        f"TINKSCHED_SEED={SEED}: {len(wrong)} violations:\n" + "\n".join(wrong[:20]) + server.log()[-2000:]
    )
    assert len(jobs) >= FAULTS // 2, "there was load"


def violations(server: Serving, crowd: Crowd) -> list[str]:
    """What is wrong, by the jobs' own record, the database and the folders."""
    database = server.state / ".tinksched" / "state.db"
    jobs = {row["job_id"]: row for row in rows(database, "SELECT * FROM server_listed")}
    said = Counter(tuple(line.split(" ")) for line in crowd.record.read_text().splitlines())
    wrong = [f"{name}: {job} was accepted, and is gone" for name, job in crowd.answered.items() if job not in jobs]
    for job, row in jobs.items():
        if (said["start", job], said["end", job], row["status"], row["exit_code"]) != (1, 1, "completed", 0):
            wrong.append(f"{job}: started {said['start', job]}, ended {said['end', job]} times: {row['status']}")
        if not row["collected"] or not Path(row["results_file"] or "none").is_file():
            wrong.append(f"{job}: no results file {row['results_file']}")
    wrong += [f"{job}: ran, and is not on record" for _, job in said if job not in jobs]
    for name in ("jobs", "output"):
        wrong += [f"left over: {name}/{folder}" for folder in os.listdir(server.state / name) if folder not in jobs]
    files = {Path(row["results_file"]).name for row in jobs.values() if row["results_file"]}
    wrong += [f"left over: {file}" for file in os.listdir(server.state / "results") if file not in files]
    if len(files) != len(jobs):
        wrong.append(f"{len(jobs)} jobs have {len(files)} results files")
    return wrong


def free_port() -> int:
    """A port that the next servers can have, one after the other."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


# ---------------------------------------------------------------- instants that chance hardly meets


def test_what_was_written_for_a_job_that_never_got_on_record_is_deleted(serving: Callable[..., Serving]) -> None:
    server = serving().start()
    token = server.token("alice")
    job = server.submit(token).json()["job_id"]
    server.stop(signal.SIGKILL)
    folders = Folders(server.state)
    new, old, own = str(uuid.uuid4()), str(uuid.uuid4()), "somebody's own"
    folders.make(new, {CODE: QUICK, CONFIG: ""})
    folders.make(old, {CODE: QUICK, CONFIG: ""})  # its job waits in a database that is newer than that of today
    folders.accepted(old)
    for parent in (folders.jobs, folders.outputs):
        (parent / own).mkdir()
        (parent / own / "new").touch()
    server.start()
    assert server.job(token, job)["status"] == "completed"
    assert set(os.listdir(folders.jobs)) == set(os.listdir(folders.outputs)) == {job, old, own}
    assert "new" not in os.listdir(folders.output(job))


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
def test_results_are_written_once_if_the_server_dies_before_it_has_noted_that(
    serving: Callable[..., Serving], written: bool
) -> None:
    server = serving().start()
    token = server.token("alice")
    answer = server.submit(token).json()
    server.stop(signal.SIGKILL)
    database = server.state / ".tinksched" / "state.db"
    change(database, "UPDATE server_jobs SET collected = 0")
    file = Path(answer["results_file"])
    if not written:
        file.unlink()
    server.start()
    until(lambda: rows(database, "SELECT collected FROM server_jobs"), lambda found: found[0]["collected"] == 1)
    assert [path.name for path in file.parent.iterdir()] == [file.name] and file.read_text() == "hello\n"
    assert server.job(token, answer["job_id"], "results")["results_file"] == str(file)


def change(database: Path, sql: str) -> None:
    """As no server would."""
    import sqlite3

    connection = sqlite3.connect(database)
    connection.execute(sql)
    connection.commit()
    connection.close()
