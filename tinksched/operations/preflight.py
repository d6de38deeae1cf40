"""What can be checked before anything runs, checked before anything runs; all of it at once."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..config import Origin, Settings, TaskRule, placeholders
from ..errors import MissingProgram, TinkschedError, UsageError
from ..host import gpus, nvml, tmux
from ..host.leases import Leases
from ..scheduler.devices import BRIEF_SECONDS, gpus_if_any, resolve_gpus
from . import programs, selection
from .programs import Programs

T = TypeVar("T")


def check(settings: Settings, *, on_gpus: bool) -> tuple[Programs, gpus.Resolved]:
    """The programs and the GPUs, if this machine and these settings can run tasks. Some need no GPU to be there.

    Raises:
        UsageError: they can't; every problem is named.
    """
    checks = _Checks()
    found = checks.of_the_files(settings)
    return found or Programs("", {}), checks.of_the_machine(settings, on_gpus=on_gpus)


def check_settings(settings: Settings) -> None:
    """Whether there is what the settings name, whatever this machine lacks. Where only commands are queued, nobody
    misses the script that is the default.

    Raises:
        UsageError: something is missing; every problem is named.
    """
    checks = _Checks()
    is_default = settings.origins["script_path"].kind == "default"
    checks.of_the_files(settings, script=not is_default or selection.is_any(settings))
    checks.attempt(lambda: _require_services(settings))
    checks.attempt(lambda: _require_writable(settings))
    checks.conclude()


def check_machine(settings: Settings, *, on_gpus: bool, proven: bool) -> gpus.Resolved:
    """The GPUs, if this machine and these settings can run commands that bring all else along.

    `proven` says that a scheduler works here, so that tmux and flock need not be tried.

    Raises:
        UsageError: they can't; every problem is named.
    """
    return _Checks().of_the_machine(settings, on_gpus=on_gpus, proven=proven)


class _Checks:
    """Checks, of which each is made whatever the others say."""

    def __init__(self) -> None:
        self._problems: list[TinkschedError] = []

    def attempt(self, step: Callable[[], T]) -> T | None:
        """What the step returns; None if it finds a problem."""
        try:
            return step()
        except TinkschedError as error:
            self._problems.append(error)
            return None

    def of_the_files(self, settings: Settings, *, script: bool = True) -> Programs | None:
        """The folder, the script if one is needed, and the programs; None if there is no interpreter."""
        self.attempt(lambda: _require_folder(settings.work_dir, "work_dir"))
        if script:
            self.attempt(lambda: _require_script(settings))
        found = self.attempt(lambda: programs.find(settings))
        if found is not None:
            self.attempt(lambda: _require_commands(settings, found))
        return found

    def conclude(self) -> None:
        """Raises UsageError: there were problems."""
        if self._problems:
            raise _together(self._problems)

    def of_the_machine(self, settings: Settings, *, on_gpus: bool, proven: bool = False) -> gpus.Resolved:
        """The last checks. Raises UsageError: there were problems."""
        if settings.executor == "tmux" and not proven:
            self.attempt(tmux.require)
        self.attempt(lambda: _require_services(settings))
        if not proven:
            self.attempt(_require_flock)
        self.attempt(Leases)
        self.attempt(lambda: _require_writable(settings))
        resolved = self.attempt(lambda: _gpus(settings, on_gpus))
        self.conclude()
        assert resolved is not None
        return resolved


def _gpus(settings: Settings, needed: bool) -> gpus.Resolved:
    """Where no task needs them, a driver that does not answer keeps nobody waiting."""
    return resolve_gpus(settings) if needed else gpus_if_any(settings, nvml.discover(BRIEF_SECONDS))


def _require_flock() -> None:
    if shutil.which("flock") is None:
        raise MissingProgram("flock is not installed", hint="it is part of util-linux: sudo apt-get install util-linux")


def _require_services(settings: Settings) -> None:
    """The services of `notify`, as far as this can be known without asking them."""
    if not settings.notify:
        return
    if importlib.util.find_spec("apprise") is None:
        raise MissingProgram("notify needs apprise, which is not installed", hint="pip install 'tinksched[notify]'")
    import logging

    import apprise

    logging.getLogger("apprise").disabled = True  # its messages hold parts of the URLs
    for number, url in enumerate(settings.notify):
        if apprise.Apprise.instantiate(url) is None:
            scheme = url.partition("://")[0]
            line = settings.origins["notify"].line
            raise UsageError(
                f"{settings.file}:{line}: notify[{number}] ({scheme}://…) is no URL that apprise understands",
                hint="https://github.com/caronc/apprise/wiki lists the services and their URLs",
            )


def _require_folder(path: Path, key: str) -> None:
    if not path.is_dir():
        raise UsageError(f"{key}: there is no folder {path}")


def _require_script(settings: Settings) -> None:
    """The script, unless every task has a command of its own that does not mention it."""
    if settings.command is not None and "script" not in placeholders.used(settings.command):
        return
    path, key = settings.script_path, "script_path"
    if not path.is_file():
        what = "is a folder, not a script" if path.is_dir() else "does not exist"
        raise UsageError(f"{key}: {path} {what}", hint=f"{key} is relative to the workspace, or absolute")


def _require_commands(settings: Settings, found: Programs) -> None:
    """The first words of the commands must be programs. Those that are placeholders are known only at launch."""
    given: list[tuple[tuple[str, ...] | None, str, Origin | TaskRule | None]] = [
        (settings.command, "command", settings.origins.get("command")),
        (settings.pre_run, "pre_run", settings.origins.get("pre_run")),
        (settings.post_run, "post_run", settings.origins.get("post_run")),
        (settings.on_event, "on_event", settings.origins.get("on_event")),
        *((rule.command, f"command of tasks[{rule.pattern!r}]", rule) for rule in settings.tasks),
    ]
    for command, what, place in given:
        if command is None or placeholders.used(command[:1]):
            continue
        if not programs.executable(command[0], settings.work_dir, found.environment):
            where = f"{settings.file}:{place.line}:{place.column}: " if place is not None and place.line else ""
            raise UsageError(
                f"{where}{what}: {command[0]!r} is no program that can be executed",
                hint="a name is looked up on PATH; a path is relative to work_dir",
            )


def _require_writable(settings: Settings) -> None:
    folders = [(settings.output_dir, "output_dir")]
    if settings.enable_logging:
        folders.append((settings.log_dir, "log_dir"))
    for folder, key in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{key}: {folder} can't be made: {error.strerror}") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UsageError(f"{key}: {folder} can't be written")


def _together(problems: list[TinkschedError]) -> TinkschedError:
    if len(problems) == 1:
        return problems[0]
    lines = [problem.message + (f"\n    {problem.hint}" if problem.hint else "") for problem in problems]
    return UsageError("\n".join(lines))
