"""How much of this machine a job gets to see: limits of the kernel, and a bubblewrap around it (bwrap(1)).

A job under bubblewrap is the second process of namespaces of its own. It sees the system and its interpreter, which
it can't write; the devices of the GPUs; an empty /tmp and /dev/shm, in memory, that are gone with it; and its own
folder. When it ends, or its bubblewrap is killed, the kernel kills whatever it has left there. The script that starts
it arranges two things:

- A job that is to stop gets TERM and some time. All its processes get that signal, bubblewrap among them, which would
  end at once and take the job along: so it is ignored there, and is what it was again inside.
- The lease of the run (see `wrapper.sh`) is no file of the job's. The script holds it as long as bubblewrap lives.

The script is written when the server starts, so that a job that waited gets what the newest server allows.
"""

from __future__ import annotations

import glob
import itertools
import json
import math
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..config.server import ServerSettings
from ..errors import MissingProgram, UsageError
from ..host.processes import LEASE_DESCRIPTOR
from ..host.rundir import write_private
from .folders import CODE

Kind = Literal["bubblewrap", "none"]
SCRIPT = "job.sh"  # in the state folder: starts every job
HELP = "make bubblewrap work (apt install bubblewrap)"
_TRY_SECONDS = 20.0
_CPU_GRACE = 5  # seconds between XCPU and KILL

HEAD = "# sh job.sh FOLDER: starts the job in this folder. Written by `tinksched serve`.\n"
_PLAIN = "exec {program}\n"
_WRAPPED = """trap '' TERM
bwrap {around} --bind "$folder" "$folder" --chdir "$folder" {sealed} -- env --default-signal=TERM {program} {lease}>&-
exit $?
"""
_JOB = "folder=$1\n"  # then the script runs its code
_SERVICE = "folder=$1; shift\n"  # then the script runs what else it was given
_ALONE = ("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL")
_PRIVATE = ("/tmp", "/dev/shm")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SHAPE = ("/sys/bus", "/sys/class", "/sys/devices", "/sys/module")  # of the machine, for CUDA and NCCL
_GPUS = tuple(f"/dev/nvidia{name}" for name in ("ctl", "-uvm", "-uvm-tools", "-modeset", "-caps"))
# What programs look up, and none of the places where administrators keep keys and passwords. Each costs 0.2 ms a job.
_ETC = (
    "alternatives", "crypto-policies", "fonts", "group", "hosts", "ld.so.cache", "ld.so.preload", "localtime",
    "nsswitch.conf", "nvidia", "OpenCL", "passwd", "pki/ca-trust", "pki/tls/cert.pem", "pki/tls/certs",
    "pki/tls/openssl.cnf", "protocols", "resolv.conf", "services", "ssl/cert.pem", "ssl/certs", "ssl/openssl.cnf",
    "timezone", "vulkan",
)  # fmt: skip

# What an interpreter consists of: its folders, and those that it imports from.
_ASK = """
import json, sys
print(json.dumps([sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *sys.path]))
"""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What stands around the jobs of a server. `note` says why it is less than one might think."""

    kind: Kind
    note: str | None
    script: Path
    service: str  # what runs a service job, for `sh -c`: its folder, and its program with arguments, come behind it

    def command(self, folder: Path) -> tuple[str, ...]:
        """The argument list that runs a job in its folder."""
        return ("/bin/sh", str(self.script), str(folder))


def prepare(settings: ServerSettings) -> Isolation:
    """Write what starts jobs. Bubblewrap has been tried for it, with their interpreter.

    The folders of the server's state and of the results must be there.

    Raises:
        UsageError: bubblewrap is wanted and does not work here; or something that is to be run or shown is not there.
        OSError: the state folder can't be written.
    """
    python = _interpreter(settings)
    parts = _parts_of(python) if python else []
    limits = ("prlimit", *_limits(settings), "--")
    prefix = shlex.join((*limits, *settings.command_prefix))
    program = f'{prefix} {shlex.quote(python or str(settings.job_python))} "$folder"/{CODE}'
    kind: Kind = "none"
    note = None
    text, service = _PLAIN.format(program=program), _PLAIN.format(program=f'{prefix} "$@"')
    if settings.isolation != "none":
        around = _around(settings, parts)
        tried = f'{shlex.join((*limits, python or "cat"))} "$folder"/{CODE}'
        note = _trouble_with(_JOB + _wrapped(around, tried))
        if note and settings.isolation == "bubblewrap":
            raise UsageError(f"isolation is bubblewrap, and {note}", hint=f"{HELP}; or write `isolation: none`")
        if not note:
            kind, text = "bubblewrap", _wrapped(around, program)
            service = _wrapped(_around_service(settings, parts), f'{prefix} "$@"')
            # The kernel exempts root from this limit, in whatever namespace it is.
            note = "run by root: job_processes is no limit" if os.geteuid() == 0 else None
    script = settings.state_dir / SCRIPT
    _write(script, HEAD + _JOB + text)
    return Isolation(kind, note, script, _SERVICE + service)


def _write(path: Path, text: str) -> None:
    """As a whole: a job may be about to read it."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    write_private(aside, os.fsencode(text))
    aside.replace(path)


# -- what is run


def _interpreter(settings: ServerSettings) -> str | None:
    """The path of the jobs' interpreter; None if it is in a container that only `command_prefix` knows."""
    prefix = settings.command_prefix
    if prefix and shutil.which(prefix[0]) is None:
        raise MissingProgram(f"command_prefix: there is no program {prefix[0]}")
    name = settings.job_python or sys.executable
    found = shutil.which(name)
    if found is None and not prefix:
        raise MissingProgram(f"job_python: there is no program {name}", hint="name an interpreter in server.yml")
    return found and os.path.abspath(found)


def _parts_of(python: str) -> list[str]:
    """The paths that an interpreter needs, its links among them."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", _ASK], capture_output=True, stdin=subprocess.DEVNULL, timeout=_TRY_SECONDS, text=True
        )
        folders = [path for path in json.loads(done.stdout) if os.path.isabs(path)]
    except subprocess.TimeoutExpired:
        raise MissingProgram(f"job_python: {python} does not answer") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else done.stderr.strip().rpartition("\n")[2]
        raise MissingProgram(f"job_python: {python} is no Python that works{why and f': {why}'}") from None
    return [*folders, *_links(python)]


def _links(path: str) -> Iterator[str]:
    """A path, and what it leads to link by link."""
    for _ in range(40):  # as many as the kernel follows
        yield path
        if not os.path.islink(path):
            return
        path = os.path.join(os.path.dirname(path), os.readlink(path))


def _limits(settings: ServerSettings) -> list[str]:
    """What the kernel enforces for each process (setrlimit(2)); never more than this process may have itself."""
    limits = [
        ("core", resource.RLIMIT_CORE, 0, 0),
        ("fsize", resource.RLIMIT_FSIZE, settings.job_file_size, 0),
        ("nproc", resource.RLIMIT_NPROC, settings.job_processes, 0),
        ("as", resource.RLIMIT_AS, settings.job_memory, 0),
        ("cpu", resource.RLIMIT_CPU, settings.job_cpu_time and math.ceil(settings.job_cpu_time), _CPU_GRACE),
    ]
    words = []
    for name, number, wanted, grace in limits:
        if wanted is not None:
            most = resource.getrlimit(number)[1]
            soft, hard = (at if most < 0 else min(at, most) for at in (wanted, wanted + grace))
            words.append(f"--{name}={soft}:{hard}")
    return words


# -- what is seen


def _around(settings: ServerSettings, parts: Iterable[str]) -> tuple[list[str], list[str]]:
    """The arguments of bubblewrap before the job's own folder, and after it. `parts`: paths that it needs."""
    state, results = os.path.realpath(settings.state_dir), os.path.realpath(settings.results_dir)
    secret = [state] if _within(results, [state]) else [state, results]
    _check(settings.read_only, secret)
    libraries = filter(os.path.isabs, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    words, shown = _shown([*map(str, settings.read_only), *parts, *libraries])
    masked = [folder for folder in secret if _within(folder, shown)]
    alone = [*_ALONE, *(["--share-net"] if settings.network else ["--hostname", "localhost"])]
    private = [word for path in _PRIVATE for word in ("--tmpfs", path)]
    devices = [word for path in _devices() for word in ("--dev-bind-try", path, path)]
    masks = [word for path in masked for word in ("--tmpfs", path)]
    sealed = [word for path in (*masked, "/dev", "/") for word in ("--remount-ro", path)]
    return [*alone, "--proc", "/proc", "--dev", "/dev", *private, *devices, *words, *masks], sealed


def _around_service(settings: ServerSettings, parts: Iterable[str]) -> tuple[list[str], list[str]]:
    """The same for a service job, which is reached from outside, and may see the folder of its script."""
    script = [str(settings.server_script.parent)] if settings.server_script is not None else []
    return _around(replace(settings, network=True), [*parts, *script])


def _wrapped(around: tuple[list[str], list[str]], program: str) -> str:
    """The script that runs this text of sh under bubblewrap."""
    before, after = map(shlex.join, around)
    return _WRAPPED.format(around=before, sealed=after, program=program, lease=LEASE_DESCRIPTOR)


def _check(read_only: Iterable[Path], secret: list[str]) -> None:
    """Raises UsageError: one of these folders can't be shown to jobs."""
    for folder in read_only:
        real = os.path.realpath(folder)
        if not os.path.exists(real):
            raise UsageError(f"read_only: {folder} does not exist")
        if _within(real, secret):
            raise UsageError(f"read_only: {folder} belongs to the server's own state, which no job may see")
        if real in ("/", "/proc", "/dev", *_PRIVATE):
            raise UsageError(f"read_only: jobs have a {folder} of their own", hint="name folders below it")


def _shown(wanted: Iterable[str]) -> tuple[list[str], list[str]]:
    """The arguments that show the system and these paths, and the paths that can be seen then."""
    words: list[str] = []
    shown: list[str] = []
    fixed = (*_SYSTEM, *_SHAPE, *(f"/etc/{name}" for name in _ETC))
    named = itertools.chain.from_iterable((path, os.path.realpath(path)) for path in wanted)
    for path in map(os.path.normpath, (*fixed, *named)):
        if path == "/" or not os.path.exists(path) or _within(path, shown):
            continue
        # Libraries and interpreters are found through links; what they lead to comes by itself, or next.
        is_link = os.path.islink(path) and not path.startswith("/etc/")
        words += ["--symlink", os.readlink(path), path] if is_link else ["--ro-bind-try", path, path]
        shown.append(path)
    return words, shown


def _within(path: str, folders: Iterable[str]) -> bool:
    """Whether a path is one of these folders, or lies in it."""
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _devices() -> list[str]:
    """The devices of the GPUs. That of unified memory is made when it is used first, which may be later."""
    numbered = sorted(glob.glob("/dev/nvidia[0-9]*"))
    return [*_GPUS, *numbered] if numbered else []


def _trouble_with(script: str) -> str | None:
    """Why no job can be run by such a script; None if it can."""
    if shutil.which("bwrap") is None:
        return "there is no bwrap on PATH"
    with tempfile.TemporaryDirectory(prefix="tinksched-") as folder:
        Path(folder, CODE).touch()
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", script, "sh", folder], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, timeout=_TRY_SECONDS, check=False, text=True, errors="replace",
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bubblewrap can't be tried ({error})"
    if done.returncode == 0:
        return None
    why = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
    return f"what was tried under bubblewrap failed: {why}{_explained(why)}"


def _explained(why: str) -> str:
    """What an administrator can do about a message of bubblewrap's, where it doesn't say so itself."""
    if "uid map" in why or "reating new namespace failed" in why:
        return " (this system lets no ordinary user make user namespaces: see user.max_user_namespaces and AppArmor)"
    if "mount proc" in why:
        return " (within a container: it must be allowed to mount /proc)"
    return ""
