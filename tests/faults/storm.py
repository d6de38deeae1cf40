"""A storm: schedulers live short lives, one after the other, while tasks, wrappers and tmux are killed around them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.batch import SLOTS, Field, Hit
from tests.faults.check import rows
from tests.faults.steps import FIRST, SCHEDULER, TOKENS, UNSETTLED
from tests.support import MARK, TIMEOUT, Bench, Lab

ROOT = Path(__file__).parents[2]
WIDTH = 14  # so many tasks of a workspace are open at least, as long as the storm lasts
LIFE = 2.0  # the longest that a scheduler lives in a storm, in seconds
MOST_LINES = 12_000


@dataclass
class Weather:
    """What kind of storm it is. Weights of how schedulers die, and chances of what else happens in each life."""

    executor: str = "tmux"
    workspaces: int = 1
    retries: int = 0
    steps: Sequence[str] = tuple(SCHEDULER)
    deaths: dict[str, int] = field(default_factory=lambda: {"step": 4, "line": 4, "instant": 2})
    every_step: bool = False  # go on until each was hit once
    strikes: int = 0  # the most in each life of a scheduler that hit others
    others: dict[str, int] = field(default_factory=dict)  # weights of whom: token, wrapper, task, tmux, all
    tokens: Sequence[str] = TOKENS
    longest: float = 0.2  # seconds that a task takes
    mutants: tuple[str, ...] = ()


class Nursery:
    """The process that forks schedulers, see `victim`."""

    def __init__(self, lab: Lab, log: Path) -> None:
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.victim"],
            cwd=ROOT, env=lab.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log, text=True, bufsize=1,
        )  # fmt: skip
        self.pid = self._process.pid

    def fork(self, order: dict[str, Any]) -> int:
        """Let a scheduler begin; returns its pid."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        return int(self._read()["pid"])

    def ended(self, seconds: float) -> int | None:
        """Its exit status, negative for a signal; None if it lives on for so long."""
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return int(self._read()["status"]) if ready else None

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the nursery is dead"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """No more children."""
        self._process.communicate(timeout=TIMEOUT)
        self._log.close()


class Storm:
    """One storm in one laboratory."""

    def __init__(self, lab: Lab, weather: Weather, seed: str) -> None:
        self.lab = lab
        self.weather = weather
        self.field = Field(lab.folder / "field")
        lab.environment["PATH"] = f"{self.field.shims}:{lab.environment['PATH']}"
        self._seed = seed
        self.benches = [self._workspace(f"ws{number}") for number in range(weather.workspaces)]
        self._tokens: list[str] = []
        self.refused = False
        self._nurseries = [Nursery(lab, lab.folder / "nursery.log") for _ in self.benches]

    def _workspace(self, name: str) -> Bench:
        bench = self.lab.workspace(
            name,
            python_env=str(self.field.shims / "interpreter"),
            task_name=name,
            gpu_count=2,
            max_jobs_per_gpu=SLOTS,
            executor=self.weather.executor,
            auto_restart_failed=self.weather.retries > 0,
            max_retries=self.weather.retries,
            retry_delay=0.01,
            keep_sessions=0,
            stop_grace=1,
            environment={"WORKSPACE": name},
        )
        bench.reconfigure(tasks={"big*": {"gpus": 2}, "solo*": {"exclusive": True}})
        self.field.write_script(bench.folder / "train.sh")
        return bench

    # -- the storm

    def rage(self, faults: int) -> None:
        """Go on until so many faults have hit."""
        with ThreadPoolExecutor(len(self.benches)) as threads:
            list(threads.map(lambda number: self._rage(number, faults), range(len(self.benches))))

    def _rage(self, number: int, faults: int) -> None:
        chance = random.Random(f"{self._seed} {number} {faults}")
        steps = self._steps(chance)
        for life in itertools.count():
            hits = self.field.hits()
            enough = not self.weather.every_step or life > 3 * faults or not self._missing(hits)
            if self.refused or (len(hits) >= faults and enough):
                return
            self._refill(self.benches[number], chance)
            how = chance.choices(list(self.weather.deaths), list(self.weather.deaths.values()))[0]
            if how == "step":
                self._live(number, next(steps), chance, LIFE)
            elif how == "line":
                few = chance.random() < 0.3  # most of the first ones are executed in every life
                line = int(1000 ** chance.random()) if few else chance.randrange(MOST_LINES)
                self._live(number, {"line": line}, chance, LIFE)
            else:
                self._live(number, {}, chance, chance.random() * LIFE)

    def _missing(self, hits: Sequence[Hit]) -> set[str]:
        return set(self.weather.steps) - {hit.step for hit in hits}

    def _steps(self, chance: random.Random) -> Iterator[dict[str, Any]]:
        """Every step in turn, again and again. There is something to be adopted only after certain deaths."""
        steps = list(self.weather.steps)
        for step in FIRST:
            if step in steps:
                yield {"step": step, "times": chance.randint(1, 8) if "between" in step else 1}
        while True:
            chance.shuffle(steps)
            missing = self._missing(self.field.hits())
            steps.sort(key=lambda step: step not in missing)
            for step in steps:
                if step.startswith("adopting"):
                    yield {"step": chance.choice(UNSETTLED), "times": 1}
                if step != "migrating: between statements":  # there is one for every workspace only
                    seldom = step.startswith(("adopting", "tidying", "the ", "migrating", "queueing"))
                    yield {"step": step, "times": 1 if seldom else chance.choice((1, 1, 2, 3))}

    def _refill(self, bench: Bench, chance: random.Random) -> None:
        folder = bench.folder / "configs"
        done = rows(bench.state.database, "SELECT count(*) AS n FROM tasks WHERE state = 'done'")
        count = len(list(folder.iterdir()))
        for number in range(count, WIDTH + (done[0]["n"] if done else 0)):
            kind = chance.choices(("exp", "big", "solo"), (8, 1, 1))[0]
            code = chance.choice((0, 0, 0, 1, 3))
            bench.add(
                f"{kind}{number:04}.yml", f"seconds: {chance.random() * self.weather.longest:.3f}\ncode: {code}\n"
            )

    def _live(self, number: int, order: dict[str, Any], chance: random.Random, seconds: float) -> None:
        """One life of a scheduler."""
        nursery = self._nurseries[number]
        pid = nursery.fork(self._order(number) | order)
        deadline = time.monotonic() + seconds
        for _ in range(chance.randint(0, self.weather.strikes)):
            if nursery.ended(chance.random() * seconds / self.weather.strikes) is not None:
                return
            self._strike(chance.choices(list(self.weather.others), list(self.weather.others.values()))[0], chance)
        status = nursery.ended(max(0.0, deadline - time.monotonic()))
        if status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            status = nursery.ended(TIMEOUT)
            by_itself = any(hit.kind == "scheduler" and hit.run == str(pid) for hit in self.field.hits())
            if status == -signal.SIGKILL and not by_itself:
                self.field.write_hit("scheduler", "random instant", str(pid))
        self.refused = bool(self.weather.mutants) and status == 2  # the next scheduler found the defect itself
        expected = (0, 1, -signal.SIGKILL)
        assert status in expected or self.refused, f"a scheduler ended with {status}: {self.log(number)}"

    def _order(self, number: int) -> dict[str, Any]:
        folder = self.benches[number].folder
        return {
            "argv": ["start", "--foreground"],
            "cwd": str(folder),
            "log": str(folder / "scheduler.out"),
            "hits": str(self.field.hits_file),
            "mutants": self.weather.mutants,
        }

    def log(self, number: int) -> str:
        """The last that a workspace's schedulers said."""
        path = self.benches[number].folder / "scheduler.out"
        return path.read_text()[-3000:] if path.exists() else ""

    # -- other faults

    def _strike(self, what: str, chance: random.Random) -> None:
        if what == "token":
            if not self._tokens:
                self._tokens = chance.sample(self.weather.tokens, len(self.weather.tokens))
            self.field.ask_for(self._tokens.pop())
        elif what in ("tmux", "all"):
            self._kill_many(what)
        else:
            victims = [(pid, run) for pid, run, kind in self._of_runs() if kind == what]
            if victims:
                pid, run = chance.choice(victims)
                self._kill(pid, what, run)

    def _of_runs(self) -> list[tuple[int, str, str]]:
        """Every process of a run: its pid, the run, and whether it is of the wrapper or of the task."""
        found = []
        mark = f"{MARK}={self.lab.id}".encode()
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, IndexError):
                words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                if words[0] == b"/bin/sh" and words[1].endswith(b"/wrapper.sh") and b"/ws" in words[2]:
                    if os.fsencode(self.lab.folder) in words[2]:
                        found.append((int(entry.name), os.path.basename(words[2]).decode(), "wrapper"))
                    continue
                variables = Path(entry.path, "environ").read_bytes().split(b"\0")
                runs = [value[17:].decode() for value in variables if value.startswith(b"TINKSCHED_RUN_ID=")]
                if runs and mark in variables:
                    found.append((int(entry.name), runs[0], "task"))
        return found

    def _kill(self, pid: int, kind: str, run: str) -> None:
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            try:
                if (pid, run, kind) in self._of_runs():
                    self.field.write_hit(kind, "random instant", run)
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)

    def _kill_many(self, what: str) -> None:
        """The tmux server, or everything at once."""
        nurseries = {nursery.pid for nursery in self._nurseries}
        victims = [
            pid
            for pid, line in self.lab.processes()
            if pid not in nurseries and (what == "all" or (line.split()[0].endswith("tmux") and "new-session" in line))
        ]
        began, hit = time.time(), False
        for pid in victims:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                hit = True
        if hit:
            self.field.write_hit(what, "random instant", f"{began} {time.time()}")

    # -- afterwards

    def calm(self, *, keep_tokens: bool = False) -> None:
        """Let schedulers without faults run everything to its end, side by side, twice: the second tidies up."""
        if not keep_tokens:
            self.field.take_tokens_back()
        for _ in range(2):
            for bench in self.benches:
                bench.add(f"last{len(list((bench.folder / 'configs').iterdir())):04}.yml", "seconds: 0\ncode: 0\n")
            for number, nursery in enumerate(self._nurseries):
                nursery.fork(self._order(number))
            for number, nursery in enumerate(self._nurseries):
                status = nursery.ended(TIMEOUT)
                assert status in (0, 1), f"the last scheduler ended with {status}: {self.log(number)}"

    def close(self) -> None:
        """No more schedulers."""
        for nursery in self._nurseries:
            nursery.close()
