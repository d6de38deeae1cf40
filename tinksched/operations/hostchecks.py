"""What `doctor` looks at outside of the workspace, or where there is none: the machine, tmux, logging out, the driver,
everybody's leases, the place of the personal workspace.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import stat
import subprocess
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from ..core.gpu import GpuState
from ..errors import TinkschedError
from ..host import filesystems, nvml, processes, tmux
from ..host.gpus import NO_DRIVER
from ..host.leases import FOLDER_VARIABLE, Leases
from ..host.owners import hides_others
from ..host.tmux import RUN_OPTION, WORKSPACE_OPTION, Tmux, TmuxSilent
from . import personal
from .workspace import Workspace, user_name

FEW_DESCRIPTORS = 256  # a scheduler needs about thirty, and three for each run
LITTLE_HISTORY = 1000  # lines
LOGIND_SECONDS = 5.0
_OURS = f"#{{{RUN_OPTION}}}#{{{WORKSPACE_OPTION}}}"
_ON = ("on", "1", "keep-last", "keep-group")
_OPTIONS = {"exit-unattached": "-sv", "destroy-unattached": "-gv", "history-limit": "-gv"}
_SETTING = re.compile(rf"""^\s*set(?:-option)?\s+(?:-\w+\s+)*({"|".join(_OPTIONS)})\s+["']?([\w-]+)""")


class Level(str, Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"  # it works, but not as well as it could
    BAD = "bad"  # something is broken


Found = tuple[Level, str, str]  # how bad it is, what was seen, and what to do about it


def machine(workspace: Workspace | None) -> Found:
    """The host itself."""
    host = os.uname()
    said = f"{host.nodename}, {host.sysname} {host.release}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= descriptors < FEW_DESCRIPTORS:
        return Level.WARN, f"{said}; only {descriptors} files may be open at once", "ulimit -n 4096, before `start`"
    return Level.OK, said, ""


def flock(workspace: Workspace | None) -> Found:
    """The program by which the wrapper holds a lease."""
    found = shutil.which("flock")
    if found is None:
        return Level.BAD, "flock is not on PATH", "install util-linux"
    return Level.OK, found, ""


def personal_folder(workspace: Workspace | None) -> Found:
    """The place of the workspace of commands that are run outside of every other one."""
    place = personal.folder()
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return (
            Level.BAD,
            f"{place} can't be made: {there} can't be written",
            "tinksched run outside of a workspace needs it",
        )
    return Level.OK, f"none yet; the first `tinksched run` outside of a workspace makes it: {place}", ""


# ---------------------------------------------------------------- tmux


def multiplexer(workspace: Workspace | None) -> Found:
    """tmux: its version, whether its server answers, and options that end sessions or servers by themselves."""
    executor, socket = (workspace.settings.executor, workspace.settings.tmux_socket) if workspace else ("tmux", "")
    if executor != "tmux":
        return Level.OK, f"not needed (executor: {executor})", ""
    tmux.require()
    version = subprocess.run(["tmux", "-V"], capture_output=True, text=True, check=False).stdout.strip()
    said = f"{version or 'tmux'} ({shutil.which('tmux')})"
    server = Tmux(socket)
    try:
        running = server.is_running()
    except TmuxSilent as error:
        return Level.BAD, f"{said}: {error.message}", error.hint or ""
    if not running:
        options, where = _configured()
        return _judge(f"{said}, no server runs yet", options, where)
    answers = {name: server.call("show-options", flags, name) for name, flags in _OPTIONS.items()}
    options = {name: answer[0] for name, answer in answers.items() if answer}
    ours = any(server.call("list-sessions", "-F", _OURS))
    if ours and options.get("exit-unattached") in _ON:  # switched on since: tinksched switches it off
        what = f"{said}; exit-unattached is on: the server ends, with all runs, when the last client goes away"
        return Level.WARN, what, "tmux set-option -s exit-unattached off"
    return _judge(f"{said}, its server answers", options, "the server's options")


def _judge(said: str, options: Mapping[str, str], where: str) -> Found:
    ending = [name for name in ("exit-unattached", "destroy-unattached") if options.get(name) in _ON]
    said += f"; {' and '.join(ending)} in {where}: not for tinksched's sessions" if ending else ""
    limit = options.get("history-limit", "")
    if limit.isdecimal() and int(limit) < LITTLE_HISTORY:
        what = f"{said}; attached sessions can be scrolled back {limit} lines only (history-limit)"
        return Level.WARN, what, f"set -g history-limit 50000 in {where}; logs are complete in any case"
    return Level.OK, said, ""


def _configured() -> tuple[dict[str, str], str]:
    """What the configurations of tmux set that a server will read, as far as a look at their lines tells; and where."""
    base = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    options, where = {}, "tmux.conf"
    for path in (Path("/etc/tmux.conf"), Path("~/.tmux.conf").expanduser(), base / "tmux" / "tmux.conf"):
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            continue
        for found in filter(None, map(_SETTING.match, lines)):
            options[found[1]], where = found[2], str(path)
    return options, where


# ---------------------------------------------------------------- logging out


def lingering(workspace: Workspace | None) -> Found:
    """Whether systemd ends what runs when the user logs out. Only where logind is at work."""
    if shutil.which("loginctl") is None:
        return Level.OK, "no logind here: logging out ends nothing", ""
    manager = _loginctl("--property=KillUserProcesses", "--property=KillExcludeUsers", "--property=KillOnlyUsers")
    if "KillUserProcesses" not in manager:
        return Level.OK, "logind is not at work here: logging out ends nothing", ""
    user = user_name()
    excluded, only = manager.get("KillExcludeUsers", "").split(), manager.get("KillOnlyUsers", "").split()
    if manager["KillUserProcesses"] != "yes" or user in excluded or (only and user not in only):
        return Level.OK, "logging out ends nothing", ""
    if _loginctl(user, "--property=Linger").get("Linger") == "yes":
        return Level.OK, "logging out ends nothing: lingering is on", ""
    what = "when you log out, systemd ends your tmux server and all runs (KillUserProcesses)"
    return Level.WARN, what, "loginctl enable-linger"


def _loginctl(*arguments: str) -> dict[str, str]:
    """Properties of a user, or without a name of logind itself; none if it does not answer."""
    try:
        done = subprocess.run(
            ["loginctl", "show-user", *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LOGIND_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return {}
    pairs = (line.partition("=") for line in done.stdout.splitlines()) if done.returncode == 0 else ()
    return {name: value for name, equals, value in pairs if equals}


# ---------------------------------------------------------------- the driver


def driver(workspace: Workspace | None) -> Found:
    """NVIDIA's driver: whether it answers, GPUs that are lost, and what can't be seen from here."""
    sample = nvml.look()
    inventory = sample.inventory
    if not inventory.driver:
        return Level.OK, NO_DRIVER if inventory.problem is None else f"{inventory.problem}: slots only", ""
    if not inventory.devices:
        what = inventory.problem or "the driver is there, but counts no GPU"
        return (
            Level.BAD,
            what,
            "see what `nvidia-smi` says; after an update of the driver the machine must be restarted",
        )
    said = f"driver {inventory.version or '?'}, {len(inventory.devices)} GPUs"
    states = sorted(sample.states.values(), key=lambda state: state.index)
    lost = [state for state in states if state.lost]
    if lost:
        what = f"{said}; lost: {_listed(lost)} ({lost[0].problem})"
        return Level.BAD, what, "nothing is started there; `nvidia-smi -r` or a restart of the machine brings it back"
    if inventory.problem:
        return Level.WARN, f"{said}; {inventory.problem}", "see what `nvidia-smi -q` says"
    divided = {device.index for device in inventory.devices if device.divided}
    blind = [state for state in states if state.processes is None and state.index not in divided]
    if blind:
        what = f"{said}; who is on {_listed(blind)} can't be told from here: other people's processes are not respected"
        return Level.WARN, what, "in a container, share the host's pids: docker run --pid=host"
    slow = [index for index, stays in sorted(nvml.persistence().items()) if not stays]
    if slow:
        what = (
            f"{said}; persistence mode is off for GPU {', '.join(map(str, slow))}: each first use takes a second or two"
        )
        return Level.WARN, what, "sudo nvidia-smi -pm 1, or enable nvidia-persistenced"
    return Level.OK, said, ""


def _listed(states: list[GpuState]) -> str:
    return "GPU " + ", ".join(str(state.index) for state in states)


def others(workspace: Workspace | None) -> Found:
    """Whether the processes of other users can be seen: who is on a GPU is told by that."""
    if not hides_others():
        return Level.OK, "those of other users can be seen", ""
    what = "/proc hides those of other users (hidepid): on a GPU, nobody can tell strangers from runs of tinksched"
    todo = "sudo mount -o remount,hidepid=0 /proc, or join the group of its option gid="
    return Level.WARN, what, f"{todo}; until then nothing starts beside them where no other user holds a slot"


# ---------------------------------------------------------------- leases


def lease_folder(workspace: Workspace | None) -> Found:
    """The folder in which all users of the host agree on who is on which GPU."""
    folder = Leases().folder
    kind = filesystems.kind(folder)
    if filesystems.is_network(kind):
        return Level.BAD, f"{folder} is on a network file system ({kind})", f"{FOLDER_VARIABLE} must name a local one"
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o777 != 0o777:
        what = f"{folder} can't be used by all users of this machine (mode {mode:o}): they don't see each other's runs"
        return Level.WARN, what, f"chmod 1777 {folder}"
    if not mode & stat.S_ISVTX:
        return Level.WARN, f"in {folder} anybody may delete what others lock (mode {mode:o})", f"chmod 1777 {folder}"
    return Level.OK, f"{folder} ({kind})", ""


def admission(workspace: Workspace | None) -> Found:
    """The locks that are held for milliseconds whenever a slot is given out."""
    leases = Leases()
    names = sorted(path.name for path in leases.folder.glob("*.admission"))
    for name in names:
        try:
            with leases.admission([name.removesuffix(".admission")]):
                pass
        except TinkschedError as error:
            holder = _holder(leases.folder / name)
            return Level.BAD, f"{error.message}: nothing starts there", f"it is held by {holder}: end that"
    live = leases.look()
    files = sum(1 for path in leases.folder.iterdir() if _is_lease(path))
    dead = files - len(live)
    return (
        Level.OK,
        f"{len(live)} leases are held" + (f", {dead} are left of runs that are dead" if dead > 0 else ""),
        "",
    )


def _is_lease(path: Path) -> bool:
    return "." in path.name and not path.name.endswith(".admission") and not path.name.startswith("waiting.")


def _holder(path: Path) -> str:
    """Who locks a file, by the kernel's list (proc(5), `/proc/locks`)."""
    inode = path.stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if len(fields) < 6 or fields[1] != "FLOCK" or fields[4] == "0":  # 0: in another namespace of pids
            continue
        if fields[5].rpartition(":")[2] == str(inode):
            words = processes.arguments(int(fields[4]))
            return f"process {fields[4]}" + (f" ({' '.join(words)[:60]})" if words else "")
    return "a process that can't be seen from here"
