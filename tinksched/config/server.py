"""server.yml: what `tinksched serve` may be told. Every key has a default, and the file may be missing."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ..core.news import KINDS
from ..errors import UsageError
from . import globs, telling, values
from .loader import read
from .schema import Key
from .units import GB, HOUR, KB, MB
from .values import Value

FILE_NAME = "server.yml"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(value: Value) -> tuple[Network, ...]:
    def network(item: Value) -> Network:
        try:
            return ipaddress.ip_network(values.text(item), strict=False)
        except ValueError:
            raise item.bad("an address or a network such as 192.168.1.0/24") from None

    return values.items(value, network, "a list of addresses or networks, such as [192.168.1.0/24]")


def _users(value: Value) -> tuple[str, ...]:
    return values.items(value, values.filled, "a list of users, such as [alice]")


def _folders(value: Value) -> tuple[Path, ...]:
    return values.items(value, values.path, "a list of folders, such as [/data, /opt/cuda]")


def _words(value: Value) -> tuple[str, ...]:
    return values.items(value, values.text, "a list, such as [nice, -n, 10]")


def _program(value: Value) -> str | None:
    """A name that is looked for on PATH, or a path from the file's folder."""
    found = values.text_or_none(value)
    return str(values.path(value)) if found and "/" in found else found


def _origins(value: Value) -> tuple[str, ...]:
    def origin(item: Value) -> str:
        found = values.text(item)
        if not _ORIGIN.fullmatch(found):
            raise item.bad("scheme, host and port of a page, such as https://gpu.example.org:8081")
        return found

    return values.items(value, origin, "a list of origins, such as [https://gpu.example.org]")


def _ports(value: Value) -> tuple[int, int]:
    found = values.items(value, values.integer(1, 65535), "two ports, such as [38000, 38049]")
    if len(found) != 2 or found[0] > found[1]:
        raise value.bad("the lowest and the highest port, such as [38000, 38049]")
    return found[0], found[1]


def _address(value: Value) -> str:
    found = values.text(value)
    if not found.startswith("/") or not found.isascii() or not found.isprintable() or " " in found:
        raise value.bad("a path such as /health")
    return found


def _command(*known: str) -> Any:
    """A program and its arguments, with these placeholders and no others."""

    def read(value: Value) -> tuple[str, ...]:
        found = values.items(value, values.text, "a list, such as [vllm, serve, '{model_path}']")
        if not found or not found[0]:
            raise value.bad("a list that begins with the program")
        for name in (name for word in found for name in _PLACE.findall(word) if name not in known):
            raise value.forbids(f"knows no {{{name}}}; there are {', '.join(f'{{{one}}}' for one in known)}")
        return found

    return read


def _often(least: int = 0) -> Any:
    return values.integer(least, 100_000)


_ORIGIN = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+")
_PLACE = re.compile(r"\{([a-z_]+)\}")
PLACES = ("python", "host", "port", "job_id", "config_path", "arguments")
_TRAINING = ("{python}", "{server_script}", "server.port={port}", "job_id={job_id}", "{arguments}")
_INFERENCE = ("vllm", "serve", "{model_path}", "--host", "{host}", "--port", "{port}", "{arguments}")
_FOREVER = "leave it out to keep them"
_UNLIMITED = "leave it out for no limit"

_ALL = (
    Key("host", values.filled, "127.0.0.1", "address to listen on; anything but loopback wants an isolation"),
    Key("port", values.integer(0, 65535), 8001, "TCP port; 0: any that is free"),
    Key("scheduler_port", values.integer(0, 65535), 8765, "a second port, of the OpenTinker API; both answer both"),
    Key("state_dir", values.own_folder, None, "folder of the database, the jobs and their output; private"),
    Key("results_dir", values.own_folder, None, "folder of the results files; empty: `results` in state_dir"),
    Key("logs_dir", values.own_folder, None, "folder of the logs of scheduler and sessions; empty: in state_dir"),
    Key("user_db_path", values.as_written, "", "for old files only: users lie in the database in state_dir, hashed"),
    Key("use_gpus", values.devices, None, "indices or UUIDs of the GPUs to use; empty: all"),
    Key("available_gpus", values.devices, None, "another name of use_gpus"),
    Key("gpus_per_job", values.integer(0, 64), 1, "GPUs that each job gets for itself; 0: jobs run on CPU slots"),
    Key("cpu_slots", values.integer(1, 1000), 1, "jobs at once where there is no GPU"),
    Key("respect_other_processes", values.boolean, True, "false: jobs start beside compute processes of others too"),
    Key("executor", values.choice("tmux", "local"), "tmux", "tmux: a session for each job; local: plain processes"),
    Key("tmux_socket", values.file_name_part, "", "name of a private tmux server; empty: the user's default one"),
    Key("stop_grace", values.seconds, 10.0, "time that a job has to end when it is cancelled, before it is killed"),
    Key("max_expected_time", values.integer(1), 7 * 24 * 3600, "the longest `expected_time` of a job, in seconds"),
    Key("timeout_multiplier", values.integer(1, 100), 2, "a job may take so many times its `expected_time`"),
    Key("wait_timeout", values.positive_seconds, 4 * HOUR, "how long a submission waits for its job, at most"),
    Key("max_code_size", values.size_in_bytes(KB), 2**20, "largest script"),
    Key("max_config_size", values.size_in_bytes(KB), 16 * KB, "largest config file"),
    Key("max_answer_size", values.size_in_bytes(KB), 8 * MB, "most of each output in an answer; all is in the file"),
    Key("request_timeout", values.positive_seconds, 60.0, "how long a client may take to send a request"),
    Key("max_results_size", values.size_in_bytes(KB), GB, "largest results file; larger ones stay where the jobs ran"),
    Key("min_free_disk", values.size_in_bytes(), GB, "with less free disk space nothing is accepted or started"),
    Key("keep_results", values.limit_in_seconds(_FOREVER), None, "how long results files and outputs are kept"),
    Key("submissions_per_minute", _often(1), 5, "of a user"),
    Key("active_jobs", _often(1), 1, "jobs of a user that wait or run at once"),
    Key("ip_submissions_per_user", _often(1), 5, "submissions a minute of one user from one address"),
    Key("ip_submissions", _often(1), 100, "submissions a minute from one address"),
    Key("ip_status", _often(1), 60, "calls of status a minute from one address"),
    Key("ip_results", _often(1), 60, "calls of results and logs a minute from one address"),
    Key("ip_cancel", _often(1), 10, "cancellations a minute from one address"),
    Key("ip_jobs", _often(1), 30, "calls of jobs and dashboard a minute from one address"),
    Key("ip_page", _often(1), 300, "calls of the dashboard's page a minute from one address"),
    Key("limits", values.boolean, True, "false: no limits on how often anything is called"),
    Key("limit_admins", values.boolean, False, "true: the limits of users hold for admins, too"),
    Key("server_script", values.path, None, "Python script of the training servers that submit_job starts"),
    Key("training_command", _command(*PLACES, "server_script"), _TRAINING, "argument list that starts one"),
    Key("inference_command", _command(*PLACES, "model_path"), _INFERENCE, "argument list of submit_inference_job"),
    Key("health_path", _address, "/health", "a training server is ready when GET of this answers 200"),
    Key("inference_health_path", _address, "/health", "the same of an inference server"),
    Key("ready_timeout", values.positive_seconds, 60.0, "how long a training server may take until it is ready"),
    Key("inference_ready_timeout", values.positive_seconds, 300.0, "the same of an inference server"),
    Key("port_range", _ports, None, "lowest and highest port of service jobs; empty: what is free from 38000 up"),
    Key("num_ports", values.integer(1, 10_000), 50, "how many of these are used at once where there is no port_range"),
    Key("service_host", values.text_or_none, None, "host in the URLs of service jobs; empty: host, or this machine's"),
    Key("active_services", _often(1), 10, "service jobs of a user that wait or run at once"),
    Key("ip_services", _often(1), 600, "calls of the OpenTinker API a minute from one address, submissions aside"),
    Key("enable_auth", values.boolean, True, "false: the OpenTinker API asks for no key; on loopback only"),
    Key("open_registration", values.boolean, False, "true: whoever reaches the server may register; else loopback"),
    Key("allowed_origins", _origins, (), "pages of other servers that may call this one, such as a dashboard's"),
    Key("trusted_proxies", _networks, (), "whose X-Forwarded-For is believed"),
    Key("allowed_ips", _networks, (), "who may call at all; empty: everybody who reaches the port"),
    Key(
        "isolation",
        values.choice("auto", "bubblewrap", "none"),
        "auto",
        "auto: bubblewrap where it works, which anything but loopback requires; none: jobs run as this user",
    ),
    Key("network", values.boolean, True, "false: an isolated job reaches no network"),
    Key("read_only", _folders, (), "list of more folders that an isolated job may read, such as [/data]"),
    Key("command_prefix", _words, (), "argument list before a job's interpreter, such as a container's"),
    Key("job_python", _program, None, "interpreter of the jobs; empty: the one that runs the server"),
    Key("job_cpu_time", values.limit_in_seconds(_UNLIMITED), None, "CPU time that each process of a job may use"),
    Key("job_memory", values.size_in_bytes(MB), None, "address space of each process of a job (CUDA needs much)"),
    Key("job_file_size", values.size_in_bytes(KB), 10 * GB, "largest file that a job may write"),
    Key("job_processes", values.integer(1), 4096, "processes and threads of a job; not isolated: of the user"),
    Key("code_scan", values.choice("off", "static", "llm"), "off", "static: by bandit; llm: a model reads it, too"),
    Key("scan_exempt", _users, (), "users whose code is not scanned"),
    Key("llm_url", values.filled, "https://openrouter.ai/api/v1", "chat endpoint of the scan; the key is in the "
        "environment: OPENROUTER_API_KEY"),
    Key("llm_model", values.text, "", "model of the scan"),
    Key("llm_timeout", values.positive_seconds, 30.0, "how long the model may take"),
    Key("llm_on_error", values.choice("fail_closed", "fail_open"), "fail_closed", "what becomes of code that could "
        "not be looked at"),
    Key("notify", telling.urls, (), "list of apprise URLs that are told what happens; needs `tinksched[notify]`"),
    Key("notify_on", telling.kinds, ("failed",), f"what these are told of; of {', '.join(KINDS)}"),
    Key("ignore_processes", globs.process_patterns, (), "globs of users and commands that count as nobody there"),
)  # fmt: skip
KEYS: Mapping[str, Key] = {key.name: key for key in _ALL}
LONGEST_TOKEN_DAYS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The resolved settings of a server: paths are absolute, durations are seconds, sizes are bytes.

    `KEYS` has what each means.
    """

    host: str
    port: int
    scheduler_port: int
    state_dir: Path
    results_dir: Path
    logs_dir: Path
    use_gpus: tuple[int | str, ...] | None
    gpus_per_job: int
    cpu_slots: int
    respect_other_processes: bool
    executor: Literal["tmux", "local"]
    tmux_socket: str
    stop_grace: float
    max_expected_time: int
    timeout_multiplier: int
    wait_timeout: float
    max_code_size: int
    max_config_size: int
    max_answer_size: int
    max_results_size: int
    request_timeout: float
    min_free_disk: int
    keep_results: float | None
    submissions_per_minute: int
    active_jobs: int
    ip_submissions_per_user: int
    ip_submissions: int
    ip_status: int
    ip_results: int
    ip_cancel: int
    ip_jobs: int
    ip_page: int
    limits: bool
    limit_admins: bool
    server_script: Path | None
    training_command: tuple[str, ...]
    inference_command: tuple[str, ...]
    health_path: str
    inference_health_path: str
    ready_timeout: float
    inference_ready_timeout: float
    port_range: tuple[int, int] | None
    num_ports: int
    service_host: str | None
    active_services: int
    ip_services: int
    enable_auth: bool
    open_registration: bool
    allowed_origins: tuple[str, ...]
    trusted_proxies: tuple[Network, ...]
    allowed_ips: tuple[Network, ...]
    isolation: Literal["auto", "bubblewrap", "none"]
    network: bool
    read_only: tuple[Path, ...]
    command_prefix: tuple[str, ...]
    job_python: str | None
    job_cpu_time: float | None
    job_memory: int | None
    job_file_size: int
    job_processes: int
    code_scan: Literal["off", "static", "llm"]
    scan_exempt: tuple[str, ...]
    llm_url: str
    llm_model: str
    llm_timeout: float
    llm_on_error: Literal["fail_closed", "fail_open"]
    notify: tuple[str, ...]
    notify_on: tuple[str, ...]
    ignore_processes: tuple[str, ...]


def default_state() -> Path:
    """Where a server's state lies if nobody says: in the user's folder for state (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return Path(base if os.path.isabs(base) else "~/.local/state").expanduser() / "tinksched" / "server"


def load_server(file: Path | None) -> ServerSettings:
    """The settings of the server; all defaults without a file.

    Raises:
        ConfigError: the file can't be read or has problems, all of which are listed.
        UsageError: two keys contradict each other.
    """
    found = read(file.absolute(), KEYS, "port: 8001") if file is not None else _defaults()
    state = found["state_dir"] = Path(os.path.realpath(found["state_dir"] or default_state()))
    found["results_dir"] = Path(os.path.abspath(found["results_dir"] or state / "results"))
    found["logs_dir"] = Path(os.path.abspath(found["logs_dir"] or state / "logs"))
    found.pop("user_db_path")
    other = found.pop("available_gpus")
    if None not in (other, found["use_gpus"]) and other != found["use_gpus"]:
        raise UsageError("use_gpus and available_gpus are two names of one thing, and differ", hint="leave one out")
    found["use_gpus"] = other if found["use_gpus"] is None else found["use_gpus"]
    assert {field.name for field in fields(ServerSettings)} == found.keys()
    return ServerSettings(**found)


def _defaults() -> dict[str, Any]:
    return {key.name: key.default for key in KEYS.values()}
