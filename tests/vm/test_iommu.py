"""Behind an IOMMU that translates, memory is mapped once, and not for each request:

    tests/bed/vm --kernel plain --topology viommu python3 -m pytest tests/vm/test_iommu.py

With CONFIG_DMA_API_DEBUG, which the debug kernel has, dma_need_sync() is true for all that an IOMMU maps, so there are no tokens.
"""

import ctypes
import mmap
import os

import pytest

from dmabuf import Udmabuf
from token_fixtures import *  # noqa: F403
from token_words import DIRECT, KIB, MIB, expect, make_file, opened, random_bytes

CONTENT = random_bytes(8 * MIB, seed=5)
REQUESTS = 64
MDTS = 512 * KIB  # tests/bed/qemu

pytestmark = pytest.mark.skipif(os.environ.get("BED_TOPOLOGY") != "viommu", reason="this machine has no IOMMU, see above")


@pytest.fixture
def fd(ext4):
    make_file(ext4 / "file", CONTENT)
    with opened(ext4 / "file", DIRECT) as fd:
        yield fd


def read_often(ring, fd, base=0):
    for i in range(REQUESTS):
        assert ring.read_fixed(fd, base + i * 64 * KIB, 64 * KIB, i * 64 * KIB) == 64 * KIB


def counted(trace, function):
    """How often the kernel made and undid a mapping meanwhile."""
    with trace("iommu:map", key="iova") as made, trace("iommu:unmap", key="iova") as undone:
        function()
    return made.hits, undone.hits


def test_no_mapping_is_made_for_a_request(ring, fd, trace):
    """An ordinary registered buffer, beside it, is mapped and unmapped by each."""
    with Udmabuf(8 * MIB) as buffer, mmap.mmap(-1, 8 * MIB) as memory:
        memory[:] = bytes(8 * MIB)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        ring.register_memory(0, address, 8 * MIB)
        made, undone = counted(trace, lambda: read_often(ring, fd, address))
        assert made >= REQUESTS and undone >= REQUESTS
        ring.unregister(0)
        ring.register_dmabuf(0, buffer, fd)
        assert ring.read_fixed(fd, 0, 4096, 0) == 4096  # makes the map
        assert counted(trace, lambda: read_often(ring, fd)) == (0, 0)
        expect(buffer[: REQUESTS * 64 * KIB], CONTENT[: REQUESTS * 64 * KIB])
        ring.unregister(0)


def test_peer_to_peer(ring, fd, vfio, ext4):
    """The controller writes to the BAR of the other device through its IOMMU, byte for byte."""
    with vfio.export(8 * MIB) as buffer:
        buffer.fill()
        ring.register_dmabuf(0, buffer, fd)
        assert ring.read_fixed(fd, 0, 8 * MIB, 0) == 8 * MIB
        expect(buffer[: 8 * MIB], CONTENT)
        buffer[: MIB] = CONTENT[MIB : 2 * MIB]
        assert ring.write_fixed(fd, 0, MIB, 0) == MIB
        ring.unregister(0)
    expect((ext4 / "file").read_bytes()[: 2 * MIB], CONTENT[MIB : 2 * MIB] * 2)


def test_commands_are_as_large_as_the_device_allows(ring, fd, nvme, trace):
    """What is costly to map at once, and therefore sent in smaller pieces behind an IOMMU, is mapped already."""
    with Udmabuf(8 * MIB) as buffer:
        ring.register_dmabuf(0, buffer, fd)
        with trace("nvme:nvme_setup_cmd", key="opcode", where="qid > 0 && opcode == 2") as commands:
            assert ring.read_fixed(fd, 0, 8 * MIB, 0) == 8 * MIB
        assert commands.hits == 8 * MIB // MDTS < 8 * MIB // nvme.max_transfer
        ring.unregister(0)
