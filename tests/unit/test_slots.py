"""What a scheduler knows of its slots, those of tasks without GPUs included."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.test_watching import RUN
from tinksched.core.model import Tenant
from tinksched.host.leases import FOLDER_VARIABLE
from tinksched.scheduler.devices import cpu_of
from tinksched.scheduler.slots import Slots


def test_the_start_of_a_run_without_gpus_is_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By it schedulers take turns: one that never seems to have started anything would always come first."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "leases"))
    slots = Slots()
    assert slots.last_start == 0
    slots.started(replace(RUN, gpus=(), devices=("cpu",), created_at=7.0))
    assert slots.last_start == 7.0
    slots.close()


def test_cpu_slots_are_for_the_own_runs_and_the_machine_has_its_cores() -> None:
    cores = os.cpu_count() or 1
    others = tuple(Tenant("bob", "/his", f"t{number}", cores, 0.0) for number in range(cores))
    assert cpu_of(1, (), others[:1]).slots == min(2, cores)
    assert cpu_of(cores, (), others).slots == cores
    assert cpu_of(3 * cores, (), others).slots == 3 * cores, "who writes down more wants more"
    mine = cpu_of(1, (RUN,), others[: cores - 1])
    assert mine.used >= mine.allowed, "the own slot is taken"
