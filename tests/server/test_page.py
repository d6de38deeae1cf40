"""The feed of the dashboard's page, from a real server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from tests.serving import Serving, until

FOREVER = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n"
Events = Iterator[tuple[str, Any]]


def events_of(stream: httpx.Response) -> Events:
    """The events of a stream: kind, and data as JSON."""
    kind, data = "", ""
    for line in stream.iter_lines():
        if line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            data += line[6:]
        elif not line and kind:
            yield kind, json.loads(data)
            kind, data = "", ""


@contextlib.contextmanager
def following(server: Serving, token: str, path: str = "/dashboard/api/events") -> Iterator[Events]:
    """A stream of somebody."""
    with server.client(token) as client, client.stream("GET", path) as stream:
        assert stream.status_code == 200 and stream.headers["content-type"].startswith("text/event-stream")
        yield events_of(stream)


def first(events: Events, good: Callable[[str, Any], bool]) -> Any:
    """The data of the first event that is as wanted."""
    return next(data for kind, data in events if good(kind, data))


def test_a_session_says_where_and_who_one_is(server: Serving) -> None:
    token = server.token("alice")
    with server.client() as client:
        nobody = client.get("/dashboard/api/session").json()
    assert nobody["mode"] == "server" and nobody["auth"] and not nobody["signed_in"] and nobody["user"] is None
    with server.client(token) as client:
        alice = client.get("/dashboard/api/session").json()
    assert (alice["signed_in"], alice["user"], alice["is_admin"]) == (True, "alice", False)
    assert alice["may"] == {"cancel": True, "retry": True}
    with server.client("no-such-token") as client:
        answer = client.get("/dashboard/api/session")
    assert answer.status_code == 401 and answer.json() == {"detail": "Invalid or expired token"}


def test_a_scene_has_the_jobs_in_their_order_and_why_they_wait(server: Serving) -> None:
    token = server.token("alice")
    ended = server.submit(token, "import sys; sys.exit(3)").json()["job_id"]
    running = server.submit(token, FOREVER, wait=False).json()["job_id"]
    server.wait_for(token, running, "running")
    waiting = [server.submit(token, wait=False).json()["job_id"] for _ in range(2)]
    with server.client(token) as client:
        scene = until(
            lambda: client.get("/dashboard/api/state").json(),
            lambda scene: len(scene["jobs"]) == 4 and scene["jobs"][1]["reason"] and scene["jobs"][2]["reason"],
        )
        more = client.get("/dashboard/api/jobs", params={"offset": 3, "limit": 5}).json()
    jobs = scene["jobs"]
    assert [job["id"] for job in jobs] == [running, *waiting, ended]
    assert [job["status"] for job in jobs] == ["running", "queued", "queued", "failed"]
    assert [job["place"] for job in jobs] == [None, 1, 2, None]
    assert jobs[1]["reason"] == "all CPU slots are taken (1 of 1)"
    assert (jobs[3]["exit_code"], jobs[3]["error"]) == (3, "exit code 3")
    assert jobs[0]["name"] == "comp/proj" and jobs[0]["kind"] == "job" and jobs[0]["user"] == "alice"
    assert scene["counts"] == {"total": 4, "queued": 2, "running": 1, "completed": 0, "cancelled": 0, "failed": 1}
    assert more == {"jobs": jobs[3:], "total": 4}
    assert {run["job"] for run in scene["timeline"]} == {running, ended}
    assert scene["me"]["use"]["active"] == 3 and scene["me"]["limits"]["active_jobs"] == 1000
    assert scene["nodes"][0]["running"] == 1 and scene["nodes"][0]["queued"] == 2 and scene["trouble"] is None


def test_changes_are_pushed_as_they_happen(server: Serving) -> None:
    token = server.token("alice")
    with following(server, token) as events:
        kind, scene = next(events)
        assert kind == "state" and scene["jobs"] == []
        job = server.submit(token, wait=False).json()["job_id"]
        seen, runs, counts = [], {}, {}
        while not seen or seen[-1] != "completed":
            kind, change = next(events)
            assert kind == "change" and "timeline" not in change
            for one in change.get("jobs", ()):
                assert one["id"] == job
                seen.append(one["status"])
            runs.update((one["run"], one) for one in change.get("runs", ()))
            counts = change.get("counts", counts)
    assert seen == sorted(seen, key=["queued", "starting", "running", "completed"].index)
    assert [run["outcome"] for run in runs.values()] == ["completed"] and counts["completed"] == 1
