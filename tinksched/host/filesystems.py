"""On what kind of file system a folder lies: some are shared with other hosts, and locks and caches differ there.

The kernel's own list (proc(5), `/proc/self/mountinfo`) names the type in words, with the subtype of a FUSE mount, which
the numbers of statfs(2) don't tell.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
# `fuse.ext4` and the like are local; so is overlay, whose upper layer is on this host.
NETWORK = frozenset(
    {
        "9p",
        "acfs",
        "afs",
        "beegfs",
        "beegfs_nodev",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "fhgfs",
        "gfs",
        "gfs2",
        "glusterfs",
    }
    | {"gpfs", "lustre", "mfs", "moosefs", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2"}
    | {"prl_fs", "quobyte", "s3fs", "smb2", "smb3", "smbfs", "sshfs", "rclone", "vboxsf", "virtiofs", "weka", "wekafs"}
    | {"cvmfs", "cvmfs2", "gcsfuse", "goofys", "juicefs", "objectivefs", "seaweedfs", "xtreemfs", "curlftpfs"}
)


def kind(path: Path) -> str:
    """The type of the file system on which `path` lies, or will lie: `ext4`, `nfs4`, `fuse.sshfs`. `?` if unknown."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    wanted = os.path.realpath(place)
    best, found = -1, "?"
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return found
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = _unescaped(fields[4])
        inside = wanted == point or wanted.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # a later mount on the same place hides the earlier one
            best, found = len(point), right.split(" ")[0]
    return found


def is_network(kind_of_it: str) -> bool:
    """Whether other hosts may have a file system of this type mounted, too."""
    return kind_of_it.removeprefix("fuse.") in NETWORK or kind_of_it.removeprefix("fuseblk.") in NETWORK


def _unescaped(text: str) -> str:
    r"""A blank in a mount point stands as `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
