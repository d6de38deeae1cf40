"""What becomes of a request for a service job."""

from __future__ import annotations

from typing import Any

import pytest

from tinksched.config.server import ServerSettings, load_server
from tinksched.server.opentinker_shapes import InferenceRequest, TrainingRequest
from tinksched.server.services_request import Asked, inference, training
from tinksched.server.submission import Refused


@pytest.fixture
def settings(tmp_path: Any) -> ServerSettings:
    (tmp_path / "server.yml").write_text("server_script: serve.py\ngpus_per_job: 2\n")
    return load_server(tmp_path / "server.yml")


def trained(settings: ServerSettings, config: dict[str, Any], gpus: int = 4, **more: Any) -> Asked:
    return training("alice", TrainingRequest(config=config, **more), settings, gpus, "otk_token")


def test_a_config_becomes_arguments(settings: ServerSettings) -> None:
    config = {"a": {"b": {"c": 1}, "d": []}, "e": "x y", "f": None, "g": True, "h": {}, "i": [{"j": 0.5}]}
    asked = trained(settings, config, enable_agent_loop=True)
    assert asked.arguments == (
        "enable_agent_loop=true", "a.b.c=1", "a.d=[]", "e=x y", "f=null", "g=true", "h={}", 'i=[{"j": 0.5}]',
    )  # fmt: skip
    assert asked.gpus == 2 and asked.config == config == asked.request["config"]


def test_arguments_of_the_server_are_its_own(settings: ServerSettings) -> None:
    asked = trained(settings, {"server": {"port": 1, "name": "x"}, "job_id": "y", "enable_agent_loop": True})
    assert asked.arguments == ("enable_agent_loop=false", "server.name=x")


def test_secrets_are_taken_out_wherever_they_stand(settings: ServerSettings) -> None:
    config = {
        "wandb_key": "w" * 9, "scheduler_api_key": "otk_token", "db": {"password": "p" * 9, "port": 1},
        "list": [{"hf_token": "h" * 9}], "api_key": None, "data": {"prompt_key": "prompt", "eos_token": "</s>"},
    }  # fmt: skip
    asked = trained(settings, config)
    assert asked.secrets == {"WANDB_API_KEY": "w" * 9, "PASSWORD": "p" * 9, "HF_TOKEN": "h" * 9}
    assert asked.config == {"db": {"port": 1}, "list": [{}], "data": {"prompt_key": "prompt", "eos_token": "</s>"}}
    assert not any(secret in str((asked.arguments, asked.request)) for secret in (*asked.secrets.values(), "otk_token"))
    assert trained(settings, config, wandb_key="given").secrets["WANDB_API_KEY"] == "given"


@pytest.mark.parametrize(("wanted", "there", "count"), [(None, 4, 2), (4, 4, 4), (1, 1, 1), (None, 0, 0)])
def test_gpus(settings: ServerSettings, wanted: int | None, there: int, count: int) -> None:
    assert trained(settings, {}, there, num_gpus=wanted).gpus == count


@pytest.mark.parametrize(("wanted", "there"), [(0, 4), (-1, 4), (99, 4), (None, 1), (1, 0)])
def test_gpus_that_there_are_not(settings: ServerSettings, wanted: int | None, there: int) -> None:
    with pytest.raises(Refused, match="num_gpus") as refused:
        trained(settings, {}, there, num_gpus=wanted)
    assert refused.value.status == 422


def test_an_inference_server_gets_a_gpu_for_each_part(settings: ServerSettings) -> None:
    def asked(**more: Any) -> Asked:
        return inference("alice", InferenceRequest(model_path="m", **more), settings, 4, None)

    assert asked(tensor_parallel_size=4).gpus == 4 and asked().gpus == 1
    assert asked(num_gpus=2).gpus == 2 and asked().values == {"model_path": "m"}
    for wrong in ({"tensor_parallel_size": 5}, {"tensor_parallel_size": 4, "num_gpus": 2}):
        with pytest.raises(Refused) as refused:
            asked(**wrong)
        assert refused.value.status == 422
