"""Service jobs through the OpenTinker API: real programs, real ports, real clients."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.nvml_double import Gpu, NvmlDouble
from tests.server.test_isolation import needs_bwrap
from tests.services import SETTINGS, Client, answers, ports
from tests.serving import Serving, until
from tests.support import TIMEOUT, Lab

FIELDS = {"job_id", "status", "gpu_ids", "port", "server_url", "created_at", "started_at", "completed_at",
          "error_message", "reason"}  # fmt: skip


@pytest.fixture
def services(serving: Callable[..., Serving]) -> Callable[..., Serving]:
    """Makes servers that can start training servers, and begins to serve."""
    return lambda name="server", **settings: serving(name, **{**SETTINGS, **ports(), **settings}).start()


@pytest.fixture
def stranger() -> Iterator[Callable[[int], socket.socket]]:
    """Listens on ports for somebody else."""
    made: list[socket.socket] = []

    def listen(port: int) -> socket.socket:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", port))
        one.listen()
        made.append(one)
        return one

    yield listen
    for one in made:
        one.close()


# ---------------------------------------------------------------- the way of one


def test_a_client_gets_a_server_talks_to_it_and_completes(services: Callable[..., Serving]) -> None:
    alice = Client(services())
    answer = alice.ask("POST", "/submit_job", json={"config": {"model": {"path": "tiny"}, "epochs": 3}})
    assert answer.keys() == {"job_id", "status", "message", "server_url"} and answer["message"] == "Job started"
    ready = alice.wait(answer["job_id"], "RUNNING")
    assert ready.keys() == FIELDS and ready["started_at"] and ready["completed_at"] is ready["reason"] is None
    assert ready["server_url"] == f"http://127.0.0.1:{ready['port']}"
    said = httpx.get(ready["server_url"]).json()
    assert said["arguments"] == [
        f"server.port={ready['port']}", f"job_id={answer['job_id']}", "enable_agent_loop=false", "model.path=tiny",
        "epochs=3",
    ]  # fmt: skip
    assert said["environment"]["CUDA_VISIBLE_DEVICES"] == "" and said["environment"]["JOB_ID"] == answer["job_id"]
    done = {"job_id": answer["job_id"], "status": "COMPLETED", "message": "Job completed successfully"}
    assert alice.complete(answer["job_id"]) == done
    assert not answers(ready["server_url"])
    assert alice.complete(answer["job_id"]) == {**done, "message": "Job already in terminal state: COMPLETED"}
    over = alice.status(answer["job_id"])
    assert (over["status"], over["server_url"], over["error_message"]) == ("COMPLETED", None, None)
    assert over["completed_at"] > over["started_at"] > over["created_at"]


def test_an_inference_server_is_started_by_its_own_command(services: Callable[..., Serving], tmp_path: Path) -> None:
    vllm = ["{python}", SETTINGS["server_script"], "model={model_path}", "server.port={port}", "{arguments}"]
    alice = Client(services(inference_command=vllm))
    wanted = {"model_path": "org/tiny", "tokenizer_path": "org/tok", "max_model_len": 512, "trust_remote_code": False}
    answer = alice.ask("POST", "/submit_inference_job", json=wanted)
    assert answer.keys() == {"job_id", "status", "message", "vllm_server_url"}
    ready = alice.wait(answer["job_id"], "RUNNING")
    assert httpx.get(ready["server_url"]).json()["arguments"] == [
        "model=org/tiny", f"server.port={ready['port']}", "--tensor-parallel-size=1", "--gpu-memory-utilization=0.9",
        "--tokenizer=org/tok", "--max-model-len=512",
    ]  # fmt: skip
    assert alice.complete(answer["job_id"])["status"] == "COMPLETED"


def test_a_config_of_json_lies_beside_it(services: Callable[..., Serving]) -> None:
    command = ["{python}", SETTINGS["server_script"], "server.port={port}", "config={config_path}", "all={arguments}"]
    alice = Client(services(training_command=command))
    job = alice.running({"a": {"b": [1, "x y"]}, "c": None})
    arguments = dict(word.partition("=")[::2] for word in httpx.get(job["server_url"]).json()["arguments"])
    assert arguments["all"] == 'enable_agent_loop=false a.b=[1, "x y"] c=null'
    assert (
        Path(arguments["config"]).read_text()
        == '{\n  "a": {\n    "b": [\n      1,\n      "x y"\n    ]\n  },\n  "c": null\n}\n'
    )


# ---------------------------------------------------------------- ends


def test_an_end_is_noticed_at_once_and_says_why(services: Callable[..., Serving]) -> None:
    alice = Client(services())
    failed = alice.wait(alice.train({"dies": 3}), "FAILED")
    assert failed["error_message"] == "exit code 3\nthe first line\nValueError: no such model"
    ended = alice.wait(alice.train({"ends": 0.3}), "COMPLETED")
    assert ended["error_message"] is None and ended["completed_at"]
    crashed = alice.wait(alice.train({"ends": 0.3, "code": 9}), "FAILED")
    assert crashed["error_message"] == "exit code 9"


def test_one_that_never_gets_ready_is_ended_and_says_so(services: Callable[..., Serving], tmp_path: Path) -> None:
    alice = Client(services(ready_timeout=2))
    stamp = tmp_path / "stamp"
    failed = alice.wait(alice.train({"never": 1, "stamp": str(stamp)}), "FAILED")
    port = failed["port"]
    assert failed["error_message"] == f"not ready within 2 s: nothing listens on port {port}"
    pid = int(stamp.read_text().split()[0])
    assert not Path(f"/proc/{pid}").exists()
    failed = alice.wait(alice.train({"gate": str(tmp_path / "no such gate")}), "FAILED")
    assert failed["error_message"].startswith("not ready within 2 s: GET /health was answered with 503, not 200\n")


def test_a_command_that_is_not_there(services: Callable[..., Serving]) -> None:
    alice = Client(services(training_command=["/no/such/program", "{port}"]))
    failed = alice.wait(alice.train(), "FAILED")
    assert failed["error_message"] == "there is no program /no/such/program to start it with"


def test_a_server_without_a_script_starts_none(services: Callable[..., Serving]) -> None:
    answer = Client(services(server_script=None)).call("POST", "/submit_job", json={"config": {}})
    assert answer.status_code == 503 and "server_script" in answer.json()["detail"]


def test_cancelled_and_completed_while_it_waits(services: Callable[..., Serving]) -> None:
    alice = Client(services(cpu_slots=1))
    first = alice.running()
    second = alice.ask("POST", "/submit_job", json={"config": {}})
    assert (second["status"], second["message"], second["server_url"]) == ("QUEUED", "Job queued (position 1)", None)
    third = alice.ask("POST", "/submit_job", json={"config": {}})
    assert third["message"] == "Job queued (position 2)"
    assert alice.status(third["job_id"])["reason"] == "all CPU slots are taken (1 of 1)"
    assert alice.cancel(second["job_id"])["status"] == "CANCELLED"
    assert alice.complete(third["job_id"])["status"] == "COMPLETED"
    assert alice.cancel(first["job_id"]) == {
        "job_id": first["job_id"], "status": "CANCELLED", "message": "Job cancelled successfully",
    }  # fmt: skip
    assert alice.cancel(first["job_id"])["message"] == "Job already in terminal state: CANCELLED"
    assert alice.complete(first["job_id"])["status"] == "CANCELLED"
    jobs = alice.ask("GET", "/list_jobs")["jobs"]
    assert [(job["job_id"], job["status"]) for job in jobs] == [
        (first["job_id"], "CANCELLED"), (second["job_id"], "CANCELLED"), (third["job_id"], "COMPLETED"),
    ]  # fmt: skip


def test_one_that_ignores_signals_is_killed(services: Callable[..., Serving]) -> None:
    alice = Client(services(stop_grace=1))
    job = alice.running({"stubborn": 1})
    assert alice.complete(job["job_id"])["status"] == "COMPLETED" and not answers(job["server_url"])
    assert alice.status(job["job_id"])["status"] == "COMPLETED"


def test_both_apis_wait_in_one_queue(services: Callable[..., Serving]) -> None:
    server = services(cpu_slots=1)
    alice = Client(server)
    job = alice.running()
    with server.client() as client:
        assert [node["state"] for node in client.get("/api/nodes").json()] == ["busy"]
    waiting = server.submit(alice.key, wait=False).json()  # the same key, at the other API
    assert alice.ask("POST", "/submit_job", json={"config": {}})["message"] == "Job queued (position 2)"
    alice.complete(job["job_id"])
    server.wait_for(alice.key, waiting["job_id"], "completed")


# ---------------------------------------------------------------- ports


def test_busy_ports_are_left_alone(services: Callable[..., Serving], stranger: Callable[[int], socket.socket]) -> None:
    first = stranger(0).getsockname()[1]
    server = services(port_range=[first, first + 3])
    alice = Client(server)
    jobs = [alice.running() for _ in range(2)]
    ports = [job["port"] for job in jobs]
    assert len({first, *ports}) == 3 and all(first < port <= first + 3 for port in ports)
    alice.complete(jobs[0]["job_id"])
    again = alice.running()
    assert again["port"] == ports[0], "it was given back"


def test_without_a_free_port_a_job_fails_and_says_so(
    services: Callable[..., Serving], stranger: Callable[[int], socket.socket]
) -> None:
    port = stranger(0).getsockname()[1]
    alice = Client(services(port_range=[port, port]))
    failed = alice.wait(alice.train(), "FAILED")
    assert failed["error_message"] == f"none of the ports {port} to {port} that service jobs may use is free"


@pytest.mark.parametrize("insists", [False, True], ids=["it ends", "it stays"])
def test_a_port_that_somebody_takes_meanwhile_is_changed(
    services: Callable[..., Serving], stranger: Callable[[int], socket.socket], tmp_path: Path, insists: bool
) -> None:
    """The program waits until the port is taken, then it fails to get it; or never tries."""
    stamp, gate = tmp_path / "stamp", tmp_path / "gate"
    os.mkfifo(gate)
    text = f'echo "$1" >>{stamp}; [ "$(wc -l <{stamp})" -gt 1 ] || {"sleep 600" if insists else f"read x <{gate}"}; '
    command = [
        "/bin/sh",
        "-c",
        f'{text} exec "$2" "$3" server.port="$1"',
        "sh",
        "{port}",
        "{python}",
        "{server_script}",
    ]
    alice = Client(services(training_command=command))
    job = alice.train()
    first = int(until(lambda: stamp.exists() and stamp.read_text(), bool))
    stranger(first)
    if not insists:
        gate.write_text("go\n")
    ready = alice.wait(job, "RUNNING")
    assert ready["port"] != first and stamp.read_text().split() == [str(first), str(ready["port"])]
    assert httpx.get(ready["server_url"]).json()["arguments"] == [f"server.port={ready['port']}"]


# ---------------------------------------------------------------- the server comes and goes


def test_it_outlives_the_server_and_is_found_again(services: Callable[..., Serving]) -> None:
    server = services()
    alice = Client(server)
    job = alice.running()
    server.stop(signal.SIGKILL)
    assert answers(job["server_url"])
    server.start()
    assert alice.status(job["job_id"]) == job
    alice.complete(job["job_id"])
    assert not answers(job["server_url"])


def test_what_happens_while_no_server_works_is_known_to_the_next(
    services: Callable[..., Serving], tmp_path: Path
) -> None:
    server = services()
    alice = Client(server)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    job, dying = alice.train({"gate": str(gate)}), alice.train({"gate": str(gate), "ends": 0.5, "code": 7})
    ports = [alice.wait(one, "STARTING")["port"] for one in (job,)]
    assert alice.status(job)["status"] == "STARTING"
    server.stop(signal.SIGKILL)
    gate.write_text("")
    server.start()
    ready = alice.wait(job, "RUNNING")
    assert answers(ready["server_url"]) and ports in ([ready["port"]], [None])
    assert alice.wait(dying, "FAILED")["error_message"] == "exit code 7"


# ---------------------------------------------------------------- GPUs


@pytest.fixture
def double(lab: Lab, tmp_path: Path) -> NvmlDouble:
    """Four GPUs, of which 0 and 2, and 1 and 3, are linked."""
    made = NvmlDouble(tmp_path)
    made.write(*(Gpu(f"GPU-{index}", links=((index + 2) % 4,)) for index in range(4)))
    lab.environment.update(made.environment())
    return made


def test_each_gets_the_gpus_that_it_asks_for_linked_ones_at_best(
    services: Callable[..., Serving], double: NvmlDouble
) -> None:
    server = services()
    alice = Client(server)
    pair = alice.running(num_gpus=2)
    assert sorted(pair["gpu_ids"]) in ([0, 2], [1, 3])
    environment = httpx.get(pair["server_url"]).json()["environment"]
    assert environment["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, pair["gpu_ids"]))
    one = alice.running()
    assert len(one["gpu_ids"]) == 1 and not set(one["gpu_ids"]) & set(pair["gpu_ids"])
    with server.client() as client:
        busy = [node["node_id"] for node in client.get("/api/nodes").json() if node["state"] == "busy"]
    assert sorted(busy) == sorted([*pair["gpu_ids"], *one["gpu_ids"]])
    waiting = alice.ask("POST", "/submit_job", json={"config": {}, "num_gpus": 2})
    assert waiting["status"] == "QUEUED" and "2 GPUs" in alice.status(waiting["job_id"])["reason"]
    alice.complete(pair["job_id"])
    alice.complete(pair["job_id"])  # whoever has them by now keeps them
    assert sorted(alice.wait(waiting["job_id"], "RUNNING")["gpu_ids"]) == sorted(pair["gpu_ids"])


@pytest.mark.parametrize("count", [0, -1, 99])
def test_a_number_of_gpus_that_cannot_be(services: Callable[..., Serving], double: NvmlDouble, count: int) -> None:
    alice = Client(services())
    for path, more in (("/submit_job", {"config": {}}), ("/submit_inference_job", {"model_path": "m"})):
        answer = alice.call("POST", path, json={**more, "num_gpus": count})
        assert answer.status_code == 422
        assert answer.json() == {"detail": f"num_gpus: must be from 1 to 4, and is {count}"}
    assert alice.ask("GET", "/list_jobs") == {"jobs": []}


def test_gpus_that_others_hold_are_taken_when_they_fall_free_with_nothing_else_happening(
    services: Callable[..., Serving], double: NvmlDouble
) -> None:
    other = subprocess.Popen(["sleep", "600"])
    double.hold(other.pid, 2**30, index=1)
    alice = Client(services(available_gpus=[1]))
    try:
        answer = alice.ask("POST", "/submit_job", json={"config": {}})
        assert answer["status"] == "QUEUED", answer
        reason = alice.status(answer["job_id"])["reason"]
        assert re.search(rf"respects other people's processes: .* on GPU 1 \(pid {other.pid}\)", reason), reason
    finally:
        other.kill()
        other.wait()
    assert alice.wait(answer["job_id"], "RUNNING")["gpu_ids"] == [1]


# ---------------------------------------------------------------- secrets, and others


def test_secrets_reach_the_program_and_nothing_else(services: Callable[..., Serving]) -> None:
    server = services()
    alice = Client(server)
    secrets = {"wandb": "wandb-" + "a1" * 16, "other": "openai-" + "b2" * 16}
    config = {
        "nested": {"openai_api_key": secrets["other"]},
        "scheduler_api_key": alice.key,
        "wandb_key": secrets["wandb"],
    }
    job = alice.running(config, wandb_key=secrets["wandb"])
    environment = httpx.get(job["server_url"]).json()["environment"]
    assert environment["WANDB_API_KEY"] == secrets["wandb"] and environment["OPENAI_API_KEY"] == secrets["other"]
    file = server.state / "output" / job["job_id"] / "secrets"
    assert file.stat().st_mode & 0o777 == 0o600
    everything = [*secrets.values(), alice.key]
    assert [path for path in found_in(server, everything) if path != file] == []
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(secret.encode() in line for secret in everything for line in lines)
    said = str(alice.status(job["job_id"]))
    alice.complete(job["job_id"])
    until(file.exists, lambda there: not there)
    assert found_in(server, everything) == [] and not any(one in server.log() + said for one in everything)


def found_in(server: Serving, secrets: list[str]) -> list[Path]:
    """The files of the server in which one of these stands."""
    files = [path for path in server.folder.rglob("*") if path.is_file()]
    return [path for path in files if any(one.encode() in path.read_bytes() for one in secrets)]


def test_what_a_program_says_of_its_secret_as_it_dies_is_not_answered(services: Callable[..., Serving]) -> None:
    command = ["/bin/sh", "-c", 'echo "bad key: $WANDB_API_KEY" >&2; exit 2']
    alice = Client(services(training_command=command))
    failed = alice.wait(alice.train(wandb_key="w" * 20), "FAILED")
    assert failed["error_message"] == "exit code 2\nbad key: [redacted]"


def test_a_key_among_the_arguments_is_refused(services: Callable[..., Serving]) -> None:
    alice = Client(services())
    answer = alice.call("POST", "/submit_job", json={"config": {"note": f"mine is {alice.key}"}})
    assert answer.status_code == 422 and alice.key not in answer.text and answer.json()["detail"].startswith("note: ")


def test_others_see_nothing_of_it(services: Callable[..., Serving]) -> None:
    server = services()
    alice, bob = Client(server), Client(server, "bob")
    root = Client(server, "root", server.token("root", admin=True))
    job = alice.running()["job_id"]
    assert bob.ask("GET", "/list_jobs") == {"jobs": []}
    for method, path in (("GET", "job_status"), ("DELETE", "cancel_job"), ("POST", "complete_job")):
        answer = bob.call(method, f"/{path}/{job}")
        assert (answer.status_code, answer.json()) == (403, {"detail": "Job belongs to another user"})
        assert bob.call(method, f"/{path}/unknown").json() == {"detail": "Job not found"}
    assert [one["job_id"] for one in root.ask("GET", "/list_jobs")["jobs"]] == [job]
    assert root.complete(job)["status"] == "COMPLETED"


def test_a_user_has_only_so_many(services: Callable[..., Serving]) -> None:
    server = services(active_services=1)
    alice, root = Client(server), Client(server, "root", server.token("root", admin=True))
    job = alice.train()
    answer = alice.call("POST", "/submit_job", json={"config": {}})
    assert answer.status_code == 429 and answer.headers["retry-after"]
    assert answer.json() == {"detail": "User already has 1 active service job"}
    for _ in range(2):
        root.train()
    alice.cancel(job)
    alice.train()


def test_a_submission_holds_nobody_up(services: Callable[..., Serving]) -> None:
    """While programs that take long start, and others wait, everybody gets their answers."""
    alice = Client(services(cpu_slots=2))
    taken: list[float] = []

    def submit() -> None:
        begun = time.monotonic()
        alice.train({"never": 1})
        taken.append(time.monotonic() - begun)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert alice.call("GET", "/health").status_code == 200
    assert len(taken) == 8 and max(taken) < TIMEOUT / 2, "none waited for the programs, which never get ready"
    assert len(alice.ask("GET", "/list_jobs")["jobs"]) == 8


# ---------------------------------------------------------------- isolation


@needs_bwrap
def test_isolated_it_answers_all_the_same_and_sees_nothing_of_the_server(services: Callable[..., Serving]) -> None:
    server = services(isolation="bubblewrap", network=False, stop_grace=3)
    alice = Client(server)
    key = "w" * 30
    job = alice.running({"lists": str(server.state), "stamp": "stamp"}, wandb_key=key)
    said = httpx.get(job["server_url"]).json()
    assert said["environment"]["WANDB_API_KEY"] == key and said["listed"] == ["jobs"]
    stamp = server.state / "jobs" / job["job_id"] / "stamp"
    assert stamp.read_text().split()[1] == str(job["port"])
    begun = time.monotonic()
    assert alice.complete(job["job_id"])["status"] == "COMPLETED" and not answers(job["server_url"])
    assert time.monotonic() - begun < TIMEOUT
    failed = alice.wait(alice.train({"dies": 4}), "FAILED")
    assert failed["error_message"].startswith("exit code 4\n")
