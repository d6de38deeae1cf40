"""The interactive reference says what is true: of every field, and of every answer."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.serving import Serving, form
from tests.support import TIMEOUT

FOREVER = "import time\ntime.sleep(600)\n"


@pytest.fixture
def document(server: Serving) -> dict[str, Any]:
    """What the server says of itself."""
    found: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()
    return found


def fields(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of a request or an answer, and every parameter."""
    for name, schema in document["components"]["schemas"].items():
        for field, entry in schema.get("properties", {}).items():
            yield f"{name}.{field}", entry
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for entry in operation.get("parameters", ()):
                yield f"{method} {path} {entry['name']}", {**entry["schema"], **entry}
            for content in operation.get("requestBody", {}).get("content", {}).values():
                for field, entry in content["schema"]["properties"].items():
                    yield f"{method} {path} {field}", entry


def test_every_field_has_a_description_and_an_example(document: dict[str, Any]) -> None:
    found = list(fields(document))
    assert len(found) > 100
    assert [name for name, entry in found if not entry.get("description")] == []
    assert [name for name, entry in found if not (entry.get("examples") or "example" in entry)] == []


def test_every_operation_says_what_it_is_and_how_it_can_fail(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["description"] and ("422" in operation["responses"]) == ("/submit_" in path), path
            assert {"200", "4XX", "5XX"} <= operation["responses"].keys()
            if operation.get("security"):
                assert {"401", "403", "429"} <= operation["responses"].keys(), path
                assert operation["security"] == [{"HTTPBearer": []}]
    free = {path for path, item in document["paths"].items() for one in item.values() if not one.get("security")}
    assert free == {"/", "/health", "/api/nodes"}


def problems(document: dict[str, Any], answer: httpx.Response, path: str) -> list[str]:
    """How an answer differs from what the document says of it."""
    import jsonschema_rs

    operation = document["paths"][path][answer.request.method.lower()]
    status = str(answer.status_code)
    response = operation["responses"].get(status) or operation["responses"][f"{status[0]}XX"]
    schema = response["content"]["application/json"]["schema"]
    validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    return [f"{answer.request.url}: {error.message}" for error in validator.iter_errors(answer.json())]


def test_real_answers_are_as_the_document_says(serving: Callable[..., Serving]) -> None:
    server = serving(limits=True, submissions_per_minute=4, ip_cancel=2, training_command=["sleep", "600"], cpu_slots=3)
    server.start()
    document = httpx.get(f"{server.url}/openapi.json").json()
    alice, root = server.token("alice"), server.token("root", admin=True)
    found: list[str] = []

    def call(method: str, path: str, token: str | None, **more: Any) -> dict[str, Any]:
        job = more.pop("job", "x")
        with server.client(token) as client:
            answer = client.request(method, path.replace("{job_id}", job), **more)
        found.extend(problems(document, answer, path))
        result = answer.json()
        return result if isinstance(result, dict) else {"list": result}

    ended = call("POST", "/api/submit", alice, files=form("print(1)", local_results_path="/x"))["job_id"]
    service = call("POST", "/submit_job", alice, json={"config": {"a": 1}})["job_id"]
    call("POST", "/submit_job", alice, json={"config": {}, "num_gpus": 0})
    call("POST", "/submit_job", alice, content=b"{")
    call("POST", "/submit_inference_job", alice, json={"model_path": "m"})
    for token in (alice, root, None):
        call("GET", "/list_jobs", token)
        call("GET", "/admin/users", token)
        for job in (service, "unknown"):
            call("GET", "/job_status/{job_id}", token, job=job)
    for _ in range(2):
        call("DELETE", "/cancel_job/{job_id}", alice, job=service)
        call("POST", "/complete_job/{job_id}", alice, job=service)
    call("POST", "/register", None, params={"username": "carol"})
    call("POST", "/register", None, params={"username": "carol"})
    call("POST", "/register", None, params={"username": "<b>"})
    call("POST", "/register", None)
    running = call("POST", ["/api/submit", "wait=false"][0], alice, params={"wait": "false"}, files=form(FOREVER))
    waiting = call("POST", "/api/submit", alice, params={"timeout": "0.01"}, files=form(FOREVER))["job_id"]
    assert running["message"] and running["status"] == "pending"
    server.wait_for(alice, running["job_id"], "running")
    for job in (ended, running["job_id"], waiting, "unknown"):
        for token in (alice, root, None):
            for what in ("status", "results"):
                call("GET", f"/api/{what}/{{job_id}}", token, job=job)
    for token in (alice, root, None):
        for path in ("/", "/health", "/api/nodes", "/api/jobs", "/api/dashboard"):
            call("GET", path, token)
    call("GET", "/api/jobs", alice, params={"limit": "x"})
    call("POST", "/api/cancel/{job_id}", alice, job=waiting)
    call("POST", "/api/cancel/{job_id}", alice, job=waiting)
    call("POST", "/api/cancel/{job_id}", alice, job=running["job_id"])
    call("POST", "/api/submit", alice, files=form(expected_time="soon"))
    for _ in range(2):
        call("POST", "/api/submit", alice, params={"wait": "false"}, files=form())
    assert found == []


@pytest.mark.parametrize("paths", ["^/(api/(?!logs).*|health)?$", "^/(?!api|health|$)"], ids=["queue", "services"])
def test_schemathesis_finds_nothing(serving: Callable[..., Serving], paths: str) -> None:
    """What it makes up of the document, with a token that is good: no 500, and answers as they are described."""
    server = serving(code_scan="off", training_command=["sleep", "600"], active_services=5).start()
    token = server.token("root", admin=True)
    checks = "not_a_server_error,response_schema_conformance,status_code_conformance,content_type_conformance"
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--seed", "8",
         "--generation-deterministic",
         "--max-examples", "15", "--checks", checks, "--phases", "examples,coverage,fuzzing",
         "-H", f"Authorization: Bearer {token}", "--no-color",
         "--request-timeout", "30", "--include-path-regex", paths],
        env={**server.lab.environment, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, timeout=TIMEOUT,
        cwd=server.folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "Traceback" not in server.log(), server.log()[-6000:]
    assert re.search(r"\d+ generated, \d+ passed$", done.stdout, re.MULTILINE) and " failed" not in done.stdout
