"""The tasks of a storm, and what they and their killers write down.

What must never happen is found out by the kernel while it happens: a task takes an exclusive `flock` for its name (so
two runs of it alive together are seen) and one for a slot on each of its GPUs (so one run too many finds no slot).
Its children inherit the locks, so a run is there as long as any process of it is.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

SLOTS = 2  # max_jobs_per_gpu

_HIT = r"""
hit() { # STEP RUN INNER: is killed here if somebody asked for it
    for token in "@FOLDER@/tokens/$1."*; do
        [ -e "$token" ] || return 0
        mv "$token" "@FOLDER@/taken" 2>/dev/null || continue
        read -r _ _ _ outer _ <"/proc/$3/stat"
        printf 'wrapper\t%s\t%s\n' "${token##*/}" "$2" >>"@FOLDER@/hits"
        case $token in
            *.inner) kill -9 "$3" ;;
            *.outer) kill -9 "$outer" ;;
            *.both) kill -9 "$outer" "$3" ;;
            *.task) kill -9 $$ ;;
        esac
        break
    done
}
"""

_FLOCK = (
    "#!/bin/sh"
    + _HIT
    + r"""
run_of() { tr '\0' '\n' <"/proc/$PPID/cmdline" | sed -n 's,.*/runs/,,p'; }
if [ "$*" = '-s -w 30 9' ]; then # the wrapper's
    run=$(run_of)
    hit unlocked "$run" "$PPID"
    @FLOCK@ "$@"
    code=$?
    hit locked "$run" "$PPID"
    exit "$code"
fi
exec @FLOCK@ "$@"
"""
)

_INTERPRETER = (
    "#!/bin/sh"
    + _HIT
    + r"""
hit began "$TINKSCHED_RUN_ID" "$PPID" # the run has begun, its command has not
exec /bin/sh "$@"
"""
)

_SCRIPT = (
    _HIT
    + r"""
task=$TINKSCHED_TASK run=$TINKSCHED_RUN_ID
while IFS=': ' read -r key value; do
    case $key in seconds) seconds=$value ;; code) code=$value ;; esac
done <"$2"
say() { read -r now _ </proc/uptime; printf '%s\t%s\t%s\t%s\n' "$1" "$task" "$run" "$2 at $now" >>"@FOLDER@/record"; }
slot() { # FD GPU SLOT
    eval "exec $1<>'@FOLDER@/locks/gpu$2.$3'"
    @FLOCK@ -n "$1"
}
exec 7<>"@FOLDER@/locks/task.$WORKSPACE.$task"
@FLOCK@ -n 7 || say overlap "another run of it is alive"
case $task in
    solo*) slot 3 "$TINKSCHED_GPUS" 0 && slot 4 "$TINKSCHED_GPUS" 1 || say over "GPU $TINKSCHED_GPUS is not its own" ;;
    *)
        fd=3
        for gpu in $(echo "$TINKSCHED_GPUS" | tr , ' '); do
            slot "$fd" "$gpu" 0 || slot "$fd" "$gpu" 1 || say over "no slot left on GPU $gpu"
            fd=$((fd + 1))
        done
        ;;
esac
say start "on $TINKSCHED_GPUS"
hit begun "$run" "$PPID"
sleep "$seconds"
say end "$code"
hit ended "$run" "$PPID"
exit "$code"
"""
)


@dataclass(frozen=True)
class Word:
    """One line of the record."""

    what: str
    task: str
    run: str
    rest: str


@dataclass(frozen=True)
class Hit:
    """One fault that hit something: who was killed, at which step, and the run.

    For a scheduler it is its pid; where all that was alive was hit, it is when that began and when it was over.
    """

    kind: str
    step: str
    run: str


class Field:
    """The folder where a storm's tasks and killers write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shims = folder / "shims"
        self.hits_file = folder / "hits"
        for name in ("shims", "tokens", "taken", "locks"):
            (folder / name).mkdir(parents=True)
        for name, text in (("flock", _FLOCK), ("interpreter", _INTERPRETER)):
            (self.shims / name).write_text(self._filled(text))
            (self.shims / name).chmod(0o755)

    def _filled(self, text: str) -> str:
        return text.replace("@FLOCK@", shutil.which("flock") or "flock").replace("@FOLDER@", str(self.folder))

    def write_script(self, path: Path) -> None:
        """The script that all tasks run."""
        path.write_text(self._filled(_SCRIPT))

    def ask_for(self, token: str) -> None:
        """Have the next wrapper or task that comes by killed at that step."""
        (self.folder / "tokens" / token).touch()

    def take_tokens_back(self) -> None:
        """What hit nothing does not count."""
        for token in (self.folder / "tokens").iterdir():
            token.unlink(missing_ok=True)

    def write_hit(self, kind: str, step: str, run: str) -> None:
        """Before somebody is killed."""
        descriptor = os.open(self.hits_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{kind}\t{step}\t{run}\n".encode())
        os.close(descriptor)

    def hits(self) -> list[Hit]:
        """What was hit so far."""
        lines = self.hits_file.read_text().splitlines() if self.hits_file.exists() else []
        return [Hit(*line.split("\t")) for line in lines]

    def record(self) -> list[Word]:
        """What the tasks wrote."""
        path = self.folder / "record"
        return [Word(*line.split("\t")) for line in path.read_text().splitlines()] if path.exists() else []
