"""The filesystems that take turns on the NVMe device. Making one costs seconds, so tests share it: each has a directory of its own."""

import errno
import os
import time
from pathlib import Path

import guest

ROOT, MOUNT = Path("/mnt/nvme"), Path("/mnt/nvme-mount")

# A file of ext4's for tests that go to the device itself: in a place that never held metadata, which would be in the device's cache.
RAW, RAW_SIZE = ROOT / "raw", 4 << 20

# The small ones have what tokens are refused for, quotas, and an end that is soon reached.
EXT4_FEATURES = "encrypt,verity,inline_data,quota"
MAKE = {
    "xfs": ("mkfs.xfs -q -f -K {}", "noatime"),
    "small-ext4": (f"mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 -b 4096 -O {EXT4_FEATURES} {{}} 320M", "noinit_itable,nodelalloc,usrquota"),
    "small-xfs": ("mkfs.xfs -q -f -K -d size=320m {}", "uquota"),
}


def is_mounted(path):
    """Also when nothing there can be looked at any more, which os.path.ismount() takes for no mount."""
    return any(line.split()[1] == str(path) for line in Path("/proc/self/mounts").read_text().splitlines())


class Filesystems:
    def __init__(self, device):
        self.device, self.kind = device, None

    def hold(self, kind):
        """The root of that filesystem; a new one, unless it is there already."""
        if kind != self.kind:
            self.clear()
            self._make(kind)
            self.kind = kind
        return ROOT

    def _make(self, kind):
        if kind == "ext4":
            guest.make_ext4(self.device, ROOT)
            with RAW.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RAW_SIZE)
            return
        command, options = MAKE[kind]
        guest.run(*command.format(self.device).split())
        ROOT.mkdir(parents=True, exist_ok=True)
        guest.run("mount", "-o", options, self.device, ROOT)

    def mount(self):
        """The server's mount of it, for as long as it is there."""
        if not os.path.ismount(MOUNT):
            guest.mount_server(ROOT, MOUNT, "cache=none")  # tests change files behind its back
        return MOUNT

    def unmount(self):
        """Ends that mount. Its server knows files, and those that are deleted behind its back stay until it forgets them."""
        if is_mounted(MOUNT):
            guest.unmount(MOUNT)

    def clear(self):
        """Leaves the device to somebody else."""
        if not self.kind:
            return
        self.unmount()
        guest.unmount(ROOT)
        self.kind = None
        self._wait_until_free()

    def _wait_until_free(self, seconds=20):
        """A server has a mount of its own of what it serves, and ends a moment after it was unmounted."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return os.close(os.open(self.device, os.O_RDONLY | os.O_EXCL))
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)
