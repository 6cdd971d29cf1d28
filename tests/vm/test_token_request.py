"""Requests on a registered dma-buf that must fail: each leaves the buffer untouched and the token usable. Those for many places: test_token_vectors.py."""

import contextlib
import ctypes
import mmap
import os
import socket
import struct
from errno import EACCES, EBADF, EFAULT, EINVAL, EOPNOTSUPP

import pytest

from dmabuf import Udmabuf
from token_fixtures import *  # noqa: F403
from token_words import (
    BUFFER_SIZE, KIB, MIB, expect, expect_untouched, fails, opened, random_bytes, read_and_compare, set_direct,
)  # fmt: skip
from uring import (
    IOSQE_FIXED_FILE, READ, RECVSEND_FIXED_BUF, SEND_ZC, SQE128, URING_CMD, URING_CMD_FIXED, Ring,
)  # fmt: skip


@pytest.fixture
def token(ring, file, udmabuf):
    """The ring, with `udmabuf` registered for `file` in slot 0. Afterwards it still works."""
    ring.register_dmabuf(0, udmabuf, file.fd)
    yield ring
    expect_untouched(udmabuf)
    read_and_compare(ring, file, udmabuf, (0, 64 * KIB, 4096))


# The file


def test_another_file(token, file, ext4):
    (ext4 / "other").write_bytes(random_bytes(MIB, seed=2))
    with opened(ext4 / "other") as other, fails(EBADF):
        token.read_fixed(other, 0, 4096, 0)


def test_the_same_path_opened_again(token, file):
    """Rights belong to the open file."""
    with fails(EBADF):
        token.read_fixed(file.open(), 0, 4096, 0)


def test_another_kind_of_file(token, nvme):
    for path in ("/dev/zero", nvme.device):
        with opened(path, os.O_RDONLY) as other, fails(EBADF, what=path):
            token.read_fixed(other, 0, 4096, 0)


def test_a_duplicated_descriptor_is_the_same_file(token, file, udmabuf):
    again = os.dup(file.fd)
    assert token.read_fixed(again, 0, 4096, 0) == 4096
    expect(udmabuf[:4096], file.content[:4096])
    os.close(again)
    udmabuf.fill()


def test_the_same_file_as_a_registered_one(token, file, ext4, udmabuf):
    (ext4 / "other").write_bytes(random_bytes(MIB, seed=2))
    with opened(ext4 / "other") as other:
        token.register_files(file.fd, other)
        assert token.read_fixed(0, 0, 4096, 0, flags=IOSQE_FIXED_FILE) == 4096
        expect(udmabuf[:4096], file.content[:4096])
        udmabuf.fill()
        with fails(EBADF):
            token.read_fixed(1, 0, 4096, 0, flags=IOSQE_FIXED_FILE)


def test_the_fuse_files_backing_file(ring, udmabuf, fuse, ext4):
    """A token made through FUSE is none for the file behind it, nor the other way round."""
    (ext4 / "data").write_bytes(random_bytes(MIB))
    with opened(fuse.path("data")) as front, opened(ext4 / "data") as behind:
        ring.register_dmabuf(0, udmabuf, front)
        ring.register_dmabuf(1, udmabuf, behind)
        with fails(EBADF):
            ring.read_fixed(behind, 0, 4096, 0, slot=0)
        with fails(EBADF):
            ring.read_fixed(front, 0, 4096, 0, slot=1)
        expect_untouched(udmabuf)
        assert ring.read_fixed(front, 0, 4096, 0, slot=0) == ring.read_fixed(behind, 4096, 4096, 0, slot=1) == 4096


def test_file_opened_for_writing_only(ring, file, udmabuf):
    fd = file.open(os.O_WRONLY | os.O_DIRECT)
    ring.register_dmabuf(0, udmabuf, fd)
    with fails(EACCES):
        ring.read_fixed(fd, 0, 4096, 0)
    expect_untouched(udmabuf)


# The place


OUTSIDE = [
    (BUFFER_SIZE, 512), (BUFFER_SIZE - 512, 1024), (BUFFER_SIZE - 4096, 64 * KIB), (0, BUFFER_SIZE + 512), (4096, BUFFER_SIZE),
    (2**32, 4096), (2**63, 4096), (2**64 - 4096, 4096), (2**64 - 4096, 8192), (0, 2**32 - 512), (2**63 - 512, 1024),
]  # fmt: skip


def test_outside_the_buffer(token, file):
    for offset, length in OUTSIDE:
        with fails(EFAULT, what=(offset, length)):
            token.read_fixed(file.fd, offset, length, 0)


def test_slot_without_a_buffer(token, file):
    for slot in (1, 7, 8, 65535):
        with fails(EFAULT, what=slot):
            token.read_fixed(file.fd, 0, 4096, 0, slot)


def test_unregistered_slot(ring, file, udmabuf):
    ring.register_dmabuf(0, udmabuf, file.fd)
    assert ring.read_fixed(file.fd, 0, 4096, 0) == 4096
    ring.unregister(0)
    udmabuf.fill()
    with fails(EFAULT):
        ring.read_fixed(file.fd, 0, 4096, 0)
    expect_untouched(udmabuf)


def test_not_in_whole_blocks(ring, target, udmabuf):
    ring.register_dmabuf(0, udmabuf, target.fd)
    for length, start in (511, 0), (1, 0), (4096, 1), (4096, 100), (513, 512), (4097, 0), (1536, 256), (MIB + 1, 0):
        with fails(EINVAL, what=(length, start)):
            ring.read_fixed(target.fd, 0, length, target.base + start)
    expect_untouched(udmabuf)
    read_and_compare(ring, target, udmabuf, (0, 64 * KIB, 4096))


def test_negative_file_offset(token, file):
    for offset in (-(2**63), -4096):
        with fails(EINVAL, what=offset):
            token.read_fixed(file.fd, 0, 4096, offset)


def test_nothing_to_read(token, file):
    assert token.read_fixed(file.fd, 0, 0, 0) == 0


def test_o_direct_set_after_opening(ring, front, udmabuf):
    """A FUSE file's backing file keeps the flags of its open."""
    fd = front.open(os.O_RDWR)
    set_direct(fd, True)
    try:
        ring.register_dmabuf(0, udmabuf, fd)
        assert ring.read_fixed(fd, 0, 64 * KIB, 0) == 64 * KIB
        expect(udmabuf[: 64 * KIB], front.content[: 64 * KIB])
    except OSError as error:
        assert error.errno == EINVAL
        expect_untouched(udmabuf)


# O_DIRECT cleared after the registration: never a buffered read into whatever the iterator is taken for


def test_o_direct_cleared_later(ring, target, udmabuf):
    ring.register_dmabuf(0, udmabuf, target.fd)
    set_direct(target.fd, False)
    for length in (4096, MIB):
        with fails(EINVAL):
            ring.read_fixed(target.fd, 0, length, target.base)
    expect_untouched(udmabuf)
    set_direct(target.fd, True)
    read_and_compare(ring, target, udmabuf, (0, 64 * KIB, 4096))


def test_o_direct_cleared_and_the_data_in_the_page_cache(ring, front, udmabuf):
    ring.register_dmabuf(0, udmabuf, front.fd)
    set_direct(front.fd, False)
    expect(os.pread(front.fd, 64 * KIB, front.base), front.content[: 64 * KIB])
    with fails(EINVAL):
        ring.read_fixed(front.fd, 0, 64 * KIB, front.base)
    expect_untouched(udmabuf)


# Opcodes that know nothing of dma-bufs must not get one


@pytest.fixture
def connection():
    """A socket that sends without a copy: of those that the kernel has, TCP can."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        with theirs:
            yield ours, theirs


def test_send_zero_copy(token, connection):
    """An ordinary registered buffer can be sent, a dma-buf cannot."""
    ours, theirs = connection
    with mmap.mmap(-1, 4096) as memory:
        memory[:] = random_bytes(4096)
        token.register_memory(1, ctypes.addressof(ctypes.c_char.from_buffer(memory)), 4096)
        assert token.run(SEND_ZC, ours.fileno(), ctypes.addressof(ctypes.c_char.from_buffer(memory)), 4096, slot=1, ioprio=RECVSEND_FIXED_BUF) == 4096
        assert theirs.recv(4096, socket.MSG_WAITALL) == memory[:]
        token.wait()  # its notification
        token.unregister(1)
    with fails(EOPNOTSUPP):
        token.run(SEND_ZC, ours.fileno(), 0, 4096, ioprio=RECVSEND_FIXED_BUF)
    with contextlib.suppress(TimeoutError):
        token.wait(0.5)  # a notification, if there is one
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


def test_ordinary_read_takes_the_offset_for_an_address(token, file):
    with fails(EFAULT):
        token.run(READ, file.fd, 0, 4096, 0)


NVME_URING_CMD_IO = 0xC0484E80


def test_nvme_passthrough_command(file, udmabuf, nvme):
    """The driver of the token's own device, by its other door."""
    with Ring(flags=SQE128) as ring, opened(nvme.device.replace("nvme", "ng"), os.O_RDWR) as passthrough:
        ring.register_dmabuf(0, udmabuf, file.fd)
        number = ring.prepare(URING_CMD, passthrough, offset=NVME_URING_CMD_IO, op_flags=URING_CMD_FIXED)
        # struct nvme_uring_cmd: read 8 blocks of namespace 1 to offset 0
        command = struct.pack("=BBHIIIQQIIIIIIIIII", 2, 0, 0, 1, 0, 0, 0, 0, 0, 4096, 0, 0, 7, 0, 0, 0, 0, 0)
        ring.append(command)
        ring.submit()
        completion = ring.wait()
        assert completion.user_data == number
        assert completion.res < 0
        expect_untouched(udmabuf)
        read_and_compare(ring, file, udmabuf, (0, 64 * KIB, 4096))


# Buffers of another ring


def test_cloned_buffers(token, file, udmabuf, ext4):
    """A clone is refused, or bound to the same file."""
    (ext4 / "other").write_bytes(random_bytes(MIB, seed=2))
    with Ring(slots=0) as other_ring:
        try:
            other_ring.clone_buffers_from(token)
        except OSError as error:
            assert error.errno in (EINVAL, 95)
            return
        with opened(ext4 / "other") as other, fails(EBADF):
            other_ring.read_fixed(other, 0, 4096, 0)
        assert other_ring.read_fixed(file.fd, 0, 4096, 0) == 4096
        expect(udmabuf[:4096], file.content[:4096])
        udmabuf.fill()


def test_ordinary_buffers_beside(token, file, udmabuf):
    with Udmabuf(64 * KIB) as memory:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory.map))
        token.register_memory(3, address, memory.size)
        assert token.read_fixed(file.fd, address, 4096, 8192, slot=3) == 4096
        expect(memory[:4096], file.content[8192:12288])
        token.unregister(3)
