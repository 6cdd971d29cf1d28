"""dma-bufs to read into: from udmabuf, from the BAR of a device bound to vfio-pci, and from the test exporter.

All of them have `size`, `fileno()` and `map`, through which the CPU sees the memory.
"""

import errno
import fcntl
import mmap
import os
import struct
from collections import namedtuple

PAGE = mmap.PAGESIZE
CANARY = 0xEE


class Buffer:
    def __init__(self, fd, size, memory):
        self.fd, self.size, self.map = fd, size, memory
        if memory is not None:
            # A forked child must not keep the buffer alive.
            memory.madvise(mmap.MADV_DONTFORK)

    def fileno(self):
        return self.fd

    def __getitem__(self, where):
        return self.map[where]

    def __setitem__(self, where, data):
        self.map[where] = data

    def fill(self, byte=CANARY):
        self.map[:] = bytes([byte]) * self.size

    def close_fd(self):
        """The descriptor only: whoever else uses the buffer keeps it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self):
        self.close_fd()
        if self.map is not None:
            self.map.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Udmabuf(Buffer):
    CREATE = 0x40187542

    def __init__(self, size):
        memfd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(memfd, size)
            fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            device = os.open("/dev/udmabuf", os.O_RDWR)
            try:
                fd = fcntl.ioctl(device, self.CREATE, bytearray(struct.pack("=IIQQ", memfd, 1, 0, size)))
            finally:
                os.close(device)
            # Mapped now, and not by a fault for each page; a buffer of gigabytes is hardly looked at.
            populate = mmap.MAP_POPULATE if size <= 16 << 20 else 0
            super().__init__(fd, size, mmap.mmap(memfd, size, flags=mmap.MAP_SHARED | populate))
        finally:
            os.close(memfd)


Stats = namedtuple("Stats", "maps unmaps failed_maps segments attaches detaches moves dirty stop_us unmap_us released")


class TestBuffer(Buffer):
    """A buffer of the test exporter, tests/modules/exporter/dmabuf-test.h: it moves, fails and vanishes on command."""

    __test__ = False  # not for pytest to collect
    CREATE, MOVE, REVOKE, FAIL_MAP, DELAY_MAP, STATS, MAP_MOVE, MISLEAD = 0xC0205400, 0x40085401, 0x5402, 0x40085403, 0x40045404, 0x80585405, 0x40085406, 0x40085407
    TO_BUFFER, FROM_BUFFER = 1, 2
    VMAP = 1
    POISON = 0x6B

    def __init__(self, size, chunk_order=0, backed=0, vmap=False):
        self.control = os.open("/dev/dmabuf-test", os.O_RDWR)
        arg = bytearray(struct.pack("=QQIIiI", size, backed, chunk_order, vmap * self.VMAP, -1, 0))
        try:
            fcntl.ioctl(self.control, self.CREATE, arg)
        except OSError:
            os.close(self.control)
            raise
        fd = struct.unpack("=QQIIiI", arg)[4]
        super().__init__(fd, size, mmap.mmap(fd, size))

    def move(self, hold_ms=0, fence_ms=0):
        fcntl.ioctl(self.control, self.MOVE, struct.pack("=II", hold_ms, fence_ms))

    def revoke(self):
        fcntl.ioctl(self.control, self.REVOKE)

    def fail_map(self, count, number):
        fcntl.ioctl(self.control, self.FAIL_MAP, struct.pack("=II", count, number))

    def move_when_mapped(self, fence_ms, count=1):
        """The next mappings move the buffer; their memory gets its content so much later."""
        fcntl.ioctl(self.control, self.MAP_MOVE, struct.pack("=II", count, fence_ms))

    def delay_map(self, ms):
        fcntl.ioctl(self.control, self.DELAY_MAP, struct.pack("=I", ms))

    def mislead(self, every=1, directions=TO_BUFFER | FROM_BUFFER):
        """The next mappings show other memory than mmap, in each piece of so many."""
        fcntl.ioctl(self.control, self.MISLEAD, struct.pack("=II", every, directions))

    @property
    def stats(self):
        raw = bytearray(88)
        fcntl.ioctl(self.control, self.STATS, raw)
        return Stats(*struct.unpack("=11Q", raw))

    def close(self):
        super().close()
        if self.control >= 0:
            os.close(self.control)
            self.control = -1


class VfioDevice:
    """A PCI device bound to vfio-pci. Its group opens only once, so one object serves all tests."""

    BAR2 = 2
    CONFIG = 7
    GET_STATUS, SET_CONTAINER, SET_IOMMU, GET_DEVICE_FD = 0x3B67, 0x3B68, 0x3B66, 0x3B6A
    GET_REGION_INFO, FEATURE = 0x3B6C, 0x3B75
    TYPE1V2, NOIOMMU = 3, 8
    FEATURE_GET, FEATURE_DMA_BUF = 1 << 16, 11

    def __init__(self, bdf):
        group = os.path.basename(os.readlink(f"/sys/bus/pci/devices/{bdf}/iommu_group"))
        iommu = os.path.exists(f"/dev/vfio/{group}")
        self.group = os.open(f"/dev/vfio/{group}" if iommu else f"/dev/vfio/noiommu-{group}", os.O_RDWR)
        self.container = os.open("/dev/vfio/vfio", os.O_RDWR)
        fcntl.ioctl(self.group, self.SET_CONTAINER, struct.pack("=i", self.container))
        fcntl.ioctl(self.container, self.SET_IOMMU, self.TYPE1V2 if iommu else self.NOIOMMU)
        self.device = fcntl.ioctl(self.group, self.GET_DEVICE_FD, bytearray(bdf.encode() + b"\0"))

    def region(self, index):
        """(size, offset in the device file)"""
        info = bytearray(struct.pack("=IIIIQQ", 32, 0, index, 0, 0, 0))
        fcntl.ioctl(self.device, self.GET_REGION_INFO, info)
        return struct.unpack("=IIIIQQ", info)[4:]

    def export(self, size, offset=0):
        """A dma-buf of a part of BAR 2."""
        feature = struct.pack("=II", 40, self.FEATURE_GET | self.FEATURE_DMA_BUF)
        feature += struct.pack("=IIII", self.BAR2, os.O_RDWR | os.O_CLOEXEC, 0, 1) + struct.pack("=QQ", offset, size)
        fd = fcntl.ioctl(self.device, self.FEATURE, bytearray(feature))
        return Buffer(fd, size, mmap.mmap(self.device, size, offset=self.region(self.BAR2)[1] + offset))

    def set_memory_enabled(self, enabled):
        """The command register's memory bit: without it the exporter takes the BAR away from its importers."""
        where = self.region(self.CONFIG)[1] + 4
        command = struct.unpack("=H", os.pread(self.device, 2, where))[0]
        os.pwrite(self.device, struct.pack("=H", command | 2 if enabled else command & ~2), where)

    def close(self):
        for fd in (self.device, self.group, self.container):
            os.close(fd)


def bound_to_vfio(bdf):
    link = f"/sys/bus/pci/devices/{bdf}/driver"
    return os.path.exists(link) and os.path.basename(os.readlink(link)) == "vfio-pci"


def bind_to_vfio(bdf):
    if bound_to_vfio(bdf):
        return
    device = f"/sys/bus/pci/devices/{bdf}"
    if os.path.exists(f"{device}/driver"):
        raise OSError(errno.EBUSY, f"{bdf} has another driver")
    _write(f"{device}/driver_override", "vfio-pci")
    _write("/sys/bus/pci/drivers_probe", bdf)


def find_pci(vendor, device):
    """Addresses of the PCI devices with these ids."""
    root = "/sys/bus/pci/devices"
    return [d for d in sorted(os.listdir(root)) if (_id(f"{root}/{d}/vendor"), _id(f"{root}/{d}/device")) == (vendor, device)]


def _id(path):
    with open(path) as file:
        return int(file.read(), 16)


def _write(path, text):
    with open(path, "w") as file:
        file.write(text)
