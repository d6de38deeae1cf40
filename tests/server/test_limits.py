"""How often who may call, against a real server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.faults.check import rows
from tests.serving import QUICK, Serving, form
from tests.support import TIMEOUT

FOREVER = "import time\ntime.sleep(600)\n"
UNKNOWN = "6f1c0f3e-7d0c-4a52-9a64-0f2d1f3b8f10"


def assert_refused(answer: httpx.Response, detail: str) -> None:
    """It says 429, why, and when to come again."""
    assert (answer.status_code, answer.json()["detail"]) == (429, detail)
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def left_behind(server: Serving) -> list[Any]:
    """What there is of jobs: folders, files, rows."""
    files = sorted(str(path) for name in ("jobs", "output", "results") for path in (server.state / name).rglob("*"))
    database = next(server.state.rglob("*.db"))
    counts = [len(rows(database, f"SELECT 1 FROM {name}")) for name in ("tasks", "server_jobs")]
    return [files, counts]


def test_the_documented_limits_are_the_default(serving: Callable[..., Serving]) -> None:
    server = serving()
    server.config.write_text(f"port: 0\nstate_dir: {server.state}\nisolation: none\nexecutor: local\n")
    server.start()
    alice, root = server.token("alice"), server.token("root", admin=True)
    for _ in range(5):
        assert server.submit(alice).status_code == 200
    assert_refused(server.submit(alice), "Rate limit exceeded: 5 a minute")
    assert server.submit(server.token("bob"), user="bob").status_code == 200
    for _ in range(7):
        assert server.submit(root, user="root", wait=False).status_code == 200
    calls = {"status": 60, "results": 60, "cancel": 10}
    with server.client(alice) as client:
        for what, most in calls.items():
            method = "POST" if what == "cancel" else "GET"
            codes = [client.request(method, f"/api/{what}/{UNKNOWN}").status_code for _ in range(most)]
            assert set(codes) == {404}
            assert_refused(client.request(method, f"/api/{what}/{UNKNOWN}"), f"Rate limit exceeded: {most} a minute")
        assert {client.get("/api/jobs").status_code for _ in range(30)} == {200}
        assert_refused(client.get("/api/jobs"), "Rate limit exceeded: 30 a minute")
        assert_refused(client.get("/api/dashboard"), "Rate limit exceeded: 30 a minute")
        for path in ("/", "/health", "/api/nodes"):
            assert client.get(path).status_code == 200
        # 14 submissions so far
        codes = [client.post("/api/submit").status_code for _ in range(87)]
        assert set(codes[:86]) == {400} and codes[86] == 429


def test_one_job_of_a_user_waits_or_runs(serving: Callable[..., Serving]) -> None:
    server = serving(limits=True, active_jobs=1, ip_status=10_000).start()
    alice, bob = server.token("alice"), server.token("bob")
    job = server.submit(alice, FOREVER, wait=False).json()["job_id"]
    assert_refused(server.submit(alice, wait=False), "User already has 1 active job")
    waiting = server.submit(bob, FOREVER, user="bob", wait=False).json()["job_id"]
    assert_refused(server.submit(bob, user="bob", wait=False), "User already has 1 active job")
    for token, one in ((bob, waiting), (alice, job)):
        with server.client(token) as client:
            client.post(f"/api/cancel/{one}")
        server.wait_for(token, one, "cancelled")
    assert server.submit(alice).status_code == server.submit(bob, user="bob").status_code == 200


@pytest.mark.parametrize("strict", [False, True])
def test_admins_are_exempt_unless_it_is_said(serving: Callable[..., Serving], strict: bool) -> None:
    server = serving(limits=True, active_jobs=1, submissions_per_minute=2, limit_admins=strict).start()
    root = server.token("root", admin=True)
    codes = [server.submit(root, FOREVER, user="root", wait=False).status_code for _ in range(6)]
    assert codes == ([200, 429, 429, 429, 429, 429] if strict else [200] * 6)


def test_of_many_at_once_one_is_accepted(serving: Callable[..., Serving]) -> None:
    server = serving(limits=False, active_jobs=1).start()
    alice = server.token("alice")
    answers: list[httpx.Response] = []
    barrier = threading.Barrier(50)

    def one() -> None:
        barrier.wait(TIMEOUT)
        answers.append(server.submit(alice, FOREVER, wait=False))

    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(answer.status_code for answer in answers) == [200] + [429] * 49
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 429)
    (job,) = (answer.json()["job_id"] for answer in answers if answer.status_code == 200)
    folders = [path.name for name in ("jobs", "output") for path in (server.state / name).iterdir()]
    assert folders == [job, job] and left_behind(server)[1] == [1, 1]


def test_what_is_rejected_leaves_nothing_and_uses_nothing_up(serving: Callable[..., Serving]) -> None:
    server = serving(limits=True, submissions_per_minute=2, ip_submissions_per_user=2).start()
    alice, bob = server.token("alice"), server.token("bob")
    before = left_behind(server)
    rejected: list[tuple[str | None, dict[str, Any]]] = [
        ("no-such-token", {}),
        (bob, {}),
        (alice, {"expected_time": "soon"}),
        (alice, {"competition_id": "../../etc"}),
        (alice, {"project_id": None}),
        (alice, {"code": b"\xff\xfe"}),
        (alice, {"code": b""}),
        (alice, {"code": b"x" * (1024 * 1024 + 1)}),
    ]
    for token, fields in rejected:
        answer = server.submit(token, **fields)
        assert answer.status_code in (400, 401, 403), answer.text
    assert left_behind(server) == before
    assert [server.submit(alice).status_code for _ in range(3)] == [200, 200, 429]
    after = left_behind(server)
    assert server.submit(alice).status_code == 429 and left_behind(server) == after


def test_each_endpoint_has_a_counter_of_its_own_that_counts_everybody(serving: Callable[..., Serving]) -> None:
    few = {"ip_status": 2, "ip_results": 3, "ip_cancel": 1, "ip_jobs": 4, "ip_submissions": 2}
    server = serving(limits=True, **few).start()
    alice = server.token("alice")
    calls = {"status": ("GET", 2), "results": ("GET", 3), "cancel": ("POST", 1)}
    with server.client() as nobody, server.client(alice) as somebody:
        for what, (method, most) in calls.items():
            path = f"/api/{what}/{UNKNOWN}"
            assert [nobody.request(method, path).status_code for _ in range(most)] == [401] * most
            assert_refused(somebody.request(method, path), f"Rate limit exceeded: {most} a minute")
        assert_refused(somebody.get(f"/api/logs/{UNKNOWN}"), "Rate limit exceeded: 3 a minute")
        assert [somebody.get("/api/jobs").status_code for _ in range(5)] == [200] * 4 + [429]
        assert [nobody.post("/api/submit").status_code for _ in range(2)] == [400] * 2
        large = form("#" + "x" * 900_000)  # it is heard although it could not be sent to its end before
        assert_refused(somebody.post("/api/submit", files=large), "Rate limit exceeded: 2 a minute")


def test_an_address_is_that_of_a_proxys_client_only_if_the_proxy_is_trusted(serving: Callable[..., Serving]) -> None:
    for name, trusted, codes in (
        ("direct", [], [401, 401, 429, 429, 429]),
        ("behind", ["127.0.0.0/8", "10.0.0.1"], [401, 401, 401, 401, 429]),
    ):
        server = serving(name, limits=True, ip_jobs=2, trusted_proxies=trusted).start()
        # The third says what it likes before what the proxies have added: it is the first once more.
        hops = ("192.0.2.1", "192.0.2.2", "192.0.2.9, 192.0.2.1, 10.0.0.1", "192.0.2.2", "::ffff:192.0.2.1")
        with server.client() as client:
            found = [client.get("/api/jobs", headers={"X-Forwarded-For": hop}).status_code for hop in hops]
        assert found == codes, name


def test_allowed_ips_are_all_that_may_call(serving: Callable[..., Serving]) -> None:
    server = serving(allowed_ips=["192.0.2.0/24", "2001:db8::/32"], trusted_proxies=["127.0.0.1"]).start()
    token = server.token("alice")
    with server.client(token) as client:
        for path in ("/", "/health", "/docs", "/openapi.json", "/api/nodes", "/api/jobs", "/nowhere"):
            for hops in ({}, {"X-Forwarded-For": "198.51.100.1"}, {"X-Forwarded-For": "192.0.2.7, 198.51.100.1"}):
                answer = client.get(path, headers=hops)
                assert (answer.status_code, list(answer.json())) == (403, ["detail"])
            allowed = client.get(path, headers={"X-Forwarded-For": "192.0.2.7"}).status_code
            assert allowed == (404 if path == "/nowhere" else 200)
        assert client.get("/", headers={"X-Forwarded-For": "2001:db8::1"}).status_code == 200
        assert client.get("/", headers={"X-Forwarded-For": "not an address"}).status_code == 403


def test_a_restart_begins_anew(serving: Callable[..., Serving]) -> None:
    server = serving(limits=True, submissions_per_minute=1).start()
    alice = server.token("alice")
    assert [server.submit(alice, QUICK).status_code for _ in range(2)] == [200, 429]
    server.stop()
    server.start()
    assert server.submit(alice).status_code == 200
