"""The file system of a folder, and whether `flock` excludes every other machine there.

`flock` is a promise of the kernel of one machine. On a network file system the promise may end there: Lustre mounted
with `localflock`, and NFS mounted with `nolock` or `local_lock`. Other mounts have no `flock` at all. One machine
cannot see what another machine locks. A file system that is not known to be local is therefore a shared one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
LOCAL = frozenset(
    ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "tmpfs", "ramfs", "overlay", "aufs")
    + ("apfs", "hfs", "ntfs3", "vfat", "exfat")
)
# `flock` that the file system does not have: Lustre without flock, some network file systems.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)

_types: dict[int, str] = {}  # by device


def is_local(folder: Path) -> bool:
    """True if no other machine can write to this existing folder, except by a server on this machine."""
    return file_system(folder) in LOCAL


def file_system(folder: Path) -> str:
    """Type of the file system of an existing folder, such as ext4 or nfs4; empty where the system does not say."""
    device = os.stat(folder).st_dev
    if device not in _types:
        _types[device] = mounted_type(os.path.realpath(folder), _mounts())
    return _types[device]


def mounted_type(path: str, mounts: str) -> str:
    """Type of the mount with the longest path that holds `path`; `mounts` is the text of /proc/self/mountinfo."""
    best, name = "", ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields.split(" ")[4])
        holds = path == point or path.startswith(point.rstrip("/") + "/")
        if holds and len(point) >= len(best):  # of equal mount points, the last one lies on top
            best, name = point, rest.split(" ")[0]
    return name


def _mounts() -> str:
    with contextlib.suppress(OSError):
        return MOUNTS.read_text(errors="surrogateescape")
    return ""
