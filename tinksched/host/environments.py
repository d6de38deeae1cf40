"""Stored environments: each command that queues tasks stores its own once, by its hash, in a private file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from .rundir import sync, write_private


def save(folder: Path, environment: Mapping[str, str]) -> str:
    """Store an environment (0600). Returns the name by which `load` finds it.

    Raises:
        OSError: it can't be written.
    """
    content = json.dumps(dict(environment), sort_keys=True).encode()  # lone surrogates stand for bytes: \udcXX
    name = hashlib.sha256(content).hexdigest()[:16]
    if not _holds(folder / name, content):
        aside = folder / f"{name}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()
        write_private(aside, content)
        aside.replace(folder / name)
        sync(folder / name)
        sync(folder)  # the name, too, must be on disk before a task refers to it
    return name


def load(folder: Path, name: str) -> dict[str, str]:
    """A stored environment.

    Raises:
        OSError: it isn't there.
        ValueError: it is damaged.
    """
    record = json.loads((folder / name).read_bytes())
    if not isinstance(record, dict):
        raise ValueError(f"{folder / name} holds no environment")
    return {str(key): str(value) for key, value in record.items()}


def put_back(folder: Path, name: str, environment: Mapping[str, str]) -> bool:
    """Store an environment in the place of one that was deleted. False if that is there.

    Raises:
        OSError: it can't be written.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    if (folder / name).exists():
        return False
    write_private(folder / name, json.dumps(dict(environment), sort_keys=True).encode())
    return True


def _holds(path: Path, content: bytes) -> bool:
    """Whether the file is there as a whole: a machine that lost power may have left the name alone."""
    try:
        return path.read_bytes() == content
    except OSError:
        return False
