"""`watch` in a real terminal: a pane of tmux, 80x24 unless it says otherwise."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.test_restart import kill_scheduler
from tests.nvml_double import GIB, Gpu, NvmlDouble
from tests.support import Bench, Lab

PANE = "view"
SCRIPT = r"""
import sys, time
print("\x1b[31mred words\x1b[0m \x1b]0;a title\x07")
for step in range(101):
    print(f"\repoch 1 {step:3d}% ", end="", flush=True)
print("\nlast words", flush=True)
time.sleep(float(open(sys.argv[2]).read().split()[1]))
"""
# A defect, after the first picture.
DEFECT = """
import sys
from tinksched import cli
from tinksched.cli import watchscreen
draw, seen = watchscreen.draw, []
def broken(view, *rest, **more):
    seen.append(view)
    return draw(view, *rest, **more) if not view.helping else 1 / 0
watchscreen.draw = broken
cli.program()
"""


class Terminal:
    """A shell in a pane of tmux."""

    def __init__(self, bench: Bench, size: tuple[int, int] = (80, 24), **environment: str) -> None:
        self.bench = bench
        self.folder = bench.folder
        settings = {"TERM": "tmux-256color", "PS1": "$ ", **environment}
        words = ["env", *(f"{name}={value}" for name, value in settings.items()), "sh"]
        width, height = map(str, size)
        self.tmux("new-session", "-d", "-s", PANE, "-x", width, "-y", height, "-c", str(bench.folder), *words)
        self.tmux("set-option", "-g", "status", "off")
        self.tmux("resize-window", "-t", PANE, "-x", width, "-y", height)
        self.until(lambda text: "$" in text)

    def tmux(self, *arguments: str) -> str:
        """A command for the server that this pane lives on, which is not the one of the tasks."""
        return self.bench.lab.tmux(*arguments, socket="terminal").stdout

    def type(self, *keys: str) -> None:
        """Press these keys."""
        self.tmux("send-keys", "-t", PANE, *keys)

    def line(self, text: str) -> None:
        """Type a command."""
        self.tmux("send-keys", "-t", PANE, "-l", text)
        self.type("Enter")

    def watch(self, *words: str) -> None:
        """Begin to watch, and wait for the first picture."""
        self.line(shlex.join([sys.executable, "-m", "tinksched", "watch", *words]))
        self.until(lambda text: "STATE" in text)

    def screen(self, *options: str) -> str:
        """What is to be seen."""
        return self.tmux("capture-pane", "-p", "-t", PANE, *options)

    def until(self, true: Callable[[str], object]) -> str:
        """Wait until the screen is like that."""
        self.bench.wait_until(lambda: true(self.screen()), "the screen", tell=self.screen)
        return self.screen()

    def of_pane(self, field: str) -> str:
        """Something that tmux knows of the pane."""
        return self.tmux("display-message", "-p", "-t", PANE, f"#{{{field}}}").strip()

    def settings(self) -> str:
        """The terminal's own settings, and its modes."""
        self.line("stty -g >stty")
        self.until(lambda _: (self.folder / "stty").exists() and (self.folder / "stty").read_text().endswith("\n"))
        text = (self.folder / "stty").read_text()
        (self.folder / "stty").unlink()
        modes = ("alternate_on", "cursor_flag", "mouse_any_flag", "keypad_flag", "bracket_paste_flag", "wrap_flag")
        return text + " ".join(self.of_pane(mode) for mode in modes)

    def pid(self) -> int:
        """The process of `watch`."""
        found = [pid for pid, line in self.bench.lab.processes() if line.endswith("tinksched watch")]
        assert len(found) == 1
        return found[0]


@pytest.fixture
def bench(lab: Lab) -> Bench:
    """A machine with two GPUs, and a task that runs."""
    double = NvmlDouble(lab.folder)
    double.write(
        Gpu("GPU-a", memory_used=30 * GIB, utilization=97), Gpu("GPU-b", memory_used=GIB, utilization=3)
    )  # fmt: skip
    lab.environment.update(double.environment())
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=1, python_env=sys.executable, script_path="train.py")
    (bench.folder / "train.py").write_text(SCRIPT)
    for name in ("run1", "run2", "run3"):
        bench.add(f"{name}.yml", "seconds: 600")
    bench.run("start")
    bench.wait_for_states(run1="running", run2="running")
    return bench


def test_the_day_of_a_task_and_the_terminal_is_left_as_it_was(bench: Bench) -> None:
    terminal = Terminal(bench)
    before = terminal.settings()
    terminal.line("echo words of before")
    terminal.watch()
    screen = terminal.until(lambda text: "last words" in text and "97%" in text)
    assert "epoch 1 100%" in screen and "red words" in screen and "epoch 1  50%" not in screen
    assert re.search(r"GPU 0  ■ +1/1  mem ████░░░░░░   30/80 GiB  busy ██████  97%", screen)
    assert "words of before" not in screen and terminal.of_pane("alternate_on") == "1"
    terminal.type("Down", "Down")
    terminal.until(lambda text: "── run3: queued: all slots are taken" in text)
    terminal.type("c")
    terminal.until(lambda text: "cancel run3" in text)
    terminal.type("y")
    terminal.until(lambda text: "- cancelled  run3" in text)
    terminal.type("r")
    terminal.until(lambda text: "queued run3 again" in text and "· queued     run3" in text)
    terminal.type("Home", "c")
    terminal.until(lambda text: "ends it with all its processes" in text)
    terminal.type("y")
    terminal.until(lambda text: "cancelled" in text and "▶ running    run3" in text)
    assert bench.states()["run3"] == "running"
    terminal.type("q")
    screen = terminal.until(lambda text: "words of before" in text)
    assert "STATE" not in screen and terminal.settings() == before


def test_attach_and_back(bench: Bench) -> None:
    terminal = Terminal(bench)
    before = terminal.settings()
    terminal.watch()
    terminal.type("a")
    terminal.until(lambda text: "[T_run1" in text and "STATE" not in text)
    terminal.type("C-b", "d")
    terminal.until(lambda text: "back from run1" in text and "STATE" in text)
    terminal.type("Down")
    terminal.until(lambda text: "── run2: running" in text)
    terminal.type("q")
    terminal.until(lambda text: "STATE" not in text)
    assert terminal.settings() == before
    assert bench.states()["run1"] == "running"


@pytest.mark.parametrize("attached", [False, True])
def test_a_signal_ends_it_and_nothing_is_left(bench: Bench, attached: bool) -> None:
    terminal = Terminal(bench)
    before = terminal.settings()
    terminal.watch()
    pid = terminal.pid()
    if attached:
        terminal.type("a")
        terminal.until(lambda text: "[T_run1" in text and "STATE" not in text)
    os.kill(pid, signal.SIGTERM)
    terminal.until(lambda text: "STATE" not in text and text.rstrip().endswith("$"))
    terminal.line("echo code $?")
    terminal.until(lambda text: "code 143" in text)
    assert terminal.settings() == before


def test_it_goes_with_its_terminal(bench: Bench) -> None:
    terminal = Terminal(bench)
    terminal.watch()
    pid = terminal.pid()
    terminal.tmux("kill-session", "-t", PANE)
    bench.wait_until(lambda: pid not in dict(bench.lab.processes()), "the end of watch")


def test_ctrl_z_and_back(bench: Bench) -> None:
    terminal = Terminal(bench)
    before = terminal.settings()
    terminal.watch()
    terminal.type("C-z")
    terminal.until(lambda text: "STATE" not in text)
    assert terminal.settings() == before
    terminal.line("fg")
    terminal.until(lambda text: "STATE" in text)
    terminal.type("Down")
    terminal.until(lambda text: "── run2: running" in text)
    terminal.type("q")
    terminal.until(lambda text: "STATE" not in text)
    assert terminal.settings() == before


def test_a_defect_is_told_on_a_terminal_as_it_was(bench: Bench) -> None:
    terminal = Terminal(bench, TINKSCHED_DEBUG="")
    before = terminal.settings()
    (bench.folder / "defect.py").write_text(DEFECT)
    terminal.line(f"{sys.executable} defect.py watch")
    terminal.until(lambda text: "STATE" in text)
    terminal.type("?")
    terminal.until(lambda text: "a defect of tinksched itself: ZeroDivisionError" in text and "STATE" not in text)
    terminal.line("echo code $?")
    terminal.until(lambda text: "code 1" in text)
    assert terminal.settings() == before


def test_the_scheduler_dies_and_the_driver_hangs_and_the_keys_work(bench: Bench) -> None:
    terminal = Terminal(bench)
    terminal.watch()
    double = NvmlDouble(bench.lab.folder)
    double.write(Gpu("GPU-a"), Gpu("GPU-b"), hanging=["nvmlDeviceGetMemoryInfo_v2"])
    try:
        assert kill_scheduler(bench)
        terminal.until(lambda text: "no scheduler runs" in text)
        terminal.type("?")
        terminal.until(lambda text: "asks first" in text)
        terminal.type("x", "Down")
        terminal.until(lambda text: "── run2: running" in text)
        terminal.type("q")
        terminal.until(lambda text: "STATE" not in text)
    finally:
        double.write(Gpu("GPU-a"), Gpu("GPU-b"))


@pytest.mark.parametrize("size", [(60, 15), (40, 8), (200, 50)])
def test_other_sizes(bench: Bench, size: tuple[int, int]) -> None:
    terminal = Terminal(bench, size)
    terminal.watch()
    terminal.until(lambda text: "▶ running" in text and "run1" in text and "quit" in text)
    terminal.type("q")
    terminal.until(lambda text: "STATE" not in text)


def test_it_follows_the_terminal_when_that_is_made_smaller(bench: Bench) -> None:
    terminal = Terminal(bench)
    terminal.watch()
    terminal.tmux("resize-window", "-t", PANE, "-x", "30", "-y", "5")
    terminal.until(lambda text: "This terminal has 30x5" in text)
    terminal.tmux("resize-window", "-t", PANE, "-x", "100", "-y", "30")
    terminal.until(lambda text: "▶ running" in text)


@pytest.mark.parametrize(("words", "coloured"), [((), True), (("NO_COLOR=1",), False)])
def test_colours_only_where_they_are_wanted(bench: Bench, words: tuple[str, ...], coloured: bool) -> None:
    terminal = Terminal(bench, **dict(word.split("=") for word in words))
    terminal.watch()
    terminal.until(lambda text: "▶ running" in text)
    colours = re.findall(r"\x1b\[(?:[0-9;]*;)?(?:3[0-7]|9[0-7]|38;[0-9;]+|4[0-7]|48;[0-9;]+)m", terminal.screen("-e"))
    assert bool(colours) is coloured


def test_where_there_is_no_terminal(bench: Bench) -> None:
    answer = bench.run("watch", code=2)
    assert answer.err == (
        "tinksched: watch needs a terminal: input and output and messages (standard error) are not a terminal\n"
        "    tinksched status --watch, or tinksched status\n"
    )
    assert answer.out == ""
    terminal = Terminal(bench)
    command = shlex.join([sys.executable, "-m", "tinksched", "watch"])
    terminal.line(f"TERM=dumb {command}; echo code $?")
    terminal.until(lambda text: "TERM is 'dumb'" in text and "code 2" in text)


def test_without_textual(bench: Bench) -> None:
    """An empty package in its place: what an installation without the extra meets."""
    folder = Path(bench.lab.folder, "without", "textual")
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('No module named textual')\n")
    terminal = Terminal(bench, PYTHONPATH=str(folder.parent))
    terminal.line(f"{sys.executable} -m tinksched watch; echo code $?")
    screen = terminal.until(lambda text: "code 2" in text)
    assert "watch needs Textual" in screen and "pip install 'tinksched[watch]'" in screen
