"""Following what a job prints."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tinksched.server.growth import Growth
from tinksched.server.streaming import _events, read

SECONDS = 10.0


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_character_is_never_halved(tmp_path: Path, cut: int) -> None:
    file, whole = tmp_path / "stdout", "aé€😀b"
    at = {"stdout": 0, "stderr": 0}
    text = ""
    encoded = whole.encode()
    for end in range(cut, len(encoded) + cut, cut):
        file.write_bytes(encoded[:end])
        text += read(file, at, "stdout", is_over=end >= len(encoded))
    assert text == whole and at["stdout"] == len(encoded)


@pytest.mark.parametrize("left", [b"\xc3", b"\xf0\x9f\x98", b"x\xe2\x82"])
def test_half_a_character_is_told_once_nothing_more_will_come(tmp_path: Path, left: bytes) -> None:
    file, at = tmp_path / "stdout", {"stdout": 0, "stderr": 0}
    file.write_bytes(left)
    paths = {"stdout": file}
    before = "".join(_events(paths, at, is_over=False))
    assert "\ufffd" not in before and "\ufffd" in "".join(_events(paths, at, is_over=True))
    assert at["stdout"] == len(left)


def test_all_who_follow_hear_of_growth_by_one_instance(tmp_path: Path) -> None:
    asyncio.run(_follow(tmp_path))


async def _follow(folder: Path) -> None:
    one, other = folder / "one", folder / "other"
    one.touch()
    other.touch()
    growth = Growth()
    growth.open()
    instances = _instances()
    with growth.of(one, other) as both:
        with growth.of(one) as first:
            assert _instances() == instances and both is not None and first is not None
            other.write_text("x")
            await asyncio.wait_for(both.wait(), SECONDS)
            assert not first.is_set()
        both.clear()
        one.write_text("x")
        await asyncio.wait_for(both.wait(), SECONDS)
    with growth.of(folder / "not there") as none:
        assert none is None
    growth.close()


def _instances() -> int:
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += "inotify" in os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return found
