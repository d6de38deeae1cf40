"""A store of its own for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tinksched.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path, create=True) as opened:
        yield opened


@pytest.fixture
def other(store: Store, path: Path) -> Iterator[Store]:
    """A second connection to the same file, as another process has one."""
    with Store(path) as opened:
        yield opened
