"""The day: what is typed, what happens meanwhile, and the words between."""

from __future__ import annotations

from pathlib import Path

from tests.day.recorder import Recorder
from tests.e2e.test_everyday import until_it_listens
from tests.nvml_double import Gpu, NvmlDouble
from tests.support import Bench, Gate, Lab

NAME = "NVIDIA H100 80GB HBM3"
CONFIG = """\
task_name: digits
max_jobs_per_gpu: 1
check_interval: 1
min_free_memory: 20GiB
on_event: [python3, tell.py]
"""
# Holds memory of its GPU, says how it gets on, and ends when the story says so.
TRAIN = """
import fcntl, json, os, pathlib, sys
config = dict(line.split(": ") for line in pathlib.Path(sys.argv[2]).read_text().splitlines())
lr, depth = float(config["lr"]), int(config["depth"])
task, gpu = os.environ["TINKSCHED_TASK"], os.environ["CUDA_VISIBLE_DEVICES"]
mine = pathlib.Path(os.environ["NVML_DOUBLE_PROCESSES"], str(os.getpid()))
mine.write_text(f"process {gpu} compute {os.getpid()} {(20 + 2 * depth) << 30}\\n")
print(f"{depth} layers, lr {lr}, GPU {gpu}")
for epoch in range(1, 4):
    print(f"epoch {epoch}  loss {2.3 / (1 + epoch * lr * depth):.3f}")
gate = pathlib.Path(os.environ["GATES"], task)
if gate.exists():
    with gate.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
if depth > 40:
    sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 96.00 GiB.")
accuracy = 1 - 0.2 / (1 + 9 * lr * depth)
pathlib.Path(os.environ["TINKSCHED_OUTPUT_DIR"], f"{task}_metrics.json").write_text(json.dumps({"accuracy": accuracy}))
"""
TELL = """
import json, sys
event = json.load(sys.stdin)
with open("events.txt", "a") as file:
    print(event["event"], event.get("task") or event.get("counts"), file=file)
"""
EVALUATE = "print('best: base_lr0.1_depth4')\n"


def tell(lab: Lab) -> Recorder:
    """Live through the day."""
    double = NvmlDouble(lab.folder)
    lab.environment.update(double.environment(), GATES=str(lab.folder / "gates"))
    Path(lab.environment["GATES"]).mkdir()
    double.write(
        Gpu("GPU-5f1c", NAME, utilization=97, temperature=64, power=612.0),
        Gpu("GPU-8b20", NAME, utilization=88, temperature=61, power=540.0),
    )
    day = Recorder(lab)
    _any_command(day)
    bench = Bench(lab, day.home / "digits")
    gates = _a_workspace(day, bench)
    _a_grid(day, bench)
    _order(day)
    _drain(day, bench, gates)
    _failure(day)
    _evening(day, bench)
    return day


def _any_command(day: Recorder) -> None:
    day.say("## Any command, in ten seconds")
    day.say("No workspace, no YAML. It waits for a GPU that is free, runs in a tmux session, and has a log.")
    day.run('tinksched run --wait -- echo "hello, GPU"')
    day.run("tinksched logs @")


def _a_workspace(day: Recorder, bench: Bench) -> dict[str, Gate]:
    day.say("## A workspace")
    day.say("A folder with a script, and one config for each task.")
    day.run("tinksched setup-workspace ~/digits")
    day.run("cd ~/digits")
    (bench.folder / "configs" / "example.yml").unlink()
    for name, text in (("train.py", TRAIN), ("tell.py", TELL), ("evaluate.py", EVALUATE)):
        (bench.folder / name).write_text(text)
    (bench.folder / "scheduler_config.yml").write_text(CONFIG)
    bench.add("_base.yml", "lr: 0.1\ndepth: 2\n")
    bench.add("huge.yml", "lr: 0.1\ndepth: 48\n")
    names = [f"base_lr{lr}_depth{depth}" for lr in ("0.1", "0.3") for depth in (2, 4)]
    gates = {name: Gate(Path(bench.lab.environment["GATES"], name)) for name in (*names, "huge")}
    day.say("Here are ours already (`train.py`, `configs/_base.yml`, `configs/huge.yml`), and these settings:")
    day.run("cat scheduler_config.yml")
    day.run("tinksched config | head -4")
    day.run("tinksched doctor")
    return gates


def _a_grid(day: Recorder, bench: Bench) -> None:
    day.say("## A grid of trainings")
    day.run("tinksched sweep _base.yml lr=0.1,0.3 depth=2,4 --dry-run")
    day.run("tinksched sweep _base.yml lr=0.1,0.3 depth=2,4")
    day.run("tinksched start --dry-run")
    day.run("tinksched start")
    running = ("base_lr0.1_depth2", "base_lr0.1_depth4")
    bench.wait_until(lambda: all((bench.tasks()[name]["usage"] or {}).get("gpu_memory") for name in running), "memory")
    day.say("Who runs where, who waits, and for what:")
    day.run("tinksched status")
    day.run("tinksched gpus")
    day.run("tinksched explain huge")
    day.run("tinksched logs base_lr0.1_depth2")
    day.say("The live session, read-only, and all at once on the whole screen:")
    day.see("tinksched attach base_lr0.1_depth2", "epoch 3", "C-b d")
    day.see("tinksched watch", "epoch 3", "q")


def _order(day: Recorder) -> None:
    day.say("## What comes when")
    day.say("An evaluation after all of them; the large learning rates wait, one of them until tonight:")
    day.run("tinksched run --name evaluate --gpus 0 --after 'base_*' -- python3 evaluate.py")
    day.run("tinksched hold 'base_lr0.3_*'")
    day.run("tinksched release base_lr0.3_depth4 --at +8h")
    day.run("tinksched priority huge +5")
    day.run("tinksched status")
    day.say("Second thoughts; `@` is what was queued last:")
    day.run("tinksched release 'base_lr0.3_*'")
    day.run("tinksched cancel @")
    day.run("tinksched retry @")


def _drain(day: Recorder, bench: Bench, gates: dict[str, Gate]) -> None:
    def open_gates() -> None:
        until_it_listens(bench)
        for name in opened:
            gates.pop(name).open()

    day.say("## An update of the driver: drain the GPUs, then go on")
    day.run("tinksched pause")
    opened = ["base_lr0.1_depth2", "base_lr0.1_depth4"]
    day.run("tinksched wait 'base_lr0.1_*' --timeout 2h", meanwhile=open_gates)
    day.run("tinksched status")
    day.run("tinksched resume")
    opened = [*gates]
    day.run("tinksched wait", 1, meanwhile=open_gates)
    day.say("Every event went to a command of ours, too (`on_event`):")
    bench.wait_until(lambda: "batch_done" in (bench.folder / "events.txt").read_text(), "the events")
    day.run("tail -n 4 events.txt")


def _failure(day: Recorder) -> None:
    day.say("## Why did it fail?")
    day.run("tinksched explain huge")
    day.run("sed -i 's/48/8/' configs/huge.yml")
    day.run("tinksched retry --failed")
    day.run("tinksched wait huge")
    day.run("tinksched show huge")
    day.say("Mistakes are told from each other, by their exit codes as well:")
    day.run("tinksched statsu", 2)
    day.run("tinksched logs hugs", 3)
    day.run("tinksched cancel huge", 3)


def _evening(day: Recorder, bench: Bench) -> None:
    day.say("## The evening")
    day.run("tinksched report")
    day.run("tinksched report --html report.html")
    day.run("tinksched clean 'base_lr0.3_*' --dry-run")
    day.run("tinksched clean 'base_lr0.3_*' --logs --yes")
    day.say("Something for the night, and the scheduler may end: what is queued stays, and `start` goes on with it.")
    day.run("tinksched run --name nightly --at +8h -- python3 evaluate.py")
    day.run("tinksched stop")
    day.run("tinksched start --unless-stopped")
    day.say("The emergency stop ends the scheduler, every run and the queue, at once:")
    day.run("tinksched kill-all")
    day.say("## For scripts, and for the shell")
    day.run("tinksched retry nightly --json")
    day.run("tinksched wait nightly --json")
    day.run("tinksched completion bash | head -2")
    day.run("tinksched help hold")
    bench.wait_for_scheduler_end()
