"""The private folder of one run: what the wrapper is told there, and what it tells us.

The protocol is described in `executors/wrapper.sh`. Every file is written by one side only, except `began`, which both
sides try to create exclusively: whoever succeeds has decided whether the run begins.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TAKEN_BACK = "taken back by the scheduler\n"
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL = frozenset(  # names that some shell gives a meaning of its own
    {"ENV", "EUID", "GROUPS", "HISTCMD", "IFS", "LINENO", "OPTARG", "OPTERR", "OPTIND", "PPID", "PS1", "PS2", "PS4"}
    | {"RANDOM", "SECONDS", "SHELLOPTS", "SRANDOM", "UID", "_"}
)
NO_ROOM = "no room to write that it begins"  # what the wrapper says where the disk is full
_ROOM = "."  # what fills a file that will be written in place, later
_MOST_BYTES = 4096
_PID = re.compile("[0-9]{1,10}")
_STATUS = re.compile("[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """The status that the wrapper wrote, and when (seconds since the epoch). 128 + n stands for signal n."""

    code: int
    at: float


class RunDir:
    """The folder of one run."""

    def __init__(self, path: Path | str) -> None:
        self._folder = os.fspath(path)  # a Path of it takes longer to make than a file of it takes to read

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self._folder)

    def prepare(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        pre_run: Sequence[str] = (),
        post_run: Sequence[str] = (),
        interactive: bool = False,
        streams: str = "",
    ) -> None:
        """Make the folder (0700) and write what to run (0600).

        `streams` is a folder: its files `stdout` and `stderr` get what the command writes.

        Nothing here is synced: when the machine loses power the run is dead, and whether it is still wanted is in the
        database. At worst a run that ended in its last seconds is taken for lost.

        Raises:
            OSError: the disk is full, say.
        """
        self.path.mkdir(mode=0o700, parents=True)
        # Real bytes, so that the end of a run can be written down on a disk that has filled up meanwhile.
        for name, size in (("exit", 8), ("never", 80), ("failed", 16 if pre_run else 0)):
            if size:
                write_private(self.path / name, _ROOM.encode() * size)
        for name, words in (("command", command), ("pre_run", pre_run), ("post_run", post_run)):
            if words:
                write_private(self.path / f"{name}.sh", exec_script(words, environment))
        if interactive:
            write_private(self.path / "interactive", b"")
        if streams:
            write_private(self.path / "streams", os.fsencode(f"{streams}\n"))

    @property
    def is_prepared(self) -> bool:
        """Whether it was made to be launched, and not only put back to have a place for the end of a run."""
        return (self.path / "command.sh").exists()

    def describe(self, about: Mapping[str, object]) -> None:
        """Keep what is on record about the run beside it, for the day on which the database is damaged."""
        write_private(self.path / "about", json.dumps(about).encode())

    def about(self) -> dict[str, Any]:
        """What `describe` kept; empty if there is nothing, or it can't be read."""
        with contextlib.suppress(OSError, ValueError):
            kept = json.loads((self.path / "about").read_bytes())
            return kept if isinstance(kept, dict) else {}
        return {}

    def take_back(self) -> bool:
        """Make sure that the run never begins. False if it has begun already; the answer stays the same."""
        aside = self.path / f"taken-back.{os.urandom(6).hex()}"
        try:
            write_private(aside, _TAKEN_BACK.encode())
            with contextlib.suppress(FileExistsError):
                os.link(aside, self.path / "began")
            aside.unlink()
            return (self.path / "began").read_text(errors="replace") == _TAKEN_BACK
        except FileNotFoundError:
            return True  # the folder was never made, or was deleted: the wrapper can't create the file either

    def began(self) -> int | None:
        """The wrapper's pid once the run has begun; None before, or while the file is being written."""
        text = self._line("began")
        return int(text) if text and _PID.fullmatch(text) else None

    def never(self) -> str | None:
        """Why the wrapper did not begin; None if it said nothing."""
        return self._line("never")

    def exit_status(self) -> ExitStatus | None:
        """The exit status, once it is there as a whole."""
        text = self._line("exit")
        if text is None or not _STATUS.fullmatch(text):
            return None
        with contextlib.suppress(OSError):
            return ExitStatus(int(text), (self.path / "exit").stat().st_mtime)
        return None

    def failed_before(self) -> bool:
        """Whether `pre_run` failed, so that the command was not started."""
        return self._line("failed") is not None

    def put_back(self, pid: int | None) -> None:
        """Make the folder of a run again that has begun, so that its wrapper can write how it ended.

        Raises:
            OSError: it can't be written.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            write_private(self.path / "began", f"{pid or 0}\n".encode())

    def remove(self) -> None:
        """Delete the folder; the run has ended and its end is on record."""
        with contextlib.suppress(OSError):
            for file in list(self.path.iterdir()):
                file.unlink()
            self.path.rmdir()

    def _line(self, name: str) -> str | None:
        try:
            descriptor = os.open(f"{self._folder}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                text = os.read(descriptor, _MOST_BYTES).decode(errors="replace")
            finally:
                os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
            return None  # a lack of descriptors, say, is no answer, and is raised
        line, feed, rest = text.partition("\n")
        return line if feed and not rest.strip(_ROOM) else None


def exec_script(command: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """A shell script that exports the variables and becomes the command; everything in it is quoted.

    The variables stand in the script, which is private, and not in arguments, which every user of the machine can
    read. Only those are arguments of `env` that a shell can't export; their names say that they are no secrets.
    """
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items() if _exportable(name)]
    unset = [name for name in ("PWD", "OLDPWD", "SHLVL") if name not in environment]
    odd = [f"{name}={value}" for name, value in environment.items() if not _exportable(name)]
    words = [*(["env", "--", *odd] if odd else []), *command]
    if odd and "=" in command[0]:  # `env` would take a program in a folder named lr=0.1 for one more variable
        words = ["env", "--", *odd, "nice", "-n", "0", *command]
    lines = [*exports, f"unset {' '.join(unset)}" if unset else ":", f"exec {' '.join(map(shlex.quote, words))}"]
    return os.fsencode("\n".join(lines) + "\n")


def _exportable(name: str) -> bool:
    """Whether every shell can export a variable of this name without making something else of it."""
    return _NAME.fullmatch(name) is not None and name not in _SPECIAL and not name.startswith("BASH")


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
