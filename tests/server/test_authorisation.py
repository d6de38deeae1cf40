"""Who may call what: the whole table, against a real server. The guide has the same one, held equal by a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.serving import Serving, form
from tinksched.server.page.api import PageApi

GUIDE = Path(__file__).parents[2] / "examples/server/AUTHORISATION.md"
FOREVER = "import time\ntime.sleep(600)\n"
UNKNOWN = "6f1c0f3e-7d0c-4a52-9a64-0f2d1f3b8f10"

# alice owns the job that is meant, bob is somebody else, root is an admin.
CALLERS = ("no token", "garbage", "malformed", "expired", "revoked", "bob", "alice", "root (admin)")
ANYONE = (200,) * 8
KNOWN = (401,) * 5 + (200, 200, 200)
OWNER = (401,) * 5 + (403, 200, 200)
NOT_OWNER = (401,) * 5 + (200, 403, 200)
NOBODY = (401,) * 5 + (404, 404, 404)
ADMIN = (401,) * 5 + (403, 403, 200)

TABLE: dict[str, tuple[int, ...]] = {
    "GET /": ANYONE,
    "GET /health": ANYONE,
    "GET /docs": ANYONE,
    "GET /openapi.json": ANYONE,
    "GET /api/nodes": ANYONE,
    "POST /api/submit": (400, *OWNER[1:]),
    "POST /api/submit?user_id=alice": (400, *OWNER[1:]),
    "POST /api/submit?user_id=bob": (400, *OWNER[1:5], 403, 403, 200),
    "GET /api/status/{job_id}": OWNER,
    "GET /api/status/{job_id}?user_id=alice": OWNER,
    "GET /api/status/{job_id}?user_id=bob": (401,) * 5 + (403, 403, 200),
    "GET /api/status/{unknown}": NOBODY,
    "GET /api/results/{job_id}": OWNER,
    "GET /api/results/{unknown}": NOBODY,
    "GET /api/logs/{job_id}": OWNER,
    "GET /api/logs/{unknown}": NOBODY,
    "POST /api/cancel/{job_id}": OWNER,
    "POST /api/cancel/{unknown}": NOBODY,
    "GET /api/jobs": KNOWN,
    "GET /api/jobs?user_id=alice": OWNER,
    "GET /api/jobs?user_id=bob": NOT_OWNER,
    "GET /api/dashboard": KNOWN,
    "GET /api/dashboard?user_id=alice": OWNER,
    "GET /api/dashboard?user_id=bob": NOT_OWNER,
    "POST /submit_job": KNOWN,
    "POST /submit_inference_job": KNOWN,
    "GET /job_status/{service_id}": OWNER,
    "GET /job_status/{unknown}": NOBODY,
    "GET /list_jobs": KNOWN,
    "DELETE /cancel_job/{service_id}": OWNER,
    "DELETE /cancel_job/{unknown}": NOBODY,
    "POST /complete_job/{service_id}": OWNER,
    "POST /complete_job/{unknown}": NOBODY,
    "GET /admin/users": ADMIN,
    "POST /register?username=NEW": ANYONE,
    "POST /register?username=NEW, from elsewhere": ADMIN,
    "GET /dashboard": ANYONE,
    "GET /web_dashboard.html": ANYONE,
    "GET /dashboard/static/index.html": ANYONE,
    "GET /dashboard/api/session": (200, *KNOWN[1:]),
    "GET /dashboard/api/state": KNOWN,
    "GET /dashboard/api/jobs": KNOWN,
    "GET /dashboard/api/events": KNOWN,
    "GET /dashboard/api/users": ADMIN,
    "GET /dashboard/api/jobs/{job_id}": OWNER,
    "GET /dashboard/api/jobs/{unknown}": NOBODY,
    "GET /dashboard/api/jobs/{job_id}/log": OWNER,
    "GET /dashboard/api/jobs/{unknown}/log": NOBODY,
    "POST /dashboard/api/jobs/{job_id}/cancel": OWNER,
    "POST /dashboard/api/jobs/{unknown}/cancel": NOBODY,
    "POST /dashboard/api/jobs/{job_id}/retry": OWNER,
    "POST /dashboard/api/jobs/{unknown}/retry": NOBODY,
}

MEANING = """\
The job that is meant, and the one that is submitted, is alice's; bob is another user, root an admin. `{unknown}` is the
id of no job.

- **200** granted, **401** no good token (with `WWW-Authenticate: Bearer`), **403** somebody else's, **404** no such
  job.
- *garbage* is a token that was never made, *malformed* a header other than `Authorization: Bearer TOKEN`.
- A user gets only what is their own from `jobs` and `dashboard`, an admin everything; with `?user_id=` an admin gets
  that user's part, and with their own id everything again.
- A submission may have its token in the config instead of the header. Where both have one they must be equal: 401.
  Where none has one, the config lacks a required field: 400.
- `{service_id}` is a service job of alice's. `NEW` is a name that nobody has. *From elsewhere* is any address but
  loopback, a proxy on this machine, and a page that another host has made a browser load; with `open_registration:
  true` it is as on loopback. With `enable_auth: false` callers on loopback without a header are as an admin in the
  OpenTinker API (the calls without `/api`) and below `/dashboard`, and only there.
- An `otk_` key is as good as a token everywhere.
- A caller without a good token learns nothing of which jobs there are: 401 comes before 403 and 404.
- What is below `/dashboard` is the page's. Its files are no secret; its data needs a token or a key of the same users,
  and a stream of it, like `/api/logs`, ends when its token does.
"""


def table() -> str:
    """The table in Markdown."""
    head = f"| call | {' | '.join(CALLERS)} |\n|{' --- |' * (len(CALLERS) + 1)}\n"
    rows = "".join(f"| `{call}` | {' | '.join(map(str, codes))} |\n" for call, codes in TABLE.items())
    return f"# Who may call what\n\n{MEANING}\n{head}{rows}"


def headers(server: Serving) -> dict[str, dict[str, str]]:
    """The headers of each caller."""
    server.run("token", "create", "alice", "expired-token", "--days", "1e-9")
    revoked = server.token("alice")
    good = {
        "bob": server.token("bob"),
        "alice": server.token("alice"),
        "root (admin)": server.token("root", admin=True),
    }
    tokens = {"garbage": "no-such-token", "expired": "expired-token", "revoked": revoked, **good}
    found = {caller: {"Authorization": f"Bearer {token}"} for caller, token in tokens.items()}
    return {"no token": {}, "malformed": {"Authorization": f"Basic {good['alice']}"}, **found}


def ask(client: httpx.Client, method: str, path: str, **more: Any) -> httpx.Response:
    """An answer; of a stream its beginning. What only shortly can't be done is tried again."""
    while True:
        with client.stream(method, path, **more) as answer:
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                next(answer.iter_raw())
                return answer
            answer.read()
        if answer.status_code != 503:
            return answer


def test_the_whole_table(serving: Callable[..., Serving]) -> None:
    server = serving(training_command=["sleep", "600"], ready_timeout=600, active_services=100, cpu_slots=100).start()
    known = headers(server)
    client = server.client()
    wrong = []

    def submitted(code: str = FOREVER) -> str:
        files = form(code)
        answer = client.post("/api/submit?wait=false", files=files, headers=known["alice"])
        return str(answer.json()["job_id"])

    def trained() -> str:
        answer = client.post("/submit_job", json={"config": {}}, headers=known["alice"])
        return str(answer.json()["job_id"])

    ended = submitted("print('secret of alice')")
    server.wait_for(known["alice"]["Authorization"][7:], ended, "completed")
    service = trained()
    for number, (call, codes) in enumerate(TABLE.items()):
        for caller, expected in zip(CALLERS, codes, strict=True):
            method, path, *elsewhere = call.split(" ", 2)
            job = submitted() if "cancel" in path and expected == 200 else ended
            if "retry" in path and expected == 200:
                job = submitted("print('again')")
                server.wait_for(known["alice"]["Authorization"][7:], job, "completed")
            more: dict[str, Any] = {}
            if "/api/submit" in path:
                path += ("&" if "?" in path else "?") + "wait=false"
                more["files"] = form()
            if "/submit_" in path:
                more = {"json": {"config": {}, "model_path": "m"}}
            path = path.replace("{job_id}", job).replace("{unknown}", UNKNOWN).replace("{service_id}", service)
            path = path.replace("NEW,", "NEW").replace("NEW", f"new-{number}-{CALLERS.index(caller)}")
            sent = {**known[caller], **({"X-Forwarded-For": "10.1.2.3"} if elsewhere else {})}
            answer = ask(client, method, path, headers=sent, **more)
            if answer.status_code != expected:
                wrong.append((call, caller, answer.status_code, answer.text))
            if expected != 200:
                assert list(answer.json()) == ["detail"] and "secret" not in answer.text, answer.text
            assert (answer.headers.get("www-authenticate") == "Bearer") == (expected == 401)
    client.close()
    assert not wrong


def test_every_endpoint_is_in_the_table(server: Serving) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    there = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    service = {name.replace("{service_id}", "{job_id}").partition("?")[0] for name in TABLE if "/api/" not in name}
    assert there <= TABLE.keys() | service and len(there) == 18


def test_every_endpoint_of_the_page_is_in_the_table() -> None:
    nothing: Any = None
    routes: list[Any] = list(PageApi(nothing, nothing, nothing, nothing).routes.routes)
    there = {f"{method} {route.path.replace('{name}', 'index.html')}" for route in routes for method in route.methods}
    assert there <= TABLE.keys() and len(there) == 12


def test_the_guide_has_this_table() -> None:
    assert GUIDE.read_text() == table()


def test_a_user_sees_only_their_own_and_an_admin_what_they_ask_for(server: Serving) -> None:
    tokens = {"alice": server.token("alice"), "bob": server.token("bob"), "root": server.token("root", admin=True)}
    jobs = {user: server.submit(token, user=user).json()["job_id"] for user, token in tokens.items()}
    running = {user: server.submit(tokens[user], FOREVER, user=user, wait=False).json()["job_id"] for user in tokens}

    def listed(caller: str, whose: str | None) -> set[str]:
        query = {} if whose is None else {"user_id": whose}
        with server.client(tokens[caller]) as client:
            rows = client.get("/api/jobs", params=query).json()
            board = client.get("/api/dashboard", params=query).json()
        users = {job["user_id"] for job in rows}
        seen = json.dumps({key: value for key, value in board.items() if key != "user_id"})
        assert {user for user in jobs if f'"{user}"' in seen} == users
        assert (
            {user for user in jobs if jobs[user] in seen}
            == {user for user in running if running[user] in seen}
            == users
        )
        assert board["user_id"] == caller and board["is_admin"] == (caller == "root")
        assert board["job_statistics"]["total"] == len(rows) == 2 * len(users)
        return users

    assert listed("alice", None) == listed("alice", "alice") == {"alice"}
    assert listed("root", None) == listed("root", "root") == {"alice", "bob", "root"}
    assert listed("root", "bob") == {"bob"}


def test_a_token_in_the_config_alone_lets_a_submission_in_and_nothing_else(server: Serving) -> None:
    alice, other = server.token("alice"), server.token("bob")

    def submit(header: str | None, inside: str) -> httpx.Response:
        with server.client(header) as client:
            return client.post("/api/submit", files=form(token=inside))

    assert submit(None, alice).status_code == submit(alice, alice).status_code == 200
    for header, inside in ((other, alice), (alice, other), ("no-such-token", alice), (alice, alice + "x")):
        answer = submit(header, inside)
        assert answer.status_code == 401 and answer.json()["detail"].startswith("Invalid or expired token"), answer.text
    both = [("Authorization", f"Bearer {alice}"), ("Authorization", f"Bearer {other}")]
    assert httpx.get(f"{server.url}/api/jobs", headers=both).status_code == 401
    assert httpx.post(f"{server.url}/api/submit", headers=both, files=form()).status_code == 401
    assert httpx.get(f"{server.url}/api/jobs", params={"token": alice}).status_code == 401


def test_an_admin_submits_for_others_and_a_user_does_not(server: Serving) -> None:
    admin = server.token("root", admin=True)
    job = server.submit(admin, user="alice").json()["job_id"]
    assert server.job(server.token("alice"), job)["status"] == "completed"
    refused = server.submit(server.token("bob"), user="alice")
    assert (refused.status_code, refused.json()["detail"]) == (403, "Token does not belong to specified user_id")


def test_a_submission_is_checked_in_the_documented_order(serving: Callable[..., Serving]) -> None:
    """It is wrong in everything; what is answered is put right, and the next answer comes."""
    server = serving(limits=True, submissions_per_minute=2, active_jobs=1, ip_submissions=10).start()
    alice = server.token("alice")
    fields: dict[str, Any] = {"user": "bob", "expected_time": 0, "competition_id": "a/b", "project_id": None}
    broken = {**form(), "config_file": ("config.yaml", b"user_id: [", "text/yaml")}
    with server.client("no-such-token") as client:
        answer = client.post("/api/submit", files=broken)
    assert (answer.status_code, answer.json()["detail"].split(":")[0]) == (400, "config_file")
    ladder: list[tuple[str, dict[str, Any], str | bytes, int, str]] = [
        ("no-such-token", {}, b"\xff", 400, "Missing required fields: project_id"),
        ("no-such-token", {"project_id": "x y"}, b"\xff", 401, "Invalid or expired token"),
        (alice, {}, b"\xff", 403, "Token does not belong to specified user_id"),
        (alice, {"user": "alice"}, b"\xff", 400, "competition_id: "),
        (alice, {"competition_id": "a"}, b"\xff", 400, "project_id: "),
        (alice, {"project_id": "x"}, b"\xff", 400, "expected_time: "),
        (alice, {"expected_time": 60}, b"\xff", 400, "code: not UTF-8"),
        (alice, {}, FOREVER, 200, ""),
        (alice, {}, FOREVER, 429, "User already has 1 active job"),
    ]
    for token, more, code, status, detail in ladder:
        fields.update(more)
        answer = server.submit(token, code, wait=False, **fields)
        assert answer.status_code == status and answer.json().get("detail", "").startswith(detail), answer.text
    # Those ten were all that this address has; the one before the last check was the user's second.
    assert server.submit("no-such-token", b"\xff").json()["detail"] == "Rate limit exceeded: 10 a minute"


def test_the_rate_of_a_user_is_checked_before_the_active_jobs(serving: Callable[..., Serving]) -> None:
    server = serving(limits=True, submissions_per_minute=2, active_jobs=1).start()
    alice = server.token("alice")
    details = [server.submit(alice, FOREVER, wait=False).json().get("detail") for _ in range(3)]
    assert details == [None, "User already has 1 active job", "Rate limit exceeded: 2 a minute"]
