"""What nobody should send: each gets a 4xx with a `detail`, nothing is left behind, and the server goes on."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.server.test_limits import left_behind
from tests.serving import QUICK, Serving, form
from tests.support import TIMEOUT

NASTY = (
    "../../../etc/passwd", "..%2f..%2fetc", "/etc/passwd", "a/b", "..\\..\\x", "a\0b", "",
    "$(touch pwned)", "`touch pwned`", "; touch pwned", "| touch pwned", "&& touch pwned", "x' touch pwned '", "~root",
    "' OR '1'='1", "'; DROP TABLE server_jobs; --", "1 UNION SELECT hash FROM server_tokens", "%' OR 1=1",
    "%s%s%n", "{0.__class__}", "{job_id}", "%(x)s", "${HOME}", "#{session_name}", "#(touch pwned)", "{{7*7}}",
    "a\r\nX-Injected: yes", "a\nb", "\x1b[31mred", "<script>alert(1)</script>", "-rf", "--help", "a b", "é",
    "\uff11\uff12", "\u202ex", "x" * 129, "x" * 10_000, "😀", ".", "..",
)  # fmt: skip


def check(answer: httpx.Response, *allowed: int) -> str:
    """It is refused as it should be. Returns why."""
    assert answer.status_code in (allowed or range(400, 500)), (answer.status_code, answer.text)
    if answer.request.method != "HEAD":
        assert list(answer.json()) == ["detail"] and answer.json()["detail"], answer.text
        return str(answer.json()["detail"])
    return ""


@pytest.fixture
def calm(server: Serving) -> Iterator[Serving]:
    """A server that is as before when the test has ended: it has met no defect, has kept nothing, and works."""
    before = left_behind(server)
    yield server
    log = server.log()
    assert "Traceback" not in log and "defect" not in log, log
    assert left_behind(server) == before
    assert not list(server.folder.rglob("*pwned*"))
    assert server.submit(server.token("last"), user="last").json()["stdout"] == "hello\n"


def test_ids_in_paths_and_queries(calm: Serving) -> None:
    token = calm.token("alice")
    with calm.client(token) as client:
        for text in NASTY:
            path = quote(text, safe="")
            for method, what in (("GET", "status"), ("GET", "results"), ("GET", "logs"), ("POST", "cancel")):
                check(client.request(method, f"/api/{what}/{path}"), 404, 405)
                assert check(client.request(method, f"/api/{what}/x?user_id={path}"), 403)
            check(client.get("/api/jobs", params={"user_id": text}), 403)
            check(client.get("/api/dashboard", params={"user_id": text}), 403)
            assert check(client.get("/api/jobs", params={"status": text}), 400).startswith("status: ")
            assert check(client.get("/api/jobs", params={"limit": text or "x"}), 400).startswith("limit: ")
        for limit in ("-1", "0", "1001", "1e3", "9" * 400, "nan", "٣", "0x10", "true", "5.5"):
            assert check(client.get("/api/jobs", params={"limit": limit}), 400).startswith("limit: ")
        for timeout in ("-1", "nan", "inf", "-inf", "9" * 400, "1e9", "soon", "٣٣"):
            answer = client.post("/api/submit", params={"timeout": timeout}, files=form())
            assert check(answer, 400).startswith("timeout: ")
        assert check(client.post("/api/submit?wait=maybe", files=form()), 400).startswith("wait: ")
        assert client.get("/api/jobs?limit=5&limit=6&" + "&".join(f"x{n}=1" for n in range(1000))).status_code == 200


def test_ids_in_the_config(calm: Serving) -> None:
    token, root = calm.token("alice"), calm.token("root", admin=True)
    for text in NASTY:
        if text in (".", "..", "-rf", "--help"):  # nothing but names
            continue
        for name in ("competition_id", "project_id"):
            assert check(calm.submit(token, **{name: text}), 400).startswith(f"{name}: "), text
        check(calm.submit(token, user=text), 403)
        assert check(calm.submit(root, user=text), 400).startswith("user_id: "), text


def test_names_that_only_look_bad_are_names(server: Serving) -> None:
    """They never stand alone in a path or a command."""
    root = server.token("root", admin=True)
    names = ("..", ".", "-rf", "--help", "a" * 128)
    for name in names:
        answer = server.submit(root, user=name, competition_id=name, project_id=name).json()
        assert (answer["status"], answer["stdout"]) == ("completed", "hello\n"), answer
        path = Path(answer["results_file"])
        assert path.parent == server.state / "results" and path.read_text() == "hello\n"
    with server.client(root) as client:
        assert [job["user_id"] for job in client.get("/api/jobs").json()] == list(reversed(names))


def test_types_and_bounds_of_fields(calm: Serving) -> None:
    token = calm.token("alice")
    wrong: list[Any] = [0, -1, 1.5, "60", "soon", True, [60], {"a": 1}, 10**9, 10**400, "٦٠", "", "1e3"]
    for value in wrong:
        assert check(calm.submit(token, expected_time=value), 400).startswith("expected_time: "), value
    for value in (["x"], {"a": "b"}, True, 1.5e300, [], {}):
        if value == 1.5e300:
            continue
        for name in ("competition_id", "project_id"):
            assert check(calm.submit(token, **{name: value}), 400).startswith(f"{name}: "), value
        check(calm.submit(token, user=value), 403)
        with calm.client() as client:
            check(client.post("/api/submit", files=form(token=value)), 401)
    for raw in ("0x10", "0o17", "+60", "1e1", "١٢", ".inf", "2026-01-01", "!!int 60", "~", "yes"):
        check(send(calm, token, f"{FIELDS}expected_time: {raw}\n"), 400)
    for name in ("competition_id", "project_id", "user_id", "expected_time"):
        assert check(calm.submit(token, **{"user" if name == "user_id" else name: None}), 400).endswith(f": {name}")


FIELDS = "competition_id: c\nproject_id: p\nuser_id: alice\n"
GOOD = f"{FIELDS}expected_time: 60\n"


def send(server: Serving, token: str, config: str | bytes, code: str | bytes = QUICK) -> httpx.Response:
    """Submit a config as it is written."""
    files = {**form(code), "config_file": ("c.yaml", config if isinstance(config, bytes) else config.encode(), "x/y")}
    with server.client(token) as client:
        return client.post("/api/submit", files=files)


def bomb(levels: int) -> str:
    """A billion laughs."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join([*lines, GOOD])


CONFIGS: Mapping[str, str | bytes] = {
    "empty": "",
    "only a comment": "# nothing\n",
    "a list": "- a\n- b\n",
    "a text": "hello",
    "not UTF-8": b"user_id: \xff\xfe\n",
    "UTF-16": GOOD.encode("utf-16"),
    "NUL": GOOD + "x: 'a\0b'\n",
    "a control character": GOOD + "x: a\x07b\n",
    "unclosed": GOOD + "x: [1, 2\n",
    "tabs": GOOD + "x:\n\t- 1\n",
    "two documents": f"{GOOD}---\n{GOOD}",
    "a duplicate key": f"{GOOD}user_id: root\n",
    "a duplicate key that is no text": '"\\ud800": 1\n"\\ud800": 2\n' + GOOD,
    "a key that is a list": f"{GOOD}? [a]\n: 1\n",
    "a Python object": GOOD + "x: !!python/object/apply:os.system ['touch pwned']\n",
    "an unknown tag": GOOD + "x: !thing 1\n",
    "an unknown alias": GOOD + "x: *nowhere\n",
    "a billion laughs": bomb(9),
    "itself": GOOD + "x: &x [*x]\n",
    "deep lists": GOOD + "x: " + "[" * 5000 + "]" * 5000,
    "deep maps": GOOD + "x: " + "{a: " * 3000 + "}" * 3000,
    "deep by dashes": GOOD + "x:\n  " + "- " * 5000 + "1\n",
    "deep JSON": '{"a":' * 2500 + "1" + "}" * 2500,
    "many values": GOOD + "x: [" + "1," * 3_000 + "]\n",
    "too large": GOOD + "x: " + "a" * 70_000,
    "merge of nothing": GOOD + "<<: 1\n",
    "half a surrogate as user": FIELDS.replace("alice", '"\\ud800"') + "expected_time: 60\n",
    "half a surrogate as token": GOOD + 'token: "\\udfff-not-a-token"\n',
    "a JSON array": "[1, 2]",
    "half a JSON object": '{"user_id": "alice"',
}  # fmt: skip


def test_configs(calm: Serving) -> None:
    token = calm.token("alice")
    for name, config in CONFIGS.items():
        detail = check(send(calm, token, config), 400, 401, 403)
        assert "surrogate as" in name or detail.startswith(("config_file: ", "Missing required")), (name, detail)
        assert "pwned" not in detail or "line" in detail


def test_a_config_may_be_json_begin_with_a_byte_order_mark_and_say_more(server: Serving) -> None:
    token = server.token("alice")
    values = {"competition_id": "c", "project_id": "p", "user_id": "alice", "expected_time": 60}
    for config in (
        json.dumps(values).encode(),
        b"\xef\xbb\xbf" + GOOD.encode(),
        (GOOD + "more: [1, {a: é}]\n").encode(),
    ):
        assert send(server, token, config).json()["stdout"] == "hello\n"
    answer = send(server, token, GOOD + "local_results_path: /etc/cron.d/x\n")
    assert answer.json()["status"] == "completed" and answer.json()["warning"].startswith(
        "local_results_path is ignored"
    )
    assert not Path("/etc/cron.d/x").exists()


def test_codes(calm: Serving) -> None:
    token = calm.token("alice")
    for code in (b"", b"  \n", b"\xff\xfe", b"print('a')\0", b"x" * (1024 * 1024 + 1), "print(1)".encode("utf-16")):
        assert check(send(calm, token, GOOD, code), 400).startswith("code: ")


def test_file_names_are_nothing_to_the_server(server: Serving) -> None:
    token = server.token("alice")
    for name in ("../../../../tmp/evil.py", "/etc/passwd", "x\0.py", "$(touch pwned).py", "a" * 1000, "é.py", 'a"b.py'):
        files = form()
        files = {key: (name, *value[1:]) for key, value in files.items()}
        with server.client(token) as client:
            answer = client.post("/api/submit", files=files)
        assert answer.status_code == 200 and answer.json()["stdout"] == "hello\n", (name, answer.text)
        assert {path.name for path in (server.state / "jobs" / answer.json()["job_id"]).iterdir()} == {
            "code.py", "config.yaml",
        }  # fmt: skip
    assert not list(server.folder.rglob("*pwned*"))


def multipart(*parts: tuple[str, bytes], boundary: str = "b") -> bytes:
    """A body by hand: the headers of each part, and what it holds."""
    body = b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n" for head, content in parts)
    return body + f"--{boundary}--\r\n".encode()


def part(name: str, file: str | None = "f") -> str:
    """The header of a part."""
    return f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{file}"' if file is not None else "")


def test_bodies_that_are_no_submission(calm: Serving) -> None:
    token = calm.token("alice")
    code, config = (part("code"), QUICK.encode()), (part("config_file"), GOOD.encode())
    kind = "multipart/form-data; boundary=b"
    bodies: dict[str, tuple[str | None, bytes]] = {
        "nothing": (None, b""),
        "JSON": ("application/json", json.dumps({"code": QUICK, "config_file": GOOD}).encode()),
        "URL-encoded": ("application/x-www-form-urlencoded", b"code=print(1)&config_file=x"),
        "text": ("text/plain", QUICK.encode()),
        "no boundary": ("multipart/form-data", multipart(code, config)),
        "an empty boundary": ("multipart/form-data; boundary=", multipart(code, config)),
        "a long boundary": (f"multipart/form-data; boundary={'x' * 5000}", multipart(code, config)),
        "another boundary": ("multipart/form-data; boundary=c", multipart(code, config)),
        "a charset that is none": (f"{kind}; charset=nonsense", multipart(code)),
        "no code": (kind, multipart(config)),
        "no config": (kind, multipart(code)),
        "no parts": (kind, multipart()),
        "no end": (kind, multipart(code, config)[:-20]),
        "an end too early": (kind, multipart(code, config)[:30]),
        "fields for files": (kind, multipart((part("code", None), b"x"), (part("config_file", None), b"y"))),
        "no names": (kind, multipart(("Content-Disposition: form-data", b"x"))),
        "no headers": (kind, multipart(("", b"x"))),
        "a header without an end": (kind, b"--b\r\n" + b"X" * 100_000),
        "three files": (kind, multipart(code, config, (part("more"), b"x"))),
        "1000 files": (kind, multipart(*[(part(f"f{n}"), b"x") for n in range(1000)])),
        "1000 fields": (kind, multipart(code, config, *[(part(f"f{n}", None), b"x") for n in range(1000)])),
        "one field of 1000": (kind, multipart(code, (part("x" * 50_000, None), b"x"))),
        "two codes": (kind, multipart(code, code)),
        "random": (kind, bytes(range(256)) * 64),
    }
    for name, (content_type, body) in bodies.items():
        headers = {} if content_type is None else {"Content-Type": content_type}
        with calm.client(token) as client:
            detail = check(client.post("/api/submit", content=body, headers=headers), 400)
        if name in ("no code", "fields for files", "three files"):
            assert "code" in detail or "file" in detail, (name, detail)


def test_methods_and_addresses_that_are_none(calm: Serving) -> None:
    token = calm.token("alice")
    with calm.client(token) as client:
        for method in ("HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "BREW", "x" * 500):
            for path in ("/api/submit", "/api/jobs", "/api/status/x", "/api/cancel/x", "/api/nodes", "/"):
                if method == "HEAD" and path == "/":
                    continue
                check(client.request(method, path), 405)
        for path in ("/nowhere", "/api", "/api/", "/api/jobs/", "/api/submit/", "//api/jobs",
                     "/api/status/", "/api/status/a/b", "/.env", "/%00", "/%ff", "/%2e%2e/x",
                     "/" + "a" * 30_000):  # fmt: skip
            check(client.get(path), 404)
        check(client.post("/api/jobs"), 405)
        check(client.get("/api/submit"), 405)


def test_headers_of_authorisation(calm: Serving) -> None:
    token = calm.token("alice")
    for value in ("", "Bearer", f"Bearer {token} x", f"bearer{token}", token, f"Basic {token}", "Bearer é", "x" * 999,
                  f"Bearer \t{token}x", "Bearer " + "x" * 20_000, "Bearer ' OR 1=1 --",
                  f"Bearer {token},{token}"):  # fmt: skip
        raw = value.encode("latin-1")
        for path in ("/api/jobs", "/api/dashboard", "/api/status/x"):
            answer = httpx.get(calm.url + path, headers=[(b"Authorization", raw)])
            check(answer, 401)
        answer = httpx.post(f"{calm.url}/api/submit", headers=[(b"Authorization", raw)], files=form())
        check(answer, 401)
    assert httpx.get(f"{calm.url}/api/jobs", headers={"Authorization": f"bEaReR   {token}"}).status_code == 200


# ---------------------------------------------------------------- with a socket of one's own


class Raw:
    """A connection on which anything may be sent."""

    def __init__(self, server: Serving) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), TIMEOUT)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, Any]]:
        """Everything until the server closes the connection."""
        data = b""
        with self.socket:
            while chunk := self.socket.recv(65536):
                data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)


def head(method: str, path: str, token: str | None, *more: str) -> bytes:
    """The head of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *more]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


CHUNKED = ("Transfer-Encoding: chunked", "Content-Type: multipart/form-data; boundary=b")


@pytest.mark.parametrize("call", ["POST /api/submit", "GET /api/jobs", "GET /health", "POST /nowhere"])
@pytest.mark.parametrize("known", [False, True])
def test_a_body_without_end_is_cut_off(calm: Serving, call: str, known: bool) -> None:
    raw = Raw(calm)
    raw.send(head(*call.split(), calm.token("alice") if known else None, *CHUNKED))
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    sent = 0
    try:
        while sent < 1 << 28:
            raw.send(chunk)
            sent += len(chunk)
    except OSError:
        pass
    raw.socket.close()
    assert sent < 1 << 26  # what the buffers of both ends hold is more than what is read


def test_a_body_that_says_that_it_is_too_large(calm: Serving) -> None:
    raw = Raw(calm)
    raw.send(
        head("POST", "/api/submit", calm.token("alice"), f"Content-Length: {10**12}", CHUNKED[1]) + b"x" * 1_200_000
    )
    status, answer = raw.answer()
    assert status == 413 and "larger than" in answer["detail"]


@pytest.mark.parametrize("call", ["POST /api/submit", "GET /api/jobs", "POST /nowhere"])
def test_a_slow_body_is_given_up(serving: Callable[..., Serving], call: str) -> None:
    server = serving(request_timeout="1s").start()
    raw = Raw(server)
    raw.send(head(*call.split(), server.token("alice"), "Content-Length: 1000", CHUNKED[1]))
    status, answer = drip(raw)
    assert (status, answer) == (408, {"detail": "The request did not come within 1 seconds"})


def test_a_slow_head_is_given_up(serving: Callable[..., Serving]) -> None:
    server = serving(request_timeout="1s").start()
    assert Raw(server).answer()[0] == 408  # not a byte
    raw = Raw(server)
    raw.send(b"GET /health HTTP/1.1\r\nX: ")
    assert drip(raw)[0] == 408
    raw = Raw(server)  # a second one on a connection
    raw.send(head("GET", "/health", None))
    assert raw.socket.recv(65536).startswith(b"HTTP/1.1 200 ")
    raw.send(b"GET / HTTP/1.1\r\nX: ")
    assert drip(raw)[0] == 408
    assert server.submit(server.token("alice"), "import time\ntime.sleep(2)\nprint('x')\n").json()["stdout"] == "x\n"


def drip(raw: Raw) -> tuple[int, dict[str, Any]]:
    """Send a byte now and then, until there is an answer."""
    raw.socket.settimeout(0.1)
    while True:
        try:
            raw.send(b"x")
            raw.socket.recv(1, socket.MSG_PEEK)
            break
        except TimeoutError:
            continue
    raw.socket.settimeout(TIMEOUT)
    return raw.answer()


def test_what_is_no_http(calm: Serving) -> None:
    for data in (b"\0" * 100 + b"\r\n\r\n", b"GET\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n",
                 b"GET / HTTP/1.1\r\nA\0: b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                 b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 66_000,
                 b"GET /?" + b"a" * 66_000,
                 b"POST /api/submit HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):  # fmt: skip
        raw = Raw(calm)
        raw.send(data)
        status, answer = raw.answer()
        assert 400 <= status < 500 and list(answer) == ["detail"], (data[:40], status, answer)


def test_clients_that_hang_up(calm: Serving) -> None:
    token = calm.token("alice")
    good = head("POST", "/api/submit", token, "Content-Length: 1000", CHUNKED[1])
    for data in (b"", b"GET", good[:40], good, good + b"--b\r\n" + part("code").encode() + b"\r\n\r\nprint("):
        raw = Raw(calm)
        raw.send(data)
        raw.socket.close()
    deadline = time.monotonic() + TIMEOUT
    while httpx.get(f"{calm.url}/health").status_code != 200:
        assert time.monotonic() < deadline


def test_two_requests_at_once_on_a_connection_are_two_requests(calm: Serving) -> None:
    """And a body that looks like one is none."""
    raw = Raw(calm)
    hidden = head("GET", "/api/jobs", calm.token("alice"))
    raw.send(head("GET", "/health", None, f"Content-Length: {len(hidden)}") + hidden)
    raw.send(head("GET", "/nowhere", None, "Connection: close"))
    data = b""
    while chunk := raw.socket.recv(65536):
        data += chunk
    raw.socket.close()
    assert data.count(b"HTTP/1.1 ") == 2 and data.count(b"HTTP/1.1 200") == 1 and data.count(b"HTTP/1.1 404") == 1
