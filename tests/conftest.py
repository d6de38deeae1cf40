"""Fixtures for all tests, and the proof that tests with a real tmux did run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import tally
from tests.support import Lab


def pytest_configure() -> None:
    """Under `nohup` every program that a test starts would ignore the hang-up of its terminal, and behind a shell's `&`
    Ctrl-C."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A laboratory that is empty of processes again when the test has ended."""
    laboratory = Lab(tmp_path)
    yield laboratory
    laboratory.close()
    assert not laboratory.processes()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests passed that drove a real tmux; the continuous integration looks for this line."""
    passed = terminalreporter.stats.get("passed", [])
    real = [report for report in passed if report.nodeid.startswith(("tests/e2e/", "tests/contract/"))]
    if real:
        terminalreporter.write_line(f"real tmux: {len(real)} passed")
    for line in tally.summary([pair for report in passed for pair in report.user_properties]):
        terminalreporter.write_line(line)
