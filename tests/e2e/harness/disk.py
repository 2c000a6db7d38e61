"""A disk of a server's own that can be filled up."""

import contextlib
import os
import shutil

MIB = 1 << 20
DISK = 64 * MIB


def on_a_small_disk(data_dir):
    """A command that mounts a small file system over `data_dir`, seen by the server alone and gone with it."""
    identity = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = f'mount -t tmpfs -o size={DISK} tmpfs "$0" && exec "$@"'
    return [shutil.which("unshare") or "unshare", "--mount", *identity, "sh", "-c", mount, str(data_dir)]


def free_bytes(server):
    state = os.statvfs(server.seen(server.data_dir))
    return state.f_bavail * state.f_frsize


def ballast(server):
    return server.seen(server.data_dir) / "ballast"


def fill(server):
    # Unbuffered: what did not fit would be tried again when the file is closed.
    with open(ballast(server), "wb", buffering=0) as file, contextlib.suppress(OSError):
        while room := free_bytes(server):
            file.write(b"\xaa" * min(room, MIB))
