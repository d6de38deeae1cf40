"""GPU memory between schedulers, people and runs: what is reserved, respected, seen, learned and retried."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nvml_double import GIB, Gpu, Mig, NvmlDouble
from tests.support import Bench, Lab
from tinksched.host.owners import Owners

pytestmark = pytest.mark.skipif(
    Owners().look([1]) is None, reason="in a container without the host's pids nobody can tell processes apart"
)
A, B = "GPU-aaaaaaaa-0000", "GPU-bbbbbbbb-0000"
# Holds `memory` GiB of GPU `on` (that which it was given, if there is none) until it ends: at once, with `code` and the
# words of a PyTorch that is out of memory from attempt 1 to `ooms`, or when the file `until` is there.
SCRIPT = r"""
memory=0 on=$CUDA_VISIBLE_DEVICES ooms=0 until=
while IFS=': ' read -r key value; do
    case $key in memory) memory=$value ;; on) on=$value ;; ooms) ooms=$value ;; until) until=$value ;; esac
done <"$2"
[ "$memory" = 0 ] || echo "process $on compute $$ $((memory << 30))" >"$NVML_DOUBLE_PROCESSES/$$"
printf 'start %s %s %s %s\n' "$TINKSCHED_TASK" "$$" "$CUDA_VISIBLE_DEVICES" "$(date +%s.%N)" >>"$RECORD"
[ -z "$until" ] || until [ -e "$until.$TINKSCHED_TASK" ] || [ -e "$until" ]; do sleep 0.05; done
[ "$TINKSCHED_ATTEMPT" -gt "$ooms" ] && exit 0
printf 'Traceback (most recent call last):\n  File "t.py", line 1, in <module>\n'
printf 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n'
exit 1
"""


@pytest.fixture
def double(lab: Lab, tmp_path: Path) -> NvmlDouble:
    """One GPU of 80 GiB."""
    double = NvmlDouble(tmp_path)
    lab.environment.update(double.environment())
    double.write(Gpu(A, utilization=0))
    return double


@pytest.fixture
def make(lab: Lab, double: NvmlDouble) -> Callable[..., Bench]:
    """Workspaces whose tasks use GPU memory."""

    def workspace(name: str = "ws", **settings: object) -> Bench:
        values = {"gpu_count": "auto", "max_jobs_per_gpu": 4, "check_interval": 0.3, **settings}
        bench = lab.workspace(name, **values)
        (bench.folder / "train.sh").write_text(SCRIPT)
        return bench

    return workspace


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody who does not use tinksched."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def end(bench: Bench, task: str = "") -> None:
    """Let a task end, or all."""
    (bench.folder / f"end{'.' * bool(task)}{task}").touch()


def until(bench: Bench) -> str:
    return f"until: {bench.folder}/end\n"


def reason(bench: Bench, task: str) -> str:
    return str((bench.tasks()[task]["reason"] or {}).get("text", ""))


def test_two_schedulers_do_not_give_out_the_same_memory_twice(lab: Lab, make: Callable[..., Bench]) -> None:
    """The first has not allocated anything yet: only its lease says what it will."""
    one, two = make("one", min_free_memory="50GiB"), make("two", min_free_memory="40GiB")
    one.add("a.yml", until(one))
    two.add("b.yml", until(two))
    one.run("start")
    one.wait_for_starts("a")
    two.run("start")
    two.wait_until(lambda: "reserved for a" in reason(two, "b"), "the reason", tell=lambda: reason(two, "b"))
    assert reason(two, "b").startswith("needs 40 GiB free; GPU 0 has: 80 GiB free, of which 50 GiB are reserved for a")
    assert two.starts() == {"a": 1}, "one record for both"
    end(one)
    two.wait_for_starts("b")
    end(two)
    for bench in (one, two):
        bench.wait_for_scheduler_end()


def test_what_fits_by_memory_shares_a_gpu_and_the_rest_waits(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.reconfigure(min_free_memory="30GiB", tasks={"small": {"min_free_memory": "10GiB"}})
    for name in ("a", "b", "c", "small"):
        bench.add(f"{name}.yml", f"memory: {10 if name == 'small' else 30}\n{until(bench)}")
    bench.run("start")
    bench.wait_for_starts("a", "b")
    bench.wait_until(lambda: bench.tasks()["a"]["usage"], "what it uses")
    bench.wait_until(lambda: bench.states()["c"] == "queued" and "needs 30 GiB free" in reason(bench, "c"), "c waits")
    end(bench, "a")
    bench.wait_for_starts("c", "small")
    end(bench)
    bench.wait_for_states(a="completed", b="completed", c="completed", small="completed")
    peaks = {name: task["usage"] and task["usage"]["gpu_memory_peak"] for name, task in bench.tasks().items()}
    assert (peaks["a"], peaks["b"]) == (30 * GIB, 30 * GIB) and peaks["c"] in (None, 30 * GIB)
    table = bench.run("status", COLUMNS="160").out
    assert "GPU MEMORY" in table and "peak 30 GiB" in table
    assert "GPU memory up to 30.0 GiB" in bench.run("show", "a").out


def test_nothing_starts_beside_somebody_else_until_that_has_ended(
    double: NvmlDouble, make: Callable[..., Bench], stranger: subprocess.Popen[bytes]
) -> None:
    double.hold(stranger.pid, GIB)
    bench = make()
    bench.add("a.yml")
    bench.run("start")
    bench.wait_until(lambda: f"(pid {stranger.pid})" in reason(bench, "a"), "the reason")
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert reason(bench, "a") == (
        f"respects other people's processes: {user} runs `sleep 600` on GPU 0 (pid {stranger.pid})"
    )
    said = bench.run("explain", "a").out
    assert "sleep 600" in said and f"GPU 0: sleep of {user} (not tinksched's)" in said, "not free"
    stranger.kill()
    stranger.wait()
    bench.wait_for_states(a="completed")


def test_whom_one_does_not_mind_is_no_reason_to_wait(
    double: NvmlDouble, make: Callable[..., Bench], stranger: subprocess.Popen[bytes]
) -> None:
    double.hold(stranger.pid, GIB)
    bench = make(ignore_processes=["sle*"])
    bench.add("a.yml")
    bench.run("start", "--wait")


def test_a_retry_after_out_of_memory_waits_for_more_than_the_run_had(
    double: NvmlDouble, make: Callable[..., Bench], stranger: subprocess.Popen[bytes]
) -> None:
    bench = make(retry_on=["oom"], retry_delay="0.1s", ignore_processes=["sleep"])
    bench.add("big.yml", f"memory: 40\nooms: 1\n{until(bench)}")
    bench.run("start")
    bench.wait_until(lambda: (bench.tasks()["big"]["usage"] or {}).get("gpu_memory_peak"), "what it uses")
    double.hold(stranger.pid, 38 * GIB)  # 42 are left, 44 are wanted
    end(bench)
    bench.wait_until(lambda: "needs 44 GiB free" in reason(bench, "big"), "it waits", tell=lambda: reason(bench, "big"))
    said = bench.run("explain", "big").out
    assert "ran out of GPU memory, so it waits for more than that had: 44 GiB" in said
    assert json.loads(bench.run("show", "big", "--json").out)["need"] == {"alone": False, "bytes": 44 * GIB}
    double.hold(stranger.pid, 1 * GIB)
    bench.wait_for_states(big="completed")
    assert bench.starts() == {"big": 2}


def test_without_a_known_peak_the_retry_gets_a_gpu_for_itself(make: Callable[..., Bench]) -> None:
    bench = make(retry_on=["oom"], retry_delay="0.1s", check_interval=60)
    bench.add("a.yml", until(bench))
    bench.run("start")
    bench.wait_for_starts("a")
    bench.add("b.yml", "ooms: 1")
    bench.run("start")
    bench.wait_until(lambda: "wants a GPU for itself alone" in reason(bench, "b"), "it waits", tell=bench.states)
    assert "so it waits for a GPU for itself" in bench.run("explain", "b").out
    end(bench)
    bench.wait_for_states(a="completed", b="completed")


def test_the_need_of_memory_is_learned_from_siblings(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.reconfigure(tasks={"big_*": {"min_free_memory": "auto"}})
    bench.add("big_1.yml", f"memory: 50\n{until(bench)}")
    bench.run("start")
    bench.wait_until(lambda: (bench.tasks()["big_1"]["usage"] or {}).get("gpu_memory_peak"), "what it uses")
    end(bench, "big_1")
    bench.wait_for_states(big_1="completed")
    bench.add("big_2.yml", f"memory: 50\n{until(bench)}")
    bench.add("big_3.yml", f"memory: 50\n{until(bench)}")
    bench.run("start")
    bench.wait_for_starts("big_2")
    bench.wait_until(lambda: "needs 55 GiB free" in reason(bench, "big_3"), "it waits")
    said = bench.run("explain", "big_3").out
    assert (
        "1 task like 'big_*' completed and had at most 50 GiB on a GPU, so with 10 % more it waits for 55 GiB" in said
    )
    end(bench)
    bench.wait_for_states(big_2="completed", big_3="completed")


def test_a_run_on_a_gpu_that_it_was_not_given_is_flagged(double: NvmlDouble, make: Callable[..., Bench]) -> None:
    double.write(Gpu(A), Gpu(B))
    bench = make(use_gpus=[0])
    bench.add("a.yml", f"memory: 3\non: 1\n{until(bench)}")
    bench.run("start")
    bench.wait_until(lambda: (bench.tasks()["a"]["usage"] or {}).get("flags"), "the flag")
    assert "it is on GPU 1, which it was not given" in bench.run("status", COLUMNS="160").out
    end(bench)
    bench.wait_for_states(a="completed")
    assert "it is on GPU 1, which it was not given" in bench.run("show", "a").out, "kept after the end"
    assert "a: it is on GPU 1" in (bench.folder / "logs" / "T_scheduler.log").read_text()


@pytest.mark.parametrize("kill", [False, True])
def test_a_stalled_run_is_flagged_and_ended_only_if_that_is_wanted(make: Callable[..., Bench], kill: bool) -> None:
    bench = make(stall_after=0.5, kill_stalled=kill)
    bench.add("a.yml", f"memory: 3\n{until(bench)}")
    bench.run("start")
    if kill:
        bench.wait_for_states(a="timed_out")
        assert reason(bench, "a").startswith("stalled, and ended for that: no output and no use of its GPU for 0.5 s")
        return
    bench.wait_until(lambda: "stalled for" in bench.run("status", COLUMNS="160").out, "the flag")
    assert bench.states() == {"a": "running"}
    end(bench)
    bench.wait_for_states(a="completed")


def test_memory_that_nobody_can_measure_is_refused_at_start(lab: Lab) -> None:
    bench = lab.workspace(min_free_memory="1GiB", tasks={"a.yml": ""})
    answer = bench.run("start", code=2)
    assert "nobody can tell what is free: no NVIDIA driver" in answer.err and "leave min_free_memory out" in answer.err


def test_several_mig_instances_for_one_task_are_refused_at_start(
    double: NvmlDouble, make: Callable[..., Bench]
) -> None:
    double.write(Gpu(A, mig=True, instances=(Mig("MIG-a"), Mig("MIG-b"))))
    bench = make()
    bench.reconfigure(tasks={"wide": {"gpus": 2}})
    bench.add("wide.yml")
    assert "a process can use one MIG instance only" in bench.run("start", code=2).err


def test_more_memory_than_any_gpu_has_is_refused_at_start(make: Callable[..., Bench]) -> None:
    bench = make(min_free_memory="81GiB")
    bench.add("a.yml")
    answer = bench.run("start", code=2)
    assert "81 GiB" in answer.err and "80 GiB" in answer.err and os.listdir(bench.folder / "configs") == ["a.yml"]
