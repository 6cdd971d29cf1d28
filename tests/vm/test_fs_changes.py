"""Others use the file at the same time: they write through the page cache or a mapping, punch holes, truncate, share its extents."""

import fcntl
import mmap
import os
from errno import EBUSY, EOPNOTSUPP, ENXIO

import pytest

import guest
from token_fixtures import *  # noqa: F403
from token_words import DIRECT, KIB, PUNCH_HOLE, expect, expect_untouched, fails, fallocate, in_background, opened, random_bytes

BLOCK = 4096
A, B, C = (random_bytes(64 * KIB, seed=seed) for seed in (1, 2, 3))
NEW = random_bytes(64 * KIB, seed=9)
ROUNDS = 20

XFS = pytest.mark.parametrize("place", ["xfs", "xfs-mount"], indirect=True, scope="module")


def blocks(data):
    return [bytes(data[i : i + BLOCK]) for i in range(0, len(data), BLOCK)]


def expect_old_or_zero(found, wanted, what):
    """Each block is what it was, or zeros."""
    assert all(block in (old, bytes(BLOCK)) for block, old in zip(blocks(found), blocks(wanted))), what


# While a token is in use


def test_holes_punched_and_filled_while_reading(directory, token, udmabuf):
    path, _ = directory("file", A, B, C)
    read = token(path)
    with opened(directory.backing / "file", os.O_RDWR) as fd:

        def punch():
            fallocate(directory.backing / "file", PUNCH_HOLE, 64 * KIB, 64 * KIB)
            os.pwrite(fd, B, 64 * KIB)
            os.fsync(fd)

        with in_background(punch):
            for number in range(ROUNDS):
                count = read(0, 192 * KIB, 0)
                assert count >= 64 * KIB and count % BLOCK == 0, number
                expect(udmabuf[: 64 * KIB], A)
                expect_old_or_zero(udmabuf[64 * KIB : min(count, 128 * KIB)], B, number)
                assert count < 192 * KIB or udmabuf[128 * KIB : 192 * KIB] == C, number
    assert read(0, 192 * KIB, 0) == 192 * KIB
    expect(udmabuf[: 192 * KIB], A + B + C)


def test_truncated_and_written_again_while_reading(directory, token, udmabuf):
    """Never a byte of somebody else, never one beyond the end."""
    path, _ = directory("file", A, B)
    read = token(path)
    with opened(directory.backing / "file", os.O_RDWR) as fd:

        def truncate():
            os.ftruncate(fd, 64 * KIB)
            os.pwrite(fd, B, 64 * KIB)
            os.fsync(fd)

        with in_background(truncate):
            for number in range(ROUNDS):
                count = read(0, 128 * KIB, 0)
                assert 64 * KIB <= count <= 128 * KIB, number
                expect(udmabuf[: 64 * KIB], A)
                expect_old_or_zero(udmabuf[64 * KIB : count // BLOCK * BLOCK], B, number)
    assert read(0, 128 * KIB, 0) == 128 * KIB
    expect(udmabuf[: 128 * KIB], A + B)


def test_truncated_while_writing(directory, token, udmabuf):
    """What is left is what was written; what was cut off is zeros, or was written later."""
    path, _ = directory("file", A, A)
    write = token(path).write
    udmabuf[: 128 * KIB] = NEW + NEW
    with in_background(lambda: os.truncate(directory.backing / "file", 64 * KIB)):
        for number in range(ROUNDS):
            assert write(0, 128 * KIB, 0) == 128 * KIB, number
    assert write(0, 128 * KIB, 0) == 128 * KIB
    expect((directory.backing / "file").read_bytes(), NEW + NEW)


def test_mapping_that_is_written_to_while_reading(directory, token, udmabuf):
    path, _ = directory("file", A)
    read = token(path)
    with opened(directory.backing / "file", os.O_RDWR) as fd, mmap.mmap(fd, 64 * KIB) as memory:
        with in_background(lambda: memory.__setitem__(5000, memory[5000] ^ 0xFF)):
            for number in range(ROUNDS):
                assert read(0, 64 * KIB, 0) == 64 * KIB
                assert udmabuf[5000] in (A[5000], A[5000] ^ 0xFF), number
                expect(udmabuf[:5000] + udmabuf[5001 : 64 * KIB], A[:5000] + A[5001:])


# The page cache


def test_dirty_pages_are_written_back_before_a_write(directory, token, udmabuf):
    """The write is the later one, so it wins; beside it the pages win."""
    path, _ = directory("file", A)
    write = token(path).write
    udmabuf[: 64 * KIB] = NEW
    with opened(path, os.O_RDWR) as fd:
        os.pwrite(fd, B[: 16 * KIB], 0)
        assert write(0, 4096, 8192) == 4096
        expect(os.pread(fd, 64 * KIB, 0), B[:8192] + NEW[:4096] + B[12288 : 16 * KIB] + A[16 * KIB :])


def test_mapped_pages_see_a_write(directory, token, udmabuf):
    """Or the write says that it could not drop them."""
    path, _ = directory("file", A)
    write = token(path).write
    udmabuf[: 64 * KIB] = NEW
    with opened(path, os.O_RDWR) as fd, mmap.mmap(fd, 64 * KIB) as memory:
        memory[0:4] = b"1234"
        try:
            assert write(0, 4096, 0) == 4096
        except OSError as error:
            assert error.errno == EBUSY
        else:
            expect(memory[:], NEW[:4096] + A[4096:])


def test_what_a_mounted_filesystem_keeps_in_the_cache_of_its_device(nvme, ext4, ring, udmabuf):
    """It would be overwritten behind its back, and there is no page cache to write to instead: the write says so, and does nothing."""
    superblock = 4096   # bytes, from the beginning of the device
    with opened(nvme.device) as fd:
        ring.register_dmabuf(0, udmabuf, fd)
        assert ring.read_fixed(fd, 0, superblock, 0) == superblock
        before = udmabuf[:superblock]
        with fails(EBUSY):
            ring.write_fixed(fd, 0, superblock, 0)
        assert ring.read_fixed(fd, superblock, superblock, 0) == superblock
        expect(udmabuf[superblock : 2 * superblock], before)


# Durability


def test_o_dsync(directory, ring, udmabuf, trace):
    """When the write is done, the device was told to keep it: flushed, or written through its cache."""
    path, _ = directory("file")
    udmabuf[: 64 * KIB] = NEW
    with opened(path, DIRECT | os.O_DSYNC) as fd:
        ring.register_dmabuf(0, udmabuf, fd)
        for to in (0, 0, 64 * KIB):  # a new block, an old one, an append
            with trace("block:block_rq_issue", key="rwbs") as requests:
                assert ring.write_fixed(fd, 0, 64 * KIB, to) == 64 * KIB
            assert any("F" in key for key in map(str, requests.by_key)), (to, requests.by_key)
        ring.unregister(0)
    expect((directory.backing / "file").read_bytes(), NEW + NEW)


# Extents that two files share


@pytest.fixture
def shared(directory):
    """Two files with the same extents: the path of one, and a function for the content of the other."""
    path, _ = directory("file", A, B)
    FICLONE = 0x40049409
    with opened(directory.backing / "file", os.O_RDONLY) as source, opened(directory.backing / "other", os.O_RDWR | os.O_CREAT) as other:
        fcntl.ioctl(other, FICLONE, source)
        os.fsync(other)
    return path, (directory.backing / "other").read_bytes


@XFS
def test_shared_extents_are_read(shared, token, udmabuf):
    path, _ = shared
    assert token(path)(0, 128 * KIB, 0) == 128 * KIB
    expect(udmabuf[: 128 * KIB], A + B)


@XFS
def test_a_write_into_shared_extents_leaves_the_other_file_alone(shared, token, udmabuf, directory):
    path, other = shared
    udmabuf[: 64 * KIB] = NEW
    read = token(path)
    for to in (8 * KIB, 60 * KIB):
        assert read.write(0, 8 * KIB, to) == 8 * KIB
    guest.run("sync", "-f", directory.backing)
    expect(other(), A + B, "the other file")
    with opened(path, os.O_RDONLY) as fd:
        found = os.pread(fd, 128 * KIB, 0)
    wanted = bytearray(A + B)
    wanted[8 * KIB : 16 * KIB] = wanted[60 * KIB : 68 * KIB] = NEW[: 8 * KIB]
    expect(found, bytes(wanted), "the file")
    udmabuf.fill()
    assert read(0, 128 * KIB, 0) == 128 * KIB
    expect(udmabuf[: 128 * KIB], bytes(wanted), "the file by its token")


@XFS
def test_a_part_of_a_shared_block_cannot_be_written(shared, token, udmabuf):
    """The page cache would have to complete the block. A whole one can."""
    path, other = shared
    udmabuf[: 64 * KIB] = NEW
    write = token(path).write
    with fails(EOPNOTSUPP):
        write(0, 512, 512)
    expect(other(), A + B, "the other file")
    with opened(path, os.O_RDONLY) as fd:
        expect(os.pread(fd, 128 * KIB, 0), A + B, "the file")
    assert write(0, 4096, 0) == 4096
    expect(other(), A + B, "the other file")


@XFS
def test_extents_that_become_shared_after_the_registration(directory, token, udmabuf):
    path, _ = directory("file", A)
    write = token(path).write
    guest.run("cp", "--reflink=always", directory.backing / "file", directory.backing / "other")
    udmabuf[: 64 * KIB] = NEW
    assert write(0, 64 * KIB, 0) == 64 * KIB
    expect((directory.backing / "other").read_bytes(), A)
    expect((directory.backing / "file").read_bytes(), NEW)


@XFS
def test_a_hole_in_a_shared_file(directory, token, udmabuf):
    path, _ = directory("file", A, 64 * KIB, B)
    guest.run("cp", "--reflink=always", directory.backing / "file", directory.backing / "other")
    read = token(path)
    assert read(0, 192 * KIB, 0) == 64 * KIB
    with fails(ENXIO):
        read(64 * KIB, 4096, 64 * KIB)
    expect_untouched(udmabuf, 64 * KIB)
