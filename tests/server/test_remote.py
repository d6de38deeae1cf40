"""`tinksched remote` against a real server, and against what may stand in its place."""

from __future__ import annotations

import json
import os
import pty
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.serving import Serving
from tests.support import TIMEOUT, Answer, Lab
from tinksched.operations.remote import events

WHERE = ("--competition", "cup", "--project", "base", "--user", "alice", "--expected-time", "1m")
FOREVER = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n"


class Client:
    """Somebody at another machine: a folder, a token, a server."""

    def __init__(self, lab: Lab, url: str, token: str | None = "0123456789") -> None:
        self.folder = lab.folder
        self.environment = {**lab.environment, "TINKSCHED_SERVER": url}
        if token is not None:
            self.environment["TINKSCHED_TOKEN"] = token

    def script(self, code: str) -> str:
        (self.folder / "train.py").write_text(code)
        return "train.py"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tinksched", "remote", *arguments], env=self.environment, cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0) -> Answer:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == code, f"{arguments}: {process.returncode}\n{out}{err}"
        assert "Traceback" not in err
        return Answer(process.returncode, out, err)


@pytest.fixture
def client(server: Serving, lab: Lab) -> Client:
    return Client(lab, server.url, server.token("alice"))


# ---------------------------------------------------------------- a job's way


def test_submit_waits_prints_the_results_and_exits_as_the_job_did(client: Client) -> None:
    code = client.script("import sys\nprint('é out')\nprint('bad', file=sys.stderr)\n")
    done = client.run("submit", code, *WHERE)
    assert done.out == "é out\n" and "bad\n" in done.err and "completed (exit code 0)" in done.err
    failed = client.run("submit", client.script("raise SystemExit(7)"), *WHERE, code=1)
    assert "failed (exit code 7)" in failed.err
    (client.folder / "job.yaml").write_text(
        "competition_id: cup\nproject_id: base\nuser_id: alice\nexpected_time: 60\n"
    )
    record = json.loads(client.run("submit", code, "--config", "job.yaml", "--json", code=1).out)
    assert record["version"] == 1 and record["job"]["exit_code"] == 7
    listed = json.loads(client.run("jobs", "--json").out)
    assert listed["version"] == 1 and len(listed["jobs"]) == 3
    assert client.run("jobs", "--status", "failed").out.count("cup") == 2
    assert json.loads(client.run("jobs", "--status", "pending", "--json").out)["jobs"] == []


def test_one_that_is_not_waited_for_is_followed_and_cancelled(client: Client) -> None:
    job = client.run("submit", client.script(FOREVER), *WHERE, "--no-wait").out.strip()
    assert (
        "is running" in client.run("results", job, code=3).err or "is pending" in client.run("results", job, code=3).err
    )
    logs = client.start("logs", job)
    assert logs.stdout is not None and logs.stdout.readline() == "begun\n"
    assert "status          running" in client.run("status", job).out
    assert json.loads(client.run("status", job, "--json").out)["job"]["status"] == "running"
    assert client.run("logs", job, "--timeout", "1s", code=124).out == "begun\n"
    assert client.run("cancel", job).out == f"cancelled: {job}\n"
    out, err = logs.communicate(timeout=TIMEOUT)
    assert logs.returncode == 1 and out == "" and f"job {job} cancelled" in err
    assert client.run("cancel", job, code=3).err == "tinksched: Job already completed\n"
    assert "begun" in client.run("results", job, code=1).out
    records = [json.loads(line) for line in client.run("logs", job, "--json", code=1).out.splitlines()]
    assert records[0] == {"version": 1, "event": "stdout", "text": "begun\n"} and records[-1]["status"] == "cancelled"


def test_logs_go_on_where_they_were_when_the_server_was_away(
    serving: Callable[..., Serving], lab: Lab, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = serving(port=port).start()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    client = Client(lab, server.url, server.token("alice"))
    code = (
        f"print('before', flush=True)\nfor line in open({str(gate)!r}):\n    print('after', line, end='', flush=True)\n"
    )
    process = client.start("submit", client.script(code), *WHERE, "--follow")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "before\n"
    server.stop(9)
    assert "submitted" in process.stderr.readline() and "it is tried again" in process.stderr.readline()
    server.start()
    with gate.open("w") as opened:
        opened.write("\u2028 \x0c all\n")
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out) == (0, "after \u2028 \x0c all\n"), err


def test_ctrl_c_ends_the_waiting_and_not_the_job(client: Client, server: Serving) -> None:
    process = client.start("submit", client.script(FOREVER), *WHERE, "--follow")
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(2)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130 and "the job goes on: tinksched remote logs" in err
    job = json.loads(client.run("jobs", "--json").out)["jobs"][0]
    assert job["status"] == "running"


def test_what_the_scan_warns_of_is_said(serving: Callable[..., Serving], lab: Lab) -> None:
    server = serving(code_scan="static").start()
    client = Client(lab, server.url, server.token("alice"))
    assert "warning: imports no library" in client.run("submit", client.script("print(1)"), *WHERE).err
    refused = client.run("submit", client.script("import os\nos.system('x')"), *WHERE, code=2)
    assert "line 2: os.system runs a shell" in refused.err


# ---------------------------------------------------------------- who is let in


def test_the_token_is_in_the_environment_or_in_a_private_file(server: Serving, lab: Lab) -> None:
    token = server.token("alice")
    client = Client(lab, server.url, None)
    assert "there is no token" in client.run("jobs", code=2).err
    file = Path(lab.environment["HOME"]) / ".config/tinksched/token"
    file.parent.mkdir(parents=True)
    file.write_text(f"{token}\n")
    file.chmod(0o640)
    refused = client.run("jobs", code=2).err
    assert "others may read it" in refused and f"chmod 600 {file}" in refused and token not in refused
    file.chmod(0o600)
    client.run("jobs")
    file.write_text("")
    assert "must hold a token" in client.run("jobs", code=2).err
    for text in ("two words", "ünicode"):
        client.environment["TINKSCHED_TOKEN"] = text
        assert "must hold a token" in client.run("jobs", code=2).err


def test_who_may_not_is_told_why(client: Client, server: Serving, lab: Lab) -> None:
    other = Client(lab, server.url, server.token("bob"))
    job = client.run("submit", client.script("print(1)"), *WHERE, "--no-wait").out.strip()
    for command in ("status", "results", "logs", "cancel"):
        assert "not allowed: Job belongs to another user" in other.run(command, job, code=2).err
        assert "Job not found" in other.run(command, "no-such-job", code=3).err
    assert "not allowed: Token does not belong" in other.run("submit", "train.py", *WHERE, code=2).err
    other.environment["TINKSCHED_TOKEN"] = "of somebody".replace(" ", "-")
    assert "does not take the token: Invalid or expired token" in other.run("jobs", code=2).err


# ---------------------------------------------------------------- wrong use


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("submit", "train.py"), "needs --config FILE, or --competition, --project, --user, --expected-time"),
        (("submit", "train.py", "--user", "a"), "or --competition, --project, --expected-time as well"),
        (("submit", "train.py", "--config", "x", "--user", "a"), "leave out --user"),
        (("submit", "train.py", "--config", "x"), "x: can't be read"),
        (("submit", "gone.py", *WHERE), "gone.py: can't be read"),
        (("submit", ".", *WHERE), "can't be read"),
        (("submit", "train.py", *WHERE, "--no-wait", "--follow"), "exclude each other"),
        (("submit", "train.py", *WHERE[:-1], "soon"), "--expected-time must be a duration"),
        (("status", "../jobs"), "not the id of a job"),
        (("status", ".."), "not the id of a job"),
        (("jobs", "--server", "gpu.example.org"), "must be such as https://"),
        (("jobs", "--server", "http://alice:secret@localhost"), "must be such as https://"),
        (("jobs", "--server", ""), "which server?"),
    ],
)
def test_wrong_use_is_said_before_anything_is_sent(lab: Lab, arguments: tuple[str, ...], said: str) -> None:
    client = Client(lab, "")
    client.environment["TINKSCHED_SERVER"] = "" if said == "which server?" else "http://127.0.0.1:9"
    client.script("print(1)")
    assert said in client.run(*arguments, code=2).err


# ---------------------------------------------------------------- what may stand at the other end


class Stand(ThreadingHTTPServer):
    """Answers with what a test says, one after the other, the last one for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Stand

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(f"{self.path} {self.headers.get('Last-Event-ID', '')}".strip())
        status, headers, body = self.server.answers.pop(0) if self.server.answers[1:] else self.server.answers[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


@pytest.fixture
def stand() -> Iterator[Stand]:
    with Stand() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def detail(text: str) -> bytes:
    return json.dumps({"detail": text}).encode()


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (200, {}, b"<html>hello</html>", "answers, but not as a tinksched server"),
        (200, {}, b'{"job_id": 1}', "answers, but not as a tinksched server"),
        (200, {}, b"[" * 100_000, "answers, but not as a tinksched server"),
        (404, {}, b"not found", "answers, but not as a tinksched server"),
        (404, {}, detail("Not Found"), "answers, but not as a tinksched server"),
        (500, {}, b"oops", "answers, but not as a tinksched server"),
        (302, {"Location": "https://gpu.example.org/"}, b"", "sends on to https://gpu.example.org/"),
        (413, {}, b"<html>too large</html>", "larger than the server takes"),
        (429, {"Retry-After": "7"}, detail("Rate limit exceeded"), "Rate limit exceeded (again in 7 s)"),
        (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, detail("Too often"), "Too often (again in 1 s)"),
        (429, {"Retry-After": "soon"}, detail("Too often"), "Too often (again in 10 s)"),
        (502, {}, b"<html>", "the server behind it does not answer"),
        (503, {"Retry-After": "9"}, detail("The server is stopping"), "The server is stopping (again in 9 s)"),
        (507, {}, detail("The server's disk is full"), "The server's disk is full"),
        (400, {}, detail("code: \x1b[2Jempty"), "code: ?[2Jempty"),
    ],
)
def test_every_other_answer_has_its_message(
    lab: Lab, stand: Stand, status: int, headers: dict[str, str], body: bytes, said: str
) -> None:
    stand.answers = [(status, headers, body)]
    client = Client(lab, stand.url)
    assert said in client.run("submit", client.script("print(1)"), *WHERE, "--no-wait", code=2).err
    assert len(stand.asked) == 1


def test_with_retry_a_server_that_says_later_is_asked_again(lab: Lab, stand: Stand) -> None:
    good = {"job_id": "j1", "status": "pending"}
    later = (429, {"Retry-After": "1"}, detail("Rate limit exceeded"))
    stand.answers = [later, later, (200, {}, json.dumps(good).encode())]
    client = Client(lab, stand.url)
    done = client.run("submit", client.script("print(1)"), *WHERE, "--no-wait", "--retry")
    assert done.out == "j1\n" and done.err.count("it is tried again") == 2 and len(stand.asked) == 3
    stand.answers = [(429, {"Retry-After": "60"}, detail("Rate limit exceeded"))]
    client.run("submit", "train.py", *WHERE, "--no-wait", "--retry", "--timeout", "1s", code=124)


def test_a_log_that_breaks_off_is_asked_for_from_there(lab: Lab, stand: Stand) -> None:
    stream = {"Content-Type": "text/event-stream"}
    stand.answers = [
        (200, stream, b": hello\n\nevent: stdout\nid: 4-0\ndata: one\ndata: \n\nevent: stdout\nid: 8-0\ndata: tw"),
        (502, {}, b"<html>"),
        (429, {"Retry-After": "1"}, detail("Rate limit exceeded")),
        (200, stream, b'event: stdout\nid: 8-0\ndata: two\ndata: \n\nevent: end\ndata: {"status": "completed"}\n\n'),
    ]
    assert Client(lab, stand.url).run("logs", "j1").out == "one\ntwo\n"
    assert stand.asked == ["/api/logs/j1", *["/api/logs/j1 4-0"] * 3]


def test_who_can_not_be_reached_is_named(lab: Lab, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert f"{url}: can't be reached" in Client(lab, url).run("jobs", code=2).err
    assert "can't be reached" in Client(lab, "http://no-such-host.invalid").run("jobs", code=2).err


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no HTTP is spoken there"),
        (b"", "it may have been done all the same"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "the connection broke"),
    ],
)
def test_what_is_no_http_or_breaks_off(lab: Lab, answer: bytes, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(TIMEOUT)
                seen = b""
                while b"print(1)" not in seen or not seen.rstrip().endswith(b"--"):
                    seen += connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        client = Client(lab, f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert said in client.run("submit", client.script("print(1)"), *WHERE, code=2).err
        thread.join()


def test_tls_that_can_not_be_trusted_is_not(lab: Lab, stand: Stand, tmp_path: Path) -> None:
    stand.answers = [(200, {}, b"[]")]
    client = Client(lab, stand.url.replace("http:", "https:"))
    assert "no TLS is spoken there" in client.run("jobs", code=2).err and stand.asked == []
    key, cert = tmp_path / "key", tmp_path / "cert"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    stand.socket = context.wrap_socket(stand.socket, server_side=True)
    client = Client(lab, f"https://localhost:{stand.server_address[1]}")
    refused = client.run("jobs", code=2).err
    assert "no TLS connection that can be trusted" in refused and "SSL_CERT_FILE" in refused and stand.asked == []
    client.environment["SSL_CERT_FILE"] = str(cert)
    client.run("jobs")


# ---------------------------------------------------------------- the events


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), min_size=1), st.data())
def test_events_come_through_in_whatever_pieces(lines: list[str], data: st.DataObject) -> None:
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    text = "".join(f"data: {line}{end}" for line in lines)
    whole = f": comment{end}{end}event: stdout{end}id: 3-4{end}{text}{end}event: end{end}data: x{end}{end}"
    raw = f"{whole}data: cut off".encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)))))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    seen = [event for event in events(iter(pieces)) if event]
    assert seen == [("stdout", "\n".join(lines), "3-4"), ("end", "x", None)]


def test_a_terminal_is_not_taken_over(client: Client) -> None:
    job = client.run("submit", client.script(r"print('\x1b[31mred\x1b[0m \x1b]0;title\x07')"), *WHERE, "--no-wait")
    main, sub = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tinksched", "remote", "logs", job.out.strip()], env=client.environment, stdout=sub,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(sub)
    assert process.wait(TIMEOUT) == 0
    seen = os.read(main, 4096)
    os.close(main)
    assert b"\x1b[31mred\x1b[0m ?]0;title?" in seen
