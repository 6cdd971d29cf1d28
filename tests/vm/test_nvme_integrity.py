"""A namespace with metadata beside each block: what is written from memory that the CPU does not see has no checksum, so there are no tokens."""

import contextlib
import ctypes
import fcntl
import os
import struct
from errno import EOPNOTSUPP
from pathlib import Path

import pytest

import guest
from token_fixtures import *  # noqa: F403
from token_words import BUFFER_SIZE, MIB, Target, expect_untouched, fails, opened, random_bytes, read_and_compare, wait_for
from uring import IOPOLL, Ring

CONTENT = random_bytes(BUFFER_SIZE, seed=41)
ADMIN_COMMAND = 0xC0484E41   # NVME_IOCTL_ADMIN_CMD
IDENTIFY, FORMAT = 0x06, 0x80
IORING_RW_ATTR_FLAG_PI = 1


def admin_command(device, opcode, size=0, cdw10=0):
    """What the controller sends back."""
    data = ctypes.create_string_buffer(max(size, 1))
    command = bytearray(struct.pack("=BBHIIIQQII6III", opcode, 0, 0, 1, 0, 0, 0, ctypes.addressof(data) if size else 0, 0, size, cdw10, *[0] * 5, 60_000, 0))
    with opened(device, os.O_RDONLY) as fd:
        assert fcntl.ioctl(fd, ADMIN_COMMAND, command) == 0
    return data.raw


def formats(device):
    """[(bytes of metadata, log2 of the bytes of data) of each block, ...], and the number of the present one."""
    namespace = admin_command(device, IDENTIFY, 4096)
    return [struct.unpack_from("=HB", namespace, 128 + 4 * i) for i in range(namespace[25] + 1)], namespace[26] & 0xF


def format_namespace(device, number, protection=0):
    admin_command(device, FORMAT, cdw10=number | protection << 5)
    wait_for(lambda: int(Path("/sys/block", Path(device).name, "size").read_text()))


@pytest.fixture
def spare():
    return guest.Nvme("spare")


@pytest.fixture
def formatted(spare):
    """formatted(protection) adds 8 bytes to each block, as a checksum that the controller knows of (1), or for whatever the host likes (0)."""
    known, present = formats(spare.device)
    assert known[present][0] == 0

    def reformat(protection):
        format_namespace(spare.device, known.index((8, known[present][1])), protection)
        assert (spare.namespace / "integrity/format").read_text().strip() != "none" or not protection

    yield reformat
    format_namespace(spare.device, present)


@pytest.mark.parametrize("protection", [1, 0], ids=["protection-information", "metadata"])
def test_no_token_for_blocks_with_metadata(spare, formatted, moving, protection):
    formatted(protection)
    with opened(spare.device) as fd, Ring() as ring:
        with fails(EOPNOTSUPP):
            ring.register_dmabuf(0, moving, fd)
    assert moving.stats.attaches == 0


def test_a_token_from_before_is_refused(spare, formatted, moving):
    """The device is still open, but its blocks are others."""
    Path(spare.device).write_bytes(CONTENT)
    target = Target(spare.device, CONTENT)
    with Ring() as ring:
        ring.register_dmabuf(0, moving, target.fd)
        read_and_compare(ring, target, moving, (0, MIB, 0))
        formatted(1)
        moving.fill()
        for transfer in ring.read_fixed, ring.write_fixed:
            with fails(EOPNOTSUPP):
                transfer(target.fd, 0, MIB, 0)
        expect_untouched(moving)
        with contextlib.suppress(OSError):
            ring.unregister(0)
        target.close()
    wait_for(lambda: moving.stats.attaches == moving.stats.detaches)
    assert moving.stats.dirty == 0


def test_tokens_again_after_the_metadata_has_gone(spare, formatted, moving):
    formatted(1)
    known, _ = formats(spare.device)
    format_namespace(spare.device, known.index((0, 9)))
    Path(spare.device).write_bytes(CONTENT)
    target = Target(spare.device, CONTENT)
    with Ring() as ring:
        ring.register_dmabuf(0, moving, target.fd)
        read_and_compare(ring, target, moving, (0, MIB, 0))
        target.close()
    wait_for(lambda: moving.stats.attaches == moving.stats.detaches)


def test_a_request_with_metadata_is_refused(spare, formatted, moving):
    """The file was opened when each block had its own; a token has no place for any."""
    formatted(1)
    known, _ = formats(spare.device)
    target = Target(spare.device, CONTENT)
    target.fd   # opens it
    format_namespace(spare.device, known.index((0, 9)))
    Path(spare.device).write_bytes(CONTENT)
    memory = ctypes.create_string_buffer(MIB // 512 * 8)
    information = ctypes.create_string_buffer(struct.pack("=HHIQQQ", 0, 0, len(memory), ctypes.addressof(memory), 0, 0))   # struct io_uring_attr_pi
    for flags in (0, IOPOLL):
        with Ring(flags=flags) as ring:
            ring.register_dmabuf(0, moving, target.fd)
            for transfer in ring.read_fixed, ring.write_fixed:
                with fails(EOPNOTSUPP):
                    transfer(target.fd, 0, MIB, 0, addr3=ctypes.addressof(information), pad=IORING_RW_ATTR_FLAG_PI)
            expect_untouched(moving)
            read_and_compare(ring, target, moving, (0, MIB, 0))
            moving.fill()
    target.close()
    wait_for(lambda: moving.stats.attaches == moving.stats.detaches)
