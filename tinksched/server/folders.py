"""What lies on the disk for a job: its own folder, which it may write, and its output, which it may not.

STATE_DIR/jobs/JOB/code.py, config.yaml       what was submitted; the job runs here, and writes what it likes
STATE_DIR/output/JOB/stdout, stderr           what it printed
STATE_DIR/output/JOB/new                      it may not be on record yet
STATE_DIR/output/JOB/request, secrets         of a service job: what is run, and what it is told besides; both JSON
STATE_DIR/output/JOB/progress                 of a service job: its port, and whether it answers there; JSON
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

from ..errors import TinkschedError, Unwritable
from ..host.rundir import sync, write_private
from ..store.database import DISK_ERRORS

CODE, CONFIG, RESULTS = "code.py", "config.yaml", "results.jsonl"
JOBS = "jobs"
NEW = "new"
REQUEST, SECRETS, PROGRESS = "request", "secrets", "progress"
_OURS = (NEW, REQUEST, SECRETS)  # written before a job runs
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # FAT, sshfs and some network file systems


class Folders:
    """The folders of the jobs of a server."""

    def __init__(self, state_dir: Path) -> None:
        self.jobs = state_dir / JOBS
        self.outputs = state_dir / "output"

    def prepare(self) -> None:
        """Make them. Raises OSError."""
        for folder in (self.jobs, self.outputs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(self.jobs.parent)

    def work(self, job_id: str) -> Path:
        """Where a job runs."""
        return self.jobs / job_id

    def output(self, job_id: str) -> Path:
        """Where its output is."""
        return self.outputs / job_id

    def check_room(self, least: int) -> None:
        """Raises Unwritable: less than so many bytes are free."""
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self.jobs).free
            if free < least:
                raise Unwritable(f"{self.jobs}: {free} bytes are free, and min_free_disk is {least}")

    def make(self, job_id: str, files: Mapping[str, str], private: Mapping[str, str] | None = None) -> None:
        """Write what a job needs before it is put on record, on the disk and not only in memory.

        `files` are for the job's own folder; what is `private` lies beside its output, where it has no business.

        Raises:
            Unwritable: there is no room.
            TinkschedError: it can't be written for another reason.
        """
        work, output = self.work(job_id), self.output(job_id)
        try:
            output.mkdir(mode=0o700)
            write_private(output / NEW, b"")
            work.mkdir(mode=0o700)
            written = {work / name: text for name, text in files.items()}
            written |= {output / name: text for name, text in (private or {}).items()}
            for path, text in written.items():
                write_private(path, text.encode())
            for name in ("stdout", "stderr"):
                write_private(output / name, b"")
            for path in (*written, work, self.jobs, output, self.outputs):
                sync(path)
        except OSError as error:
            self.remove(job_id)
            kind = Unwritable if error.errno in DISK_ERRORS else TinkschedError
            raise kind(f"{error.filename or self.jobs}: the job can't be written: {error.strerror}") from None

    def accepted(self, job_id: str) -> None:
        """A job is on record: nobody but `remove` deletes anything of it any more."""
        with contextlib.suppress(OSError):
            (self.output(job_id) / NEW).unlink()

    def remove(self, job_id: str) -> None:
        """Delete everything of a job."""
        for folder in (self.work(job_id), self.output(job_id)):
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, known: Collection[str]) -> None:
        """Delete what was written for jobs that were never put on record: the server died in between.

        Nothing else is touched, even if the database knows nothing of it: that may be an older one, and the folder
        somebody's own. Raises OSError: the folders are not there.
        """
        for name in filter(_is_id, os.listdir(self.outputs)):
            if (self.output(name) / NEW).exists():
                if name in known or self.has_run(name):
                    self.accepted(name)
                else:
                    self.remove(name)

    def has_run(self, job_id: str) -> bool:
        """Whether a job has left anything."""
        work, output = _sizes(self.work(job_id)), _sizes(self.output(job_id))
        return not work.keys() <= {CODE, CONFIG} or any(size for name, size in output.items() if name not in _OURS)

    def has_any(self, job_id: str) -> bool:
        """Whether anything is kept of a job."""
        return self.work(job_id).exists() or self.output(job_id).exists()

    def strange(self, known: Collection[str]) -> list[Path]:
        """The folders of jobs that nobody knows."""
        there = [path for parent in (self.jobs, self.outputs) if parent.is_dir() for path in parent.iterdir()]
        return sorted(path for path in there if _is_id(path.name) and path.name not in known)

    def result(self, job_id: str) -> Path:
        """What stands for the job's result: its own results file if it wrote one, else what it printed.

        A link is not followed: a job could have the server read anybody's file.
        """
        own = self.work(job_id) / RESULTS
        try:
            return own if own.is_file() and not own.is_symlink() and own.stat().st_nlink == 1 else self.stdout(job_id)
        except OSError:
            return self.stdout(job_id)

    def keep(self, source: Path, path: Path) -> None:
        """Copy a result to its file on the disk, as a whole or not at all. What is there already is this result, and
        stays.

        Raises:
            OSError: there is no room, say.
        """
        aside = path.with_name(f".{source.parent.name}.part")  # the same for a server that comes after one that died
        aside.unlink(missing_ok=True)
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            with open(descriptor, "rb") as stream:  # noqa: PTH123
                write_private(aside, b"")
                with aside.open("ab") as copy:
                    shutil.copyfileobj(stream, copy)
                sync(aside)
            _put(aside, path)
            sync(path.parent)
        finally:
            aside.unlink(missing_ok=True)

    def stdout(self, job_id: str) -> Path:
        """What it printed."""
        return self.output(job_id) / "stdout"

    def stderr(self, job_id: str) -> Path:
        """What it printed as errors."""
        return self.output(job_id) / "stderr"


def read_text(path: Path, most: int) -> str:
    """A text file, or of a longer one the last `most` bytes after a line that says so; empty if it isn't there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    with open(descriptor, "rb") as stream:  # noqa: PTH123
        size = os.fstat(descriptor).st_size
        if size <= most:
            return stream.read(most).decode(errors="replace")
        stream.seek(size - most)
        return f"[{size - most} bytes before this are left out]\n" + stream.read(most).decode(errors="replace")


def _put(aside: Path, path: Path) -> None:
    """Put a file in its place, where nobody else puts one."""
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not path.exists():
            aside.rename(path)


def _is_id(name: str) -> bool:
    """Whether a folder can be that of a job."""
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False


def _sizes(folder: Path) -> dict[str, int]:
    """The files of a folder that may not be there."""
    try:
        return {entry.name: entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder)}
    except FileNotFoundError:
        return {}
