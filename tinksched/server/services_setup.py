"""What the runner of service jobs is told: written when the server starts, so that a job that waited gets what the
newest server has.

STATE_DIR/service.sh         starts the runner
STATE_DIR/services.json      commands, ports and time-outs
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
from pathlib import Path

from ..config import placeholders
from ..config.server import ServerSettings
from ..core.model import TaskSpec
from ..host.rundir import write_private
from ..host.statedir import StateDir
from .isolation import Isolation
from .limits import is_loopback

SCRIPT, SETTINGS = "service.sh", "services.json"
HEAD = "# sh service.sh JOB: starts this service job. Written by `tinksched serve`.\n"
MADE = (SCRIPT, HEAD)  # by which a state folder is told from another one
FIRST_PORT, LAST_PORT = 38000, 65535  # where no port_range is given
# Isolated from variables and from the folder that it starts in, which the job may write.
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from tinksched.server.services_runner import main; sys.exit(main(*sys.argv[2:]))"
)


def prepare(settings: ServerSettings, isolation: Isolation, state: StateDir) -> None:
    """Write it. Raises OSError: the state folder can't be written."""
    root = str(Path(__file__).parents[2])
    words = (sys.executable, "-I", "-S", "-c", _BOOT, root, str(settings.state_dir))
    first, last = settings.port_range or (FIRST_PORT, LAST_PORT)
    told = {
        "kinds": {
            "training": {
                "command": settings.training_command,
                "health_path": settings.health_path,
                "ready_timeout": settings.ready_timeout,
            },
            "inference": {
                "command": settings.inference_command,
                "health_path": settings.inference_health_path,
                "ready_timeout": settings.inference_ready_timeout,
            },
        },
        "ports": (first, last),
        "most": last - first + 1 if settings.port_range else settings.num_ports,
        "values": {
            "python": settings.job_python or sys.executable,
            "server_script": str(settings.server_script or ""),
            "host": "127.0.0.1" if is_loopback(settings.host) else "0.0.0.0",
        },
        "script": isolation.service,
        "grace": settings.stop_grace,
        "state": str(state.path),
    }
    _write(settings.state_dir / SCRIPT, f'{HEAD}exec {shlex.join(words)} "$1"\n')
    _write(settings.state_dir / SETTINGS, json.dumps(told))


def spec(settings: ServerSettings, job_id: str, work: Path, output: Path, gpus: int, environment: str) -> TaskSpec:
    """The task of a service job. It has no time limit: it runs until somebody ends it."""
    return TaskSpec(
        command=tuple(map(placeholders.literal, ("/bin/sh", str(settings.state_dir / SCRIPT), job_id))),
        work_dir=str(work),
        marker=str(output / "completed"),
        output_dir=str(work),
        gpus=gpus,
        exclusive=gpus > 0,
        environment=(("HOME", str(work)), ("JOB_ID", job_id)),
        environment_ref=environment,
        retry_on=(),
        streams=str(output),
    )


def url_of(settings: ServerSettings, port: int) -> str:
    """Where clients reach a service job on this port."""
    host = settings.service_host or settings.host
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _write(path: Path, text: str) -> None:
    """As a whole: a job may be about to read it."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    write_private(aside, os.fsencode(text))
    aside.replace(path)
