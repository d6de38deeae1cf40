"""What the runner of service jobs is made of. The rest is tested with real servers."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import tinksched
from tinksched.server.services_runner import filled, is_free, sockets_on


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{port}", "1"),
        ("--port={port}", "--port=1"),
        ("{a}{port}{port}", "{port}11"),  # what a value holds is left alone
        ("{unknown} {", "{unknown} {"),
        ('{"port": {port}}', '{"port": 1}'),
        ("", ""),
    ],
)
def test_placeholders(text: str, expected: str) -> None:
    assert filled(text, {"port": "1", "a": "{port}"}) == expected


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::")],
)
def test_a_port_is_free_if_nobody_listens_on_any_address(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as one:
        try:
            one.bind((address, 0))
        except OSError:
            pytest.skip("there is no IPv6 here")
        port = one.getsockname()[1]
        one.listen()
        assert not is_free(port) and len(sockets_on(port)) == 1
    assert is_free(port) and sockets_on(port) == set()


def test_a_connection_that_has_the_port_is_seen_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        port = client.getsockname()[1]
        assert sockets_on(port) == set() and len(sockets_on(port, listening=False)) == 1


def test_it_needs_nothing_but_the_standard_library() -> None:
    """It is started without the folders of installed packages, so that it starts fast and gets nothing of a job's."""
    root = str(Path(tinksched.__file__).parents[1])
    code = "import sys; sys.path.append(sys.argv[1]); import tinksched.server.services_runner; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, root], capture_output=True, text=True, check=True)
    assert not {"asyncio", "fastapi", "psutil", "pydantic", "site"} & set(done.stdout.split())
