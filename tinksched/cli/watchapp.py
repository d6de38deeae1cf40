"""`watch` in a terminal: Textual gives the terminal, the keys and the clock; what is to be seen is `watchscreen`'s.

One widget shows all lines. It knows what it showed before and has only that drawn again which changed, so that little
goes over a slow line. What may take long is done in threads; the thread of the keys never waits for any of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from rich.segment import Segment
from rich.style import Style
from textual.app import App, ComposeResult
from textual.events import Key, Resize
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from ..core.model import ReasonCode
from ..errors import TinkschedError
from ..operations import control, emergency, logs, queue
from ..operations.live import Live
from ..operations.selection import Wanted
from ..operations.snapshot import TaskStatus
from ..operations.status import MOST
from ..operations.workspace import Workspace
from . import watchscreen
from .watchscreen import PLAIN, Line, View

CLOCK_SECONDS = 1.0
MESSAGE_SECONDS = 10.0
_HELD = (ReasonCode.HELD, ReasonCode.HELD_UNTIL)


class Step(Message):
    """Something to be done in the thread of the keys."""

    def __init__(self, step: Callable[[], None]) -> None:
        super().__init__()
        self.step = step


class Lines(Widget):
    """Lines of text, of which only what changed is drawn again."""

    DEFAULT_CSS = "Lines { width: 100%; height: 100%; }"

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours
        self._lines: list[Line] = []

    def show(self, lines: list[Line]) -> None:
        """Show these lines."""
        before, self._lines = self._lines, lines
        missing: list[Line] = [[]] * abs(len(lines) - len(before))
        pairs = zip([*before, *missing], [*lines, *missing], strict=False)
        columns = [reach(old, new, self.size.width) for old, new in pairs]
        changed = [Region(0, y, count, 1) for y, count in enumerate(columns) if count]
        if changed:
            self.refresh(*changed)

    def render_line(self, y: int) -> Strip:
        """One line as Textual draws it."""
        line = self._lines[y] if y < len(self._lines) else []
        segments = [Segment(text, _style(style, self._colours)) for text, style in line]
        return Strip(segments).adjust_cell_length(self.size.width)


class Watch(App[None]):
    """The live view of a workspace."""

    ENABLE_COMMAND_PALETTE = False
    CSS = "Screen { background: ansi_default; color: ansi_default; overflow: hidden; }"

    def __init__(self, workspace: Workspace, *, signs: bool = True) -> None:
        colours = not os.environ.get("NO_COLOR")  # which Textual takes away
        super().__init__(ansi_color=True)  # the colours of the terminal, and its background
        self.failure: Exception | None = None
        self.signal: int | None = None  # that ended it
        self.view = View()
        self._workspace = workspace
        self._signs = signs
        self._live = Live(workspace, self._news)
        self._lines = Lines(colours=colours)
        self._quiet_at = 0.0  # when the message may go (monotonic)
        self._nowhere = Path(os.devnull).open("w")  # noqa: SIM115
        self._drawn_at = self._pressed_at = 0.0  # monotonic
        self._told = False  # whether the thread of the keys knows that there is news
        self._asked: Callable[[], str] | None = None  # what is done if the question is answered with yes
        self._keys = {
            "q": self._quit, "ctrl+c": self._quit, "ctrl+q": self._quit, "question_mark": self._help,
            "up": lambda: self._move(-1), "k": lambda: self._move(-1), "down": lambda: self._move(1),
            "j": lambda: self._move(1), "pageup": lambda: self._move(-self.view.page),
            "pagedown": lambda: self._move(self.view.page), "home": lambda: self._move(-1_000_000),
            "end": lambda: self._move(1_000_000), "enter": self._zoom, "escape": self._back, "slash": self._filter,
            "f": self._failed, "c": self._cancel, "r": self._retry, "a": self._show_chosen, "h": self._hold,
            "ctrl+z": self.action_suspend_process,
        }  # fmt: skip

    def compose(self) -> ComposeResult:
        """The one widget that there is."""
        yield self._lines

    def on_mount(self) -> None:
        """Begin to look."""
        # Nothing is printed meanwhile; but libraries ask Textual's own file for what it has not (libtmux: encoding).
        sys.stdout = sys.stderr = self._nowhere
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            loop.add_signal_handler(number, self._ended_by, number)
        self.app_resume_signal.subscribe(self, lambda _: self._draw_whole())
        self._pressed_at = time.monotonic()
        self._live.start()
        self.set_interval(CLOCK_SECONDS, self._draw)
        self._draw()

    def on_unmount(self) -> None:
        """Stop looking."""
        self._live.close()
        self._nowhere.close()

    def on_resize(self, event: Resize) -> None:
        """Draw for the new size."""
        self._draw()

    def on_key(self, event: Key) -> None:
        """Do what the key stands for."""
        event.stop()
        event.prevent_default()
        self._guarded(lambda: self._press(event))

    # -- drawing

    def _news(self) -> None:
        """Called in the thread that looks. One word is enough for all that is new."""
        if not self._told:
            self._told = True
            self._from_thread(self._draw_news)

    def _draw_news(self) -> None:
        """Nothing moves more often than the clock does, unless somebody has just pressed a key."""
        self._told = False
        now = time.monotonic()
        if now - self._drawn_at >= CLOCK_SECONDS or now - self._pressed_at < CLOCK_SECONDS:
            self._draw_now()

    def _from_thread(self, step: Callable[[], None]) -> None:
        """Have the thread of the keys do something, without waiting for it."""
        with contextlib.suppress(RuntimeError):  # it has ended meanwhile
            self.post_message(Step(step))

    def on_step(self, message: Step) -> None:
        """What another thread wants done here."""
        self._guarded(message.step)

    def _draw(self) -> None:
        self._guarded(self._draw_now)

    def _draw_whole(self) -> None:
        """The screen has been somebody else's."""
        self.refresh(layout=True)
        self._lines.refresh()
        self._draw()

    def _draw_now(self) -> None:
        self._drawn_at = time.monotonic()
        if self._live.failure is not None:
            raise self._live.failure
        if self.view.message and time.monotonic() >= self._quiet_at:
            self.view.message = ""
        width, height = self.size
        seen, view = self._live.seen, self.view
        self._lines.show(watchscreen.draw(view, seen, width, height, time.time(), signs=self._signs))
        chosen = self._chosen()
        self._live.follow(chosen.log if chosen else None)
        many = seen.status is not None and seen.status.total > MOST
        self._live.list_everything(many and (view.chooses or view.typing))

    def _guarded(self, step: Callable[[], None]) -> None:
        """A defect ends the view and is told when the terminal is as it was."""
        try:
            step()
        except Exception as error:
            self.failure = error
            self.exit()

    # -- keys

    def _press(self, event: Key) -> None:
        view = self.view
        self._pressed_at = time.monotonic()
        if view.question:
            self._answer(event.key)
        elif view.typing:
            self._type(event)
        elif view.helping:
            view.helping = False
            if event.key in ("q", "ctrl+c"):
                self._quit()
        elif event.key in self._keys:
            view.message = ""
            self._keys[event.key]()
        self._draw_now()

    def _answer(self, key: str) -> None:
        asked, self._asked, self.view.question = self._asked, None, ""
        if key == "y" and asked is not None:
            self._do(asked)
        else:
            self._say("nothing was done")

    def _type(self, event: Key) -> None:
        view = self.view
        if event.key in ("escape", "ctrl+c"):
            view.typing, view.wanted = False, ""
        elif event.key == "enter":
            view.typing = False
        elif event.key == "backspace":
            view.wanted = view.wanted[:-1]
        elif event.character is not None and event.character.isprintable():
            view.wanted += event.character

    def _quit(self) -> None:
        self.exit()

    def _help(self) -> None:
        self.view.helping = True

    def _move(self, by: int) -> None:
        if self.view.zoomed:
            self.view.back = max(0, self.view.back - by)
        else:
            self.view.move(self.view.listed(self._live.seen.status), by)
            self.view.back = 0

    def _zoom(self) -> None:
        self.view.zoomed, self.view.back = not self.view.zoomed, 0

    def _back(self) -> None:
        if self.view.zoomed:
            self._zoom()
        else:
            self.view.wanted, self.view.failed_only = "", False

    def _filter(self) -> None:
        self.view.typing, self.view.zoomed = True, False

    def _failed(self) -> None:
        self.view.failed_only, self.view.zoomed = not self.view.failed_only, False

    # -- what the keys do to tasks

    def _cancel(self) -> None:
        task = self._chosen()
        if task is not None and (task.active or task.state == "queued"):
            how = "ends it with all its processes" if task.active else "it leaves the queue"
            self.view.question = f"cancel {task.name} ({task.state}: {how})? y: yes, any other key: no"
            self._asked = lambda: cancel(self._workspace, task.name)
        elif task is not None:
            self._say(f"{task.name} is {task.state.replace('_', ' ')}: there is nothing to cancel")

    def _retry(self) -> None:
        task = self._chosen()
        if task is not None and task.state == "new":
            self._say(f"{task.name} was never queued: `tinksched start` queues it")
        elif task is not None:
            self._do(lambda: retry(self._workspace, task.name))

    def _hold(self) -> None:
        task = self._chosen()
        if task is not None and task.state == "queued":
            held = task.reason is not None and task.reason.code in _HELD
            self._do(lambda: (release if held else hold)(self._workspace, task.name))
        elif task is not None:
            self._say(f"{task.name} is {task.state.replace('_', ' ')}: only what is queued can be held")

    def _show_chosen(self) -> None:
        task = self._chosen()
        if task is None:
            return

        def ask() -> str:
            command, _ = logs.attach_command(self._workspace, task.name, write=False)
            self._from_thread(lambda: self._show_session(task.name, command))
            return ""

        self._do(ask)

    def _show_session(self, name: str, command: list[str]) -> None:
        with self.suspend():
            code = self._run_attached(command)
        self._say(f"back from {name}" if code == 0 else f"tmux could not show {name} (exit code {code})")
        if self.signal is not None:
            self.exit()

    def _run_attached(self, command: list[str]) -> int:
        """tmux in place of us. What would end us ends it first; the loop stands still meanwhile."""

        def end(number: int, _: object) -> None:
            self.signal = number
            child.terminate()

        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
        try:
            child = subprocess.Popen(command)
            return child.wait()
        except OSError:
            return 127
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _chosen(self) -> TaskStatus | None:
        tasks = self.view.listed(self._live.seen.status)
        return tasks[self.view.choose(tasks)] if tasks else None

    def _do(self, action: Callable[[], str]) -> None:
        """What may take a while, such as until processes are dead, in a thread of its own."""

        def work() -> None:
            try:
                said = action()
            except TinkschedError as error:
                said = _text(error)
            except Exception as error:
                said = f"a defect of tinksched itself: {type(error).__name__}: {error}"
            self._live.look_again()
            if said:
                self._from_thread(lambda: self._say(said))

        self._say("…" if self._signs else "...")
        threading.Thread(target=work, name="action", daemon=True).start()

    def _say(self, text: str) -> None:
        self.view.message, self._quiet_at = text, time.monotonic() + MESSAGE_SECONDS
        self._draw()

    def _ended_by(self, number: int) -> None:
        self.signal = number
        self.exit()


def cancel(workspace: Workspace, name: str) -> str:
    """End a task, and say what became of it."""
    try:
        with workspace.open_existing() as opened:
            done = control.cancel(opened, Wanted([name]))
    except emergency.UNRECORDED as trouble:
        emergency.cancel(workspace, [name], trouble)
    if done.stuck:
        return f"{name} has not ended yet: its processes don't die"
    if done.unrecorded:
        return f"{name} is dead, but that is not recorded yet: is the disk of the state full?"
    return f"cancelled {name}" if done.cancelled else f"{name} {done.finished[0][1]} before it could be cancelled"


def retry(workspace: Workspace, name: str) -> str:
    """Queue a finished task again."""
    with workspace.open_existing() as opened:
        done = control.retry(opened, Wanted([name]))
    return f"queued {name} again" + (f"; {done.started}" if done.started else "")


def hold(workspace: Workspace, name: str) -> str:
    """Keep a queued task from starting."""
    with workspace.open_existing() as opened:
        queue.hold(opened, Wanted([name]))
    return f"{name} is held: h releases it"


def release(workspace: Workspace, name: str) -> str:
    """Let a held task start."""
    with workspace.open_existing() as opened:
        queue.release(opened, Wanted([name]), None)
        started = queue.keep_going(opened)
    return f"released {name}" + (f"; {started}" if started else "")


def reach(old: Line, new: Line, width: int) -> int:
    """How many columns have to be drawn again; Textual begins at the left. What is the same at the end stays."""
    if old == new:
        return 0
    before, after = ([(char, style) for text, style in line for char in text] for line in (old, new))
    if len(before) != len(after) or not all(char.isascii() or char in PLAIN for char, _ in (*before, *after)):
        return width
    pairs = enumerate(zip(before, after, strict=True), 1)
    return max((place for place, (was, is_now) in pairs if was != is_now), default=0)


def _text(error: TinkschedError) -> str:
    said = " ".join(error.message.split("\n"))
    return f"{said} ({error.hint})" if error.hint else said


@cache
def _style(text: str, colours: bool) -> Style:
    style = Style.parse(text) if text else Style.null()
    return style if colours else style.without_color


def run(workspace: Workspace, *, signs: bool) -> int:
    """Show it until the user quits. Returns the exit code.

    Raises:
        Exception: a defect, when the terminal is as it was before.
    """
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    app = Watch(workspace, signs=signs)
    app.run(mouse=False)
    sys.stderr.flush()
    if app.failure is not None:
        raise app.failure
    return 128 + app.signal if app.signal is not None else app.return_code or 0
