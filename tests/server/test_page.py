"""The feed of the dashboard's page, from a real server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.serving import Serving, until

SCRIPT = Path(__file__).parents[1] / "training_server.py"
FOREVER = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n"
Events = Iterator[tuple[str, Any]]


def raw_events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """The events of a stream: kind, and data."""
    kind, data = "", []
    for line in lines:
        if line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            data.append(line[6:])
        elif not line and kind:
            yield kind, "\n".join(data)
            kind, data = "", []


def events_of(lines: Iterator[str]) -> Events:
    """The same, with JSON as data."""
    return ((kind, json.loads(data)) for kind, data in raw_events(lines))


@contextlib.contextmanager
def reading(server: Serving, token: str, path: str) -> Iterator[Iterator[str]]:
    """The lines of a stream of somebody."""
    with server.client(token) as client, client.stream("GET", path) as stream:
        assert stream.status_code == 200 and stream.headers["content-type"].startswith("text/event-stream")
        yield stream.iter_lines()


@contextlib.contextmanager
def following(server: Serving, token: str, path: str = "/dashboard/api/events") -> Iterator[Events]:
    """The scene and the changes that somebody gets."""
    with reading(server, token, path) as lines:
        yield events_of(lines)


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


def test_a_jobs_page_has_its_runs_its_config_what_it_measured_and_its_log(server: Serving) -> None:
    token = server.token("alice")
    code = (
        "import json\n"
        "with open('metrics.jsonl', 'w') as file:\n"
        "    for step in range(3):\n"
        "        file.write(json.dumps({'step': step, 'loss': 1 / (step + 1), 'bad': float('nan')}) + '\\n')\n"
        "print('out'); raise MemoryError('CUDA out of memory')\n"
    )
    job = server.submit(token, code).json()["job_id"]
    with server.client(token) as client:
        found = client.get(f"/dashboard/api/jobs/{job}").json()
    assert found["job"]["status"] == "failed" and found["config"].startswith('"competition_id": "comp"')
    assert [(run["outcome"], run["exit_code"]) for run in found["runs"]] == [("failed", 1)]
    assert found["metrics"]["columns"] == ["step", "loss", "bad"] and found["metrics"]["rows"][1] == [1.0, 0.5, None]
    assert found["command"] is None, "it is the isolation's"
    with reading(server, token, f"/dashboard/api/jobs/{job}/log") as lines:
        said = list(raw_events(lines))
    assert [kind for kind, _ in said] == ["stdout", "stderr", "end"]
    assert said[0][1] == "out\n" and json.loads(said[2][1]) == {"status": "failed", "exit_code": 1}


def test_a_log_is_followed_live_and_from_where_one_was(server: Serving) -> None:
    token = server.token("alice")
    code = "import time, os\nprint('one', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.02)\nprint('two')"
    job = server.submit(token, code, wait=False).json()["job_id"]
    path = f"/dashboard/api/jobs/{job}/log"
    with server.client(token) as client, client.stream("GET", path) as stream:
        lines = stream.iter_lines()
        seen = [next(line for line in lines if line == "data: one")]
        number = "1.4-0"
        (server.state / "jobs" / job / "go").touch()
        seen += [line for line in lines if line.startswith(("data: two", "event: end"))]
    assert seen == ["data: one", "data: two", "event: end"]
    with server.client(token) as client:
        again = client.get(path, headers={"Last-Event-ID": number}).text
    assert "data: two" in again and "data: one" not in again


def test_a_job_is_cancelled_and_tried_again(server: Serving) -> None:
    token = server.token("alice")
    job = server.submit(token, FOREVER, wait=False).json()["job_id"]
    server.wait_for(token, job, "running")
    path = f"/dashboard/api/jobs/{job}"
    with server.client(token) as client:
        assert client.post(f"{path}/retry").json() == {"detail": "Job has not ended"}
        assert client.post(f"{path}/cancel").json() == {"message": "Job cancelled successfully"}
        found = until(lambda: client.get(path).json()["job"], lambda job: job["status"] == "cancelled")
        assert found["reason"] == "cancelled by alice" and found["error"] is None
        assert client.post(f"{path}/cancel").status_code == 400
        again = until(lambda: client.post(f"{path}/retry"), lambda answer: answer.status_code != 503)
        assert again.json() == {"message": "Job queued again"}
        found = until(lambda: client.get(path).json(), lambda found: found["job"]["status"] == "running")
        assert [run["outcome"] for run in found["runs"]] == ["cancelled", "running"] and found["job"]["attempt"] == 2
        client.post(f"{path}/cancel")


def test_a_stream_ends_with_its_credential(server: Serving) -> None:
    tokens = {user: server.token(user) for user in ("alice", "bob")}
    job = server.submit(tokens["alice"], FOREVER, wait=False).json()["job_id"]
    paths = ("/dashboard/api/events", f"/dashboard/api/jobs/{job}/log")
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(reading(server, tokens["alice"], path)) for path in paths]
        raw = stack.enter_context(server.client(tokens["alice"]))
        logs = stack.enter_context(raw.stream("GET", f"/api/logs/{job}"))
        other = stack.enter_context(following(server, tokens["bob"]))
        next(other)
        kinds = [raw_events(lines) for lines in streams]
        assert next(kinds[0])[0] == "state" and next(kinds[1])[0] == "stdout"
        lines = logs.iter_lines()
        assert next(lines) == "event: stdout"
        server.run("token", "revoke-user", "alice")
        last = [[event for event in events if event[0] != "change"][-1] for events in kinds]
        assert last == [("bye", '{"detail": "Your key has expired or was revoked"}')] * 2
        assert "event: end" not in list(lines)
        server.submit(tokens["bob"], user="bob", wait=False)
        assert next(other)[0] == "change", "others go on"


def test_streams_do_not_keep_a_server_that_stops(server: Serving) -> None:
    token = server.token("alice")
    job = server.submit(token, FOREVER, wait=False).json()["job_id"]
    with following(server, token) as events, reading(server, token, f"/dashboard/api/jobs/{job}/log") as log:
        next(events)
        server.stop()
        list(events)
        list(raw_events(log))
    assert "graceful shutdown" not in server.log(), "its grace was not needed"
    server.start()
    with following(server, token) as events:
        kind, scene = next(events)
    assert kind == "state" and [one["id"] for one in scene["jobs"]] == [job]


def test_another_users_jobs_are_in_no_byte_that_is_sent(serving: Callable[..., Serving]) -> None:
    server = serving(cpu_slots=2, active_jobs=1000).start()
    alice, bob, root = server.token("alice"), server.token("bob"), server.token("root", admin=True)
    own = server.submit(bob, FOREVER, user="bob", wait=False).json()["job_id"]
    with following(server, bob) as events:
        sent = [json.dumps(next(events))]
        names = {"competition_id": "secretcup", "project_id": "secretplan"}
        ended = server.submit(alice, "import sys; print('x'); sys.exit(9)", **names).json()["job_id"]
        running = server.submit(alice, FOREVER, wait=False, **names).json()["job_id"]
        waiting = server.submit(alice, FOREVER, wait=False, **names).json()["job_id"]
        mine = server.submit(bob, user="bob", wait=False).json()["job_id"]
        for _, change in events:
            sent.append(json.dumps(change))
            if any(job["id"] == mine and job["reason"] for job in change.get("jobs", ())):
                break
    with server.client(bob) as client:
        for path in ("session", "state", "jobs", f"jobs/{own}"):
            sent.append(client.get(f"/dashboard/api/{path}").text)
        for job in (ended, running, waiting):
            for answer in (client.get(f"/dashboard/api/jobs/{job}"), client.get(f"/dashboard/api/jobs/{job}/log"),
                           client.post(f"/dashboard/api/jobs/{job}/cancel"),
                           client.post(f"/dashboard/api/jobs/{job}/retry")):  # fmt: skip
                assert answer.status_code == 403
                sent.append(answer.text)
        answer = client.get("/dashboard/api/users")
        assert answer.status_code == 403
        sent.append(answer.text)
    runs = {path.name for path in (server.state / ".tinksched" / "runs").iterdir()}
    with server.client(root) as client:
        everything = client.get("/dashboard/api/state").json()
    own_runs = {run["run"] for run in everything["timeline"] if run["job"] in (own, mine)}
    assert len(runs - own_runs) >= 2 and {job["id"] for job in everything["jobs"]} == {
        ended,
        running,
        waiting,
        own,
        mine,
    }
    for secret in ("alice", "secret", ended, running, waiting, *(runs - own_runs)):
        assert not [text for text in sent if secret in text], secret
    assert '"job": null' in "".join(sent), "that there are others may be seen"


def test_the_users_are_for_admins(server: Serving) -> None:
    server.submit(server.token("alice"))
    with server.client(server.token("root", admin=True)) as client:
        users = {user["user"]: user for user in client.get("/dashboard/api/users").json()["users"]}
    assert users["root"]["is_admin"] and not users["alice"]["is_admin"]
    assert users["alice"]["total"] == 1 and users["alice"]["active"] == 0 and users["alice"]["last_seen"]


def test_markup_and_every_odd_character_is_data(server: Serving) -> None:
    token = server.token("alice")
    odd = "<script>alert(1)</script>\"'&\u2028\x1b[31m\U0001f600"
    job = server.submit(token, f"import sys\nprint({odd!r})\nsys.exit({odd!r})", note=odd).json()["job_id"]
    with server.client(token) as client:
        found = client.get(f"/dashboard/api/jobs/{job}").json()
        log = client.get(f"/dashboard/api/jobs/{job}/log").text
    assert json.dumps(odd) in found["config"] and odd in log


def test_the_page_is_safe_and_asked_for_anew_only_when_it_changes(server: Serving) -> None:
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    with server.client() as client:
        for path in ("/dashboard", "/web_dashboard.html", "/dashboard/static/index.html"):
            answer = client.get(path)
            assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
            assert answer.headers.get_list("content-security-policy") == [policy]
            assert answer.headers.get_list("cache-control") == ["no-cache"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert client.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
        for path in ("..%2Fapi.py", "%2e%2e", ".", "api.py", "index.html%00", "nothing.js", "%2Fetc%2Fpasswd"):
            assert client.get(f"/dashboard/static/{path}").status_code == 404, path
        docs = client.get("/docs")
    assert "http" not in docs.text.replace("http-", "") and "<script" not in docs.text
    assert "POST /api/submit" in docs.text and "default-src 'none'" in docs.headers["content-security-policy"]


def test_only_listed_pages_elsewhere_may_call(serving: Callable[..., Serving]) -> None:
    origin = "http://127.0.0.1:8081"
    server = serving(allowed_origins=[origin]).start()
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    with server.client() as client:
        answer = client.options("/dashboard/api/state", headers={"Origin": origin, **asked})
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == origin
        assert "authorization" in answer.headers["access-control-allow-headers"].lower()
        answer = client.get("/dashboard/api/session", headers={"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        answer = client.get("/dashboard/api/session", headers={"Origin": "http://127.0.0.1:8082"})
        assert "access-control-allow-origin" not in answer.headers
    other = serving("other").start()
    with other.client() as client:
        answer = client.get("/dashboard/api/session", headers={"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers


def test_a_service_is_there_with_its_port_and_its_url_once_it_answers(serving: Callable[..., Serving]) -> None:
    server = serving(server_script=str(SCRIPT), cpu_slots=2).start()
    with server.client() as client:
        key = client.post("/register", params={"username": "alice"}).json()["api_key"]
    with following(server, key) as events, server.client(key) as client:
        next(events)
        config = {"experiment_name": "<b>tiny</b>", "wandb_key": "s3cret"}
        job = client.post("/submit_job", json={"config": config}).json()["job_id"]
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["url"] is None:
            seen += next(events)[1].get("jobs", [])
        ready = seen[-1]
        assert (ready["kind"], ready["name"], ready["status"]) == ("training", "<b>tiny</b>", "running")
        assert all(one["status"] != "running" for one in seen[:-1]) and ready["url"].endswith(f":{ready['port']}")
        assert client.get(ready["url"]).status_code == 200
        found = client.get(f"/dashboard/api/jobs/{job}").text
        assert "tiny" in found and "s3cret" not in found
        assert client.post(f"/dashboard/api/jobs/{job}/cancel").status_code == 200
        while seen[-1]["status"] != "cancelled":
            seen += next(events)[1].get("jobs", [])
        assert seen[-1]["url"] is None and seen[-1]["error"] is None
        assert "submit it again" in client.post(f"/dashboard/api/jobs/{job}/retry").json()["detail"]


def test_a_service_that_fails_says_why(serving: Callable[..., Serving]) -> None:
    server = serving(server_script="/no/such/script.py", cpu_slots=2).start()
    token = server.token("alice")
    with server.client(token) as client:
        client.post("/submit_job", json={"config": {}})
        job = until(
            lambda: client.get("/dashboard/api/state").json()["jobs"][0], lambda job: "no/such" in (job["error"] or "")
        )
    assert job["status"] == "failed"
