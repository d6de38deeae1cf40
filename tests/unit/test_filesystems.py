"""Which file systems are shared with other hosts, from the kernel's list of mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinksched.host import filesystems

LINE = "42 27 0:39 / {point} rw,relatime shared:1 - {kind} source rw\n"


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "mountinfo"
    monkeypatch.setattr(filesystems, "MOUNTS", file)
    return file


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs"]
)
def test_network_file_systems(kind: str) -> None:
    assert filesystems.is_network(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuse.ext4", "fuseblk", "zfs", "?"])
def test_local_ones(kind: str) -> None:
    assert not filesystems.is_network(kind)


def test_the_nearest_mount_counts_and_of_two_on_one_place_the_later(mounts: Path, tmp_path: Path) -> None:
    place = tmp_path / "a b" / "c"
    place.mkdir(parents=True)
    escaped = str(tmp_path / "a b").replace(" ", r"\040")
    lines = [("/", "ext4"), (escaped, "xfs"), (escaped, "nfs4"), (str(tmp_path / "a"), "tmpfs")]
    mounts.write_text("".join(LINE.format(point=point, kind=kind) for point, kind in lines))
    assert filesystems.kind(place) == "nfs4"
    assert filesystems.kind(place / "not" / "there" / "yet") == "nfs4"
    assert filesystems.kind(tmp_path) == "ext4"
    assert filesystems.kind(tmp_path / "a") == "ext4", "a folder of that name is not there"


def test_a_link_leads_to_where_it_leads(mounts: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    mounts.write_text(LINE.format(point="/", kind="ext4") + LINE.format(point=tmp_path / "far", kind="nfs"))
    assert filesystems.kind(tmp_path / "near") == "nfs"


@pytest.mark.parametrize("text", ["", "nonsense\n", "1 2 3 - \n"])
def test_a_list_that_says_nothing(mounts: Path, tmp_path: Path, text: str) -> None:
    mounts.write_text(text)
    assert filesystems.kind(tmp_path) == "?"
    mounts.unlink()
    assert filesystems.kind(tmp_path) == "?"


def test_the_kernels_own_list() -> None:
    assert filesystems.kind(Path("/proc/self")) == "proc"
