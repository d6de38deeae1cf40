"""What guides show is done as they show it, by a real curl, against a fresh server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import guides
from tests.services import Client
from tests.serving import Serving
from tests.support import TIMEOUT, Lab

EXAMPLES = Path(__file__).parents[2] / "examples/server"


def test_the_calls_of_older_guides_get_the_answers_on_record(lab: Lab) -> None:
    assert guides.everything(lab) == guides.FILE.read_text(), "is it meant? `python -m tests.guides` writes it anew"


def test_every_documented_endpoint_is_called_and_nothing_secret_is_on_record() -> None:
    text = guides.FILE.read_text()
    calls = [f"/api/{name}" for name in ("submit", "status/", "results/", "cancel/", "jobs", "nodes", "dashboard")]
    calls += ["/register", "/submit_job", "/job_status/", "/complete_job/", "/list_jobs"]
    for call in (*calls, "/docs", "token create", "token list", "token revoke ", "token revoke-user"):
        assert re.search(rf"(?m)^(curl|tinksched).*{re.escape(call)}", text), call
    assert not re.search(r"otk_|of-(alice|bob|admin)-0|Traceback|127\.0\.0\.1|/tmp/", text)


@pytest.mark.parametrize("program", [("sh", "submit.sh"), (sys.executable, "client.py")])
def test_the_examples_submit_follow_and_print(server: Serving, lab: Lab, program: tuple[str, str]) -> None:
    folder = lab.folder / "copied"
    shutil.copytree(EXAMPLES, folder)
    environment = {**lab.environment, "TINKSCHED_SERVER": server.url, "TINKSCHED_TOKEN": server.token("alice")}

    def run(code: int) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [program[0], str(folder / program[1])], env=environment, capture_output=True, text=True, timeout=TIMEOUT
        )
        assert done.returncode == code, done.stderr
        return done

    done = run(0)
    assert "epoch 20: loss" in done.stderr and "epoch 100: loss" in done.stderr
    text = json.loads(done.stdout)["stdout"] if program[1] == "submit.sh" else done.stdout
    results = [json.loads(line) for line in text.splitlines()]
    assert len(results) == 5 and abs(results[-1]["slope"] - 3) < 0.3
    environment["TINKSCHED_TOKEN"] = "not-a-good-one"
    refused = run(1)
    assert "Invalid or expired token" in refused.stdout + refused.stderr


@pytest.mark.parametrize("program", [("sh", "opentinker.sh"), (sys.executable, "opentinker.py")])
def test_the_examples_get_a_training_server_and_give_it_back(lab: Lab, program: tuple[str, str]) -> None:
    with guides.training(lab, "examples") as server:
        ada = Client(server, "ada")
        environment = {**lab.environment, "OPENTINKER_SCHEDULER": server.url, "OPENTINKER_KEY": ada.key}
        command = [program[0], str(EXAMPLES / program[1])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr
        assert "Job completed successfully" in done.stderr
        assert "y = 2.0 x + 1.0" in done.stdout or '"steps": 3' in done.stdout
        assert [job["status"] for job in ada.ask("GET", "/list_jobs")["jobs"]] == ["COMPLETED"]
        environment["OPENTINKER_KEY"] = "otk_wrong"
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert refused.returncode == 1 and "Invalid API key" in refused.stderr
