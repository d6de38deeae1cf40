"""Stored environments: each command that queues tasks stores its own once, by its hash, in a private file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from .rundir import write_private


def save(folder: Path, environment: Mapping[str, str]) -> str:
    """Store an environment (0600). Returns the name by which `load` finds it.

    Raises:
        OSError: it can't be written.
    """
    content = json.dumps(dict(environment), sort_keys=True).encode()  # lone surrogates stand for bytes: \udcXX
    name = hashlib.sha256(content).hexdigest()[:16]
    if not (folder / name).exists():
        aside = folder / f"{name}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()
        write_private(aside, content)
        aside.replace(folder / name)
    return name


def load(folder: Path, name: str) -> dict[str, str]:
    """A stored environment.

    Raises:
        OSError: it isn't there.
        ValueError: it is damaged.
    """
    record = json.loads((folder / name).read_bytes())
    return {str(key): str(value) for key, value in record.items()}
