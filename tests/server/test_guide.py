"""examples/server/README.md: its commands are run, its SQL is asked, its keys and columns are there."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import Serving
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
    for cells in re.findall(r"^\| (`.*?`) \| ([\d, ]+) \|", section, re.MULTILINE):
        names, values = re.findall(r"`(\w+)`", cells[0]), [int(value) for value in cells[1].split(",")]
        assert [KEYS[name].default for name in names] == values


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed: apt-get install nginx-light")
def test_nginx_accepts_its_part(tmp_path: Path) -> None:
    (part,) = blocks("nginx")
    part = re.sub(r"^ *ssl_certificate.*\n", "", part, flags=re.MULTILINE).replace("443 ssl", "44443")
    (tmp_path / "nginx.conf").write_text(f"events {{}}\npid {tmp_path}/pid;\nhttp {{\naccess_log off;\n{part}}}\n")
    command = ["nginx", "-t", "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
