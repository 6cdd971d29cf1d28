"""What a file may look like when it is read: holes, ends, changes behind the token's back. On ext4 and XFS,
directly and through the server.

Holes: a read ends short at the first hole, and one that starts in a hole fails with ENXIO. The kernel cannot fill in
zeros, because not every buffer can be written to by the CPU; the library does, by the exporter's own means.
"""

import mmap
import os
import re
from errno import EFAULT, ENXIO, EOPNOTSUPP

import pytest

import guest
from token_fixtures import *  # noqa: F403
from token_words import (
    BUFFER_SIZE, COLLAPSE_RANGE, GIB, KIB, MIB, PUNCH_HOLE, expect, expect_untouched, extents, fails, fallocate, make_file, opened, random_bytes,
)  # fmt: skip

BLOCK = 4096  # of the filesystem; the device's are 512 bytes
A, B = random_bytes(64 * KIB, seed=1), random_bytes(64 * KIB, seed=2)


# Holes


def test_read_ends_at_a_hole(directory, token, udmabuf):
    path, _ = directory("file", A, 64 * KIB, B)
    assert token(path)(0, 192 * KIB, 0) == 64 * KIB
    expect(udmabuf[: 64 * KIB], A)
    expect_untouched(udmabuf, 64 * KIB)


def test_read_that_starts_in_a_hole(directory, token, udmabuf):
    path, _ = directory("file", A, 64 * KIB, B)
    read = token(path)
    for start, length in (64, 4), (64, 128), (100, 28), (124, 4), (124, 68):
        with fails(ENXIO, what=(start, length)):
            read(0, length * KIB, start * KIB)
    expect_untouched(udmabuf)


def test_bytes_after_a_hole_are_where_they_belong(directory, token, udmabuf):
    path, _ = directory("file", A, 64 * KIB, B)
    read = token(path)
    assert read(128 * KIB, 64 * KIB, 128 * KIB) == 64 * KIB
    expect(udmabuf[128 * KIB : 192 * KIB], B)
    expect_untouched(udmabuf, 0, 128 * KIB)
    expect_untouched(udmabuf, 192 * KIB)


def test_a_file_with_holes_is_read_piece_by_piece(directory, token, udmabuf):
    """As the library does it: what the kernel reports is enough to find every piece."""
    path, content = directory("file", A, BLOCK, B, 300 * KIB, A, 64 * KIB)
    read, place = token(path), 0
    udmabuf[: len(content)] = bytes(len(content))
    while place < len(content):
        try:
            place += read(place, len(content) - place, place)
        except OSError as error:
            assert error.errno == ENXIO
            place += BLOCK
    expect(udmabuf[: len(content)], content)


def test_hole_at_the_beginning_and_at_the_end(directory, token, udmabuf):
    path, _ = directory("file", 64 * KIB, A, 64 * KIB)
    read = token(path)
    with fails(ENXIO):
        read(0, 4 * KIB, 0)
    assert read(0, 128 * KIB, 64 * KIB) == 64 * KIB
    with fails(ENXIO):
        read(0, 4 * KIB, 128 * KIB)


def test_file_that_is_one_hole(directory, token, udmabuf):
    path, _ = directory("file", MIB)
    read = token(path)
    with fails(ENXIO):
        read(0, MIB, 0)
    assert read(0, 4096, MIB) == 0
    expect_untouched(udmabuf)


def test_unwritten_extents_are_holes(directory, token, udmabuf):
    path, _ = directory("file", A)
    with opened(directory.backing / "file", os.O_RDWR) as fd:
        os.posix_fallocate(fd, 64 * KIB, 64 * KIB)
        os.fsync(fd)
    read = token(path)
    assert read(0, 128 * KIB, 0) == 64 * KIB
    expect(udmabuf[: 64 * KIB], A)
    expect_untouched(udmabuf, 64 * KIB)
    with fails(ENXIO):
        read(0, 4 * KIB, 96 * KIB)


def test_hole_punched_after_the_registration(directory, token, udmabuf):
    path, _ = directory("file", A, B)
    read = token(path)
    assert read(0, 128 * KIB, 0) == 128 * KIB
    fallocate(directory.backing / "file", PUNCH_HOLE, 32 * KIB, 32 * KIB)
    udmabuf.fill()
    assert read(0, 128 * KIB, 0) == 32 * KIB
    with fails(ENXIO):
        read(64 * KIB, 4 * KIB, 32 * KIB)
    expect(udmabuf[: 32 * KIB], A[: 32 * KIB])
    expect_untouched(udmabuf, 32 * KIB)


def test_hole_of_one_block_between_many(directory, token, udmabuf):
    """Extents shorter than a request, in one command's reach."""
    parts = [part for i in range(32) for part in (random_bytes(BLOCK, seed=i), BLOCK)]
    path, content = directory("file", *parts)
    read = token(path)
    for i in range(0, 64, 2):
        assert read(i * BLOCK, 256 * KIB, i * BLOCK) == BLOCK
        expect(udmabuf[i * BLOCK : (i + 1) * BLOCK], content[i * BLOCK : (i + 1) * BLOCK])
        expect_untouched(udmabuf, (i + 1) * BLOCK, (i + 2) * BLOCK)


# The end of the file


def test_the_end_in_the_middle_of_a_block(directory, token, udmabuf):
    for size in (1, 511, 512, 513, 4095, 4096, 4097, 10000, MIB + 1):
        path, content = directory(f"{size}", random_bytes(2 * MIB)[:size])
        udmabuf.fill()
        assert token(path)(0, 2 * MIB, 0) == size
        expect(udmabuf[:size], content)
        expect_untouched(udmabuf, -(-size // BLOCK) * BLOCK)


def test_reads_before_at_and_beyond_the_end(directory, token, udmabuf):
    path, content = directory("file", random_bytes(10000))
    read = token(path)
    assert read(0, 4096, 8192) == 10000 - 8192
    expect(udmabuf[: 10000 - 8192], content[8192:])
    udmabuf.fill()
    assert read(0, 512, 9728) == 10000 - 9728
    assert read(4096, 4096, 10240) == 0
    assert read(4096, 4096, 12288) == 0
    assert read(4096, 4096, 1 << 40) == 0
    expect_untouched(udmabuf, 4096)


def test_empty_file(directory, token, udmabuf):
    path, _ = directory("file")
    read = token(path)
    assert read(0, 4096, 0) == 0
    assert read(0, 4096, MIB) == 0
    expect_untouched(udmabuf)


def test_end_of_file_is_no_excuse_for_a_place_outside_the_buffer(directory, token):
    path, _ = directory("file", A)
    read = token(path)
    with fails(EFAULT):
        read(BUFFER_SIZE - 4096, 8192, 60 * KIB)


def test_file_truncated_after_the_registration(directory, token, udmabuf):
    path, content = directory("file", A)
    read = token(path)
    assert read(0, 64 * KIB, 0) == 64 * KIB
    for size in (16 * KIB, 5000, 1, 0):
        udmabuf.fill()
        os.truncate(path, size)
        assert read(0, 64 * KIB, 0) == size
        expect(udmabuf[:size], content[:size])
        expect_untouched(udmabuf, -(-size // BLOCK) * BLOCK)


def test_file_truncated_and_extended_again(directory, token, udmabuf):
    """Nothing of the old content comes back."""
    path, content = directory("file", A)
    read = token(path)
    os.truncate(path, 5000)
    os.truncate(path, 64 * KIB)
    assert read(0, 64 * KIB, 0) == 8192
    expect(udmabuf[:8192], content[:5000] + bytes(8192 - 5000))
    with fails(ENXIO):
        read(0, 4096, 8192)


def test_file_that_grew_after_the_registration(directory, token, udmabuf):
    path, _ = directory("file", A)
    read = token(path)
    with open(path, "ab") as file:
        file.write(B)
    assert read(0, 128 * KIB, 0) == 128 * KIB
    expect(udmabuf[: 128 * KIB], A + B)


# Where the data lies


def test_file_of_many_extents(directory, token, udmabuf):
    """Every second piece of a file in one piece is taken out."""
    piece = 32 * KIB
    path, content = directory("file", random_bytes(2 * MIB))
    for start in reversed(range(0, 2 * MIB, 2 * piece)):
        fallocate(directory.backing / "file", COLLAPSE_RANGE, start, piece)
    content = b"".join(content[start + piece : start + 2 * piece] for start in range(0, 2 * MIB, 2 * piece))
    assert len(extents(directory.backing / "file")) > 30
    read = token(path)
    assert read(0, MIB, 0) == MIB
    expect(udmabuf[:MIB], content)
    assert read(MIB, 512 * KIB, 33 * KIB) == 512 * KIB
    expect(udmabuf[MIB : MIB + 512 * KIB], content[33 * KIB : 33 * KIB + 512 * KIB])


def test_offsets_beyond_32_bits(directory, token, udmabuf):
    path, _ = directory("file")
    read = token(path)
    for place in (4 * GIB - 64 * KIB, 5 * GIB + BLOCK, 1 << 40):
        with opened(directory.backing / "file", os.O_RDWR) as fd:
            os.pwrite(fd, A + B, place)
            os.fsync(fd)
        udmabuf.fill()
        assert read(64 * KIB, 128 * KIB, place) == 128 * KIB
        expect(udmabuf[64 * KIB : 192 * KIB], A + B)


def test_the_same_low_32_bits_of_two_offsets(directory, token, udmabuf):
    path, _ = directory("file", A)
    with opened(directory.backing / "file", os.O_RDWR) as fd:
        os.pwrite(fd, B, 4 * GIB)
        os.fsync(fd)
    read = token(path)
    assert read(0, 64 * KIB, 4 * GIB) == read(64 * KIB, 64 * KIB, 0) == 64 * KIB
    expect(udmabuf[: 128 * KIB], B + A)


# Others who write


def test_data_still_in_the_page_cache(directory, token, udmabuf):
    path, _ = directory("file", A, A)
    read = token(path)
    with opened(path, os.O_RDWR) as fd:
        os.pwrite(fd, B, 10000)
        assert read(0, 128 * KIB, 0) == 128 * KIB
    expect(udmabuf[: 128 * KIB], A[:10000] + B + (A + A)[10000 + 64 * KIB :])


def test_data_written_by_mmap(directory, token, udmabuf):
    path, _ = directory("file", A)
    read = token(str(path))
    with opened(directory.backing / "file", os.O_RDWR) as fd, mmap.mmap(fd, 64 * KIB) as memory:
        memory[5000:5010] = b"0123456789"
        assert read(0, 64 * KIB, 0) == 64 * KIB
    expect(udmabuf[: 64 * KIB], A[:5000] + b"0123456789" + A[5010:])


def test_file_unlinked_after_the_registration(directory, token, udmabuf):
    path, content = directory("file", A)
    read = token(path)
    os.unlink(directory.backing / "file")
    assert read(0, 64 * KIB, 0) == 64 * KIB
    expect(udmabuf[: 64 * KIB], content)


# Ways of storing a file that have no blocks to read


@pytest.fixture
def mounted(disk, tmp_path, request):
    """mounted(mkfs command, mount options): another file system on the device for the duration of a test."""

    def make(mkfs, *mount):
        guest.run(*mkfs.split(), disk, *(["2G"] if "ext4" in mkfs else []))  # a larger one takes longer
        guest.run("mount", *mount, disk, tmp_path)
        request.addfinalizer(lambda: guest.unmount(tmp_path))
        return tmp_path

    return make


def test_filesystem_that_keeps_all_data_in_the_journal(mounted, token):
    root = mounted("mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=1,lazy_journal_init=1", "-o", "data=journal,noinit_itable")
    make_file(root / "file", A)
    with fails(EOPNOTSUPP):
        token(root / "file")


@pytest.mark.parametrize("mkfs", ["ext4 -q -F -b 1024", "ext4 -q -F -b 2048", "xfs -q -f -K -b size=1024"])
def test_small_blocks(mounted, token, udmabuf, mkfs):
    block = int(re.search("1024|2048", mkfs)[0])
    root = mounted(f"mkfs.{mkfs}")
    content = make_file(root / "file", A, block, B, random_bytes(block // 2 + 1))
    read = token(root / "file")
    assert read(0, MIB, 0) == 64 * KIB
    assert read(64 * KIB + block, MIB, 64 * KIB + block) == len(content) - 64 * KIB - block
    expect(udmabuf[: 64 * KIB], A)
    expect(udmabuf[64 * KIB + block : len(content)], content[64 * KIB + block :])
    expect_untouched(udmabuf, 64 * KIB, 64 * KIB + block)
    expect_untouched(udmabuf, -(-len(content) // block) * block)


def test_file_without_extents(mounted, token, udmabuf):
    """The block map of ext3."""
    root = mounted("mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 -O ^extents,^64bit", "-o", "noinit_itable")
    content = make_file(root / "file", random_bytes(MIB))
    assert token(root / "file")(0, MIB, 0) == MIB
    expect(udmabuf[:MIB], content)
