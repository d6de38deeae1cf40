"""Made-up scenes for the page: what the feed of a box with eight GPUs says, with as many jobs as one wants."""

from __future__ import annotations

import math
import random
from typing import Any

Json = dict[str, Any]
GIB = 2**30
HOUR = 3600.0
_USERS = ("alice", "bao", "chiara", "dmitri")
_NAMES = ("lr-sweep", "vit-base", "grpo-math", "dpo-7b", "tokenizer", "ablation-rope", "eval-mmlu", "sft-chat")
_REASONS = (
    "every slot that it may use is taken; GPU 3 is the first that is expected to be free",
    "needs 4 GPUs on one node; 2 are free and held for it",
    "GPU 5 has 11 GiB free, it needs 40 GiB",
    "waits for sft-chat-12 (running)",
)
_ERRORS = (
    "CUDA out of memory: tried to allocate 2.50 GiB",
    "exit code 1: ValueError: loss is nan at step 4200",
    "killed by signal 9 (the machine was out of memory)",
)


def scene(now: float, jobs: int = 40, me: str = "alice", is_admin: bool = True) -> Json:
    """A whole scene at this instant."""
    dice = random.Random(7)
    timeline = [run for gpu in range(8) for run in _past(dice, now, gpu)]
    open_runs = [run for run in timeline if run["to"] is None]
    running = [run for run in open_runs if run["name"]]
    listed = [_running(run, number) for number, run in enumerate(running)]
    listed += [_queued(dice, now, place) for place in range(1, 1 + max(9, jobs // 20))]
    listed += [_ended(dice, now, number) for number in range(jobs - len(listed))]
    counts = {"total": len(listed)}
    for status in ("queued", "running", "completed", "cancelled", "failed"):
        counts[status] = sum(1 for job in listed if job["status"] == status)
    return {
        "now": now, "mode": "server", "title": "gpu-box-1", "trouble": None, "counts": counts,
        "me": {"user": me, "is_admin": is_admin, "limits": {"active_jobs": 20, "jobs_per_day": 200},
               "use": {"active": 7, "today": 23, "gpu_hours": 61.4}},
        "nodes": [{"name": "gpu-box-1", "state": "up", "gpus": 8, "running": 6, "queued": 9}],
        "gpus": [_gpu(dice, now, index, [run for run in open_runs if index in run["gpus"]]) for index in range(8)],
        "jobs": listed, "timeline": timeline, "batch_ends": now + 6.2 * HOUR,
    }  # fmt: skip


def _name(dice: random.Random) -> str:
    return f"{dice.choice(_NAMES)}-{dice.randint(1, 99)}"


def _past(dice: random.Random, now: float, gpu: int) -> list[Json]:
    """A day of one GPU."""
    found: list[Json] = []
    at = now - 26 * HOUR + dice.random() * HOUR
    while at < now:
        length = dice.choice((0.2, 0.7, 1.5, 2.8, 5)) * HOUR * (0.6 + dice.random())
        outcome = dice.choices(("completed", "failed", "cancelled", "timed_out", "lost"), (74, 14, 6, 4, 2))[0]
        is_mine = dice.random() > 0.12
        found.append(_run(dice, gpu, at, at + length, outcome, is_mine))
        at += length + (dice.random() * 2.5 * HOUR if dice.random() < 0.3 else dice.random() * 60)
    found = [run for run in found if run["to"] < now]
    if gpu not in (2, 6):
        since = max([run["to"] for run in found] or [now - 3 * HOUR]) + 20
        found.append(_run(dice, gpu, since, None, "running", gpu != 5))
    if gpu == 0:
        found.append(_run(dice, gpu, now - 0.8 * HOUR, None, "running", True))
    return found


def _run(dice: random.Random, gpu: int, start: float, end: float | None, outcome: str, is_mine: bool) -> Json:
    run = f"r{dice.randrange(16**6):06x}"
    job = f"job_{dice.randrange(16**8):08x}" if is_mine else None
    return {"run": run, "job": job, "name": _name(dice) if is_mine else None, "gpus": [gpu], "from": start, "to": end,
            "outcome": outcome}  # fmt: skip


def _gpu(dice: random.Random, now: float, index: int, runs: list[Json]) -> Json:
    total = 80 * GIB
    held = (74 - 6 * index) // max(1, len(runs)) * GIB
    shown = [_occupant(run, _USERS[index % 4], held) for run in runs]
    command = "python -m vllm.entrypoints.api_server --model qwen"
    foreign = [{"user": "root", "command": command, "memory": 23 * GIB}] if index in (2, 4) else []
    used = sum(one["memory"] for one in shown + foreign) + 600 * 2**20
    level = 92 - 5 * index if runs else (41 if foreign else 0)
    waves = [9 * math.sin(step / (2 + index)) + dice.uniform(-7, 7) for step in range(56)]
    busy = [level and max(0, min(100, level + wave)) for wave in waves]
    memory = [float(used if step > 8 + index or not runs else 0.9 * GIB) for step in range(56)]
    unknown = [None] * 4
    return {
        "index": index, "uuid": f"GPU-{index:08x}", "name": "NVIDIA H100 80GB", "memory_total": total,
        "memory_used": used, "utilization": busy[-1], "temperature": 38 + level * 0.4, "power": 90 + level * 5.6,
        "slots": 2 if index == 0 else 1, "runs": shown, "foreign": foreign,
        "history": {"from": now - HOUR, "step": 60, "memory": unknown + memory, "utilization": unknown + busy},
    }  # fmt: skip


def _occupant(run: Json, user: str, memory: int) -> Json:
    is_mine = run["job"] is not None
    return {"job": run["job"], "user": user if is_mine else None, "name": run["name"], "since": run["from"],
            "memory": memory}  # fmt: skip


def job(id: str, status: str, **more: Any) -> Json:
    """A job as the feed tells it."""
    return {
        "id": id,
        "kind": "job",
        "name": None,
        "user": "alice",
        "status": status,
        "gpus": [],
        "port": None,
        "url": None,
        "created_at": 0.0,
        "started_at": None,
        "ended_at": None,
        "place": None,
        "reason": None,
        "expected_start": None,
        "error": None,
        "exit_code": None,
        "attempt": 1,
        **more,
    }


def _running(run: Json, number: int) -> Json:
    kind = ("training", "job", "inference")[number % 3]
    port = 38000 + number if kind != "job" else None
    return job(
        run["job"],
        "running",
        kind=kind,
        name=run["name"],
        user=_USERS[run["gpus"][0] % 4],
        gpus=run["gpus"],
        port=port,
        url=f"http://gpu-box-1:{port}" if port else None,
        created_at=run["from"] - 300,
        started_at=run["from"],
    )


def _queued(dice: random.Random, now: float, place: int) -> Json:
    return job(
        f"job_{dice.randrange(16**8):08x}",
        "queued",
        name=_name(dice),
        user=dice.choice(_USERS),
        created_at=now - 600 * place,
        place=place,
        reason=_REASONS[(place - 1) % len(_REASONS)],
        expected_start=now + 1500 * place if place % 4 else None,
    )


def _ended(dice: random.Random, now: float, number: int) -> Json:
    status = dice.choices(("completed", "failed", "cancelled"), (75, 17, 8))[0]
    end = now - 500 - number * 830.0
    start = end - dice.random() * 3 * HOUR
    return job(
        f"job_{dice.randrange(16**8):08x}", status, kind=dice.choice(("job", "training")), name=_name(dice),
        user=dice.choice(_USERS), gpus=[dice.randrange(8)], created_at=start - dice.random() * HOUR, started_at=start,
        ended_at=end, error=dice.choice(_ERRORS) if status == "failed" else None,
        exit_code={"completed": 0, "failed": 1}.get(status),
    )  # fmt: skip


def details(of: Json, runs: list[Json]) -> Json:
    """A job's page."""
    rows = [
        [step, round(2.4 * math.exp(-step / 900) + 0.31, 4), round(1 - math.exp(-step / 700), 4), 3e-4]
        for step in range(0, 3000, 50)
    ]
    failed = of["status"] == "failed"
    return {
        "job": of,
        "runs": [run for run in runs if run["job"] == of["id"]],
        "config": "model: qwen2.5-1.5b\nlr: 3.0e-4\nbatch_size: 64\nsteps: 3000\nseed: 7\n",
        "command": ["python", "train.py", "--config", "configs/run.yaml", "--note", "two words"],
        "metrics": {"columns": ["step", "loss", "accuracy", "lr"], "rows": rows},
        "usage": {"gpu_memory_peak": 61 * GIB, "gpu_utilization": 93.4, "cpu_seconds": 5123.0, "memory_peak": 12 * GIB},
        "diagnosis": "The GPU's memory was full. Ask for more with gpu_memory, or make the batch smaller."
        if failed
        else None,
    }
