"""The workspace of a server, told from others by the configuration that the server writes."""

from __future__ import annotations

import contextlib
from pathlib import Path

HEADER = "# Written by `tinksched serve`, which reads server.yml: what is changed here is overwritten.\n"


def is_served(file: Path) -> bool:
    """Whether this configuration is that of a server's workspace."""
    with contextlib.suppress(OSError), file.open("rb") as stream:
        return stream.read(len(HEADER)) == HEADER.encode()
    return False
