"""Files are read by DMA into registered dma-bufs."""

import random
from errno import EINVAL

import pytest

from dmabuf import TestBuffer
from token_fixtures import *  # noqa: F403
from token_words import (
    BUFFER_SIZE, GIB, KIB, MIB, Target, attachments, expect, make_file, random_bytes, read_and_compare, wait_for,
)  # fmt: skip
from uring import DEFER_TASKRUN, IOSQE_ASYNC, IOSQE_IO_DRAIN, IOSQE_IO_LINK, READ_FIXED, SINGLE_ISSUER, SQPOLL, Ring

# (buffer offset, length, file offset). The device takes at most 512 KiB at once and has blocks of 512 bytes.
PLACES = [
    (0, 4096, 0),
    (4096, 512, 512),
    (8192, 8192, 4096),
    (0, 12288, 8192),
    (512, 4096, 1024),
    (1536, 16384, 65536),
    (3584, 1024, 2048),
    (0, 128 * KIB, 0),
    (64 * KIB, 512 * KIB, 4096),
    (0, MIB, MIB),
    (4096 + 512, MIB + 512, 512),
    (MIB - 512, 512 * KIB + 1024, BUFFER_SIZE - MIB),
    (0, BUFFER_SIZE - 512 * KIB, 0),
    (BUFFER_SIZE - 512, 512, 0),
    (0, BUFFER_SIZE, 0),
]


def test_reads_arrive_at_any_place(ring, target, buffer):
    ring.register_dmabuf(0, buffer, target.fd)
    for where in PLACES:
        read_and_compare(ring, target, buffer, where)


def random_place(chance, size):
    """A place in whole sectors that ends within the buffer and the file."""
    length = 512 * chance.choice([1, 2, 7, 8, 9, 64, 255, 256, 1023, 1024, 1025, 2500])
    return 512 * chance.randrange((size - length) // 512), length, 512 * chance.randrange((size - length) // 512)


def test_reads_arrive_at_random_places(ring, front, moving):
    ring.register_dmabuf(0, moving, front.fd)
    chance = random.Random(7)
    for _ in range(60):
        read_and_compare(ring, front, moving, random_place(chance, BUFFER_SIZE))


def test_segments_of_any_size(ring, file):
    for chunk_order in (0, 1, 4, 9):
        with TestBuffer(BUFFER_SIZE, chunk_order) as buffer:
            ring.register_dmabuf(0, buffer, file.fd)
            read_and_compare(ring, file, buffer, (0, BUFFER_SIZE, 0))
            read_and_compare(ring, file, buffer, (2048, 1024 * KIB, 512))
            assert buffer.stats.segments == BUFFER_SIZE >> 12 >> chunk_order


def test_buffer_offset_that_is_no_multiple_of_the_block(ring, file, udmabuf):
    """The device may be able to or not; either way nothing lands beside the place."""
    ring.register_dmabuf(0, udmabuf, file.fd)
    for offset in (1, 4, 100, 4095):
        try:
            read_and_compare(ring, file, udmabuf, (offset, 16 * KIB, 0))
        except OSError as error:
            assert error.errno == EINVAL
    read_and_compare(ring, file, udmabuf, (0, 16 * KIB, 0))


@pytest.mark.parametrize("flags", [0, SINGLE_ISSUER | DEFER_TASKRUN, SQPOLL], ids=["plain", "defer-taskrun", "sqpoll"])
def test_many_reads_at_once(file, moving, flags):
    with Ring(64, flags) as ring:
        ring.register_dmabuf(0, moving, file.fd)
        for sqe_flags in (0, IOSQE_ASYNC, IOSQE_IO_LINK, IOSQE_IO_DRAIN):
            moving.fill()
            read_64_at_once(ring, file, moving, sqe_flags)


def test_many_reads_at_once_from_every_kind_of_file(ring, target, moving):
    ring.register_dmabuf(0, moving, target.fd)
    read_64_at_once(ring, target, moving, 0)


def read_64_at_once(ring, target, buffer, sqe_flags, size=16 * KIB):
    """Each request has a place of its own."""
    numbers = []
    for i in range(64):
        more = 0 if i == 63 else sqe_flags
        numbers.append(ring.prepare(READ_FIXED, target.fd, i * size, size, target.base + (63 - i) * size, flags=more))
    ring.submit()
    assert ring.wait_all(64) == dict.fromkeys(numbers, size)
    for i in range(64):
        expect(buffer[i * size : (i + 1) * size], target.content[(63 - i) * size : (64 - i) * size], f"request {i}")


def test_contiguous_memory_is_read_by_commands_as_large_as_the_device_allows(ring, target, nvme, trace):
    with TestBuffer(BUFFER_SIZE, chunk_order=9) as buffer:
        ring.register_dmabuf(0, buffer, target.fd)
        with trace("nvme:nvme_setup_cmd", key="opcode", where="qid > 0 && opcode == 2") as commands:
            assert ring.read_fixed(target.fd, 0, BUFFER_SIZE, target.base) == BUFFER_SIZE
        assert commands.hits == BUFFER_SIZE // nvme.max_transfer
        expect(buffer[:], target.content)


def test_single_pages_need_no_more_commands_than_contiguous_memory(ring, file, nvme, trace):
    """PRP lists take any page."""
    with TestBuffer(BUFFER_SIZE, chunk_order=0) as buffer:
        ring.register_dmabuf(0, buffer, file.fd)
        with trace("nvme:nvme_setup_cmd", key="opcode", where="qid > 0 && opcode == 2") as commands:
            assert ring.read_fixed(file.fd, 0, BUFFER_SIZE, 0) == BUFFER_SIZE
        assert commands.hits == BUFFER_SIZE // nvme.max_transfer


@pytest.mark.parametrize("target", ["fuse", "mount"], indirect=True)
def test_the_fuse_server_sees_nothing_of_the_reads(ring, target, moving, trace):
    ring.register_dmabuf(0, moving, target.fd)
    ring.read_fixed(target.fd, 0, 4096, 0)  # io_uring asks each connection once, whether it supports poll
    with trace("fuse:fuse_request_send", key="opcode") as requests:
        for i in range(50):
            assert ring.read_fixed(target.fd, 0, 32 * KIB, i * 32 * KIB) == 32 * KIB
    assert requests.by_key == {}


def test_one_map_serves_all_reads(ring, front, moving):
    ring.register_dmabuf(0, moving, front.fd)
    for i in range(50):
        ring.read_fixed(front.fd, 0, 32 * KIB, front.base + i * 32 * KIB)
    assert (moving.stats.attaches, moving.stats.maps, moving.stats.unmaps) == (1, 1, 0)


def test_the_token_counts_its_requests_and_bytes(front, moving, nvme, trace):
    """Requests as the device gets them: 1 MiB is several."""
    with trace("dmabuf_token:dmabuf_token_release", sums=["requests", "read_bytes"]) as released:
        with Ring() as ring:
            ring.register_dmabuf(0, moving, front.fd)
            for _ in range(10):
                ring.read_fixed(front.fd, 0, 8192, front.base)
            ring.read_fixed(front.fd, 0, MIB, front.base)
        wait_for(lambda: not attachments())
    assert released.hits == 1
    assert released.sums == {"requests": 10 + MIB // nvme.max_transfer, "read_bytes": 10 * 8192 + MIB}


def test_buffer_of_more_than_4_gib(ring, file):
    """Only 8 MiB of memory are behind it, again and again."""
    size = 6 * GIB
    with TestBuffer(size, chunk_order=10, backed=8 * MIB) as buffer:
        ring.register_dmabuf(0, buffer, file.fd)
        for to in (0, 5 * GIB, 4 * GIB - 64 * KIB, size - MIB):
            buffer[0 : 8 * MIB] = bytes(8 * MIB)
            assert ring.read_fixed(file.fd, to, MIB, 0) == MIB
            assert buffer.stats.maps == 1
            expect(buffer[to : to + MIB], file.content[:MIB], f"read to {to}")


def test_one_buffer_for_several_files_and_rings(ext4, moving):
    files = [Target(ext4 / f"{i}", make_file(ext4 / f"{i}", random_bytes(256 * KIB, seed=i))) for i in range(4)]
    try:
        with Ring() as first, Ring() as second:
            for i, file in enumerate(files):
                (first, second)[i % 2].register_dmabuf(i, moving, file.fd)
            for i, file in enumerate(files):
                read_and_compare((first, second)[i % 2], file, moving, (i * 512 * KIB, 256 * KIB, 0), slot=i)
    finally:
        for file in files:
            file.close()
