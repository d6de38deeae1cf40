"""`run`: any command as a task, with the folder and the environment of its caller."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Literal

from ..config import placeholders
from ..config.values import LONGEST_NAME
from ..core.lifecycle import Held
from ..core.model import Hold, Outcome, Task, TaskSpec, in_words
from ..errors import NothingToActOn, UsageError
from ..host import environments
from ..host.completion import marker_identity
from ..scheduler.starting import current_environment, run_session
from ..store import STOPPED, NewTask
from . import daemon, preflight, programs, selection, strays
from .markers import marker_path
from .selection import Wanted
from .start import keep_config, refuse_impossible, what_is_retried
from .workspace import OpenWorkspace, actor, user_name

_LAUNCHERS = re.compile(
    r"python[0-9.]*|pypy[0-9.]*|(ba|da|z|k|fi)?sh|env|nohup|nice|time|torchrun|accelerate|deepspeed|mpirun|uv|poetry|"
    r"conda|pipenv|node|Rscript|julia|perl|ruby|java|singularity|apptainer|docker"
)
_SCRIPT = re.compile(r".+\.(py|sh|bash|zsh|R|r|jl|pl|rb|js|ts|ipynb|jar|m|lua)")
_LONGEST = 40  # characters of a name that is made of a command
_GLOB = re.compile(r"([*?[])")


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked `run` for. `at` is in seconds since the epoch; `after` are selectors, of which globs stay."""

    command: tuple[str, ...]
    cwd: Path
    name: str | None = None
    gpus: int | None = None
    memory: int | Literal["auto"] | None = None
    after: tuple[str, ...] = ()
    at: float | None = None


def queue(opened: OpenWorkspace, order: Order) -> tuple[Task, str | None]:
    """Queue the command, and make sure that a scheduler runs. Returns the task, and what was started.

    Raises:
        TinkschedError: something is wrong; nothing was queued.
    """
    settings, store = opened.settings, opened.store
    environment = current_environment()
    _refuse_unknown_program(order, environment.get("PATH"))
    resolved = preflight.check_machine(settings, on_gpus=order.gpus != 0, proven=opened.lock.is_held())
    strays.refuse(settings, opened.state, store)
    commit = programs.commit(order.cwd)
    try:
        reference = environments.save(opened.state.environments, environment)
    except OSError as error:
        raise UsageError(f"{opened.state.environments}: can't be written: {error.strerror}") from None
    keep_config(opened)
    configs = selection.stems(settings)
    now = time.time()
    with store.transaction(actor("run"), now) as tx:
        name = _name(opened, order, configs)
        options = settings.options_for(name)
        if order.gpus is not None:
            options = replace(options, gpus=order.gpus)
        if order.memory is not None:
            options = replace(options, min_free_memory=order.memory)
        refuse_impossible(name, options, (), resolved.gpus, settings.cpu_slots)
        output_dir = str(settings.output_dir)
        spec = TaskSpec(
            command=tuple(map(placeholders.literal, order.command)),
            work_dir=str(order.cwd),
            marker=marker_path(output_dir, name),
            output_dir=output_dir,
            gpus=options.gpus,
            exclusive=options.exclusive,
            environment_ref=reference,
            after=_after(opened, order.after),
            time_limit=options.time_limit,
            **what_is_retried(settings.auto_restart_failed, options),
            retry_delay=settings.retry_delay,
            interactive=settings.interactive,
            commit=commit.id,
            dirty=commit.dirty,
            min_free_memory=options.min_free_memory,
        )
        (task,) = tx.add_tasks([NewTask(name, "", spec, options.priority)])
        if order.at is not None:
            task = tx.apply(task, Held(Hold(user_name(), now, order.at)))
        tx.set_fact(STOPPED, None)
    return task, daemon.ensure(opened)


def suggested_name(command: Sequence[str]) -> str:
    """A name for the task of a command: that of its script or module, else that of its program."""
    words = [word for word in command if not re.match(r"[A-Za-z_]\w*=", word)] or list(command)
    program = os.path.basename(words[0])
    chosen = os.path.splitext(program)[0] if _SCRIPT.fullmatch(program) else program
    if _LAUNCHERS.fullmatch(program):
        scripts = (os.path.splitext(os.path.basename(word))[0] for word in words[1:] if _SCRIPT.fullmatch(word))
        modules = (word.rpartition(".")[2] for flag, word in pairwise(words) if flag == "-m")
        chosen = next(chain(scripts, modules), chosen)
    clean = re.sub(r"[^\w-]+", "_", chosen).strip("_-")[:_LONGEST]
    return clean if clean and not clean.isdecimal() else f"command_{clean}".rstrip("_")


def _refuse_unknown_program(order: Order, path: str | None) -> None:
    """Raises UsageError: the command can't be executed, or its folder isn't there."""
    if not order.cwd.is_dir():
        raise UsageError(f"--cwd: there is no folder {order.cwd}")
    for word in order.command:
        if "\0" in word:
            raise UsageError("an argument of the command holds a null byte")
    program = order.command[0]
    if not programs.executable(program, order.cwd, {"PATH": path or os.defpath}):
        where = f"in {order.cwd}" if "/" in program else "on PATH"
        raise UsageError(
            f"there is no program {program!r} {where} that can be executed; nothing was queued",
            hint="a command of the shell's own needs the shell: tinksched run -- sh -c 'a && b'",
        )


def _name(opened: OpenWorkspace, order: Order, configs: Collection[str]) -> str:
    """The task's name: as wished, or the first free one that the command suggests."""
    if order.name is not None:
        _refuse_name(order.name)
        why = _taken(opened, order.name, configs)
        if why is not None:
            raise UsageError(f"--name {order.name!r}: {why}; nothing was queued", hint="choose another name")
        return order.name
    base = suggested_name(order.command)
    names: Iterator[str] = chain([base], (f"{base}_{number}" for number in count(2)))
    return next(name for name in names if _taken(opened, name, configs) is None)


def _refuse_name(name: str) -> None:
    bad = (
        "must not be empty" if not name.strip()
        else "must be printable" if not name.isprintable()
        else "must not hold '/'" if "/" in name
        else "must not begin with '-', '.', '_' or '@'" if name[0] in "-._@"
        else f"must not be longer than {LONGEST_NAME} bytes" if len(name.encode()) > LONGEST_NAME
        else ""
    )  # fmt: skip
    if bad:
        raise UsageError(f"--name {bad}; it becomes part of the names of files and sessions")


def _taken(opened: OpenWorkspace, name: str, configs: Collection[str]) -> str | None:
    """Why a task can't have this name; None if it can."""
    settings = opened.settings
    if opened.store.known([name]):
        return "there is a task of this name already"
    if name in configs:
        return f"there is a config of this name in {settings.config_dir}"
    if marker_identity(marker_path(str(settings.output_dir), name)):
        return f"there is a completion marker of this name in {settings.output_dir}"
    session = run_session(settings, name, ())
    alike = [other for other in opened.store.names(done=False) if len(other) == len(name)]  # tmux changes no length
    if any(run_session(settings, other, ()) == session for other in alike):
        return "the session of another task would have the same name"
    return None


def _refuse_hopeless(before: Iterable[Task]) -> None:
    """Raises UsageError: what comes after these would never start."""
    for task in before:
        if task.outcome not in (None, Outcome.COMPLETED):
            how = in_words(task.outcome.value)
            raise UsageError(
                f"--after: {task.name} did not complete ({how}), so nothing can come after it; nothing was queued",
                hint=f"tinksched retry {task.name}",
            )


def _after(opened: OpenWorkspace, words: Sequence[str]) -> tuple[str, ...]:
    """The globs of what comes first. A glob stays one: what will match it later counts as well.

    Raises:
        NothingToActOn: a word means no task.
        UsageError: one of them has ended without being completed.
    """
    found: dict[str, None] = {}
    for word in words:
        try:
            names = selection.select(opened.store, Wanted([word]))
        except NothingToActOn as error:
            raise NothingToActOn(f"--after: {error.message}", hint=error.hint) from None
        _refuse_hopeless(opened.store.named(names).values())
        is_glob = _GLOB.search(word) and word not in names
        found |= dict.fromkeys([word] if is_glob else [_GLOB.sub(r"[\1]", name) for name in names])
    return tuple(found)
