"""The shapes of requests and answers of the OpenTinker API."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .services_tables import STATUSES
from .shapes import Shape

_ID = "6f1c0f3e-7d0c-4a52-9a64-0f2d1f3b8f10"
_AT = "2026-01-31T12:00:00.000000+00:00"
_URL = "http://127.0.0.1:38000"


class _Request(BaseModel):
    """Types are not guessed; fields that nobody knows are left alone, as older clients may send some."""

    model_config = ConfigDict(strict=True, extra="ignore")


def _num_gpus(default: str) -> Any:
    return Field(None, description=f"GPUs that it gets for itself; null: {default}", examples=[1])


class TrainingRequest(_Request):
    """A training server that is wanted."""

    config: dict[str, Any] = Field(
        description="given to the program as arguments key=value, nested keys with dots, and as a file",
        examples=[{"model": {"path": "Qwen/Qwen2.5-0.5B"}, "trainer": {"total_epochs": 1}}],
    )
    enable_agent_loop: bool = Field(False, description="given to the program", examples=[False])
    wandb_key: str | None = Field(None, description="for its environment only: WANDB_API_KEY", examples=[None])
    num_gpus: int | None = _num_gpus("gpus_per_job of the server")


class InferenceRequest(_Request):
    """An inference server that is wanted."""

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())

    model_path: str = Field(description="a model's name, or its folder on the server", examples=["Qwen/Qwen2.5-0.5B"])
    tokenizer_path: str | None = Field(None, description="if it is not the model's own", examples=[None])
    tensor_parallel_size: int = Field(1, ge=1, le=1024, description="GPUs that it is spread over", examples=[1])
    num_gpus: int | None = _num_gpus("tensor_parallel_size")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="part of each GPU's memory", examples=[0.9])
    max_model_len: int | None = Field(None, ge=1, le=2**31, description="longest context in tokens", examples=[4096])
    trust_remote_code: bool = Field(True, description="whether code that comes with the model is run", examples=[True])


def _job_id() -> Any:
    return Field(description="the job", examples=[_ID])


def _status() -> Any:
    return Field(description=f"one of {', '.join(STATUSES)}", examples=["RUNNING"])


def _message() -> Any:
    return Field(description="for a person", examples=["Job queued (position 1)"])


def _url() -> Any:
    return Field(description="where it answers; null unless it is RUNNING", examples=[_URL])


def _at(what: str) -> Any:
    return Field(description=f"when it {what}, in UTC; null if it has not", examples=[_AT])


class TrainingAccepted(Shape):
    """The answer to `submit_job`."""

    job_id: str = _job_id()
    status: str = _status()
    message: str = _message()
    server_url: str | None = _url()


class InferenceAccepted(Shape):
    """The answer to `submit_inference_job`."""

    job_id: str = _job_id()
    status: str = _status()
    message: str = _message()
    vllm_server_url: str | None = _url()


class ServiceStatus(Shape):
    """A service job so far."""

    job_id: str = _job_id()
    status: str = _status()
    gpu_ids: list[int] = Field(description="the GPUs that it has or had", examples=[[0]])
    port: int | None = Field(description="its port; null before its start", examples=[38000])
    server_url: str | None = _url()
    created_at: str = Field(description="when it was submitted, in UTC", examples=[_AT])
    started_at: str | None = _at("started")
    completed_at: str | None = _at("ended")
    error_message: str | None = Field(
        description="why it failed: its exit code and the last lines of its stderr", examples=["exit code 1"]
    )
    reason: str | None = Field(
        description="why it waits; null unless it is QUEUED", examples=["all slots are taken (1 of 1)"]
    )


class ServiceList(Shape):
    """Service jobs."""

    jobs: list[ServiceStatus] = Field(description="in the order of their submission", examples=[[]])


class Ended(Shape):
    """A job that was ended, or had ended before."""

    job_id: str = _job_id()
    status: str = _status()
    message: str = _message()


class Registered(Shape):
    """A new user. The key is shown this one time."""

    user_id: str = Field(description="stands for the user", examples=["user_2bd806c97f0e"])
    username: str = Field(description="the name", examples=["alice"])
    api_key: str = Field(description="for `Authorization: Bearer`", examples=["otk_98b8db24ccd64c92e1fdd9a232e209fa"])
    message: str = _message()


class User(Shape):
    """Somebody who has, or had, a key or a token."""

    user_id: str = Field(description="stands for the user", examples=["user_2bd806c97f0e"])
    username: str = Field(description="the name", examples=["alice"])
    created_at: str = Field(description="when the first key or token was made, in UTC", examples=[_AT])
    is_admin: bool = Field(description="whether a good one makes an admin", examples=[False])


class Users(Shape):
    """All users."""

    users: list[User] = Field(description="by name", examples=[[]])
