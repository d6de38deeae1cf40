"""Hears of files that grow, for all who follow one: the kernel gives a user only so many inotify instances."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..host import inotify


class Growth:
    """One for each event loop."""

    def __init__(self) -> None:
        self._watch: inotify.Watch | None = None
        self._followers: dict[int, list[asyncio.Event]] = {}  # by watched file

    def open(self) -> None:
        """Begin to hear. Without an instance of the kernel's nobody does."""
        with contextlib.suppress(OSError):
            self._watch = inotify.Watch()
            asyncio.get_running_loop().add_reader(self._watch.fileno(), self._heard)

    def close(self) -> None:
        """Hear no more."""
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None

    @contextlib.contextmanager
    def of(self, *paths: Path) -> Iterator[asyncio.Event | None]:
        """An event that is set whenever one of these files grows; None if that can't be heard."""
        event, numbers = asyncio.Event(), set[int]()
        try:
            if self._watch is not None:
                with contextlib.suppress(OSError):
                    for path in paths:
                        number = self._watch.add(path, inotify.MODIFY)
                        numbers.add(number)
                        self._followers.setdefault(number, []).append(event)
            yield event if len(numbers) == len(paths) else None
        finally:
            for number in numbers:
                self._forget(number, event)

    def _forget(self, number: int, event: asyncio.Event) -> None:
        followers = self._followers[number]
        followers.remove(event)
        if not followers:
            del self._followers[number]
            if self._watch is not None:
                self._watch.remove(number)

    def _heard(self) -> None:
        assert self._watch is not None
        for number in {number for number, _ in self._watch.events()}:
            for event in self._followers.get(number, ()):
                event.set()
