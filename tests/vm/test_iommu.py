"""Behind an IOMMU that translates, memory is mapped once, and not for each request.

    tests/bed/vm --topology viommu python3 -m pytest tests/vm/test_iommu.py
"""

import ctypes
import mmap
import os
from pathlib import Path

import pytest

import guest
import machine
from dmabuf import Udmabuf
from token_fixtures import *  # noqa: F403
from token_words import DIRECT, KIB, MIB, drop_cache_of, expect, opened, random_bytes

CONTENT = random_bytes(8 * MIB, seed=5)
REQUESTS = 64
MDTS = 2 * MIB  # of the spare controller, tests/bed/qemu

pytestmark = pytest.mark.skipif(os.environ.get("BED_TOPOLOGY") != "viommu", reason="this machine has no IOMMU, see above")


@pytest.fixture(scope="module")
def spare():
    """The spare controller, which is alone in its group, with addresses that are translated."""
    address = guest.Nvme("spare").pci
    set_domain(address, "DMA")
    yield guest.Nvme("spare")
    set_domain(address, "identity")


def set_domain(address, kind):
    with machine.rebound(address):
        Path(f"/sys/bus/pci/devices/{address}/iommu_group/type").write_text(kind)


@pytest.fixture
def fd(spare):
    with open(spare.device, "wb") as disk:
        disk.write(CONTENT)
    drop_cache_of(spare.device)
    with opened(spare.device, DIRECT) as fd:
        yield fd


def read_often(ring, fd, base=0):
    for i in range(REQUESTS):
        assert ring.read_fixed(fd, base + i * 64 * KIB, 64 * KIB, i * 64 * KIB) == 64 * KIB


def counted(trace, function):
    """How often the kernel made and undid a mapping meanwhile."""
    with trace("iommu:map", key="iova") as made, trace("iommu:unmap", key="iova") as undone:
        function()
    return made.hits, undone.hits


def peer_bytes_of(trace):
    """By which address the controller sees memory says nothing: all are addresses of the IOMMU."""
    return trace("dmabuf_token:dmabuf_token_release", sums=["peer_bytes"])


def test_no_mapping_is_made_for_a_request(fd, ring, trace):
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


def test_peer_to_peer(fd, ring, vfio, spare, trace):
    """The controller writes to the BAR of the other device through its IOMMU, byte for byte."""
    with vfio.export(8 * MIB) as buffer, peer_bytes_of(trace) as counted:
        buffer.fill()
        ring.register_dmabuf(0, buffer, fd)
        assert ring.read_fixed(fd, 0, 8 * MIB, 0) == 8 * MIB
        expect(buffer[: 8 * MIB], CONTENT)
        buffer[:MIB] = CONTENT[MIB : 2 * MIB]
        assert ring.write_fixed(fd, 0, MIB, 0) == MIB
        ring.unregister(0)
    assert counted.sums == {"peer_bytes": 9 * MIB}
    expect(Path(spare.device).open("rb").read(2 * MIB), CONTENT[MIB : 2 * MIB] * 2)


def test_commands_are_as_large_as_the_device_allows(fd, ring, spare, trace):
    """What is costly to map at once, and therefore sent in smaller pieces behind an IOMMU, is mapped already."""
    with Udmabuf(8 * MIB) as buffer, peer_bytes_of(trace) as counted:
        ring.register_dmabuf(0, buffer, fd)
        with trace("nvme:nvme_setup_cmd", key="opcode", where="qid > 0 && opcode == 2") as commands:
            assert ring.read_fixed(fd, 0, 8 * MIB, 0) == 8 * MIB
        assert commands.hits == 8 * MIB // MDTS < 8 * MIB // spare.max_transfer
        ring.unregister(0)
    assert counted.sums == {"peer_bytes": 0}


def test_a_move_makes_a_new_mapping(fd, ring, moving):
    """And the old one is gone, for the controller too: whatever it wrote there would be found."""
    ring.register_dmabuf(0, moving, fd)
    for _ in range(5):
        moving.fill()
        moving.move()
        assert ring.read_fixed(fd, 0, MIB, 0) == MIB
        expect(moving[:MIB], CONTENT[:MIB])
    assert moving.stats.dirty == 0 and moving.stats.maps == 6 and moving.stats.unmaps == 5
    ring.unregister(0)
