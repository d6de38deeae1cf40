"""Where and with what a run was made."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path

from .place import HERE, Place

_VERSIONS = {
    "tmux": ("tmux", "-V"),
    "task-spooler": ("tsp", "-V"),
    "gflow": ("gflowd", "--version"),
    "compiler": ("cc", "--version"),
}
_PACKAGES = ("tinksched", "simple-gpu-scheduler", "runqd")


def describe(place: Place) -> dict[str, str]:
    """The facts in which two runs may differ."""
    memory = re.search(r"MemTotal: +(\d+)", Path("/proc/meminfo").read_text())
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores usable",
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "distribution": _distribution(),
        "file system": _file_system(place.folder),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "task": "C" if len(place.task) == 1 else "Python, for want of a C compiler",
    }
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            facts[name] = metadata.version(name)
    facts["tinksched's commit"] = _commit()
    for name, words in _VERSIONS.items():
        if shutil.which(words[0]):
            facts[name] = _first_line(*words)
    return {name: value for name, value in facts.items() if value}


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"(?m)^(?:model name|Hardware|Model)\s*: (.+)$", text)
    return found[1] if found else platform.processor() or "unknown"


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown"


def _file_system(folder: Path) -> str:
    done = subprocess.run(["df", "--output=fstype", folder], capture_output=True, text=True, check=False)
    return next(iter(done.stdout.splitlines()[1:]), "unknown").strip()


def _commit() -> str:
    if not (HERE.parents[1] / ".git").exists():
        return ""
    commit = _first_line("git", "-C", str(HERE), "rev-parse", "--short=12", "HEAD")
    changed = _first_line("git", "-C", str(HERE), "status", "--porcelain", "--untracked-files=no")
    return f"{commit}{' with changes' if changed else ''}"


def _first_line(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    return next(iter((done.stdout or done.stderr).splitlines()), "").strip()
