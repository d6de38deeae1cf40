"""examples/server/README.md: its commands are run, its SQL is asked, its keys and columns are there."""

from __future__ import annotations

import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.server.test_faults import free_port
from tests.server.test_stopping import gated
from tests.serving import Serving, until
from tests.support import TIMEOUT
from tinksched.config.server import KEYS, load_server

GUIDE = (Path(__file__).parents[2] / "examples" / "server" / "README.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_every_command_works(server: Serving) -> None:
    programs = Path(sys.executable).parent
    environment = {**server.lab.environment, "PATH": f"{programs}:{server.lab.environment['PATH']}"}
    script = "\n".join(block for block in blocks("sh") if "--init" not in block)
    script = script.replace("http://127.0.0.1:8001", server.url)
    done = subprocess.run(
        ["sh", "-eu", "-c", script], cwd=server.folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"stdout":"hello\\n"' in done.stdout and "revoked: 1" in done.stdout
    assert done.stdout.count("ok: 1 jobs") == 2
    backup = sqlite3.connect(server.folder / "jobs.db")
    for question in blocks("sql"):
        backup.execute(question).fetchall()
    assert backup.execute("SELECT user_id FROM jobs").fetchall() == [("ada",)]
    backup.close()


def test_all_that_is_said_to_be_a_key_is_one(tmp_path: Path) -> None:
    for number, text in enumerate(blocks("yaml")):
        file = tmp_path / f"{number}.yml"
        file.write_text(text)
        load_server(file)
    words = re.findall(r"^\| (`.*?) \|", GUIDE.split("## Limits")[1].split("## Isolation")[0], re.MULTILINE)
    named = {name for cell in words for name in re.findall(r"`(\w+)`", cell)}
    assert named and named <= set(KEYS)
    ours = [line.split("|")[2] for line in GUIDE.split("## From an old")[1].splitlines() if line.startswith("| `")]
    assert {name for cell in ours for name in re.findall(r"`([a-z_]+)(?::.*?)?`", cell)} <= {*KEYS, "static", "llm"}


def test_its_defaults_are_the_defaults() -> None:
    section = GUIDE.split("## Limits")[1].split("## Isolation")[0]
    units = {"": 1, "days": 86_400, "kB": 1000, "MiB": 2**20, "GB": 10**9}
    for cells in re.findall(r"^\| (`.*?`) \| (\d.*?) \|", section, re.MULTILINE):
        names = re.findall(r"`(\w+)`", cells[0])
        values = [int(number) * units[unit] for number, unit in re.findall(r"(\d+) ?(\w*)", cells[1])]
        assert [KEYS[name].default for name in names] == values


def nginx_conf(folder: Path, port: int) -> Path:
    """The guide's part for nginx, on a port of ours and without a certificate."""
    (part,) = blocks("nginx")
    part = re.sub(r"^ *ssl_certificate.*\n", "", part, flags=re.MULTILINE).replace("443 ssl", f"127.0.0.1:{port}")
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; error_log stderr; pid {folder}/pid; events {{}}\nhttp {{ access_log off; {temporary}\n{part}}}\n"
    )
    return file


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed: apt-get install nginx-light")
def test_behind_nginx_clients_wait_follow_and_are_told_apart(serving: Callable[..., Serving], tmp_path: Path) -> None:
    server = serving(trusted_proxies=["127.0.0.1"], limits=True, ip_status=3, ip_submissions_per_user=100).start()
    token, port, gate = server.token("alice"), free_port(), tmp_path / "gate"
    file = nginx_conf(tmp_path, port)
    file.write_text(file.read_text().replace("http://127.0.0.1:8001", server.url))
    nginx = subprocess.Popen(["nginx", "-c", str(file), "-e", "stderr"], stderr=subprocess.DEVNULL)
    try:
        server.url = f"http://127.0.0.1:{port}"
        until(lambda: is_open(port), bool)
        assert server.submit(token).json()["stdout"] == "hello\n"
        code = f"print('first', flush=True)\n{gated(gate)}"
        job = server.submit(token, code, wait=False).json()["job_id"]
        with server.client(token) as client, client.stream("GET", f"/api/logs/{job}") as stream:
            lines = stream.iter_lines()
            assert "data: first" in lines, "before the job has ended"
            gate.touch()
            assert "data: through" in lines
        asked = []
        own = httpx.HTTPTransport(local_address="127.0.0.2")  # no trusted one
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=server.url, headers=headers, transport=own, timeout=TIMEOUT) as client:
            for address in ("192.0.2.1", "192.0.2.2"):  # what a client says of itself is not believed
                said = {"X-Forwarded-For": address}
                asked += [client.get(f"/api/status/{job}", headers=said).status_code for _ in range(2)]
        assert asked == [200, 200, 200, 429]
    finally:
        nginx.terminate()
        nginx.wait(TIMEOUT)


def is_open(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
