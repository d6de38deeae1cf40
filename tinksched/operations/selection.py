"""Which task configs there are, and which of them a list on the command line means."""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import Settings, natural_key
from ..errors import UsageError

_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class TaskConfig:
    """A task config: the file, and the name of its task."""

    name: str
    path: Path


def available(settings: Settings, known: Callable[[list[str]], Container[str]] | None = None) -> list[TaskConfig]:
    """The configs in `config_dir` that match `config_pattern`, in natural order; without those of `known` tasks.

    Raises:
        UsageError: the folder isn't there or can't be read, or two files stand for one task.
    """
    folder = settings.config_dir
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    except OSError as error:
        raise UsageError(
            f"{folder}: the config folder can't be read: {error.strerror}", hint="config_dir names it"
        ) from None
    for name in names:
        if not name.isprintable() and "\udc80" <= max(name) <= "\udcff":
            raise UsageError(f"{folder} holds a file whose name is not UTF-8: {os.fsencode(name)!r}", hint="rename it")
    patterns = [re.compile(fnmatch.translate(pattern)).match for pattern in settings.config_pattern]
    wanted = [name for name in names if name[0] not in "._" and any(matches(name) for matches in patterns)]
    stems = {name: _stem(name) for name in wanted}
    out = known(list(stems.values())) if known is not None else ()
    wanted = sorted((name for name in wanted if stems[name] not in out), key=natural_key)
    configs = [TaskConfig(stems[name], folder / name) for name in wanted]
    refuse_namesakes(configs)
    return configs


def _stem(name: str) -> str:
    """As `Path(name).stem`, without making thousands of paths."""
    stem, _, ending = name.rpartition(".")
    return stem if stem and ending else name


def choose(settings: Settings, wanted: str) -> list[TaskConfig]:
    """The configs that a comma-separated list means: file names in `config_dir`, paths, or globs, in its order.

    Raises:
        UsageError: one of them means nothing, or one is named twice.
    """
    there = available(settings)
    # A name may hold a comma itself.
    items = [wanted] if _find(wanted, there) else [item.strip() for item in wanted.split(",") if item.strip()]
    if not items:
        raise UsageError(f"the list of configs {wanted!r} names none", hint="leave it out to mean all")
    chosen: list[TaskConfig] = []
    for item in items:
        found = _find(item, there)
        if not found:
            raise _unknown(settings, item, there)
        chosen += found
    refuse_namesakes(chosen)
    return chosen


def refuse_namesakes(configs: Iterable[TaskConfig]) -> None:
    """A task is known by its config's stem, so two configs can't share one.

    Raises:
        UsageError: two do.
    """
    seen: dict[str, Path] = {}
    for config in configs:
        other = seen.get(config.name)
        seen[config.name] = config.path
        if other is not None:
            what = "is named twice" if other == config.path else f"and {other} are both the task {config.name!r}"
            raise UsageError(f"{config.path} {what}", hint="a task is named by its config file without .yml")


def near(name: str, names: Sequence[str]) -> str:
    """A hint at the names that look like this one."""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"there are: {shown}" if names else ""


def _find(item: str, there: Sequence[TaskConfig]) -> list[TaskConfig]:
    exact = [config for config in there if item == config.path.name]
    exact = exact or [config for config in there if item == config.name]
    if exact:
        return exact
    try:
        path = Path(item).expanduser()
        if path.is_file():
            return [TaskConfig(path.stem, path.absolute())]
    except (OSError, ValueError, RuntimeError):  # RuntimeError: ~user of nobody
        return []
    if _GLOB & set(item):
        return [config for config in there if _matches(config.path.name, [item]) or _matches(config.name, [item])]
    return []


def _unknown(settings: Settings, item: str, there: Sequence[TaskConfig]) -> UsageError:
    what = "no config matches" if _GLOB & set(item) else "there is no config"
    stem = item.removesuffix(".yml").removesuffix(".yaml")
    files = {config.name: config.path.name for config in there}
    alike = [files[name] for name in difflib.get_close_matches(stem, list(files), n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(alike)}?" if alike else near(item, list(files.values()))
    return UsageError(f"{what} {item!r} in {settings.config_dir}", hint=hint or "add a .yml file there")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
