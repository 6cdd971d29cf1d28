"""Registering a dma-buf for a file: what is refused, and with which errno. Nothing refused leaves a token behind."""

import fcntl
import os
import socket
from errno import EBADF, EFAULT, EINVAL, ENXIO, EOPNOTSUPP, EOVERFLOW

import pytest

import guest
from dmabuf import TestBuffer
from fuse_server import FOPEN_DIRECT_IO, FOPEN_PASSTHROUGH, FuseServer
from token_fixtures import *  # noqa: F403
from token_words import (
    KIB, MIB, attachments, data_on_ext4, fails, make_file, opened, random_bytes, read_and_compare, wait_for,
)  # fmt: skip
from uring import EMPTY, IOPOLL, BufferDescriptor, Ring, dmabuf_descriptor


@pytest.fixture(autouse=True)
def no_token_left(_nothing_left_behind):
    wait_for(lambda: not attachments())  # rings of the tests before end in the background
    yield
    wait_for(lambda: not attachments())


def test_a_registration_attaches_the_buffer_once(ring, front, buffer):
    assert ring.register_dmabuf(0, buffer, front.fd) == 1
    assert attachments() == 1


def test_the_result_is_the_number_of_descriptors(ring, file, udmabuf):
    good = dmabuf_descriptor(udmabuf, file.fd)
    assert ring.update(2, [good, BufferDescriptor(type=EMPTY), good]) == 3
    read_and_compare(ring, file, udmabuf, (0, 4096, 0), slot=2)
    read_and_compare(ring, file, udmabuf, (0, 4096, 0), slot=4)


def test_a_bad_descriptor_ends_the_update_after_the_good_ones(ring, file, udmabuf):
    good, bad = dmabuf_descriptor(udmabuf, file.fd), dmabuf_descriptor(udmabuf, file.fd, type=9)
    assert ring.update(0, [good, bad, good]) == 1
    read_and_compare(ring, file, udmabuf, (0, 4096, 0), slot=0)
    with fails(EINVAL):
        ring.update(0, [bad, good])


WRONG_IN_DESCRIPTOR = [
    {"flags": 1}, {"flags": 1 << 31}, {"size": 4096}, {"uaddr": 4096}, {"type": 3}, {"type": 2**32 - 1},
    *({"resv": [i == j for j in range(6)]} for i in range(6)),
]  # fmt: skip


def test_descriptor_with_wrong_fields(ring, file, udmabuf):
    for spoiled in WRONG_IN_DESCRIPTOR:
        with fails(EINVAL, what=spoiled):
            ring.register_dmabuf(0, udmabuf, file.fd, **spoiled)
    assert ring.register_dmabuf(0, udmabuf, file.fd) == 1


WRONG_IN_UPDATE = [{"flags": 3}, {"flags": 6}, {"flags": 2 | 1 << 31}, {"resv2": 1}, {"nr": 0}, {"offset": 8}, {"header_size": 28}]


def test_update_with_wrong_fields(ring, file, udmabuf):
    for spoiled in WRONG_IN_UPDATE:
        with fails(EINVAL, what=spoiled):
            ring.update(0, [dmabuf_descriptor(udmabuf, file.fd)], **spoiled)
    assert ring.update(0, [dmabuf_descriptor(udmabuf, file.fd)]) == 1


def test_more_descriptors_than_slots(ring, file, udmabuf):
    with fails(EINVAL):
        ring.update(0, [dmabuf_descriptor(udmabuf, file.fd)] * 9)
    assert ring.update(0, [dmabuf_descriptor(udmabuf, file.fd)] * 8) == 8


def test_offset_that_overflows(ring, file, udmabuf):
    with fails(EINVAL, EOVERFLOW):
        ring.update(2**32 - 1, [dmabuf_descriptor(udmabuf, file.fd)])


def test_ring_without_a_table_of_buffers(file, udmabuf):
    with Ring(slots=0) as ring:
        with fails(ENXIO):
            ring.register_dmabuf(0, udmabuf, file.fd)
        ring.register_sparse(1)
        assert ring.register_dmabuf(0, udmabuf, file.fd) == 1


def test_descriptors_that_cannot_be_read(ring, file, udmabuf):
    with fails(EFAULT):
        ring.update(0, [dmabuf_descriptor(udmabuf, file.fd)], data=8)
    assert ring.register_dmabuf(0, udmabuf, file.fd) == 1


def closed_fd():
    """A number that nothing opened meanwhile gets: the lowest free one is taken again at once."""
    low = os.memfd_create("closed")
    fd = fcntl.fcntl(low, fcntl.F_DUPFD, 900)
    os.close(low)
    os.close(fd)
    return fd


def test_descriptor_that_is_not_open(ring, file, udmabuf):
    for fd in (-1, -100, 2**31 - 1, closed_fd()):
        for which in ("dmabuf_fd", "target_fd"):
            with fails(EBADF, what=(which, fd)):
                ring.register_dmabuf(0, udmabuf, file.fd, **{which: fd})
    assert ring.register_dmabuf(0, udmabuf, file.fd) == 1


def test_buffer_that_is_no_dma_buf(ring, file, udmabuf):
    with fails(EBADF, EINVAL):
        ring.register_dmabuf(0, file.fd, file.fd)
    assert ring.register_dmabuf(0, udmabuf, file.fd) == 1


def test_target_without_o_direct(ring, target, udmabuf):
    with fails(EINVAL):
        ring.register_dmabuf(0, udmabuf, target.open(os.O_RDWR))
    assert ring.register_dmabuf(0, udmabuf, target.fd) == 1


def test_target_that_is_only_a_path(ring, file, udmabuf):
    with fails(EBADF):
        ring.register_dmabuf(0, udmabuf, file.open(os.O_PATH))
    assert ring.register_dmabuf(0, udmabuf, file.fd) == 1


# Files that can be O_DIRECT, but not this


def test_tmpfs(ring, udmabuf, tmp_path):
    make_file(tmp_path / "data", random_bytes(64 * KIB))
    with opened(tmp_path / "data") as fd, fails(EOPNOTSUPP):
        ring.register_dmabuf(0, udmabuf, fd)


def test_filesystem_on_a_loop_device(ring, udmabuf, ext4, tmp_path, request):
    (ext4 / "image").touch()
    os.truncate(ext4 / "image", 64 * MIB)
    guest.run("mkfs.ext4", "-q", ext4 / "image")
    guest.run("mount", "-o", "loop", ext4 / "image", tmp_path)
    request.addfinalizer(lambda: guest.unmount(tmp_path))
    make_file(tmp_path / "data", random_bytes(64 * KIB))
    with opened(tmp_path / "data") as fd, fails(EOPNOTSUPP):
        ring.register_dmabuf(0, udmabuf, fd)


def test_overlay(ring, udmabuf, ext4, tmp_path, request):
    for name in ("lower", "upper", "work"):
        (ext4 / name).mkdir()
    make_file(ext4 / "lower/data", random_bytes(64 * KIB))
    guest.run("mount", "-t", "overlay", "-o", f"lowerdir={ext4}/lower,upperdir={ext4}/upper,workdir={ext4}/work", "overlay", tmp_path)
    request.addfinalizer(lambda: guest.unmount(tmp_path))
    with opened(tmp_path / "data", os.O_RDONLY | os.O_DIRECT) as fd, fails(EOPNOTSUPP):
        ring.register_dmabuf(0, udmabuf, fd)


def test_virtual_disk(ring, udmabuf):
    """A block device, but of a driver that cannot."""
    with opened("/dev/vda", os.O_RDONLY | os.O_DIRECT) as fd, fails(EOPNOTSUPP):
        ring.register_dmabuf(0, udmabuf, fd)


def test_packet_pipe(ring, udmabuf):
    """O_DIRECT means something else there."""
    read, write = os.pipe2(os.O_DIRECT)
    for fd in (read, write):
        with fails(EOPNOTSUPP):
            ring.register_dmabuf(0, udmabuf, fd)
        os.close(fd)


def test_passthrough_file_whose_backing_file_cannot(ring, udmabuf, tmp_path):
    for name in ("source", "mount"):
        (tmp_path / name).mkdir()
    make_file(tmp_path / "source/data", random_bytes(64 * KIB))
    with FuseServer(tmp_path / "source", tmp_path / "mount") as server:
        with opened(server.path("data")) as fd, fails(EOPNOTSUPP):
            ring.register_dmabuf(0, udmabuf, fd)


@pytest.mark.parametrize("open_flags", [0, FOPEN_DIRECT_IO, FOPEN_DIRECT_IO | FOPEN_PASSTHROUGH], ids=["cached", "direct", "both"])
def test_fuse_file_that_is_not_passed_through(ring, udmabuf, ext4, tmp_path, open_flags):
    """Direct I/O, which goes to the server, is stronger than passthrough."""
    data_on_ext4(ext4)
    with FuseServer(ext4, tmp_path, open_flags=open_flags) as server:
        with opened(server.path("data")) as fd, fails(EOPNOTSUPP):
            ring.register_dmabuf(0, udmabuf, fd)
        assert server.creates() == []


# Files that cannot be O_DIRECT: either reason will do


def test_special_files(ring, udmabuf):
    for path in ("/dev/zero", "/dev/null", "/proc/self/maps"):
        with opened(path, os.O_RDONLY) as fd, fails(EOPNOTSUPP, EINVAL, what=path):
            ring.register_dmabuf(0, udmabuf, fd)


def test_directory(ring, udmabuf, ext4):
    with opened(ext4, os.O_RDONLY) as fd, fails(EOPNOTSUPP, EINVAL):
        ring.register_dmabuf(0, udmabuf, fd)


def test_socket(ring, udmabuf):
    ours, theirs = socket.socketpair()
    with ours, theirs, fails(EOPNOTSUPP, EINVAL):
        ring.register_dmabuf(0, udmabuf, ours)


def test_the_ring_itself_and_the_buffer_itself(ring, udmabuf):
    """A ring that held itself would never go away."""
    for fd in (ring.fd, udmabuf.fd):
        with fails(EOPNOTSUPP, EINVAL, EBADF):
            ring.register_dmabuf(0, udmabuf, fd)


# What may differ between registrations


def test_a_slot_is_replaced(ring, file, udmabuf, moving):
    ring.register_dmabuf(0, moving, file.fd)
    ring.register_dmabuf(0, udmabuf, file.fd)
    read_and_compare(ring, file, udmabuf, (0, 64 * KIB, 0))
    wait_for(lambda: moving.stats.detaches == 1, ring)
    assert moving.stats.maps == moving.stats.unmaps


def test_a_failed_replacement_leaves_no_half_token(ring, file, udmabuf, moving):
    ring.register_dmabuf(0, moving, file.fd)
    with fails(EBADF):
        ring.register_dmabuf(0, udmabuf, -1)
    assert attachments() <= 1


def test_the_buffer_is_free_when_all_is_undone(ring, file):
    with TestBuffer(64 * KIB) as buffer:
        for _ in range(100):
            ring.register_dmabuf(0, buffer, file.fd)
            ring.read_fixed(file.fd, 0, 4096, 0)
            ring.unregister(0)
        buffer.map.close()
        buffer.close_fd()
        wait_for(lambda: buffer.stats.released, ring)
        assert buffer.stats.attaches == buffer.stats.detaches == 100
        assert buffer.stats.maps == buffer.stats.unmaps


def test_many_tokens_for_one_file(file, little):
    with Ring(slots=256) as ring:
        assert ring.update(0, [dmabuf_descriptor(little, file.fd)] * 256) == 256
        for slot in (0, 100, 255):
            read_and_compare(ring, file, little, (0, 64 * KIB, 0), slot)
