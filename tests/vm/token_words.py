"""The words of the token tests: small helpers, no fixtures."""

import contextlib
import ctypes
import errno
import fcntl
import functools
import mmap
import os
import random
import re
import struct
import threading
import time
from pathlib import Path

import pytest

from dmabuf import CANARY

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
BUFFER_SIZE = 2 * MIB  # several commands, and every page costs time: it is faulted in, mapped, filled and compared
DIRECT = os.O_RDWR | os.O_DIRECT
SLOTS = 8  # of a ring, unless it asks for another number


@functools.cache
def random_bytes(size, seed=1):
    return random.Random(seed).randbytes(size)


@contextlib.contextmanager
def fails(*numbers, what=""):
    """The body fails with one of these errno; `what` tells one case of many."""
    found = 0
    try:
        yield
    except OSError as error:
        found = error.errno
    name, names = errno.errorcode.get(found, "success"), [errno.errorcode[n] for n in numbers]
    assert name in names, f"{what or 'the call'}: {name} instead of {' or '.join(names)}"


def expect(found, wanted, what="bytes"):
    """Equal bytes; a difference is told by its place, not by megabytes of diff."""
    assert len(found) == len(wanted), f"{what}: {len(found)} instead of {len(wanted)} bytes"
    if found == wanted:
        return
    blocks = [i for i in range(0, len(wanted), 512) if found[i : i + 512] != wanted[i : i + 512]]
    first = next(i for i in range(blocks[0], len(wanted)) if found[i] != wanted[i])
    pytest.fail(f"{what}: {len(blocks)} of {-(-len(wanted) // 512)} sectors are wrong, the first byte at {first}: "
                f"{found[first:first + 16].hex()} instead of {wanted[first:first + 16].hex()}")  # fmt: skip


def expect_untouched(buffer, start=0, end=None):
    end = buffer.size if end is None else end
    expect(buffer[start:end], bytes([CANARY]) * (end - start), f"untouched part of the buffer from {start}")


@contextlib.contextmanager
def opened(path, flags=DIRECT):
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


@functools.cache
def _room(size):
    """Memory to read into, again and again: the first time costs a fault for each page."""
    memory = mmap.mmap(-1, size)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def on_disk(target, size=None, start=0):
    """What is really there: read past all caches, as the data went. Without a size, as much as the target's content."""
    size = len(target.content) if size is None else size
    room = _room(8 * MIB)[:size]
    with opened(target.path, os.O_RDONLY | os.O_DIRECT) as fd:
        assert os.preadv(fd, [room], target.base + start) == size
        return bytes(room)


@contextlib.contextmanager
def setting(path, value):
    """A file of sysfs says that meanwhile."""
    before = path.read_text()
    path.write_text(str(value))
    try:
        yield
    finally:
        path.write_text(before)


def sgl_threshold(size):
    """The controller gets SGLs meanwhile for ranges of that size on average, PRPs otherwise, and always with 0."""
    return setting(Path("/sys/module/nvme/parameters/sgl_threshold"), size)


def set_direct(fd, on):
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)


def make_file(path, *parts):
    """A file on disk from parts: bytes are data, an integer is a hole of so many bytes. Returns its content."""
    content = b""
    with open(path, "wb") as file:
        data = sum(len(part) for part in parts if isinstance(part, bytes))
        if data > MIB and data == sum(p if isinstance(p, int) else len(p) for p in parts):
            os.posix_fallocate(file.fileno(), 0, data)  # in one piece
        for part in parts:
            if isinstance(part, int):
                content += bytes(part)
                file.truncate(len(content))
                file.seek(len(content))
            else:
                content += part
                file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return content


PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE = 0x2 | 0x1, 0x8, 0x10  # modes of fallocate(2); a hole keeps the size
_libc = ctypes.CDLL(None, use_errno=True)


def fallocate(path, mode, start, length):
    with opened(path, os.O_RDWR) as fd:
        if _libc.fallocate(fd, mode, ctypes.c_long(start), ctypes.c_long(length)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))


@contextlib.contextmanager
def in_background(function):
    """Runs a function again and again while the body runs; its exception becomes ours."""
    stop, failure = threading.Event(), []

    def loop():
        try:
            while not stop.is_set():
                function()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failure:
        raise failure[0]


def wait_for(condition, ring=None, timeout=20):
    """What follows asynchronously, but soon; for a ring whose task has to do its part, name it."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        if ring:
            ring.run_deferred()
        time.sleep(0.02)


def let_go():
    """Waits for rings that were closed, or whose process ended: the kernel takes them down in the background. Their files are closed a moment later."""
    wait_for(lambda: not attachments())


def empty_ring(ring):
    """Undoes all registrations; afterwards nothing of them is left, and their files are closed."""
    with contextlib.suppress(OSError):
        ring.unregister_all()
    wait_for(lambda: not attachments(), ring)


def attachments():
    """How many importers hold dma-bufs of this machine now."""
    with open("/sys/kernel/debug/dma_buf/bufinfo") as file:
        return sum(int(n) for n in re.findall(r"Total (\d+) devices attached", file.read()))


def extents(path):
    """[(logical, physical, length)] of a file on disk."""
    FIEMAP, SYNC, MAX = 0xC020660B, 1, 512
    raw = bytearray(struct.pack("=QQIIII", 0, 2**64 - 1, SYNC, 0, MAX, 0) + bytes(56 * MAX))
    with opened(path, os.O_RDONLY) as fd:
        fcntl.ioctl(fd, FIEMAP, raw)
    count = struct.unpack_from("=I", raw, 20)[0]
    return [struct.unpack_from("=QQQ", raw, 32 + 56 * i) for i in range(count)]


JOURNAL_DATA, IMMUTABLE, APPEND_ONLY = 0x4000, 0x10, 0x20  # flags of files


def set_flag(path, flag, on=True):
    """chattr"""
    FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
    with opened(path, os.O_RDONLY) as fd:
        flags = struct.unpack("=i", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(4)))[0]
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("=i", flags | flag if on else flags & ~flag))


@contextlib.contextmanager
def flagged(path, flag):
    """The file has the flag meanwhile."""
    set_flag(path, flag)
    try:
        yield
    finally:
        set_flag(path, flag, on=False)


class Target:
    """`content` lies at `base` of `path`."""

    def __init__(self, path, content, base=0):
        self.path, self.content, self.base, self.fds = str(path), content, base, []

    def open(self, flags=DIRECT):
        self.fds.append(os.open(self.path, flags))
        return self.fds[-1]

    @functools.cached_property
    def fd(self):
        return self.open()

    def close(self):
        for fd in self.fds:
            # closing tells the server, which may be gone
            with contextlib.suppress(OSError):
                os.close(fd)
        self.fds.clear()


def data_on_ext4(ext4, size=BUFFER_SIZE):
    """A file of random bytes, as large as the buffers."""
    path = ext4 / "data"
    return path, make_file(path, random_bytes(size))


def place_on_disk(path):
    """Where a file begins that lies in one piece."""
    found = extents(path)
    for (logical, physical, length), following in zip(found, found[1:]):
        assert following[:2] == (logical + length, physical + length), "a new file system is expected to allocate it in one piece"
    return found[0][1]


def read_and_compare(ring, target, buffer, where, slot=0):
    """One read of (buffer offset, length, file offset): the bytes, all of them, and nothing beside them."""
    to, length, start = where
    low, high = max(to - 8192, 0), min(to + length + 8192, buffer.size)
    buffer[low:high] = bytes([CANARY]) * (high - low)
    assert ring.read_fixed(target.fd, to, length, target.base + start, slot) == length, where
    expect(buffer[to : to + length], target.content[start : start + length], f"read {where}")
    expect_untouched(buffer, low, to)
    expect_untouched(buffer, to + length, high)


def drop_cache_of(device):
    """Where a file lies now there may have been metadata of its filesystem; as long as that is in the device's cache a write to the device is EBUSY."""
    BLKFLSBUF, EXT4_IOC_CHECKPOINT = 0x1261, 0x4004662B
    os.sync()
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    for _, directory, *_ in (words for words in mounts if words[0] == device and words[2] == "ext4"):
        with opened(directory, os.O_RDONLY) as fd:
            fcntl.ioctl(fd, EXT4_IOC_CHECKPOINT, bytes(4))  # the journal holds on to it until then
    with opened(device, os.O_RDONLY) as fd:
        fcntl.ioctl(fd, BLKFLSBUF)


def add_partition(device, start, length):
    """Tells the kernel of a partition, as partition tools do; the disk itself needs no table."""
    _blkpg(device, 1, start, length)
    return device + "p1"


def delete_partition(device):
    """Waits for the last close of it."""
    wait_for(lambda: _deleted(device))


def _deleted(device):
    try:
        _blkpg(device, 2)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _blkpg(device, operation, start=0, length=0):
    BLKPG = 0x1269
    partition = ctypes.create_string_buffer(struct.pack("=qqi", start, length, 1), 152)
    with opened(device, os.O_RDONLY) as fd:
        fcntl.ioctl(fd, BLKPG, struct.pack("=iiiiQ", operation, 0, len(partition), 0, ctypes.addressof(partition)))
