"""templates/server.yml and templates/tinksched-server.service: complete, and true."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server import template
from tests.serving import Serving
from tests.support import Lab
from tinksched.config.server import KEYS, load_server

TEMPLATES = Path(__file__).parents[2] / "templates"
TEMPLATE = (TEMPLATES / "server.yml").read_text()


def test_the_template_is_the_table_of_keys() -> None:
    assert template.text() == TEMPLATE, "python -m tests.server.template >templates/server.yml"
    assert set(template.SECTIONS) <= set(KEYS)


def test_every_line_is_a_default(tmp_path: Path) -> None:
    file = tmp_path / "server.yml"
    file.write_text(TEMPLATE)
    assert load_server(file) == load_server(None)
    file.write_text(re.sub(r"^#(?=[a-z_]+:)", "", TEMPLATE, flags=re.MULTILINE))
    assert load_server(file) == load_server(None)


def test_it_reads_well() -> None:
    lines = TEMPLATE.splitlines()
    assert all(len(line) <= 120 and "\t" not in line for line in lines)


def test_serve_writes_it_once(serving: Callable[..., Serving]) -> None:
    server = serving()
    server.config.unlink()
    command = [sys.executable, "-m", "tinksched", "serve", "--init"]
    done = subprocess.run(command, cwd=server.folder, env=server.lab.environment, capture_output=True, text=True)
    assert (done.returncode, server.config.read_text()) == (0, TEMPLATE) and "server.yml" in done.stdout
    server.config.write_text("port: 1\n")
    done = subprocess.run(command, cwd=server.folder, env=server.lab.environment, capture_output=True, text=True)
    assert done.returncode == 2 and "is there already" in done.stderr and server.config.read_text() == "port: 1\n"


# ---------------------------------------------------------------- systemd


def unit(lab: Lab) -> Path:
    """The unit as an administrator saves it."""
    text = (TEMPLATES / "tinksched-server.service").read_text()
    path = lab.folder / "tinksched-server.service"
    program = Path(sys.executable).with_name("tinksched")
    path.write_text(text.replace("@TINKSCHED@", str(program)).replace("@CONFIG@", str(lab.folder / "my server.yml")))
    return path


def test_the_unit_lets_jobs_survive(lab: Lab) -> None:
    parser = configparser.ConfigParser(interpolation=None, delimiters=["="], comment_prefixes=["#"])
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(unit(lab))
    service = parser["Service"]
    assert shlex.split(service["ExecStart"])[1:] == ["serve", "--config", str(lab.folder / "my server.yml")]
    assert (service["KillMode"], service["OOMPolicy"]) == ("process", "continue")
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("how", [["--user"], []], ids=["user", "system"])
def test_systemd_accepts_the_unit(lab: Lab, how: list[str]) -> None:
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(lab.folder)}
    command = ["systemd-analyze", "verify", *how, str(unit(lab))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    mine = [line for line in done.stderr.splitlines() if "tinksched-server" in line]
    assert (done.returncode, done.stdout, mine) == (0, "", [])
