"""A machine within this one, that can be switched off: namespaces for its processes and its mounts.

Its first process is the only one that has to be killed; the kernel kills all others with it, at one instant. What a
tmpfs holds on a real machine (`/run`, tmux sockets, leases) is lost then. Each boot has a boot id of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.support import TIMEOUT, Bench

BOOT = r"""
set -e
boot_id=$1 leases=$2 sockets=$3
mount --bind "$boot_id" /proc/sys/kernel/random/boot_id
for folder in /run "$leases" "$sockets"; do mkdir -p "$folder"; mount -t tmpfs -o mode=0755 tmpfs "$folder"; done
echo up
exec sleep infinity
"""
NAMESPACES = ["--mount", "--pid", "--ipc"]


def possible() -> bool:
    """Whether namespaces of this kind can be made here, and a boot id be changed in them."""
    script = "mount --bind /proc/self/stat /proc/sys/kernel/random/boot_id && mount -t tmpfs tmpfs /run"
    command = ["unshare", *NAMESPACES, "--fork", "--mount-proc", "sh", "-c", script]
    return bool(shutil.which("nsenter")) and subprocess.run(command, capture_output=True).returncode == 0


needs_machine = pytest.mark.skipif(
    not possible(), reason="a machine that can be switched off needs root and namespaces (unshare)"
)


class Machine:
    """The machine of a workspace: its commands run there."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._first: subprocess.Popen[str] | None = None

    def boot(self) -> None:
        """Switch it on."""
        lab = self._bench.lab
        identity = lab.folder / "boot_id"
        identity.write_text(f"{uuid.uuid4()}\n")
        places = [str(identity), str(lab.leases), lab.environment["TMUX_TMPDIR"]]
        command = ["unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc", "sh", "-c", BOOT, "sh", *places]
        self._first = subprocess.Popen(command, env=lab.environment, stdout=subprocess.PIPE, text=True)
        assert self._first.stdout is not None and self._first.stdout.readline() == "up\n"
        (child,) = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._first.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        self._bench.prefix = ["nsenter", "--target", child, "--mount", "--pid", "--ipc"]
        self._bench.prefix += ["env", "-C", str(self._bench.folder)]  # nsenter goes to the root
        self._init = int(child)

    def call(self, *command: str, check: bool = True) -> str:
        """Run a program there; what it printed."""
        done = subprocess.run(
            [*self._bench.prefix, *command], env=self._bench.lab.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=TIMEOUT,
        )  # fmt: skip
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def power_off(self) -> None:
        """Without a warning to anybody."""
        assert self._first is not None
        os.kill(self._init, signal.SIGKILL)
        self._first.wait(TIMEOUT)
        assert self._first.stdout is not None
        self._first.stdout.close()
        self._bench.prefix = []


SYSTEMD = r"""
set -e
mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR" "$1"
chmod 700 "$XDG_RUNTIME_DIR"
echo 0 >"$1/cgroup.procs"
exec "$2" --user
"""


class Systemd:
    """A real systemd for the user, which every boot of a machine starts as it would after `enable-linger`."""

    programs = (Path("/lib/systemd/systemd"), Path("/usr/lib/systemd/systemd"))
    cgroups = (Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup"))

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._runtime = f"/run/user/{os.geteuid()}"
        self._environment = {**bench.lab.environment, "XDG_RUNTIME_DIR": self._runtime}
        self._cgroup = self._root() / f"tinklab-{bench.lab.id}"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def possible(cls) -> bool:
        """Whether there is one, and a control group for it."""
        probe = cls._root() / f"tinklab-probe-{os.getpid()}"
        try:
            probe.mkdir()
            probe.rmdir()
        except OSError:
            return False
        return any(path.exists() for path in cls.programs) and shutil.which("systemctl") is not None

    @classmethod
    def _root(cls) -> Path:
        return next((path for path in cls.cgroups if (path / "cgroup.procs").exists()), cls.cgroups[-1])

    def start(self) -> None:
        """What the boot does for a user who lingers. Returns when it answers."""
        if self._process is not None:
            self._process.wait(TIMEOUT)  # that of the boot before
        program = next(str(path) for path in self.programs if path.exists())
        self._process = subprocess.Popen(
            [*self._bench.prefix, "sh", "-c", SYSTEMD, "sh", str(self._cgroup), program],
            env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._bench.wait_until(lambda: self.control("show-environment", check=False), "systemd", tell=lambda: 0)

    def control(self, *arguments: str, check: bool = True) -> str:
        """`systemctl --user`; what it printed."""
        done = subprocess.run(
            [*self._bench.prefix, "systemctl", "--user", "--no-pager", *arguments],
            env=self._environment, capture_output=True, text=True, timeout=TIMEOUT,
        )  # fmt: skip
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout

    def close(self) -> None:
        """Remove its control groups; it has ended with its machine."""
        if self._process is not None:
            self._process.wait(TIMEOUT)
        for folder, _, _ in os.walk(self._cgroup, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
