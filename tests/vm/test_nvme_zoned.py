"""A namespace whose zones are written from beginning to end: a write that fails takes the other writes of its zone with it, so there are no tokens."""

import contextlib
import ctypes
import fcntl
import os
import struct
import threading
from errno import EINVAL, ENXIO, EOPNOTSUPP
from pathlib import Path

import pytest

import guest
from dmabuf import Udmabuf
from token_fixtures import *  # noqa: F403
from token_words import DIRECT, KIB, MIB, add_partition, expect, fails, in_background, opened, random_bytes, read_and_compare
from uring import IOPOLL, IOSQE_ASYNC, READ_FIXED, SINGLE_ISSUER, WRITE_FIXED, Ring

ZONE = MIB
SIZE = 16 * KIB  # of a write
WRITES = ZONE // SIZE
BLKRESETZONE = 0x40101283


class Zoned:
    """The namespace of tests/bed/qemu, and its zones by number."""

    def __init__(self, nvme):
        self.nvme, self.device = nvme, nvme.device

    def reset(self):
        with opened(self.device, os.O_RDWR) as fd:
            fcntl.ioctl(fd, BLKRESETZONE, struct.pack("=QQ", 0, self.nvme.size // 512))

    def read(self, zone):
        with opened(self.device, os.O_RDONLY) as fd:
            os.posix_fadvise(fd, zone * ZONE, ZONE, os.POSIX_FADV_DONTNEED)
            return os.pread(fd, ZONE, zone * ZONE)


@pytest.fixture
def zoned():
    zoned = Zoned(guest.Nvme("zoned"))
    queue = zoned.nvme.namespace / "queue"
    assert (queue / "zoned").read_text().strip() == "host-managed"
    assert int((queue / "chunk_sectors").read_text()) * 512 == ZONE
    zoned.reset()
    return zoned


@pytest.mark.parametrize("flags", [DIRECT, os.O_RDONLY | os.O_DIRECT, os.O_WRONLY | os.O_DIRECT], ids=["both-ways", "reading", "writing"])
def test_no_token_for_zones(zoned, moving, flags):
    """Not even for reading them."""
    with Ring() as ring, opened(zoned.device, flags) as fd, fails(EOPNOTSUPP):
        ring.register_dmabuf(0, moving, fd)
    assert moving.stats.attaches == 0


def test_zones_have_no_partitions(zoned):
    """Whose tokens would be those of the whole."""
    with fails(EINVAL, ENXIO):
        add_partition(zoned.device, 0, ZONE)
    assert not Path(zoned.device + "p1").exists()


class Writer:
    """A thread that fills zones with writes in their order, many in flight, of which the kernel gives the device one at a time."""

    def __init__(self, zoned, zones):
        self.zoned, self.zones = zoned, zones
        self.failure = None
        self.thread = threading.Thread(target=self._run)

    @staticmethod
    def content(zone):
        return random_bytes(ZONE, seed=100 + zone)

    def _run(self):
        try:
            # A request that could not be queued at once would go to a worker, and be late.
            with Ring(WRITES, SINGLE_ISSUER) as ring, Udmabuf(ZONE) as memory, opened(self.zoned.device) as fd:
                address = ctypes.addressof(ctypes.c_char.from_buffer(memory.map))
                ring.register_memory(0, address, ZONE)
                for zone in self.zones:
                    memory[:] = self.content(zone)
                    for place in range(0, ZONE, SIZE):
                        ring.prepare(WRITE_FIXED, fd, address + place, SIZE, zone * ZONE + place)
                    ring.submit()
                    results = set(ring.wait_all(WRITES).values())
                    assert results == {SIZE}, f"zone {zone}: {results}"
        except BaseException as error:
            self.failure = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.thread.join()
        if self.failure:
            raise self.failure


def test_writers_of_zones_beside_tokens(zoned, file, moving):
    """Those of other namespaces, whose memory moves, and those that are refused: no write of a zone fails for them."""
    refused = done = 0
    with Ring() as ring, opened(zoned.device) as fd, contextlib.ExitStack() as writers:
        ring.register_dmabuf(0, moving, file.fd)
        with in_background(moving.move):
            started = [writers.enter_context(Writer(zoned, zones)) for zones in (range(3), range(3, 6))]
            while any(writer.thread.is_alive() for writer in started) or not done:
                with fails(EOPNOTSUPP):
                    ring.register_dmabuf(1, moving, fd)
                refused += 1
                read_and_compare(ring, file, moving, (0, 64 * KIB, 64 * KIB))
                done += 1
            writers.close()
    for zone in range(6):
        expect(zoned.read(zone), Writer.content(zone), f"zone {zone}")
    assert refused and moving.stats.dirty == 0


def test_a_token_of_another_namespace_is_none_for_zones(zoned, file, moving):
    """Its requests do not reach them, whatever the ring."""
    for flags in (0, IOPOLL):
        with Ring(flags=flags) as ring, opened(zoned.device) as fd:
            ring.register_dmabuf(0, moving, file.fd)
            for opcode in (READ_FIXED, WRITE_FIXED):
                for sqe_flags in (0, IOSQE_ASYNC):
                    with pytest.raises(OSError, match="Bad file descriptor"):
                        ring.run(opcode, fd, 0, SIZE, 0, flags=sqe_flags)
    with Writer(zoned, [0]):
        pass
    expect(zoned.read(0), Writer.content(0))
