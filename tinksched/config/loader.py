"""Reading scheduler_config.yml: from the file to Settings, or to every problem that it has."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import ConfigError, Problem, WorkspaceError
from . import placeholders
from .broken import place_of, quoted
from .document import Entry, MappingNode, Node, compose
from .schema import KEYS, Key, unknown
from .settings import CONFIG_NAME, Origin, Settings, shown
from .values import BadValue, Context, Value, is_empty

MAX_BYTES = 1_000_000
MAX_PROBLEMS = 100
_RUN_VARIABLES = ("RUN_ID", "TASK", "GPUS", "OUTPUT_DIR", "ATTEMPT")


def load(workspace: Path, config_file: Path | None = None) -> Settings:
    """The settings of a workspace.

    Args:
        workspace: the folder; relative paths in the file are relative to it.
        config_file: the file, if it is not the `scheduler_config.yml` of the workspace.

    Raises:
        WorkspaceError: the file does not exist.
        ConfigError: the file can't be read or has problems, all of which are listed.
    """
    folder, file = _located(workspace, config_file)
    name = shown(file)
    root, problems = _root(file, name, "task_name: demo")
    if root is not None:
        return _settings(folder, file, root, problems)
    if not problems:
        problems.append(Problem(name, 0, 0, "the file is empty; it must have a task_name"))
    raise _config_error(problems)


def read(file: Path, keys: Mapping[str, Key], example: str) -> dict[str, Any]:
    """The values of a file of another kind: those of all `keys`, none of which is required. Paths are relative to it.

    Raises:
        ConfigError: as `load`.
    """
    root, problems = _root(file, shown(file), example)
    entries = _children(root) if root is not None else {}
    context = Context(file.parent, "")
    values = _values(entries, context, keys)
    strangers = [unknown(entry.key, "key", keys) for name, entry in entries.items() if name not in keys]
    problems += [_problem(file, bad) for bad in (*context.problems, *strangers)]
    if problems:
        raise _config_error(problems, hint=f"the known keys are {', '.join(keys)}" if strangers else None)
    return values


def _root(file: Path, name: str, example: str) -> tuple[MappingNode | None, list[Problem]]:
    """The map that a file holds, if it holds one, and what is wrong with it as YAML."""
    document = compose(_text(file, name))
    problems = [Problem(name, broken.line, broken.column, broken.message) for broken in document.broken]
    root = document.root
    if root is None or isinstance(root, MappingNode) or is_empty(root):
        return (root if isinstance(root, MappingNode) else None), problems
    message = f"the file must be a map of keys, with lines such as '{example}'"
    return None, [*problems, Problem(name, root.line, root.column, message)]


def _located(workspace: Path, config_file: Path | None) -> tuple[Path, Path]:
    """The absolute folder and file, of which the file exists."""
    try:
        folder = Path(workspace).resolve()
        file = folder / CONFIG_NAME if config_file is None else Path(os.path.abspath(config_file))
        file.stat()
        return folder, file
    except (FileNotFoundError, NotADirectoryError):
        hint = f"tinksched setup-workspace {shlex.quote(str(workspace))}"
        if config_file is not None:
            raise WorkspaceError(f"the config file {config_file} does not exist", hint=hint) from None
        raise WorkspaceError(f"there is no {CONFIG_NAME} in {workspace}", hint=hint) from None
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL in a name, no permission
        shown_name = str(config_file or Path(workspace, CONFIG_NAME))
        raise _config_error([Problem(shown_name, 0, 0, f"can't be read: {_reason(error)}")]) from error


def _text(file: Path, name: str) -> str:
    """The content of the file. A pipe is refused unread: it could block, and it can be read only once."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise _config_error([Problem(name, 0, 0, "is not a regular file")])
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _config_error([Problem(name, 0, 0, f"can't be read: {_reason(error)}")]) from error
    if len(data) > MAX_BYTES:
        raise _config_error([Problem(name, 0, 0, f"larger than {MAX_BYTES} bytes; is this a config file?")])
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line, column = place_of(data[: error.start].decode())
        message = f"not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8"
        raise _config_error([Problem(name, line, column, message)]) from error


def _settings(folder: Path, file: Path, root: MappingNode, problems: list[Problem]) -> Settings:
    entries = _children(root)
    context = Context(folder)
    values = _values(entries, context, KEYS)
    if "task_name" not in entries:
        problems.append(Problem(shown(file), 0, 0, "task_name is missing; it is the prefix of sessions and logs"))
    strangers = [unknown(entry.key, "key", KEYS) for name, entry in entries.items() if name not in KEYS]
    problems += [_problem(file, bad) for bad in (*context.problems, *strangers)]
    if problems:
        lost = any("did you mean" not in stranger.message for stranger in strangers)
        known = ", ".join(key.name for key in KEYS.values() if not key.note)
        raise _config_error(problems, hint=f"the known keys are {known}" if lost else None)
    return Settings(
        **{name: value for name, value in values.items() if not KEYS[name].note},
        workspace=folder,
        file=file,
        origins=MappingProxyType({name: _origin(KEYS[name], entries.get(name), file) for name in values}),
        old_values=MappingProxyType({name: value for name, value in values.items() if KEYS[name].note}),
        warnings=tuple(sorted(_problem(file, doubt) for doubt in _doubts(values, entries))),
    )


def _values(entries: Mapping[str, Entry], context: Context, keys: Mapping[str, Key]) -> dict[str, Any]:
    """The value of each key, in documented order: task_name first, because the others may refer to it."""
    values: dict[str, Any] = {}
    for key in keys.values():
        entry = entries.get(key.name)
        if entry is not None:
            values[key.name] = context.attempt(key.value, Value(entry.value, key.name, context))
        elif not key.note:
            values[key.name] = context.workspace / key.default if isinstance(key.default, Path) else key.default
        context.task_name = values.get("task_name", "")
    return values


def _origin(key: Key, entry: Entry | None, file: Path) -> Origin:
    if entry is None:
        return Origin("default", file=file.name)
    return Origin("file", entry.key.line, entry.key.column, file.name, key.note)


def _doubts(values: Mapping[str, Any], entries: Mapping[str, Entry]) -> Iterator[BadValue]:
    """What is allowed and yet can't be meant."""
    if values["use_gpus"] is not None and values["gpu_count"] is not None:
        yield BadValue(entries["gpu_count"].key, "gpu_count has no effect, because use_gpus names the GPUs")
    texts = (*(values["command"] or ()), *values["args"], *values["environment"].values())
    if values["command"] is not None and not placeholders.used(texts) & {"config", "task"}:
        message = "command names neither {config} nor {task}, so that every task runs the same"
        yield BadValue(entries["command"].key, message)
    names = (values["cuda_visible_devices_var"], "CUDA_DEVICE_ORDER", *(f"TINKSCHED_{name}" for name in _RUN_VARIABLES))
    rules = [_children(rule.value) for rule in _children_of(entries, "tasks").values()]
    for holder in (entries, *rules):
        for name, variable in _children_of(holder, "environment").items():
            if name in names:
                yield BadValue(variable.key, f"{quoted(name)} has no effect here; the scheduler sets it for every run")


def _children(node: Node) -> dict[str, Entry]:
    return {entry.key.text: entry for entry in node.entries} if isinstance(node, MappingNode) else {}


def _children_of(entries: Mapping[str, Entry], name: str) -> dict[str, Entry]:
    return _children(entries[name].value) if name in entries else {}


def _problem(file: Path, bad: BadValue) -> Problem:
    return Problem(shown(file), bad.node.line, bad.node.column, bad.message)


def _config_error(problems: Iterable[Problem], hint: str | None = None) -> ConfigError:
    """The error with its problems; a file that is no config at all has too many to list."""
    listed = sorted(set(problems))
    if len(listed) > MAX_PROBLEMS:
        count = Problem(listed[0].file, 0, 0, f"{len(listed)} problems; these are the first {MAX_PROBLEMS}")
        listed = [count, *listed[:MAX_PROBLEMS]]
    return ConfigError(listed, hint=hint)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
