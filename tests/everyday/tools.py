"""The tools side by side: what each needs to be there, and how its daemons are started in a folder of their own."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.place import BenchError, Corner
from tests.nvml_double import Gpu, NvmlDouble

STARTING = 30.0  # seconds that daemons may take to begin
GPUS = 2

SLURM_CONF = """\
ClusterName=everyday
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmdParameters=config_overrides
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PriorityType=priority/basic
MpiDefault=none
SwitchType=switch/none
GresTypes=gpu
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=4000 Gres=gpu:{gpus}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Tool:
    """What all have in common."""

    name = ""
    programs: tuple[str, ...] = ()
    package = ""  # what to install
    version: tuple[str, ...] = ()  # the command that says it

    def missing(self) -> str | None:
        """Why it can't be run here; None if it can."""
        gone = [program for program in self.programs if not shutil.which(program)]
        return f"{', '.join(gone)} not found ({self.package})" if gone else None

    def start(self, corner: Corner) -> None:
        """Begin its daemons, and add to the corner's environment what its commands need."""

    def said_version(self, corner: Corner) -> str:
        """What it calls itself."""
        done = subprocess.run(self.version, env=corner.environment, capture_output=True, text=True, check=False)
        return next(iter((done.stdout + done.stderr).splitlines()), "").split(" - ")[0].strip()


class Tinksched(Tool):
    """This one, outside of a workspace: nothing is set up, nothing is started."""

    name = "tinksched"
    programs = ("tk", "tmux")
    package = "pip install ."
    version = ("tk", "--version")

    def start(self, corner: Corner) -> None:
        _double(corner)


class Pueue(Tool):
    """https://github.com/Nukesor/pueue. In none of Debian (12), PyPI and npm: its column is from its documentation."""

    name = "pueue"

    def missing(self) -> str | None:
        return "not run here: neither Debian 12 nor PyPI has it, so its cells are from its documentation (version 4)"


class Gflow(Tool):
    """https://pypi.org/project/runqd/."""

    name = "gflow"
    programs = ("gflowd", "gbatch", "gqueue", "gcancel", "gjob", "tmux")
    package = "pip install runqd"
    version = ("gbatch", "--version")

    def start(self, corner: Corner) -> None:
        _double(corner)
        (port,) = _free_ports(1)
        corner.call("gflowd", "init", "--yes", "--port", str(port))
        corner.call("gflowd", "up")
        _until(lambda: _listens(port), "gflowd listens")


class TaskSpooler(Tool):
    """https://viric.name/soft/ts/, as Debian has it. It has slots, and no GPUs."""

    name = "task-spooler"
    programs = ("tsp",)
    package = "apt install task-spooler"
    version = ("tsp", "-V")

    def start(self, corner: Corner) -> None:
        corner.environment["TS_SLOTS"] = str(GPUS)


class Slurm(Tool):
    """One node with GPUs that are empty files, without control groups and without a database of jobs."""

    name = "Slurm"
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
    package = "apt install slurm-wlm munge"
    version = ("slurmd", "-V")

    def missing(self) -> str | None:
        return super().missing() or (None if os.getuid() == 0 else "slurmd wants root")

    def start(self, corner: Corner) -> None:
        folder = corner.folder
        for name in ("state", "spool", "gpus"):
            (folder / name).mkdir()
        for number in range(GPUS):
            os.mknod(folder / "gpus" / f"gpu{number}", stat.S_IFCHR | 0o600, os.makedev(1, 3))  # another /dev/null
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        host = socket.gethostname().split(".")[0]
        text = SLURM_CONF.format(host=host, ports=_free_ports(2), folder=folder, gpus=GPUS)
        (folder / "slurm.conf").write_text(text)
        gpus = f"Name=gpu File={folder}/gpus/gpu[0-{GPUS - 1}] Flags=nvidia_gpu_env"
        (folder / "gres.conf").write_text(f"NodeName={host} {gpus}\n")
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        corner.environment["SLURM_CONF"] = str(folder / "slurm.conf")
        corner.environment["MUNGE"] = (
            f"--force --key-file={key} --socket={folder}/run/munge --pid-file={folder}/run/munged.pid "
            f"--log-file={folder}/munged.log --seed-file={folder}/munge.seed"
        )
        for command in (("munged", *corner.environment["MUNGE"].split()), ("slurmctld",), ("slurmd",)):
            corner.call(*command)
        _until(lambda: "idle" in _said(corner, "sinfo", "--noheader", "--format=%T"), "the node is idle")


TOOLS: tuple[Tool, ...] = (Tinksched(), Pueue(), Gflow(), TaskSpooler(), Slurm())


def _double(corner: Corner) -> None:
    """Two GPUs of 80 GiB, of which nobody else uses anything."""
    double = NvmlDouble(corner.folder)
    double.write(*(Gpu(f"GPU-{number}", utilization=0) for number in range(GPUS)))
    plain = double.library / "libnvidia-ml.so"  # the name by which gflow looks for it
    if not plain.exists():
        plain.symlink_to("libnvidia-ml.so.1")
    corner.environment.update(double.environment())


def _said(corner: Corner, *words: str) -> str:
    return subprocess.run(words, env=corner.environment, capture_output=True, text=True, check=False).stdout


def _until(true: Callable[[], bool], what: str) -> None:
    """Look until it is so: the daemons of others announce nothing."""
    deadline = time.monotonic() + STARTING
    while not true():
        if time.monotonic() > deadline:
            raise BenchError(f"it did not come true within {STARTING:g} s that {what}")
        time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("localhost", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0


def project(corner: Corner) -> Path:
    """The folder in which somebody works: a training script, and nothing of any of the tools."""
    folder = corner.home / "project"
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("train.py"), folder)
    return folder
