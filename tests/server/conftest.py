"""A server for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.serving import Serving
from tests.support import Lab


@pytest.fixture
def serving(lab: Lab) -> Iterator[Callable[..., Serving]]:
    """Makes servers with these settings; they are not started yet, and gone when the test has ended."""
    made: list[Serving] = []

    def make(name: str = "server", **settings: object) -> Serving:
        made.append(Serving(lab, name, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def server(serving: Callable[..., Serving]) -> Serving:
    """A server that serves."""
    return serving().start()
