"""Where the memory of a buffer is: in the host, in a peer of the controller, in both; and where the controller cannot reach it itself."""

import os
import struct
from contextlib import contextmanager
from errno import EOPNOTSUPP
from fcntl import ioctl
from pathlib import Path

import pytest

import guest
import machine
from dmabuf import Buffer, TestBuffer, Udmabuf
from token_fixtures import *  # noqa: F403
from token_words import CANARY, DIRECT, KIB, MIB, drop_cache_of, expect, fails, opened, random_bytes, wait_for

CONTENT = random_bytes(2 * MIB)
LIMIT = Path("/sys/module/dma_limit/parameters/device")  # tests/modules/limit


def test_nvme_and_bar_are_behind_one_switch(nvme, vram):
    """So it is bus addresses that go into commands."""

    def switch(address):
        return Path(f"/sys/bus/pci/devices/{address}").resolve().parts[:-2]

    assert switch(nvme.pci) == switch(vram)


# Two kinds in one buffer


@contextmanager
def joined(*parts):
    """A dma-buf of them, tests/modules/joiner/dmabuf-join.h."""
    JOIN = 0x40085410
    with opened("/dev/dmabuf-join", os.O_RDWR) as control:
        fd = ioctl(control, JOIN, bytearray(struct.pack("=2i", *(part.fileno() for part in parts))))
    with Buffer(fd, sum(part.size for part in parts), None) as buffer:
        yield buffer


@pytest.fixture(params=["host first", "device first"])
def halves(request, vfio):
    with Udmabuf(MIB) as host, vfio.export(MIB) as device:
        host.fill()
        device.fill()
        yield (host, device) if request.param == "host first" else (device, host)


@pytest.mark.parametrize("target", ["raw", "ext4", "mount"], indirect=True)
def test_host_and_device_memory_in_one_buffer(halves, target, ring):
    """One request, and one command, goes from one into the other."""
    first, second = halves
    with joined(first, second) as buffer:
        ring.register_dmabuf(0, buffer, target.fd)
        assert ring.read_fixed(target.fd, 0, 2 * MIB, target.base) == 2 * MIB
        expect(first[:] + second[:], CONTENT)

        first.fill()
        second.fill()
        edge = 64 * KIB
        assert ring.read_fixed(target.fd, MIB - edge, 2 * edge, target.base) == 2 * edge
        expect(first[MIB - edge :] + second[:edge], CONTENT[: 2 * edge])
        expect(first[: MIB - edge] + second[edge:], bytes([CANARY]) * (2 * MIB - 2 * edge))

        assert ring.write_fixed(target.fd, MIB - edge, 2 * edge, target.base + MIB) == 2 * edge
        assert ring.read_fixed(target.fd, 0, 2 * edge, target.base + MIB) == 2 * edge
        expect(first[: 2 * edge], CONTENT[: 2 * edge])
        ring.unregister(0)


@pytest.fixture
def counted(trace, ring):
    """What the kernel says of the bytes that the token of the block moved, which is unregistered in it. A worker may have it a moment longer."""

    @contextmanager
    def counting(moved, peer):
        with trace("dmabuf_token:dmabuf_token_release", sums=["read_bytes", "peer_bytes"]) as released:
            yield
            wait_for(lambda: released.update().hits, ring)
        assert released.sums == {"read_bytes": moved, "peer_bytes": peer}

    return counting


@pytest.mark.parametrize("target", ["raw", "ext4", "mount"], indirect=True)
def test_bytes_in_device_memory_are_counted_where_host_memory_is_beside_it(halves, target, ring, counted):
    first, second = halves
    edge = 64 * KIB
    in_first, in_second = (0, 1) if isinstance(first, Udmabuf) else (1, 0)
    peer = MIB + edge + edge + 2 * edge * in_first + 3 * edge * in_second
    with joined(first, second) as buffer, counted(2 * MIB + 7 * edge, peer):
        ring.register_dmabuf(0, buffer, target.fd)
        ring.read_fixed(target.fd, 0, 2 * MIB, target.base)
        ring.read_fixed(target.fd, MIB - edge, 2 * edge, target.base)  # half and half
        ring.write_fixed(target.fd, MIB - edge, 2 * edge, target.base)
        ring.read_fixed(target.fd, 0, 2 * edge, target.base)
        ring.read_fixed(target.fd, MIB, 3 * edge, target.base)
        ring.unregister(0)


def test_bytes_in_device_memory_are_counted(vfio, target, ring, counted):
    with vfio.export(MIB) as buffer, counted(MIB, MIB + 4096):
        ring.register_dmabuf(0, buffer, target.fd)
        ring.read_fixed(target.fd, 0, MIB, target.base)
        ring.write_fixed(target.fd, 0, 4096, target.base)
        ring.unregister(0)


@pytest.mark.parametrize("buffer", [Udmabuf, TestBuffer])
def test_bytes_in_host_memory_are_not_counted_as_device_memory(buffer, file, ring, counted):
    with buffer(MIB) as memory, counted(MIB, 0):
        ring.register_dmabuf(0, memory, file.fd)
        ring.read_fixed(file.fd, 0, MIB, file.base)
        ring.unregister(0)


# Behind a bus of 32 bits


@pytest.fixture
def limited():
    """The spare controller, as if it could not reach memory above 4 GiB: it gets a copy below, a bounce buffer."""
    address = guest.Nvme("spare").pci
    with machine.rebound(address):
        LIMIT.write_text(address)
    yield guest.Nvme("spare")
    with machine.rebound(address):  # without the limit of its commands, too: no bounce buffer is larger
        LIMIT.write_text("\n")


@pytest.mark.parametrize("buffer", [Udmabuf, TestBuffer])
def test_memory_that_needs_bounce_buffers_is_refused(buffer, limited, ring):
    """What the CPU writes to the buffer would be overwritten by the copy when the map ends; and large pieces have none."""
    with buffer(2 * MIB) as memory, opened(limited.device, DIRECT) as fd:
        memory.fill()
        with fails(EOPNOTSUPP):
            ring.register_dmabuf(0, memory, fd)
        expect(memory[:], bytes([CANARY]) * memory.size)


def test_single_pages_are_copied_to_bounce_buffers(limited, ring, trace):
    """Or else the test above shows nothing."""
    with TestBuffer(2 * MIB) as memory, opened(limited.device, DIRECT) as fd:
        with trace("swiotlb:swiotlb_bounced", key="size") as bounced, fails(EOPNOTSUPP):
            ring.register_dmabuf(0, memory, fd)
        assert bounced.hits > 0


def test_memory_is_accepted_again_when_it_needs_none(limited, ring):
    """That the device once had bounce buffers says nothing about other memory."""
    with open(limited.device, "wb") as disk:
        disk.write(CONTENT)
    drop_cache_of(limited.device)
    with TestBuffer(2 * MIB) as buffer, opened(limited.device, DIRECT) as fd:
        with fails(EOPNOTSUPP):
            ring.register_dmabuf(0, buffer, fd)
        LIMIT.write_text("\n")
        ring.register_dmabuf(0, buffer, fd)
        assert ring.read_fixed(fd, 0, 2 * MIB, 0) == 2 * MIB
        expect(buffer[:], CONTENT)
        ring.unregister(0)
