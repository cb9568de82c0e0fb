from pathlib import Path

import pytest

from hilcl.filesystems import kind_of, network_kind

MOUNTS = r"""
22 27 0:21 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /home rw - nfs4 server:/home rw
31 30 0:41 / /home/me/local rw master:2 - xfs /dev/vdb rw
32 22 0:42 / /mnt/my\040share rw - cifs //server/share rw
33 22 0:43 / /mnt/twice rw - nfs server:/a rw
34 22 0:44 / /mnt/twice rw - tmpfs none rw
35 22 0:45 / /mnt/far rw - fuse.sshfs me@server: rw
a line that is none
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS.lstrip(), "utf-8")
    return path


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/srv/x.sqlite", "ext4", None),
        ("/home/me/x.sqlite", "nfs4", "nfs4"),
        ("/homes/x.sqlite", "ext4", None),
        ("/home/me/local/x.sqlite", "xfs", None),
        ("/mnt/my share/runs/x.sqlite", "cifs", "cifs"),
        ("/mnt/twice/x.sqlite", "tmpfs", None),
        ("/mnt/far/x.sqlite", "fuse.sshfs", "fuse.sshfs"),
        ("/mnt/my share/../../srv/x.sqlite", "ext4", None),
    ],
)
def test_the_nearest_mount_counts(mounts: Path, path: str, kind: str, network: str | None) -> None:
    assert kind_of(Path(path), mounts) == kind
    assert network_kind(Path(path), mounts) == network


def test_a_link_is_followed(mounts: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/home/me")
    assert network_kind(tmp_path / "link" / "x.sqlite", mounts) == "nfs4"


def test_where_the_system_does_not_tell_nothing_is_said(tmp_path: Path) -> None:
    assert kind_of(Path("/x"), tmp_path / "none") is None
    assert network_kind(Path("/x"), tmp_path / "none") is None


def test_this_computer_tells(tmp_path: Path) -> None:
    assert kind_of(tmp_path) is not None
