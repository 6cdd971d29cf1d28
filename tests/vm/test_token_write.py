"""Registered dma-bufs are written to files by DMA."""

import contextlib
import os
import random
import threading
from errno import EACCES, EBADF, EINVAL

import pytest

import guest
from token_fixtures import *  # noqa: F403
from token_words import (
    BUFFER_SIZE, GIB, KIB, MIB, attachments, expect, fails, in_background, make_file, on_disk, opened,
    random_bytes, set_direct, wait_for,
)  # fmt: skip
from uring import DEFER_TASKRUN, NOP, READ_FIXED, SINGLE_ISSUER, SQPOLL, WRITE_FIXED, Ring

NEW = random_bytes(BUFFER_SIZE, seed=9)
A = random_bytes(64 * KIB, seed=1)


def write_and_compare(ring, front, buffer, where, slot=0):
    """One write of (buffer offset, length, file offset): these bytes change and no others."""
    start, length, to = where
    assert ring.write_fixed(front.fd, start, length, front.base + to, slot) == length, where
    wanted = bytearray(front.content)
    wanted[to : to + length] = buffer[start : start + length]
    front.content = bytes(wanted)
    expect(on_disk(front), front.content, f"file after write {where}")


PLACES = [
    (0, 4096, 0),
    (4096, 512, 512),
    (512, 4096, 1024),
    (1536, 16384, 65536),
    (64 * KIB, 512 * KIB, 4096),
    (4096 + 512, MIB + 512, 512),
    (MIB - 512, 512 * KIB + 1024, BUFFER_SIZE - MIB),
    (0, BUFFER_SIZE, 0),
]


def test_writes_arrive_at_any_place(ring, target, bar):
    check_all_places(ring, target, bar)


def test_writes_of_every_kind_of_buffer(ring, file, buffer):
    check_all_places(ring, file, buffer)


def check_all_places(ring, target, buffer):
    buffer[:] = NEW
    ring.register_dmabuf(0, buffer, target.fd)
    for where in PLACES:
        write_and_compare(ring, target, buffer, where)
    expect(buffer[:], NEW, "the buffer")


@pytest.mark.parametrize(
    "front, flags", [("ext4", 0), ("ext4", SQPOLL), ("fuse", SINGLE_ISSUER | DEFER_TASKRUN)], indirect=["front"]
)
def test_many_writes_at_once(front, moving, flags):
    size = BUFFER_SIZE // 64
    moving[:] = NEW
    with Ring(64, flags) as ring:
        ring.register_dmabuf(0, moving, front.fd)
        numbers = [ring.prepare(WRITE_FIXED, front.fd, i * size, size, front.base + (63 - i) * size) for i in range(64)]
        ring.submit()
        assert ring.wait_all(64) == dict.fromkeys(numbers, size)
    expect(on_disk(front), b"".join(NEW[i * size : (i + 1) * size] for i in reversed(range(64))))


def test_moves_under_writes(ring, front, moving):
    """Never the poison of memory that was left, never a lost write."""
    chance, content, size = random.Random(5), bytearray(front.content), 16 * KIB
    moving[:] = NEW
    ring.register_dmabuf(0, moving, front.fd)
    with in_background(moving.move):
        while moving.stats.moves < 10:
            places = chance.sample(range(BUFFER_SIZE // size), 32)
            numbers = []
            for i, place in enumerate(places):
                start = chance.randrange(BUFFER_SIZE // size) * size
                numbers.append(ring.prepare(WRITE_FIXED, front.fd, start, size, front.base + place * size))
                content[place * size : (place + 1) * size] = NEW[start : start + size]
            ring.submit()
            assert ring.wait_all(32) == dict.fromkeys(numbers, size)
    assert moving.stats.dirty == 0
    expect(on_disk(front), bytes(content))


def test_a_pipelined_move_before_a_write(ring, front, moving):
    moving[:] = NEW
    ring.register_dmabuf(0, moving, front.fd)
    for i in range(3):
        moving.move(fence_ms=100)
        write_and_compare(ring, front, moving, (i * 512 * KIB, MIB, 0))


def test_written_bytes_are_counted(front, moving, nvme, trace):
    with trace("dmabuf_token:dmabuf_token_release", sums=["requests", "write_bytes"]) as released:
        with Ring() as ring:
            ring.register_dmabuf(0, moving, front.fd)
            ring.write_fixed(front.fd, 0, MIB, front.base)
            ring.write_fixed(front.fd, 0, 4096, front.base)
        wait_for(lambda: not attachments())
    assert released.sums == {"requests": MIB // nvme.max_transfer + 1, "write_bytes": MIB + 4096}


@contextlib.contextmanager
def frozen(directory, seconds=20):
    """Ends by itself when the block cannot; tells whether it has not."""
    guest.run("fsfreeze", "--freeze", directory)
    thaw = threading.Timer(seconds, guest.run, ("fsfreeze", "--unfreeze", directory))
    thaw.start()
    try:
        yield thaw.is_alive
    finally:
        thaw.cancel()
        thaw.join()
        with contextlib.suppress(RuntimeError):
            guest.run("fsfreeze", "--unfreeze", directory)


def test_a_write_that_waits_for_the_thaw_holds_up_nothing_behind_it(ring, front, udmabuf, ext4):
    ring.register_dmabuf(0, udmabuf, front.fd)
    ring.write_fixed(front.fd, 0, 4096, front.base)  # the next one need not look for privileges to remove
    with frozen(ext4) as still:
        write, other = ring.prepare(WRITE_FIXED, front.fd, 0, 64 * KIB, front.base), ring.prepare(NOP)
        ring.submit()
        assert ring.wait().user_data == other and still()
        with pytest.raises(TimeoutError):
            ring.wait(0.5)
    assert ring.wait() == (write, 64 * KIB)


# Refusals


def test_file_opened_for_reading_only(ring, front, udmabuf):
    fd = front.open(os.O_RDONLY | os.O_DIRECT)
    ring.register_dmabuf(0, udmabuf, fd)
    with fails(EACCES):
        ring.write_fixed(fd, 0, 4096, front.base)
    expect(on_disk(front), front.content)


def test_another_file(ring, front, udmabuf, ext4):
    make_file(ext4 / "other", A)
    ring.register_dmabuf(0, udmabuf, front.fd)
    with opened(ext4 / "other") as other, fails(EBADF):
        ring.write_fixed(other, 0, 4096, 0)
    assert (ext4 / "other").read_bytes() == A


def test_not_in_whole_blocks(ring, front, udmabuf):
    ring.register_dmabuf(0, udmabuf, front.fd)
    for length, to in (511, 0), (1, 0), (4096, 1), (513, 512), (4097, 0):
        with fails(EINVAL, what=(length, to)):
            ring.write_fixed(front.fd, 0, length, front.base + to)
    expect(on_disk(front), front.content)


def test_o_direct_cleared_later(ring, front, udmabuf):
    ring.register_dmabuf(0, udmabuf, front.fd)
    set_direct(front.fd, False)
    for length in (4096, MIB):
        with fails(EINVAL):
            ring.write_fixed(front.fd, 0, length, front.base)
    expect(on_disk(front), front.content)


# Files that change their shape


@pytest.fixture
def written(ring, udmabuf):
    """written(path, buffer offset, length, file offset), and what the file holds then."""
    udmabuf[:] = NEW

    def write(path, start, length, to):
        with opened(path) as fd:
            ring.register_dmabuf(0, udmabuf, fd)
            count = ring.write_fixed(fd, start, length, to)
            ring.unregister(0)
        assert count == length
        with open(path, "rb") as file:
            return file.read()

    return write


def test_moves_under_writes_of_parts_of_blocks(directory, moving):
    """Over many extents, of which some have been written when the memory moves: each byte arrives where it belongs."""
    extents, size, length = 12, 128 * KIB, 512 * KIB
    path, _ = directory("file")
    with opened(path, os.O_RDWR) as fd, open(directory("between")[0], "r+b") as between:
        for i in range(extents):
            os.posix_fallocate(fd, i * size, size)
            os.posix_fallocate(between.fileno(), i * size, size)
        content = bytearray(os.urandom(extents * size))
        os.pwrite(fd, content, 0)
        os.fsync(fd)
    moving[:] = NEW
    chance = random.Random(7)
    with opened(path) as fd, Ring(32) as ring, in_background(moving.move):
        ring.register_dmabuf(0, moving, fd)
        for _ in range(20):
            numbers = []
            for first in (0, 6 * size):  # two that do not meet
                to = first + 512 * chance.randrange(1, 256) + 1024 * (first > 0)
                start = 512 * chance.randrange(1, 1024)
                numbers.append(ring.prepare(WRITE_FIXED, fd, start, length, to))
                content[to : to + length] = NEW[start : start + length]
            # these find the memory again, at the wrong moment for the writes
            reads = [ring.prepare(READ_FIXED, fd, MIB + i * 64 * KIB, 64 * KIB, i * 64 * KIB) for i in range(16)]
            ring.submit()
            assert ring.wait_all(18) == dict.fromkeys(numbers, length) | dict.fromkeys(reads, 64 * KIB)
    with open(path, "rb") as file:
        expect(file.read(), bytes(content))
    assert moving.stats.dirty == 0


def test_append(directory, written):
    path, content = directory("file", A)
    expect(written(path, 0, 128 * KIB, 64 * KIB), A + NEW[: 128 * KIB])
    assert os.stat(path).st_size == 192 * KIB


def test_across_the_end(directory, written):
    path, content = directory("file", A[:10000])
    expect(written(path, 0, 64 * KIB, 8192), A[:8192] + NEW[: 64 * KIB])


def test_far_beyond_the_end(directory, written):
    path, content = directory("file", A[:10000])
    expect(written(path, 4096, 4096, 64 * KIB), A[:10000] + bytes(64 * KIB - 10000) + NEW[4096:8192])


def test_into_a_hole(directory, written):
    path, content = directory("file", A, 64 * KIB, A)
    expect(written(path, 0, 8 * KIB, 96 * KIB), A + bytes(32 * KIB) + NEW[: 8 * KIB] + bytes(24 * KIB) + A)


def test_parts_of_blocks_into_a_hole(directory, written):
    """The rest of the block must read as zeros, not as what the disk held before."""
    for length, to in (512, 64 * KIB), (512, 70 * KIB), (1024, 68 * KIB - 512), (4096 + 512, 72 * KIB):
        path, content = directory(f"{to}", A, 64 * KIB, A)
        wanted = bytearray(content)
        wanted[to : to + length] = NEW[:length]
        expect(written(path, 0, length, to), bytes(wanted))


def test_into_unwritten_extents(directory, written):
    path, content = directory("file", A)
    with opened(directory.backing / "file", os.O_RDWR) as fd:
        os.posix_fallocate(fd, 64 * KIB, 64 * KIB)
    expect(written(path, 0, 512, 100 * KIB), A + bytes(36 * KIB) + NEW[:512] + bytes(28 * KIB - 512))


def test_offsets_beyond_32_bits(directory, ring, udmabuf):
    path, _ = directory("file", A)
    udmabuf[:] = NEW
    with opened(path) as fd:
        ring.register_dmabuf(0, udmabuf, fd)
        assert ring.write_fixed(fd, 0, MIB, 4 * GIB) == MIB
        assert os.fstat(fd).st_size == 4 * GIB + MIB
    with opened(path, os.O_RDONLY) as fd:
        expect(os.pread(fd, MIB, 4 * GIB), NEW[:MIB])
        expect(os.pread(fd, 64 * KIB, 0), A)


def test_page_cache_sees_what_was_written(directory, ring, udmabuf):
    path, content = directory("file", A)
    udmabuf[:] = NEW
    with opened(path, os.O_RDONLY) as cached, opened(path) as fd:
        expect(os.pread(cached, 64 * KIB, 0), A)
        ring.register_dmabuf(0, udmabuf, fd)
        assert ring.write_fixed(fd, 0, 4096, 8192) == 4096
        expect(os.pread(cached, 64 * KIB, 0), A[:8192] + NEW[:4096] + A[12288:])
