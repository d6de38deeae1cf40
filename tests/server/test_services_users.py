"""Users of the OpenTinker API: who may register, what keys are good for, and what is answered to those without."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.faults.check import rows
from tests.services import SETTINGS, Client
from tests.serving import Serving
from tests.support import TIMEOUT

KEY = re.compile(r"otk_[0-9a-f]{32}")
MARKUP = ("<img src=x onerror=alert(1)>", "a b", "", "a/b", "é", "x" * 65, "a\nb", "';--")


def test_a_key_is_shown_once_and_kept_as_a_hash(server: Serving) -> None:
    answer = httpx.post(f"{server.url}/register?username=alice").json()
    assert answer.keys() == {"user_id", "username", "api_key", "message"} and answer["username"] == "alice"
    assert KEY.fullmatch(answer["api_key"]) and re.fullmatch(r"user_[0-9a-f]{12}", answer["user_id"])
    assert answer["message"].startswith("User registered successfully")
    files = [path for path in server.folder.rglob("*") if path.is_file()]
    assert not any(answer["api_key"].encode() in path.read_bytes() for path in files)
    tokens = server.run("token", "list").out
    assert "key" in tokens and "never" in tokens and answer["api_key"] not in tokens
    server.run("token", "revoke", "-", text=answer["api_key"])
    with server.client(answer["api_key"]) as client:
        assert client.get("/list_jobs").json() == {"detail": "Invalid API key"}


@pytest.mark.parametrize("name", MARKUP)
def test_a_name_that_cannot_be_is_400(server: Serving, name: str) -> None:
    answer = httpx.post(f"{server.url}/register", params={"username": name})
    assert answer.status_code == 400 and answer.json()["detail"].startswith("Invalid username")
    assert not name or name not in answer.text


def test_nobody_takes_a_name_over(server: Serving) -> None:
    server.token("bob")
    server.run("token", "create", "carol", "expired-token", "--days", "1e-9")
    server.run("token", "revoke-user", "bob")
    Client(server, "alice")
    for name in ("alice", "Alice", "bob", "carol", "anonymous"):
        answer = httpx.post(f"{server.url}/register", params={"username": name})
        assert (answer.status_code, answer.json()) == (400, {"detail": "Username is taken"}), name
    answers: list[int] = []

    def race() -> None:
        answers.append(httpx.post(f"{server.url}/register?username=dave", timeout=TIMEOUT).status_code)

    threads = [threading.Thread(target=race) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(answers) == [200, *[400] * 11]
    assert len(rows(server.state / ".tinksched/state.db", "SELECT * FROM server_tokens WHERE user_id = 'dave'")) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "10.1.2.3"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=10.1.2.3"},
        {"Host": "rebound.example.org"},
        {"Origin": "https://example.org"},
        {"Origin": "null"},
    ],
    ids=str,
)
@pytest.mark.parametrize("proxies", [[], ["127.0.0.1"]], ids=["no proxy", "a proxy"])
def test_only_programs_of_this_machine_register(
    serving: Callable[..., Serving], headers: dict[str, str], proxies: list[str]
) -> None:
    server = serving(trusted_proxies=proxies).start()
    answer = httpx.post(f"{server.url}/register?username=alice", headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Authorization header required"})
    token, root = server.token("bob"), server.token("root", admin=True)
    with server.client(token) as client:
        assert client.post("/register?username=alice", headers=headers).status_code == 403
    with server.client(root) as client:
        assert client.post("/register?username=alice", headers=headers).status_code == 200


def test_registration_that_is_open_to_all(serving: Callable[..., Serving]) -> None:
    server = serving(open_registration=True).start()
    answer = httpx.post(f"{server.url}/register?username=alice", headers={"X-Forwarded-For": "10.1.2.3"})
    assert answer.status_code == 200


def test_another_machine_is_no_loopback(serving: Callable[..., Serving]) -> None:
    addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
    here = next((one for one in addresses if "." in one), None)
    if here is None:
        pytest.skip("this machine has no address but loopback")
    server = serving(host="0.0.0.0").start()
    port = server.url.rpartition(":")[2]
    answer = httpx.post(f"http://{here}:{port}/register?username=alice", trust_env=False)
    assert answer.status_code == 401
    assert httpx.post(f"http://127.0.0.1:{port}/register?username=alice").status_code == 200


# ---------------------------------------------------------------- keys


def test_what_is_said_to_those_without_a_good_key(server: Serving) -> None:
    calls = [("POST", "/submit_job"), ("POST", "/submit_inference_job"), ("GET", "/job_status/x"),
             ("GET", "/list_jobs"), ("DELETE", "/cancel_job/x"), ("POST", "/complete_job/x"),
             ("GET", "/admin/users")]  # fmt: skip
    said = {"": "Authorization header required", "Basic abc": "Invalid authorization header format",
            "Bearer": "Invalid authorization header format", "Bearer otk_0": "Invalid API key"}  # fmt: skip
    for method, path in calls:
        for header, detail in said.items():
            answer = httpx.request(method, f"{server.url}{path}", headers={"Authorization": header} if header else {})
            assert (answer.status_code, answer.json()) == (401, {"detail": detail}), (path, header)
            assert answer.headers["www-authenticate"] == "Bearer"


def test_keys_and_tokens_are_of_the_same_users(server: Serving) -> None:
    alice = Client(server)
    job = server.submit(alice.key).json()
    assert job["status"] == "completed"
    token = server.token("alice")
    assert Client(server, "alice", token).ask("GET", "/list_jobs") == {"jobs": []}
    assert server.job(alice.key, job["job_id"])["status"] == "completed", "a new token ends no key"
    assert server.submit(alice.key, user="bob").status_code == 403


def test_admins_see_the_users(server: Serving) -> None:
    alice = Client(server)
    root = Client(server, "root", server.token("root", admin=True))
    users = root.ask("GET", "/admin/users")["users"]
    assert [(one["username"], one["is_admin"]) for one in users] == [("alice", False), ("root", True)]
    assert all(one.keys() == {"user_id", "username", "created_at", "is_admin"} for one in users)
    assert alice.call("GET", "/admin/users").status_code == 403


def test_without_authentication_nobody_needs_a_key_on_this_machine(serving: Callable[..., Serving]) -> None:
    server = serving(enable_auth=False, **SETTINGS).start()
    with server.client() as client:
        assert client.get("/").json()["authentication"] == "disabled"
        job = client.post("/submit_job", json={"config": {}}).json()["job_id"]
        assert [one["job_id"] for one in client.get("/list_jobs").json()["jobs"]] == [job]
        assert client.post(f"/complete_job/{job}").json()["status"] == "COMPLETED"
        for headers in ({"Origin": "https://example.org"}, {"X-Forwarded-For": "10.1.2.3"}, {"Host": "evil.example"}):
            assert client.get("/list_jobs", headers=headers).status_code == 401
        assert client.get("/list_jobs", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/api/jobs").status_code == 401, "the other API has tokens as ever"
        alice = Client(server)
        assert alice.ask("GET", "/list_jobs") == {"jobs": []}


# ---------------------------------------------------------------- what is sent


BAD = {
    "no JSON": (b"{", 400, "The request must be JSON"),
    "nested beyond reason": (b'{"config": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "The request must be JSON"),
    "no map": (b"[]", 422, "request: Input should be"),
    "no config": (b"{}", 422, "config: Field required"),
    "a list as config": (b'{"config": []}', 422, "config: Input should be a valid dictionary"),
    "a number in words": (b'{"config": {}, "num_gpus": "2"}', 422, "num_gpus: Input should be a valid integer"),
    "a truth as number": (b'{"config": {}, "num_gpus": true}', 422, "num_gpus: Input should be a valid integer"),
    "an option as key": (b'{"config": {"--help": 1}}', 422, "config: a key must be"),
    "an empty key": (b'{"config": {"": 1}}', 422, "config: a key must be"),
    "another key": (b'{"config": {"a": {"b=c": 1}}}', 422, "config.a: a key must be"),
    "deep": (b'{"config": ' + b'{"a": ' * 50 + b"1" + b"}" * 51, 422, "config: is nested deeper than 32 levels"),
    "infinite": (b'{"config": {"a": 1e999}}', 422, "config.a: must be a number that is finite"),
    "NUL": (b'{"config": {"a": "x\\u0000"}}', 422, "a: must not be empty, or hold a NUL"),
    "half a character": (b'{"config": {"a": "\\ud800"}}', 422, "a: must be text that UTF-8 can hold"),
    "long": (b'{"config": {"a": "' + b"x" * 200_000 + b'"}}', 422, "a: is longer than 100000 bytes"),
}


@pytest.fixture
def alice(serving: Callable[..., Serving]) -> Client:
    return Client(serving(**SETTINGS).start())


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_said(alice: Client, what: str) -> None:
    body, code, detail = BAD[what]
    answer = alice.call("POST", "/submit_job", content=body)
    assert answer.status_code == code and answer.json()["detail"].startswith(detail), answer.text
    assert alice.ask("GET", "/list_jobs") == {"jobs": []} and not os.listdir(alice.server.state / "jobs")


def test_a_model_that_looks_like_an_option(alice: Client) -> None:
    answer = alice.call("POST", "/submit_inference_job", json={"model_path": "--trust"})
    assert answer.status_code == 422 and answer.json() == {"detail": "model_path: must not begin with '-'"}


def test_without_gpus_none_can_be_asked_for(alice: Client) -> None:
    answer = alice.call("POST", "/submit_job", json={"config": {}, "num_gpus": 1})
    assert answer.json() == {"detail": "num_gpus: this server has no GPUs; leave it out"}


# ---------------------------------------------------------------- ports, origins


def test_both_ports_answer_both_apis_and_a_taken_one_is_said(serving: Callable[..., Serving]) -> None:
    server = serving().start()
    assert server.process is not None and server.process.stdout is not None
    second = re.search(r"and on (http://\S+), where clients of OpenTinker look", server.process.stdout.readline())
    assert second is not None and second[1] != server.url
    for url in (server.url, second[1]):
        for path in ("/", "/health", "/api/nodes", "/docs"):
            assert httpx.get(f"{url}{path}").status_code == 200
        assert httpx.get(f"{url}/list_jobs").status_code == 401
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        other = serving("other", scheduler_port=taken.getsockname()[1])
        answer = other.run("serve", code=2)
    assert "can't listen there" in answer.err and "scheduler_port" in answer.err
    assert not other.state.exists()


def test_pages_of_other_servers_may_call_only_if_they_are_named(serving: Callable[..., Serving]) -> None:
    server = serving(allowed_origins=["https://gpu.example.org:8081"]).start()
    for origin, good in (("https://gpu.example.org:8081", True), ("https://evil.example.org", False)):
        headers = {"Origin": origin, "Access-Control-Request-Method": "GET",
                   "Access-Control-Request-Headers": "authorization"}  # fmt: skip
        answer = httpx.options(f"{server.url}/list_jobs", headers=headers)
        assert (answer.headers.get("access-control-allow-origin") == origin) is good
        answer = httpx.get(f"{server.url}/list_jobs", headers={"Origin": origin})
        assert (answer.headers.get("access-control-allow-origin") == origin) is good
    assert serving("bad", allowed_origins=["*"]).run("serve", code=2).err


def test_keys_of_a_settings_file_of_opentinker(serving: Callable[..., Serving]) -> None:
    old = {"user_db_path": "scheduler_users.db", "num_ports": 50, "port_range": None, "logs_dir": "lines"}
    server = serving(**old, gpus_per_job=0).start()
    assert (server.folder / "lines" / "train_logs").is_dir()
    assert "differ" in serving("two", use_gpus=[0], available_gpus=[1]).run("serve", code=2).err
    for name, value in (("port_range", [5, 4]), ("training_command", ["x", "{prot}"]), ("health_path", "health")):
        answer = serving(name, **{name: value}).run("serve", code=2)
        assert name in answer.err and "Traceback" not in answer.err


# ---------------------------------------------------------------- tinksched register


def registering(server: Serving, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tinksched", "register", *arguments], input=text, capture_output=True, text=True,
        cwd=server.folder, env=server.lab.environment, timeout=TIMEOUT, check=False,
    )  # fmt: skip


def test_registering_leaves_a_key_that_only_its_owner_reads(server: Serving, tmp_path: Path) -> None:
    file = tmp_path / "key"
    done = registering(server, "alice", "--server", server.url, "--output", str(file))
    assert done.returncode == 0, done.stderr
    key = file.read_text().strip()
    assert KEY.fullmatch(key) and key not in done.stdout + done.stderr and str(file) in done.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Client(server, "alice", key).ask("GET", "/list_jobs") == {"jobs": []}
    again = registering(server, "bob", "--server", server.url, "--output", str(file))
    assert again.returncode == 2 and "is there already" in again.stderr and file.read_text().strip() == key
    taken = registering(server, "alice", "--server", server.url, "--output", str(tmp_path / "other"))
    assert taken.returncode == 2 and "Username is taken" in taken.stderr and not (tmp_path / "other").exists()


def test_without_a_name_it_asks_for_one(server: Serving, tmp_path: Path) -> None:
    done = registering(server, "--server", server.url, "--output", str(tmp_path / "key"))
    assert done.returncode == 2 and "USERNAME" in done.stderr
    import pty

    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tinksched", "register", "--server", server.url, "--output", str(tmp_path / "key")],
        stdin=child, stdout=child, stderr=child, env=server.lab.environment, cwd=server.folder,
    )  # fmt: skip
    os.close(child)
    os.write(parent, b"carol\n")
    assert process.wait(TIMEOUT) == 0
    said = os.read(parent, 65536).decode()
    os.close(parent)
    assert "username: " in said and KEY.fullmatch((tmp_path / "key").read_text().strip())


def test_by_default_the_key_lies_where_clients_look(server: Serving) -> None:
    done = registering(server, "alice", "--server", server.url)
    file = Path(server.lab.environment["HOME"], ".config/tinksched/token")
    assert done.returncode == 0 and KEY.fullmatch(file.read_text().strip()), done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_server_that_is_not_there(server: Serving) -> None:
    done = registering(server, "alice", "--server", "http://127.0.0.1:1")
    assert done.returncode == 2 and "http://127.0.0.1:1" in done.stderr and "Traceback" not in done.stderr
