"""What kind of file system a file is on, as far as the system tells."""

from pathlib import Path

NETWORK = frozenset(
    {
        "9p", "afs", "ceph", "cifs", "coda", "davfs", "fuse.davfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs",
        "fuse.smbnetfs", "fuse.sshfs", "fuse.vmhgfs-fuse", "gfs2", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4",
        "ocfs2", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs",
    }
)  # fmt: skip
"""File systems that other computers take part in. SQLite's write-ahead log needs one computer (sqlite.org/wal.html)."""


def kind_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the kind of file system a path is on or would be, None where the system does not tell.

    The format of ``mounts`` is that of proc_pid_mountinfo(5).
    """
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
        wanted = path.resolve()
    except (OSError, RuntimeError):
        return None
    found, depth = None, -1
    for line in lines:
        mount, _, rest = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) < 5 or not rest:
            continue
        point = Path(_plain(fields[4]))
        # Of two mounts on one place the later one hides the other.
        if wanted.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = rest.split(" ")[0], len(point.parts)
    return found


def network_kind(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the kind of network drive a path is on, None where it is on none."""
    kind = kind_of(path, mounts)
    return kind if kind in NETWORK else None


def _plain(escaped: str) -> str:
    """Return a mount point with its escapes (blank, tab, line break, backslash in octal) undone."""
    for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        escaped = escaped.replace(code, letter)
    return escaped
