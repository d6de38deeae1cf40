"""What a client of the OpenTinker API asks for, made a service job. Nothing of it is trusted.

A config becomes arguments `key=value`, with dots between the keys of nested maps, as Hydra and OmegaConf read them.
What in it is a secret by its name is told to the program in its environment, and stands nowhere else: arguments can be
read by every user of the machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..config.server import ServerSettings
from .opentinker_shapes import InferenceRequest, TrainingRequest
from .services_tables import Kind
from .submission import Refused

OWN = ("server.port", "job_id", "enable_agent_loop")  # arguments that are the server's to give
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}")
_SECRET = re.compile(r"(?i)(?:.*_)?(?:api_?key|wandb_key|password|passwd|secret|auth_token|access_token|hf_token)")
_DEEPEST, _MOST, _LONGEST = 32, 5000, 100_000  # levels, values, and bytes of one argument (the kernel takes 131,071)
_NAMES = {"WANDB_KEY": "WANDB_API_KEY"}
_NOT_HANDED_ON = "SCHEDULER_API_KEY"  # of the caller: it lets them in here


@dataclass(frozen=True, slots=True)
class Asked:
    """A service job that is wanted, checked."""

    user: str
    kind: Kind
    gpus: int
    values: Mapping[str, str]  # for placeholders of the command
    arguments: tuple[str, ...]
    request: Mapping[str, Any]  # for the record
    config: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)  # variables


def training(user: str, wanted: TrainingRequest, settings: ServerSettings, gpus: int, token: str | None) -> Asked:
    """A training server. `gpus` is how many there are, `token` what the caller came with.

    Raises:
        Refused: 422, and what is wrong with which field; 503, this server can't start any.
    """
    if settings.server_script is None and any("{server_script}" in word for word in settings.training_command):
        raise Refused(503, "This server starts no training servers: its administrator has to set server_script")
    secrets: dict[str, str] = {}
    config = _stripped(wanted.config, "config", secrets, 0)
    if wanted.wandb_key is not None:
        secrets["WANDB_API_KEY"] = _text("wandb_key", wanted.wandb_key)
    secrets.pop(_NOT_HANDED_ON, None)
    arguments = [f"enable_agent_loop={json.dumps(wanted.enable_agent_loop)}"]
    arguments += [f"{key}={value}" for key, value in _flat(config) if key not in OWN]
    _check(arguments, [*secrets.values(), *([token] if token else [])])
    count = _gpus(wanted.num_gpus, settings.gpus_per_job, gpus)
    request = {"config": config, "enable_agent_loop": wanted.enable_agent_loop, "num_gpus": wanted.num_gpus}
    return Asked(user, "training", count, {}, tuple(arguments), request, config, secrets)


def inference(user: str, wanted: InferenceRequest, settings: ServerSettings, gpus: int, token: str | None) -> Asked:
    """An inference server.

    Raises:
        Refused: 422, and what is wrong with which field.
    """
    wide = wanted.tensor_parallel_size
    count = _gpus(wanted.num_gpus, wide, gpus)
    if gpus and count < wide:
        raise Refused(422, f"tensor_parallel_size: is {wide}, which needs as many GPUs, and num_gpus is {count}")
    named = {"tokenizer": wanted.tokenizer_path, "max-model-len": wanted.max_model_len}
    arguments = [f"--tensor-parallel-size={wide}", f"--gpu-memory-utilization={wanted.gpu_memory_utilization:g}"]
    arguments += [f"--{name}={value}" for name, value in named.items() if value is not None]
    arguments += ["--trust-remote-code"] if wanted.trust_remote_code else []
    model = _text("model_path", wanted.model_path)
    if model.startswith("-"):
        raise Refused(422, "model_path: must not begin with '-'")
    _check([*arguments, model], [token] if token else [])
    return Asked(user, "inference", count, {"model_path": model}, tuple(arguments), wanted.model_dump())


def _gpus(wanted: int | None, default: int, there: int) -> int:
    """How many GPUs a job gets. Without any here it gets a CPU slot if it doesn't ask for them."""
    if wanted is None and not there:
        return 0
    count = default if wanted is None else wanted
    if not there:
        raise Refused(422, "num_gpus: this server has no GPUs; leave it out")
    if not 1 <= count <= there:
        raise Refused(422, f"num_gpus: must be from 1 to {there}, and is {count}")
    return count


def _stripped(value: Any, path: str, secrets: dict[str, str], depth: int) -> Any:
    """The value without its secrets, which are put under their names as variables."""
    if depth > _DEEPEST:
        raise Refused(422, f"config: is nested deeper than {_DEEPEST} levels")
    if isinstance(value, list):
        return [_stripped(one, path, secrets, depth + 1) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, inner in value.items():
        if not _KEY.fullmatch(key):
            raise Refused(422, f"{path}: a key must be letters, digits, '_' and '-'")
        if not _SECRET.fullmatch(key) or isinstance(inner, dict | list):
            kept[key] = _stripped(inner, f"{path}.{key}", secrets, depth + 1)
        elif inner not in (None, ""):
            name = key.upper().replace("-", "_")
            secrets[_NAMES.get(name, name)] = _text(f"{path}.{key}", str(inner))
    return kept


def _flat(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Each value with the path of its key. Texts stand as they are, all else as JSON."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value if isinstance(value, str) else _json(f"config.{before}{key}", value)


def _json(path: str, value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        raise Refused(422, f"{path}: must be a number that is finite") from None


def _check(arguments: list[str], secrets: list[str]) -> None:
    if len(arguments) > _MOST:
        raise Refused(422, f"config: has more than {_MOST} values")
    for argument in arguments:
        name = argument.partition("=")[0]
        _text(name, argument)
        if any(secret in argument for secret in secrets):
            raise Refused(422, f"{name}: must not hold a key or a password; arguments can be read by everybody")


def _text(name: str, text: str) -> str:
    """The text, if a program can be given it."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Refused(422, f"{name}: must be text that UTF-8 can hold") from None
    if "\0" in text or not text:
        raise Refused(422, f"{name}: must not be empty, or hold a NUL character")
    if size > _LONGEST:
        raise Refused(422, f"{name}: is longer than {_LONGEST} bytes")
    return text
