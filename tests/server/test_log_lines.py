"""What the server says of each job on standard error, and what it tells elsewhere."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

from tests.serving import Serving, until
from tests.support import TIMEOUT
from tinksched.server.main import _Line

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def test_every_submission_start_end_and_refused_login_is_one_line(server: Serving) -> None:
    token = server.token("alice")
    job = server.submit(token, "raise SystemExit(3)").json()["job_id"]
    with server.client("wrong-token-0815") as client:
        assert client.get(f"/api/status/{job}").status_code == 401
    until(server.log, lambda text: "refused" in text)
    lines = server.log().splitlines()
    assert re.fullmatch(f"{TIME} Job {job} submitted user_id=alice competition_id=comp", lines[0])
    assert re.fullmatch(f"{TIME} Job {job} started user_id=alice node_id=0", lines[1])
    assert re.fullmatch(f"{TIME} Job {job} ended user_id=alice status=failed exit_code=3", lines[2])
    assert re.match(f"{TIME} .*refused.* 127.0.0.1", lines[3]) and len(lines) == 4
    assert token not in server.log() and "0815" not in server.log()


def test_a_line_stays_one_line() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "a %s", ("b\nJob 7 ended\x1b[2J\u2028é",), None)
    assert _Line("%(message)s").format(record) == "a b\\nJob 7 ended\\x1b[2J\\u2028é"


def test_a_job_that_fails_is_told_to_notify(serving: Callable[..., Serving]) -> None:
    told: list[str] = []
    heard = threading.Event()

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()
            heard.set()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Service) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        server = serving(notify=[f"json://127.0.0.1:{service.server_port}"], notify_on=["failed"]).start()
        token = server.token("alice")
        server.submit(token)
        job = server.submit(token, "raise SystemExit(3)").json()["job_id"]
        assert heard.wait(TIMEOUT)
        service.shutdown()
        thread.join()
    assert len(told) == 1 and job in told[0] and "exit code 3" in told[0]
