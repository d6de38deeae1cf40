"""Driving tmux: one client call for each thing that is wanted, exact targets, nothing typed, nothing expanded.

What was measured on 3.3a and shapes this file: targets match prefixes unless they begin with `=`; a command in a
sequence without a target hits the caller's pane; `-s` and `-c` of new-session and the argument of pipe-pane are
expanded as formats (`#(…)` runs programs), so `#` and, for pipe-pane, `%` are doubled; an argument that ends in `;`
ends the command; `.`, `:`, `$`, `\\` and control characters in a session's name are rewritten.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import MissingProgram, TinkschedError
from .processes import RUN_ID_VARIABLE

if TYPE_CHECKING:
    import libtmux
    from libtmux.common import tmux_cmd

OLDEST = (3, 2, "a")
OLDEST_TEXT = "3.2a"
RUN_OPTION = "@tinksched_run"
WORKSPACE_OPTION = "@tinksched_workspace"
COLUMNS, LINES = 200, 50
_PLAIN = re.compile(r"[A-Za-z0-9_=+-]*")
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_FIELDS = (
    "session_id", "pane_id", "pane_pid", "pane_dead", "pane_pipe", RUN_OPTION, WORKSPACE_OPTION,
    "pane_dead_status", "pane_dead_signal",
)  # fmt: skip
_PANE_FORMAT = "|".join(f"#{{{field}}}" for field in _FIELDS)
_GONE = (
    "no server running", "error connecting", "no current client", "no current target", "server exited", "lost server",
)  # fmt: skip
_PATIENCE = 10
_MOST_BYTES = 15000  # of arguments in one call
ANSWER_SECONDS = 10.0  # a server answers within milliseconds; one that is stopped (SIGSTOP) or hangs never does


class TmuxError(TinkschedError):
    """tmux refused a command."""


class TmuxSilent(TinkschedError):
    """The server did not answer in time. Nobody knows what became of the command; it may still be obeyed later."""


@dataclass(frozen=True, slots=True)
class Pane:
    """A pane as tmux describes it. `run` and `workspace` are ids, and empty if it isn't one of ours."""

    session_id: str
    pane_id: str
    pid: int
    dead: bool = False
    piped: bool = False
    run: str = ""
    workspace: str = ""
    signal: int | None = None  # that killed its process, or the shell's status tells of


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session to create, with the command as its only process."""

    name: str
    command: Sequence[str]
    work_dir: str
    log: str | None
    options: Sequence[tuple[str, str]]  # user options of the session, @name and value


class _Answer(NamedTuple):
    """What tmux printed, why it refused, and its exit code."""

    lines: list[str]
    refused: list[str]
    code: int


class Tmux:
    """One tmux server: the user's default one, or a private one named by its socket."""

    def __init__(self, socket_name: str = "") -> None:
        self.socket_name = socket_name

    def call(self, *arguments: str) -> list[str]:
        """Run one command, or several separated by a lone `;`. Returns the lines that it printed.

        Raises:
            TmuxError: tmux refused; the message is its own.
            TmuxSilent: it gave no answer for ANSWER_SECONDS, or it died meanwhile.
        """
        with _without_run_id():
            answer = self._ask("-u", *arguments)  # -u: names come back as they are in any locale
        if answer.refused:
            raise TmuxError("tmux: " + "; ".join(answer.refused))
        if answer.code != 0:  # whoever refuses says why
            raise TmuxSilent("tmux's server died before it answered")
        return answer.lines

    def _ask(self, *arguments: str) -> _Answer:
        """What tmux's client answers. libtmux would take a command longer to load than all that it asks."""
        # Named even if it is the default: otherwise tmux takes the server that $TMUX of the caller names.
        command = ["tmux", "-L", self.socket_name or "default", *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, encoding="utf-8", errors="backslashreplace", timeout=ANSWER_SECONDS,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise _silent() from None
        except OSError as error:
            raise _not_run(error) from None
        lines = done.stdout.rstrip("\n").split("\n") if done.stdout.strip("\n") else []
        return _Answer(lines, list(filter(None, done.stderr.split("\n"))), done.returncode)

    def create(self, new: NewSession) -> Pane:
        """Create one session: see `create_all`."""
        return self.create_all([new])[0]

    def create_all(self, new: Sequence[NewSession]) -> list[Pane]:
        """Create sessions in one command sequence; their output is logged from the first byte.

        If one is refused, those before it exist all the same, and those after it do not.

        Raises:
            TmuxError: a session of this name exists, or tmux refused.
        """
        lines: list[str] = []
        for words in _in_calls([join(_creation(session)) for session in new]):
            lines += self._insist(words)
        panes = []
        for session, line in zip(new, lines, strict=True):
            session_id, pane_id, pid = line.split()
            options = dict(session.options)
            run, workspace = options.get(RUN_OPTION, ""), options.get(WORKSPACE_OPTION, "")
            panes.append(
                Pane(session_id, pane_id, int(pid), piped=session.log is not None, run=run, workspace=workspace)
            )
        return panes

    def _insist(self, words: list[str]) -> list[str]:
        """Run a sequence that may have to start the server, while the last one may be about to end."""
        for attempt in range(_PATIENCE):
            try:
                return self.call(*words)
            except TmuxError as error:
                if not is_gone(error) or attempt == _PATIENCE - 1:
                    raise
                time.sleep(0.02)
        raise AssertionError("unreachable")

    def panes(self) -> list[Pane]:
        """The panes that carry one of our options; empty if no server runs."""
        try:
            panes = map(_pane, self.call("list-panes", "-a", "-F", _PANE_FORMAT))
        except TmuxError as error:
            if is_gone(error):
                return []
            raise
        return [pane for pane in panes if pane.run or pane.workspace]

    def is_running(self) -> bool:
        """Whether there is a server.

        Raises:
            TmuxError, TmuxSilent: nobody can tell.
        """
        try:
            self.call("list-sessions", "-F", "")
        except TmuxError as error:
            if is_gone(error):
                return False
            raise
        return True

    def pane_of(self, session: str) -> Pane | None:
        """The pane of the session with exactly this name; None if there is none.

        Raises:
            TmuxSilent: nobody can tell.
        """
        try:
            (line,) = self.call("display-message", "-p", "-t", f"={session}:", _PANE_FORMAT)[:1]
            return _pane(line)
        except (TmuxError, ValueError):  # ValueError: all fields are empty
            return None

    def session_names(self) -> set[str]:
        """The names of all sessions; empty if no server runs."""
        try:
            return set(self.call("list-sessions", "-F", "#{session_name}"))
        except TmuxError as error:
            if is_gone(error):
                return set()
            raise

    def kill_session(self, session: Pane) -> None:
        """Close a session; one that is gone already is fine.

        Raises:
            TmuxSilent: nobody knows whether it was closed.
        """
        self.kill_sessions([session])

    def kill_sessions(self, sessions: Sequence[Pane]) -> None:
        """Close several at once. A server that has taken the place of theirs gives out the same ids anew: so it is
        asked first whether a session is still that one, and where one is gone, which ends the sequence, each alone.
        """
        try:
            for words in _in_calls([_closing(session) for session in sessions]):
                self.call(*words)
        except TmuxError:
            if len(sessions) > 1:
                for session in sessions:
                    self.kill_sessions([session])

    def arguments(self) -> list[str]:
        """The start of a command line that speaks to this server, for people and for exec."""
        return ["tmux", "-L", self.socket_name] if self.socket_name else ["tmux"]


class LibTmux(Tmux):
    """The same for a scheduler, which asks all the time."""

    def __init__(self, socket_name: str = "") -> None:
        super().__init__(socket_name)
        self._libtmux: libtmux.Server | None = None
        self._asking: threading.Thread | None = None

    @property
    def _server(self) -> libtmux.Server:
        if self._libtmux is None:
            import libtmux

            self._libtmux = libtmux.Server(socket_name=self.socket_name or "default")
        return self._libtmux

    def _ask(self, *arguments: str) -> _Answer:
        """libtmux waits for ever, so it does it in a thread that can be given up. Nothing is asked until that ends."""
        from libtmux.exc import LibTmuxException

        answers: list[tmux_cmd | BaseException] = []
        server = self._server

        def ask() -> None:
            try:
                answers.append(server.cmd(*arguments))
            except BaseException as error:
                answers.append(error)

        if self._asking is not None and self._asking.is_alive():
            raise _silent()
        asking = threading.Thread(target=ask, daemon=True)
        try:
            asking.start()
        except RuntimeError as error:  # too many threads on this machine
            raise TmuxSilent(f"tmux can't be asked now: {error}") from None
        asking.join(ANSWER_SECONDS)
        if asking.is_alive():
            self._asking = asking
            raise _silent()
        (answer,) = answers
        if isinstance(answer, LibTmuxException | OSError):
            raise _not_run(answer) from None
        if isinstance(answer, BaseException):
            raise answer
        return _Answer(list(answer.stdout), answer.stderr, answer.returncode)


def _creation(new: NewSession) -> list[list[str]]:
    """The commands that make a session."""
    target = f"={new.name}:"
    commands = [[
        "new-session", "-d", "-P", "-F", "#{session_id} #{pane_id} #{pane_pid}",
        "-x", str(COLUMNS), "-y", str(LINES), "-c", _literal(new.work_dir), "-s", _literal(new.name),
        *new.command,
    ]]  # fmt: skip
    if new.log is not None:
        commands.append(["pipe-pane", "-t", target, _append_to(new.log)])
    commands.append(["set-option", "-p", "-t", target, "remain-on-exit", "on"])
    # A user's tmux.conf may end sessions that nobody is attached to.
    commands.append(["set-option", "-t", target, "destroy-unattached", "off"])
    commands.append(["set-option", "-s", "exit-unattached", "off"])
    commands += [["set-option", "-t", target, name, value] for name, value in new.options]
    return commands


def _closing(session: Pane) -> list[str]:
    """The command that closes a session if it is still this one."""
    whose = re.sub("([#,}])", r"#\1", f"{session.run} {session.workspace}")
    same = f"#{{==:#{{{RUN_OPTION}}} #{{{WORKSPACE_OPTION}}},{whose}}}"
    target = f"{session.session_id}:"
    return ["if-shell", "-F", "-t", target, same, f"kill-session -t {session.session_id}"]


def _in_calls(sequences: Sequence[list[str]]) -> Iterator[list[str]]:
    """As few sequences as fit into the messages to the server (MAX_IMSGSIZE of its libraries, 16 KiB with its head)."""
    words: list[str] = []
    for sequence in sequences:
        if words and _size(words) + _size(sequence) > _MOST_BYTES:
            yield words
            words = []
        words = [*words, ";", *sequence] if words else sequence
    if words:
        yield words


def _size(words: Sequence[str]) -> int:
    return sum(len(os.fsencode(word)) + 1 for word in words)


def _pane(line: str) -> Pane:
    session_id, pane_id, pid, dead, piped, run, workspace, status, killed_by = line.split("|")
    number = _signal_number(killed_by) or int(status or 0) - 128
    return Pane(
        session_id, pane_id, int(pid), dead == "1", piped == "1", run, workspace, number if number > 0 else None
    )


def _signal_number(text: str) -> int:
    """The number of a signal that tmux names or numbers; 0 if there is none, or an old tmux does not tell."""
    if text.isdecimal():
        return int(text)
    with contextlib.suppress(KeyError):
        return int(signal.Signals[f"SIG{text}"])
    return 0


def session_name(text: str) -> str:
    """The name as tmux will keep it: what it would rewrite becomes `_` here first."""
    if _PLAIN.fullmatch(text):
        return text
    clean = ("_" if char in ".:$\\" or unicodedata.category(char) in _UNSEEN else char for char in text)
    return "".join(clean).replace("#[", "_[")  # which tmux reads as a style


def _literal(text: str) -> str:
    """Text where tmux expands formats."""
    return text.replace("#", "##")


def join(commands: Sequence[Sequence[str]]) -> list[str]:
    """Several commands as one sequence. A trailing `;` of an argument would end a command, so it is escaped."""
    words: list[str] = []
    for command in commands:
        words += [";"] if words else []
        words += [f"{word[:-1]}\\;" if word.endswith(";") else word for word in command]
    return words


def is_gone(error: TmuxError) -> bool:
    """Whether the error means that no tmux server runs."""
    return any(text in error.message for text in _GONE)


def is_taken(error: TmuxError) -> bool:
    """Whether the error means that a session had the wanted name. It may be gone by now."""
    return "duplicate session" in error.message


def require() -> None:
    """Make sure that there is a tmux that is new enough.

    Raises:
        MissingProgram: there is none, or it is too old.
    """
    if shutil.which("tmux") is None:
        raise MissingProgram("tmux is not installed", hint=_install_hint())
    try:
        answer = subprocess.run(["tmux", "-V"], capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise MissingProgram(f"tmux can't be run: {error}", hint=_install_hint()) from None
    if not answer.stdout.strip():
        why = answer.stderr.strip() or f"exit code {answer.returncode}"
        raise MissingProgram(f"tmux can't be run: {why}", hint=_install_hint())
    text = answer.stdout.splitlines()[0]
    found = version_of(text)
    if found is not None and found < OLDEST:
        raise MissingProgram(f"{text} is too old: {OLDEST_TEXT} or newer is needed", hint=_install_hint())


def version_of(text: str) -> tuple[int, int, str] | None:
    """The version in the answer of `tmux -V`; None for a development build, which is taken to be new."""
    match = re.match(r"tmux (?:next-)?(\d+)\.(\d+)([a-z]?)", text)
    return (int(match[1]), int(match[2]), match[3]) if match else None


def _install_hint() -> str:
    for program, command in (
        ("apt-get", "sudo apt-get install tmux"),
        ("dnf", "sudo dnf install tmux"),
        ("yum", "sudo yum install tmux"),
        ("pacman", "sudo pacman -S tmux"),
        ("zypper", "sudo zypper install tmux"),
        ("apk", "sudo apk add tmux"),
        ("conda", "conda install -c conda-forge tmux"),
    ):
        if shutil.which(program):
            return f"{command}   (or, without tmux, set `executor: local`)"
    return "install tmux with your package manager (or, without tmux, set `executor: local`)"


def _append_to(log: str) -> str:
    """The shell command for pipe-pane: quoted for the shell, and doubled where tmux expands.

    `##[` would be left as it is, so `#` and `[` are kept apart by two quotes that are nothing to the shell.
    """
    quoted = shlex.quote(str(Path(log))).replace("#[", "#''[")
    return f"exec cat >>{quoted}".replace("#", "##").replace("%", "%%")


def _not_run(error: Exception) -> TmuxError:
    return TmuxError(f"tmux can't be run: {error or type(error).__name__}")


def _silent() -> TmuxSilent:
    return TmuxSilent(
        f"tmux gave no answer for {ANSWER_SECONDS:.0f} seconds",
        hint="its server may be stopped or hang: look for it with `pgrep -a tmux`",
    )


@contextlib.contextmanager
def _without_run_id() -> Iterator[None]:
    """A tmux server that is started from inside of a run must not look like a process of that run."""
    run_id = os.environ.pop(RUN_ID_VARIABLE, None)
    try:
        yield
    finally:
        if run_id is not None:
            os.environ[RUN_ID_VARIABLE] = run_id
